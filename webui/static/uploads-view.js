/** What the user dropped and how far it has come: one line and one bar each. */
import { byId, h, setText } from "./dom.js";
import { count, duration, plural } from "./format.js";

/** @typedef {import("./uploads.js").Drop} Drop */

const SAY_EVERY_MS = 4000;

export class UploadsView {
  /** @param {import("./uploads.js").Uploads} uploads */
  constructor(uploads) {
    this.uploads = uploads;
    this.list = byId("uploads");
    /** @type {Map<Drop, ReturnType<UploadsView["make"]>>} */
    this.rows = new Map();
    this.saidAt = 0;
    uploads.addEventListener("change", () => this.draw());
    setInterval(() => {
      uploads.tidy();
      this.draw();
    }, 1000);
  }

  draw() {
    const drops = this.uploads.drops;
    for (const [drop, row] of this.rows) {
      if (!drops.includes(drop)) {
        row.element.remove();
        this.rows.delete(drop);
      }
    }
    for (const drop of drops) {
      let row = this.rows.get(drop);
      if (!row) {
        row = this.make(drop);
        this.rows.set(drop, row);
        this.list.prepend(row.element);
      }
      this.#update(drop, row);
    }
  }

  /** @param {Drop} drop */
  make(drop) {
    const what = h("span", { class: "what" });
    const how = h("span", { class: "how" });
    const button = h("button", { class: "button quiet", type: "button", onclick: () => this.#press(drop) });
    const parts = { done: h("i", { class: "done" }), failed: h("i", { class: "failed" }), sent: h("i", { class: "sent" }) };
    const bar = h("div", { class: "bar", role: "progressbar", "aria-label": "Classified", "aria-valuemin": 0, "aria-valuemax": 100 }, parts.done, parts.failed, parts.sent);
    const refused = h("p", { class: "how bad", hidden: true });
    const element = h("div", { class: "upload" }, h("div", { class: "row" }, what, how, button), bar, refused);
    return { element, what, how, button, bar, parts, refused };
  }

  /**
   * @param {Drop} drop
   * @param {ReturnType<UploadsView["make"]>} row
   */
  #update(drop, row) {
    const total = Math.max(1, drop.total);
    setText(row.what, `${count(drop.done)} of ${plural(drop.total, "image")}`);
    setText(row.how, describe(drop));
    setText(row.button, drop.finished ? "Dismiss" : "Cancel");
    row.parts.done.style.width = `${(drop.done / total) * 100}%`;
    row.parts.failed.style.width = `${((drop.failed + drop.refused.length) / total) * 100}%`;
    row.parts.sent.style.width = `${(drop.waiting.size / total) * 100}%`;
    row.bar.setAttribute("aria-valuenow", String(Math.round(((drop.done + drop.failed) / total) * 100)));
    row.refused.hidden = drop.refused.length === 0;
    if (drop.refused.length) setText(row.refused, refusals(drop));
    this.#say(drop);
  }

  /** @param {Drop} drop */
  #press(drop) {
    if (drop.finished) this.uploads.dismiss(drop);
    else this.uploads.cancel(drop);
  }

  /**
   * Tell a screen reader now and then, and at the end.
   * @param {Drop} drop
   */
  #say(drop) {
    const now = performance.now();
    const justEnded = drop.finished && !drop.ended;
    if (justEnded) drop.ended = now;
    if (!justEnded && (drop.finished || now - this.saidAt < SAY_EVERY_MS)) return;
    this.saidAt = now;
    setText(byId("live"), `${drop.done} of ${drop.total} images classified${drop.failed ? `, ${drop.failed} failed` : ""}`);
  }
}

/** @param {Drop} drop */
function describe(drop) {
  const parts = [];
  if (drop.failed) parts.push(`${count(drop.failed)} not classified`);
  if (drop.leftOut) parts.push(`${plural(drop.leftOut, "file")} left out, not images`);
  if (drop.finished) {
    if (drop.ended && drop.done > 1) parts.push(`in ${duration((drop.ended - drop.began) / 1000)}`);
  } else if (drop.note) {
    parts.push(drop.note);
  } else if (drop.sent + drop.refused.length < drop.total) {
    parts.push(`${count(drop.sent)} uploaded`);
  }
  const eta = drop.etaS(performance.now());
  if (!drop.finished && Number.isFinite(eta)) parts.push(`about ${duration(Math.max(1, Math.round(eta)))} left`);
  return parts.join(" · ");
}

/** @param {Drop} drop */
function refusals(drop) {
  const shown = drop.refused.slice(0, 3).map(({ name, why }) => `${name} (${why})`);
  const rest = drop.refused.length - shown.length;
  return `Not taken: ${shown.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}
