/** One image as a card: made once, then only what changed is touched. */
import { h, iconButton, setText } from "./dom.js";
import { STATE_NAMES, TERMINAL, duration, percent, secondsBetween } from "./format.js";

/** @typedef {import("./api.js").Job} Job */

/**
 * @typedef {object} CardActions
 * @property {(id: string) => void} open
 * @property {(id: string) => void} cancel
 * @property {(id: string) => void} retry
 * @property {(id: string) => void} remove
 */

/** @param {Job} job */
export const thumbnailUrl = (job) => `/api/v1/jobs/${job.id}/thumbnail?v=${encodeURIComponent(job.submitted_at)}`;

/** @param {Job} job */
export function summary(job) {
  if (job.result) return `${job.result.label}, ${percent(job.result.confidence)}`;
  if (job.error) return job.error.message;
  return STATE_NAMES[job.state] ?? job.state;
}

/** @param {Job} job */
export function bars(job) {
  const list = h("ul", { class: "bars" });
  for (const guess of job.result?.top5 ?? []) {
    const bar = h("i");
    bar.style.width = `${Math.max(0.5, guess.confidence * 100)}%`;
    list.append(h("li", {}, h("span", { title: guess.label }, guess.label), h("span", {}, percent(guess.confidence)), bar));
  }
  return list;
}

export class Card {
  /**
   * @param {Job} job
   * @param {CardActions} actions
   */
  constructor(job, actions) {
    this.actions = actions;
    this.picture = h("div", { class: "picture" }, this.#image(job));
    this.state = h("span", { class: "state" });
    this.picture.append(this.state);
    this.open = h("button", { class: "open", type: "button", onclick: () => actions.open(job.id) });
    this.body = h("div", { class: "body" });
    this.buttons = h("div", { class: "actions" });
    this.element = h("li", { class: "card", "data-id": job.id }, this.picture, this.body, this.open, this.buttons);
    this.update(job);
  }

  /** @param {Job} job */
  update(job) {
    const element = this.element;
    if (element.dataset.state === job.state && element.dataset.worker === (job.worker ?? "")) return;
    element.dataset.state = job.state;
    element.dataset.worker = job.worker ?? "";
    this.state.hidden = job.state === "succeeded";
    setText(this.state, STATE_NAMES[job.state] ?? job.state);
    this.open.setAttribute("aria-label", `${job.name}: ${summary(job)}`);
    this.body.replaceChildren(...this.#lines(job));
    this.buttons.replaceChildren(...this.#buttons(job));
  }

  /** @param {Job} job */
  #image(job) {
    const image = h("img", { loading: "lazy", decoding: "async", alt: "", width: 320, height: 240 });
    image.addEventListener("error", () => {
      image.replaceWith(h("div", { class: "no-picture" }, "No preview"));
    });
    image.src = thumbnailUrl(job);
    return image;
  }

  /** @param {Job} job */
  #lines(job) {
    const name = h("p", { class: "name", title: job.name }, job.name);
    if (job.result) {
      const best = job.result;
      const label = h("p", { class: "label" }, h("span", { title: best.label }, best.label), h("span", { class: "percent" }, percent(best.confidence)));
      return [label, bars(job), name, h("p", { class: "meta" }, meta(job))];
    }
    if (job.error && TERMINAL.has(job.state)) return [h("p", { class: "error" }, job.error.message), name, h("p", { class: "meta" }, meta(job))];
    return [h("p", { class: "label" }, h("span", {}, job.name)), h("p", { class: "meta" }, meta(job))];
  }

  /** @param {Job} job */
  #buttons(job) {
    const buttons = [];
    if (!TERMINAL.has(job.state)) buttons.push(iconButton("cancel", `Cancel ${job.name}`, () => this.actions.cancel(job.id)));
    if (job.state === "failed" || job.state === "cancelled") buttons.push(iconButton("retry", `Try ${job.name} again`, () => this.actions.retry(job.id)));
    if (TERMINAL.has(job.state)) buttons.push(iconButton("remove", `Remove ${job.name}`, () => this.actions.remove(job.id)));
    return buttons;
  }
}

/** @param {Job} job */
function meta(job) {
  const parts = [];
  if (job.worker) parts.push(job.worker);
  const tookS = secondsBetween(job.submitted_at, job.finished_at);
  if (Number.isFinite(tookS)) parts.push(duration(tookS));
  if (job.attempts > 1) parts.push(`${job.attempts} attempts`);
  return parts.join(" · ");
}
