/**
 * The grid of cards with filter and search. Only a window of the list is in
 * the document: it moves along while the user scrolls, so that 6,000 images
 * cost as much as the 60 that are looked at. All cards are of one height, so
 * the room of those that are left out is known without laying them out.
 */
import { byId, h, oncePerFrame, setText } from "./dom.js";
import { Card } from "./card.js";
import { count } from "./format.js";
import { ApiError } from "./api.js";
import { JOBS_MAX, numberOf } from "./store.js";

/** Cards in the document, or three windows' worth of them where that is more. */
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

/** @typedef {{jobs: import("./api.js").Job[], cursor: string | null}} JobPage */

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
    /** Cards in a row, and pixels from one row to the next; 0 while the grid isn't shown. */
    this.columns = 1;
    this.pitch = 0;
    /** Whom the user looks at, where that isn't the newest: a new image must not push it away. */
    this.anchor = "";
    this.anchorTop = 0;
    /** Where this page has scrolled to by itself; NaN where it hasn't. */
    this.heldAt = NaN;
    /** @type {string[]} ids as they were drawn last */
    this.drawn = [];
    /** @type {string | null | undefined} undefined: not asked yet; null: no more */
    this.cursor = undefined;
    /** @type {Promise<JobPage> | null} the page that is being read */
    this.loading = null;
    /** Called when the filter has changed. */
    this.dispatchFilter = () => {};
    this.draw = oncePerFrame(() => this.#draw());
    this.#buildChips();
    const search = /** @type {HTMLInputElement} */ (byId("search"));
    search.addEventListener("input", () => this.#search(search.value));
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    addEventListener("resize", this.draw);
    new ResizeObserver(this.draw).observe(this.grid);
    store.addEventListener("jobs", (event) => this.#take(/** @type {CustomEvent} */ (event).detail));
    store.addEventListener("stats", () => this.#drawChips());
  }

  /**
   * Read the first page again, and forget what the server doesn't have any more. Raises what
   * the API raises.
   */
  async reload() {
    await this.loading?.catch(() => null);
    this.cursor = undefined;
    // What is accepted while the page is read is not in it, and is there all the same.
    const before = this.store.order.slice();
    const page = await this.#loadPage();
    if (page && this.states.size === 0) {
      const there = new Set(page.jobs.map((/** @type {{id: string}} */ job) => job.id));
      const oldest = page.cursor === null ? 0 : Math.min(...[...there].map(numberOf));
      this.store.removeJobs(before.filter((id) => numberOf(id) >= oldest && !there.has(id)));
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
    this.anchor = "";
    this.cursor = undefined;
    this.draw();
    this.dispatchFilter();
    await this.#tryPage();
  }

  /** @param {string} text */
  async #search(text) {
    this.words = text.trim().toLowerCase();
    this.anchor = "";
    this.draw();
    // The search is over what is here: bring the rest, up to a bound.
    while (this.words && this.cursor !== null && this.store.jobs.size < SEARCH_MAX) {
      const before = this.cursor;
      await this.#tryPage();
      if (this.cursor === before) return;
    }
  }

  /**
   * One page more, if there is one and none is being read.
   * @returns {Promise<JobPage | null>}
   */
  async #loadPage() {
    if (this.loading || this.cursor === null) return null;
    const filter = this.filter;
    const query = new URLSearchParams({ limit: String(PAGE) });
    for (const state of this.states) query.append("state", state);
    if (this.cursor) query.set("cursor", this.cursor);
    this.loading = this.api.get(`/jobs?${query}`);
    try {
      const page = await this.loading;
      if (filter === this.filter) this.cursor = page.cursor;
      this.store.putJobs(page.jobs);
      return page;
    } finally {
      this.loading = null;
      if (filter !== this.filter) await this.#tryPage();
    }
  }

  /**
   * The same, where it may fail: the stream tells when the server is back, and all is read again.
   * @returns {Promise<JobPage | null>}
   */
  async #tryPage() {
    return this.#loadPage().catch((fault) => {
      if (fault instanceof ApiError) return null;
      throw fault;
    });
  }

  #scrolled() {
    // By what was drawn: images that have come in since then must not slip past unheld.
    // Scrolling that this page did itself changes nothing of what is looked at.
    if (this.pitch && !(Math.abs(scrollY - this.heldAt) < 1)) {
      this.heldAt = NaN;
      this.#lookAt(this.drawn);
    }
    this.draw();
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
    this.#measure();
    this.#hold(visible);
    const [first, last] = this.#range(visible.length);
    const ids = visible.slice(first, last);
    const wanted = new Set(ids);
    for (const [id, card] of this.cards) {
      if (!wanted.has(id)) {
        card.element.remove();
        this.cards.delete(id);
      }
    }
    let place = this.grid.firstElementChild;
    ids.forEach((id, index) => {
      const element = this.#cardOf(id).element;
      setAttribute(element, "aria-posinset", first + index + 1);
      setAttribute(element, "aria-setsize", this.cursor ? -1 : visible.length);
      if (element === place) place = place.nextElementSibling;
      else this.grid.insertBefore(element, place);
    });
    while (place) {
      const next = place.nextElementSibling;
      place.remove();
      place = next;
    }
    this.#leaveRoom(first, last, visible.length);
    this.#drawEmpty(visible.length);
    if (last >= visible.length && this.cursor && this.pitch) this.#fetchMore();
  }

  /** Columns and pitch, as the style sheet has made them. */
  #measure() {
    const card = /** @type {HTMLElement | null} */ (this.grid.firstElementChild);
    if (!card?.offsetHeight) {
      this.pitch = 0;
      return;
    }
    const style = getComputedStyle(this.grid);
    this.columns = style.gridTemplateColumns.split(" ").length;
    this.pitch = card.getBoundingClientRect().height + parseFloat(style.rowGap);
  }

  /**
   * Where the row of a card begins, in pixels from the top of the window.
   * @param {number} index
   */
  #topOf(index) {
    return this.grid.getBoundingClientRect().top + Math.floor(index / this.columns) * this.pitch;
  }

  /**
   * Keep before the user's eyes what is there, whatever comes in above it.
   * @param {string[]} visible
   */
  #hold(visible) {
    if (!this.pitch) return;
    const index = this.anchor ? visible.indexOf(this.anchor) : -1;
    const moved = index < 0 ? 0 : this.#topOf(index) - this.anchorTop;
    if (Math.abs(moved) >= 1) {
      // The room that `#leaveRoom` makes in this same frame is needed for scrolling there.
      this.grid.style.paddingBottom = `${parseFloat(this.grid.style.paddingBottom || "0") + Math.max(0, moved)}px`;
      scrollBy({ top: moved, behavior: "instant" });
      this.heldAt = scrollY;
    }
    this.drawn = visible.slice();
    // Whom the user looks at is chosen anew only where this one can't be held: chosen at every
    // image that comes in, it would be another each time, and pixels lost in rounding would add up.
    // (One pixel is let pass above, one more is lost in rounding.)
    if (index < 0 || Math.abs(this.#topOf(index) - this.anchorTop) >= 2) this.#lookAt(this.drawn);
  }

  /**
   * Take the first card of the topmost row in the window for what the user looks at.
   * @param {string[]} drawn
   */
  #lookAt(drawn) {
    const first = Math.floor(-this.#topOf(0) / this.pitch) * this.columns;
    this.anchor = first > 0 ? drawn[first] ?? "" : "";
    this.anchorTop = this.#topOf(first);
  }

  /**
   * First and last index of what is in the document: what is seen, and as much around it.
   * @param {number} total
   */
  #range(total) {
    if (!this.pitch) return [0, Math.min(total, WINDOW)];
    const seen = Math.ceil(innerHeight / this.pitch) + 1;
    const rows = Math.max(Math.ceil(WINDOW / this.columns), 3 * seen);
    const top = Math.floor(-this.#topOf(0) / this.pitch) - Math.floor((rows - seen) / 2);
    const first = Math.max(0, Math.min(top, Math.ceil(total / this.columns) - rows));
    return [first * this.columns, Math.min(total, (first + rows) * this.columns)];
  }

  /**
   * @param {number} first
   * @param {number} last
   * @param {number} total
   */
  #leaveRoom(first, last, total) {
    const rows = (/** @type {number} */ cards) => `${Math.ceil(cards / this.columns) * this.pitch}px`;
    this.grid.style.paddingTop = rows(first);
    this.grid.style.paddingBottom = rows(total - last);
  }

  async #fetchMore() {
    // The store keeps the newest only: older pages would be read and dropped for ever.
    if (this.store.jobs.size >= JOBS_MAX) return;
    if (await this.#tryPage()) this.draw();
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
    const full = this.store.jobs.size >= JOBS_MAX;
    setText(this.more, full ? `The newest ${count(JOBS_MAX)} are listed here; the export has all.` : "");
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

/**
 * @param {Element} element
 * @param {string} name
 * @param {number} value
 */
function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}
