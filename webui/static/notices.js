/** What the user should know now: above the page, gone when it is over. */
import { byId, h } from "./dom.js";
import { copyButton } from "./code-view.js";
import { plural } from "./format.js";

const SHOWN_MS = 9000;
/** Characters: about two lines on a desktop. */
const FOLDED_MIN = 250;

export class Notices {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    /** @type {Map<string, HTMLElement>} */
    this.shown = new Map();
    for (const kind of ["link", "stats", "model", "workers"]) store.addEventListener(kind, () => this.#draw());
  }

  /**
   * Something that went wrong just now.
   * @param {string} text
   */
  say(text) {
    const notice = h("p", { class: "notice bad" }, text);
    byId("notices").append(notice);
    setTimeout(() => notice.remove(), SHOWN_MS);
  }

  #draw() {
    const { link, stats, model } = this.store;
    drawLink(link, stats);
    this.#set("link", link === "down" ? "The scheduler is away. It is usually back in seconds; nothing that was accepted is lost." : link === "reconnecting" ? "The server can't be reached. This page goes on by itself when it is back." : "", true);
    this.#set("model", model?.warning ?? "", false);
    this.#set("draining", stats?.draining ? "The server is shutting down and takes no new images." : "", false);
    drawModel(model);
    drawJoin(link === "live" && stats !== null && stats.workers_alive === 0);
  }

  /**
   * @param {string} key
   * @param {string} text nothing: the notice goes
   * @param {boolean} bad
   */
  #set(key, text, bad) {
    const known = this.shown.get(key);
    if (known?.dataset.text === text) return;
    known?.remove();
    this.shown.delete(key);
    if (!text) return;
    const notice = h("div", { class: bad ? "notice bad" : "notice", "data-text": text }, folded(text));
    this.shown.set(key, notice);
    byId("notices").append(notice);
  }
}

/**
 * A long text as its first sentence, the rest on request: it stays in view while one scrolls.
 * @param {string} text
 */
function folded(text) {
  const [, first, rest] = /^(.*?\.)\s+(.*)$/s.exec(text) ?? [];
  if (!rest || text.length < FOLDED_MIN) return h("p", {}, text);
  return h("details", {}, h("summary", {}, first), h("p", {}, rest));
}

/**
 * @param {string} link
 * @param {any} stats
 */
function drawLink(link, stats) {
  const texts = /** @type {Record<string, string>} */ ({ connecting: "Connecting", reconnecting: "Reconnecting", down: "Scheduler away" });
  const element = byId("link");
  const idle = link === "live" && stats?.workers_ready === 0;
  element.dataset.state = link === "reconnecting" ? "down" : idle ? "idle" : link;
  byId("link-text").textContent = texts[link] ?? (stats ? `${plural(stats.workers_ready, "worker")} ready` : "Live");
}

/** @param {any} model */
function drawModel(model) {
  const line = byId("model-line");
  line.hidden = !model;
  if (!model || line.dataset.id === model.id) return;
  line.dataset.id = model.id;
  const names = h("span", { hidden: true });
  const button = h("button", { type: "button", "aria-expanded": "false" }, `${plural(model.classes.length, "class", "classes")}`);
  button.addEventListener("click", () => {
    names.hidden = !names.hidden;
    button.setAttribute("aria-expanded", String(!names.hidden));
    if (!names.textContent) names.textContent = `: ${model.classes.join(", ")}`;
  });
  line.replaceChildren(`${model.id} knows `, button, names);
}

/** @param {boolean} needed */
function drawJoin(needed) {
  const join = byId("join");
  const first = byId("empty-join");
  for (const element of [join, first]) {
    element.hidden = !needed;
    if (needed && !element.firstChild) element.append(...joinLines());
  }
}

function joinLines() {
  const command = `worker join ${location.hostname} --token TOKEN`;
  return [
    h("h2", {}, "No worker has joined yet"),
    h("p", {}, "Images are kept and wait. On each machine that should work, with Lookout installed, run:"),
    h("div", { class: "command" }, h("code", {}, command), copyButton(command, "the join command")),
    h("p", {}, "On the master, ", h("code", {}, "master token"), " prints the token."),
  ];
}
