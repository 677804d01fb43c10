/** Commands and programs that work as they stand, with this server's address in them. */
import { byId, h } from "./dom.js";

/** @param {string} origin */
const snippets = (origin) => [
  {
    title: "Classify one image, wait for the answer",
    text: `curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' \\
  '${origin}/api/v1/jobs?wait=30&name=photo.jpg'`,
  },
  {
    title: "Many images at once",
    text: `curl -F image=@one.jpg -F image=@two.jpg '${origin}/api/v1/jobs?wait=60'`,
  },
  {
    title: "An image on the web",
    text: `curl -H 'Content-Type: application/json' -d '{"url": "https://example.org/photo.jpg"}' \\
  '${origin}/api/v1/jobs?wait=60'`,
  },
  {
    title: "Python, only the standard library",
    text: `import json, sys, urllib.request

for path in sys.argv[1:]:
    request = urllib.request.Request(
        "${origin}/api/v1/jobs?wait=60",
        data=open(path, "rb").read(),
        headers={"Content-Type": "application/octet-stream", "X-Filename": path},
    )
    job = json.load(urllib.request.urlopen(request, timeout=90))["jobs"][0]
    if job["result"]:
        print(path, job["result"]["label"], f'{job["result"]["confidence"]:.0%}')
    else:
        print(path, job["state"], job["error"])`,
  },
  {
    title: "Follow everything live",
    text: `curl -N '${origin}/api/v1/events'`,
  },
];

/** @param {string} origin */
export function drawCode(origin) {
  byId("code").replaceChildren(
    ...snippets(origin).map(({ title, text }) =>
      h("div", { class: "snippet" }, h("div", { class: "row" }, h("h2", {}, title), copyButton(text, title)), h("pre", { tabIndex: 0 }, h("code", {}, text))),
    ),
    h("p", {}, "Every call is described in the ", h("a", { href: "/api/v1/openapi.json" }, "OpenAPI document"), "."),
  );
}

/**
 * @param {string} text
 * @param {string} what
 */
export function copyButton(text, what) {
  const button = h("button", { class: "button quiet", type: "button", "aria-label": `Copy: ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text)) ? "Copied" : "Select and copy";
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
  return button;
}

/**
 * The clipboard's own interface exists only on https and localhost.
 * @param {string} text
 */
async function copy(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }
  const area = h("textarea", { value: text, class: "visually-hidden" });
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
