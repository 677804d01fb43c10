/**
 * The grid of cards with filter and search. Only a window of the list is in
 * the document: it grows while the user scrolls, so that 2,000 images cost as
 * much as the 60 that are looked at.
 */
import { byId, h, oncePerFrame, setText } from "./dom.js";
import { Card } from "./card.js";
import { count } from "./format.js";
import { numberOf } from "./store.js";

const WINDOW = 60;
const PAGE = 200;
const SEARCH_MAX = 5000;

/** Chips: name, the states that it shows. */
const FILTERS = /** @type {[string, string[]][]} */ ([
  ["All", []],
  ["Waiting", ["queued", "backoff"]],
  ["Running", ["leased"]],
  ["Done", ["succeeded"]],
  ["Failed", ["failed"]],
  ["Cancelled", ["cancelled"]],
]);

export class JobsView {
  /**
   * @param {import("./store.js").Store} store
   * @param {import("./api.js").Api} api
   * @param {import("./card.js").CardActions} actions
   */
  constructor(store, api, actions) {
    this.store = store;
    this.api = api;
    this.actions = actions;
    this.grid = byId("grid");
    this.more = byId("more");
    /** @type {Map<string, Card>} */
    this.cards = new Map();
    /** @type {{chip: HTMLElement, number: HTMLElement}[]} */
    this.chips = [];
    this.states = new Set();
    this.filter = 0;
    this.words = "";
    this.shown = WINDOW;
    /** @type {string | null | undefined} undefined: not asked yet; null: no more */
    this.cursor = undefined;
    this.loading = false;
    /** Called when the filter has changed. */
    this.dispatchFilter = () => {};
    this.draw = oncePerFrame(() => this.#draw());
    this.#buildChips();
    const search = /** @type {HTMLInputElement} */ (byId("search"));
    search.addEventListener("input", () => this.#search(search.value));
    new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.#grow(), { rootMargin: "900px" }).observe(this.more);
    store.addEventListener("jobs", (event) => this.#take(/** @type {CustomEvent} */ (event).detail));
    store.addEventListener("stats", () => this.#drawChips());
  }

  /** Read the first page again, and forget what the server doesn't have any more. */
  async reload() {
    this.cursor = undefined;
    const page = await this.#loadPage();
    if (page && this.states.size === 0) {
      const there = new Set(page.jobs.map((/** @type {{id: string}} */ job) => job.id));
      const oldest = page.cursor === null ? 0 : Math.min(...[...there].map(numberOf));
      this.store.removeJobs(this.store.order.filter((id) => numberOf(id) >= oldest && !there.has(id)));
    }
    this.draw();
  }

  /** Query of the export links: what is being looked at. */
  get query() {
    const states = FILTERS[this.filter][1];
    return states.length ? `?state=${states.join(",")}` : "";
  }

  #buildChips() {
    this.chips = FILTERS.map(([name], index) => {
      const number = h("b");
      const chip = h("button", { class: "chip", type: "button", "aria-pressed": index === 0, onclick: () => this.#choose(index) }, name, number);
      return { chip, number };
    });
    byId("chips").replaceChildren(...this.chips.map(({ chip }) => chip));
  }

  #drawChips() {
    const counts = this.store.stats?.counts ?? {};
    const all = Object.values(counts).reduce((sum, value) => sum + value, 0);
    FILTERS.forEach(([, states], index) => {
      const number = index === 0 ? all : states.reduce((sum, state) => sum + (counts[state] ?? 0), 0);
      setText(this.chips[index].number, number ? count(number) : "");
    });
    byId("retry-failed").hidden = !counts.failed;
    byId("cancel-waiting").hidden = !((counts.queued ?? 0) + (counts.backoff ?? 0) + (counts.leased ?? 0));
  }

  /** @param {number} index */
  async #choose(index) {
    this.filter = index;
    this.chips.forEach(({ chip }, other) => chip.setAttribute("aria-pressed", String(other === index)));
    this.states = new Set(FILTERS[index][1]);
    this.shown = WINDOW;
    this.cursor = undefined;
    this.draw();
    this.dispatchFilter();
    await this.#loadPage();
  }

  /** @param {string} text */
  async #search(text) {
    this.words = text.trim().toLowerCase();
    this.shown = WINDOW;
    this.draw();
    // The search is over what is here: bring the rest, up to a bound.
    while (this.words && this.cursor !== null && this.store.jobs.size < SEARCH_MAX) {
      const before = this.cursor;
      await this.#loadPage();
      if (this.cursor === before) return;
    }
  }

  /** @returns {Promise<{jobs: import("./api.js").Job[], cursor: string | null} | null>} */
  async #loadPage() {
    if (this.loading || this.cursor === null) return null;
    this.loading = true;
    const filter = this.filter;
    const query = new URLSearchParams({ limit: String(PAGE) });
    for (const state of this.states) query.append("state", state);
    if (this.cursor) query.set("cursor", this.cursor);
    try {
      const page = await this.api.get(`/jobs?${query}`);
      if (filter === this.filter) this.cursor = page.cursor;
      this.store.putJobs(page.jobs);
      return page;
    } catch {
      // The stream tells when the server is back; the page is read again then.
      return null;
    } finally {
      this.loading = false;
      if (filter !== this.filter) await this.#loadPage();
    }
  }

  async #grow() {
    const visible = this.#visible();
    if (this.shown < visible.length) {
      this.shown += WINDOW;
      this.draw();
    } else if (this.cursor) {
      await this.#loadPage();
      this.shown += WINDOW;
      this.draw();
    }
  }

