/** The dialogs: one image in full, a question before something is deleted, the camera. */
import { byId, h, iconButton } from "./dom.js";
import { bars, thumbnailUrl } from "./card.js";
import { STATE_NAMES, TERMINAL, duration, secondsBetween, size } from "./format.js";

/** @typedef {import("./api.js").Job} Job */

/** Formats that a browser shows; the others are shown by their thumbnail. */
const SHOWN = new Set(["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"]);

/** What the worker calls its times, in words. */
const TIMINGS = /** @type {Record<string, string>} */ ({
  queue: "Waiting at the worker",
  decode: "Decoding",
  preprocess: "Resizing",
  wait: "Waiting for its batch",
  infer: "Inference",
  total: "All at the worker",
});

export class Details {
  /**
   * @param {import("./store.js").Store} store
   * @param {import("./card.js").CardActions} actions
   */
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    this.id = "";
    this.dialog = /** @type {HTMLDialogElement} */ (byId("details"));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    store.addEventListener("jobs", (event) => {
      const { changed, removed } = /** @type {CustomEvent} */ (event).detail;
      if (!this.dialog.open) return;
      if (removed.has(this.id)) this.dialog.close();
      else if (changed.has(this.id)) this.#draw();
    });
  }

  /** @param {string} id */
  open(id) {
    this.id = id;
    this.#draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  #draw() {
    const job = this.store.jobs.get(this.id);
    if (!job) return;
    const source = SHOWN.has(job.media_type) ? `/api/v1/jobs/${job.id}/image` : thumbnailUrl(job);
    const image = h("img", { src: source, alt: job.name });
    image.addEventListener("error", () => image.replaceWith(h("p", {}, "No preview")));
    const side = h(
      "div",
      { class: "side" },
      h("h2", { id: "details-name" }, job.result?.label ?? STATE_NAMES[job.state] ?? job.state),
      h("p", { class: "file" }, `${job.name} · ${size(job.size_bytes)}`),
      job.error ? h("p", { class: "notice bad" }, job.error.message) : bars(job),
      facts(job),
      h("div", { class: "row" }, ...this.#buttons(job)),
    );
    const close = iconButton("close", "Close", () => this.dialog.close());
    close.classList.add("close");
    this.dialog.replaceChildren(h("div", { class: "stage" }, image), side, close);
  }

  /** @param {Job} job */
  #buttons(job) {
    const made = /** @type {HTMLElement[]} */ ([h("a", { class: "button", href: `/api/v1/jobs/${job.id}` }, "JSON")]);
    const add = (/** @type {string} */ text, /** @type {(id: string) => void} */ act) =>
      made.push(h("button", { class: "button", type: "button", onclick: () => { this.dialog.close(); act(job.id); } }, text));
    if (!TERMINAL.has(job.state)) add("Cancel", this.actions.cancel);
    if (job.state === "failed" || job.state === "cancelled") add("Try again", this.actions.retry);
    if (TERMINAL.has(job.state)) add("Remove", this.actions.remove);
    return made;
  }
}

/** @param {Job} job */
function facts(job) {
  const total = secondsBetween(job.submitted_at, job.finished_at);
  const { batch_size: batch, ...timings } = job.result?.timings_ms ?? {};
  const rows = [
    ["State", STATE_NAMES[job.state] ?? job.state],
    ["Worker", job.worker],
    ["Model", job.model],
    ["Attempts", job.attempts || null],
    ["From upload to answer", Number.isFinite(total) ? duration(total) : null],
    ...Object.entries(timings).map(([name, ms]) => [TIMINGS[name] ?? name, duration(ms / 1000)]),
    ["Images in its batch", batch],
    ["Error code", job.error?.code],
    ["Job", `${job.id} of ${job.submission}`],
  ];
  const list = h("dl");
  for (const [name, value] of rows) {
    if (value !== null && value !== undefined) list.append(h("dt", {}, name), h("dd", {}, value));
  }
  return list;
}

/**
 * Ask before something can't be undone.
 * @param {string} text
 * @param {string} yes
 * @returns {Promise<boolean>}
 */
export function confirm(text, yes) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("confirm"));
  return new Promise((resolve) => {
    const answer = (/** @type {boolean} */ value) => {
      resolve(value);
      dialog.close();
    };
    dialog.replaceChildren(
      h("p", { id: "confirm-text" }, text),
      h("div", { class: "row" },
        h("button", { class: "button", type: "button", onclick: () => answer(false) }, "Keep them"),
        h("button", { class: "button danger", type: "button", onclick: () => answer(true) }, yes)),
    );
    dialog.addEventListener("close", () => resolve(false), { once: true });
    dialog.showModal();
  });
}

/**
 * Take a photo: with the camera's picture where the browser lets this page
 * have it (https or localhost), with the phone's own camera elsewhere.
 * @param {(files: File[]) => void} take
 */
export async function takePhoto(take) {
  if (!navigator.mediaDevices?.getUserMedia) {
    byId("photo-input").click();
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    byId("photo-input").click();
    return;
  }
  showCamera(stream, take);
}

/**
 * @param {MediaStream} stream
 * @param {(files: File[]) => void} take
 */
function showCamera(stream, take) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("camera"));
  const video = h("video", { autoplay: true, muted: true, playsInline: true, srcObject: stream });
  const snap = async () => {
    const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d")?.drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    if (blob) take([new File([blob], `photo ${new Date().toLocaleTimeString("en")}.jpg`, { type: "image/jpeg" })]);
    dialog.close();
  };
  const shutter = h("button", { class: "button primary", type: "button", disabled: true, onclick: snap }, "Take the photo");
  // Before the first picture there is nothing to take.
  video.addEventListener("loadeddata", () => { shutter.disabled = false; shutter.focus(); }, { once: true });
  dialog.replaceChildren(
    video,
    h("div", { class: "row" },
      h("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Close"),
      shutter),
  );
  dialog.addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
  dialog.showModal();
}
