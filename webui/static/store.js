/**
 * What the page knows: jobs (a bounded window, newest first), workers, counts,
 * and short histories for the plots. Emits `jobs`, `workers`, `stats`,
 * `model` and `link`; `jobs` says what changed since the last.
 */
import { TERMINAL } from "./format.js";

/** @typedef {import("./api.js").Job} Job */

export const JOBS_MAX = 6000;
export const HISTORY_MAX = 300;
const ANNOUNCE_MS = 60;

/** @param {string} id */
export const numberOf = (id) => Number(id.slice(1));

export class Store extends EventTarget {
  constructor() {
    super();
    /** @type {Map<string, Job>} */
    this.jobs = new Map();
    /** @type {string[]} ids, newest first */
    this.order = [];
    /** @type {Map<string, any>} */
    this.workers = new Map();
    /** @type {any} */
    this.stats = null;
    /** @type {any} */
    this.model = null;
    /** @type {{at: number, queued: number, rate: number, p50: number, p99: number}[]} */
    this.history = [];
    /** @type {"connecting" | "live" | "reconnecting" | "down"} */
    this.link = "connecting";
    /** @type {Map<string, Job>} */
    this.changed = new Map();
    /** @type {Set<string>} */
    this.removed = new Set();
    this.announcing = false;
  }

  /** @param {string} kind */
  emit(kind) {
    this.dispatchEvent(new Event(kind));
  }

  /**
   * Tell of changed and removed jobs, gathered over a moment: a thousand events
   * in a second are a dozen for the page.
   */
  #announce() {
    if (this.announcing) return;
    this.announcing = true;
    setTimeout(() => {
      this.announcing = false;
      const detail = { changed: this.changed, removed: this.removed };
      this.changed = new Map();
      this.removed = new Set();
      this.dispatchEvent(new CustomEvent("jobs", { detail }));
    }, ANNOUNCE_MS);
  }

  /** @param {Job[]} jobs */
  putJobs(jobs) {
    for (const job of jobs) this.#putJob(job);
    this.#trim();
    this.#announce();
  }

  /** @param {Job} job */
  #putJob(job) {
    const known = this.jobs.get(job.id);
    // An answer that was on its way may be older than an event: a terminal state stays.
    if (known && TERMINAL.has(known.state) && !TERMINAL.has(job.state)) return;
    this.jobs.set(job.id, job);
    this.changed.set(job.id, job);
    if (!known) this.order.splice(this.#placeOf(job.id), 0, job.id);
  }

  /** @param {string} id */
  #placeOf(id) {
    const number = numberOf(id);
    let low = 0;
    let high = this.order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (numberOf(this.order[middle]) > number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #trim() {
    for (const id of this.order.splice(JOBS_MAX)) this.jobs.delete(id);
  }

  /** @param {string[]} ids */
  removeJobs(ids) {
    const gone = new Set(ids);
    for (const id of gone) {
      this.jobs.delete(id);
      this.changed.delete(id);
      this.removed.add(id);
    }
    this.order = this.order.filter((id) => !gone.has(id));
    this.#announce();
  }

  /** @param {any[]} workers */
  setWorkers(workers) {
    this.workers = new Map(workers.map((worker) => [worker.id, worker]));
    this.emit("workers");
  }

  /** @param {any} worker */
  putWorker(worker) {
    this.workers.set(worker.id, worker);
    this.emit("workers");
  }

  /** @param {any} stats */
  setStats(stats) {
    this.stats = stats;
    const counts = stats.counts;
    this.history.push({
      at: Date.now(),
      queued: (counts.queued ?? 0) + (counts.backoff ?? 0),
      rate: stats.drain_rate_per_s,
      p50: stats.latency_ms.p50 ?? 0,
      p99: stats.latency_ms.p99 ?? 0,
    });
    if (this.history.length > HISTORY_MAX) this.history.shift();
    this.emit("stats");
  }

  /** @param {any} model */
  setModel(model) {
    this.model = model;
    this.emit("model");
  }

  /** @param {"connecting" | "live" | "reconnecting" | "down"} link */
  setLink(link) {
    if (link === this.link) return;
    this.link = link;
    this.emit("link");
  }
}