  /** @param {{changed: Map<string, import("./api.js").Job>, removed: Set<string>}} detail */
  #take({ changed, removed }) {
    for (const id of removed) this.cards.delete(id);
    for (const [id, job] of changed) this.cards.get(id)?.update(job);
    this.draw();
  }

  /** @param {import("./api.js").Job} job */
  #matches(job) {
    if (this.states.size && !this.states.has(job.state)) return false;
    if (!this.words) return true;
    return job.name.toLowerCase().includes(this.words) || (job.result?.label.toLowerCase().includes(this.words) ?? false);
  }

  #visible() {
    const store = this.store;
    if (!this.states.size && !this.words) return store.order;
    return store.order.filter((id) => {
      const job = store.jobs.get(id);
      return job !== undefined && this.#matches(job);
    });
  }

  #draw() {
    const visible = this.#visible();
    const ids = visible.slice(0, this.shown);
    const wanted = new Set(ids);
    for (const [id, card] of this.cards) {
      if (!wanted.has(id)) {
        card.element.remove();
        this.cards.delete(id);
      }
    }
    let place = this.grid.firstElementChild;
    for (const id of ids) {
      const element = this.#cardOf(id).element;
      if (element === place) place = place.nextElementSibling;
      else this.grid.insertBefore(element, place);
    }
    while (place) {
      const next = place.nextElementSibling;
      place.remove();
      place = next;
    }
    this.#drawEmpty(visible.length);
  }

  /** @param {string} id */
  #cardOf(id) {
    let card = this.cards.get(id);
    if (!card) {
      const job = this.store.jobs.get(id);
      if (!job) throw new Error(`no job ${id}`);
      card = new Card(job, this.actions);
      this.cards.set(id, card);
    }
    return card;
  }

  /** @param {number} visible */
  #drawEmpty(visible) {
    const any = this.store.jobs.size > 0;
    byId("toolbar").hidden = !any && this.filter === 0;
    byId("drop").classList.toggle("small", any);
    const empty = byId("empty");
    empty.hidden = visible > 0 || (!any && this.filter === 0);
    if (!empty.hidden) {
      const what = this.words ? `No image has “${this.words}” in its name or label.` : "No image is in this state now.";
      empty.replaceChildren(h("p", {}, what));
    }
  }
}
