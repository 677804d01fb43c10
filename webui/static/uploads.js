/**
 * Uploading any number of files in bounded batches, a few in flight, with
 * back-off where the server asks for it. One drop of the user is one `Drop`
 * here and one submission per batch on the server; each batch keeps its
 * Idempotency-Key over its tries, so a lost answer never classifies twice.
 */
import { ApiError, backoffS, newKey } from "./api.js";
import { TERMINAL } from "./format.js";
import { numberOf } from "./store.js";

export const BATCH_FILES = 16;
export const BATCH_BYTES = 8 * 1024 * 1024;
export const IN_FLIGHT = 2;
export const IMAGE_BYTES_MAX = 32 * 1024 * 1024;
/** A full queue has room again when these fit: files, and share of the queue. */
const ROOM_FILES = BATCH_FILES * IN_FLIGHT;
const ROOM_SHARE = 0.1;
const TIDY_MS = 30_000;
const REFRESH_PAGE = 1000;
const IMAGE_NAMES = /\.(jpe?g|jfif|png|webp|gif|bmp|tiff?)$/i;

/** @param {File} file */
export function looksLikeImage(file) {
  return file.type.startsWith("image/") || IMAGE_NAMES.test(file.name);
}

/**
 * Let the page draw and listen first: beginning to send a batch of files takes the browser up to
 * half a second, and several at once would add up. (`setTimeout` is slowed in hidden tabs.)
 * @returns {Promise<void>}
 */
function nextTask() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** What the user dropped at once, and how far it has come. */
export class Drop {
  /**
   * @param {File[]} files
   * @param {number} leftOut files that aren't images
   */
  constructor(files, leftOut) {
    this.total = files.length;
    /** Those that no batch has taken yet. */
    this.rest = files;
    this.leftOut = leftOut;
    this.sent = 0;
    /** @type {{name: string, why: string}[]} */
    this.refused = [];
    /** @type {Set<string>} ids of jobs that aren't terminal */
    this.waiting = new Set();
    /** @type {Set<string>} */
    this.submissions = new Set();
    this.done = 0;
    this.failed = 0;
    this.began = performance.now();
    this.ended = 0;
    this.firstDone = 0;
    this.note = "";
    this.abort = new AbortController();
  }

  /** @param {number} now ms */
  etaS(now) {
    const finished = this.done + this.failed;
    const left = this.total - this.refused.length - finished;
    if (!this.firstDone || finished < 2 || left <= 0) return NaN;
    return (left * (now - this.firstDone)) / 1000 / (finished - 1);
  }

  /**
   * The next files, bounded in number and bytes; those that can't be sent are refused. Only now
   * is their size read: the page stands still while the browser looks at the file, and would for
   * seconds if it were asked for a whole folder.
   * @returns {File[]}
   */
  nextBatch() {
    /** @type {File[]} */
    const batch = [];
    let bytes = 0;
    let looked = 0;
    for (const file of this.rest) {
      const size = file.size;
      const fits = size > 0 && size <= IMAGE_BYTES_MAX;
      if (fits && batch.length && bytes + size > BATCH_BYTES) break;
      if (!fits) this.refused.push({ name: file.name, why: size ? "over 32 MB" : "empty file" });
      else batch.push(file);
      bytes += fits ? size : 0;
      looked += 1;
      if (batch.length === BATCH_FILES) break;
    }
    this.rest = this.rest.slice(looked);
    return batch;
  }

  get finished() {
    return this.sent + this.refused.length >= this.total && this.waiting.size === 0;
  }

  /** @param {import("./api.js").Job} job */
  take(job) {
    if (!TERMINAL.has(job.state)) {
      this.waiting.add(job.id);
      return;
    }
    this.waiting.delete(job.id);
    if (job.state === "succeeded") this.done += 1;
    else this.failed += 1;
    this.firstDone ||= performance.now();
  }
}

export class Uploads extends EventTarget {
  /**
   * @param {import("./api.js").Api} api
   * @param {import("./store.js").Store} store
   */
  constructor(api, store) {
    super();
    this.api = api;
    this.store = store;
    /** @type {Drop[]} */
    this.drops = [];
    /** @type {{drop: Drop, files: File[], key: string, attempt: number}[]} what is tried again */
    this.queue = [];
    this.inFlight = 0;
    this.pausedUntil = 0;
    this.full = false;
    store.addEventListener("stats", () => this.#resumeWithRoom());
    store.addEventListener("jobs", (event) => this.#follow(/** @type {CustomEvent} */ (event).detail));
  }

  /** @param {File[]} files */
  add(files) {
    const images = files.filter(looksLikeImage);
    const drop = new Drop(images, files.length - images.length);
    this.drops.unshift(drop);
    this.#pump();
    this.#changed();
  }

  /** @param {string} url */
  async addUrl(url) {
    const answer = await this.api.post("/jobs", { url });
    this.store.putJobs(answer.jobs);
  }

  /** @param {Drop} drop */
  async cancel(drop) {
    drop.abort.abort();
    this.queue = this.queue.filter((entry) => entry.drop !== drop);
    drop.rest = [];
    drop.total = drop.sent + drop.refused.length;
    this.#changed();
    for (const submission of drop.submissions) await this.api.post(`/jobs/cancel?submission=${submission}`);
  }

  /** Forget what ended well a while ago, so that a day's drops don't pile up. */
  tidy() {
    const now = performance.now();
    const keep = this.drops.filter((drop) => !drop.ended || drop.failed || drop.refused.length || now - drop.ended < TIDY_MS);
    if (keep.length === this.drops.length) return;
    this.drops = keep;
    this.#changed();
  }

  /** @param {Drop} drop */
  dismiss(drop) {
    this.drops = this.drops.filter((other) => other !== drop);
    this.#changed();
  }

  /**
   * Read again how the jobs under way stand, after events were missed. Raises what the API
   * raises: whoever asked must ask again, or those jobs would be waited for in vain.
   */
  async refresh() {
    const sought = new Set(this.drops.flatMap((drop) => [...drop.waiting]));
    const oldest = Math.min(...[...sought].map(numberOf));
    /** @type {string | null} */
    let cursor = "";
    while (sought.size && cursor !== null) {
      const query = new URLSearchParams({ limit: String(REFRESH_PAGE), ...(cursor && { cursor }) });
      const page = await this.api.get(`/jobs?${query}`);
      const found = page.jobs.filter((/** @type {import("./api.js").Job} */ job) => sought.delete(job.id));
      this.store.putJobs(found);
      this.#follow({ changed: new Map(found.map((/** @type {import("./api.js").Job} */ job) => [job.id, job])), removed: new Set() });
      const last = page.jobs.at(-1);
      cursor = last && numberOf(last.id) > oldest ? page.cursor : null;
    }
    // The rest was removed meanwhile.
    this.#follow({ changed: new Map(), removed: sought });
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #pump() {
    const waitMs = this.pausedUntil - performance.now();
    if (waitMs > 0) return;
    while (this.inFlight < IN_FLIGHT) {
      const entry = this.queue.shift() ?? this.#nextBatch();
      if (!entry) return;
      this.#send(entry);
    }
  }

  /** Of the drop that came first. */
  #nextBatch() {
    for (const drop of this.drops.slice().reverse()) {
      const files = drop.nextBatch();
      if (files.length) return { drop, files, key: newKey(), attempt: 0 };
    }
    return null;
  }

  /** @param {{drop: Drop, files: File[], key: string, attempt: number}} entry */
  async #send(entry) {
    this.inFlight += 1;
    try {
      await nextTask();
      const answer = await this.api.submit(entry.files, entry.key, entry.drop.abort.signal);
      this.#accepted(entry.drop, answer, entry.files.length);
    } catch (fault) {
      this.#failed(entry, fault);
    } finally {
      this.inFlight -= 1;
      this.#pump();
      this.#changed();
    }
  }

  /**
   * @param {Drop} drop
   * @param {{submission: string, jobs: import("./api.js").Job[]}} answer
   * @param {number} files
   */
  #accepted(drop, answer, files) {
    drop.note = "";
    drop.sent += files;
    drop.submissions.add(answer.submission);
    this.store.putJobs(answer.jobs);
    // What the store knows may be newer than the answer.
    for (const job of answer.jobs) drop.take(this.store.jobs.get(job.id) ?? job);
  }

  /**
   * @param {{drop: Drop, files: File[], key: string, attempt: number}} entry
   * @param {unknown} fault
   */
  #failed(entry, fault) {
    if (entry.drop.abort.signal.aborted) return;
    const known = fault instanceof ApiError ? fault : new ApiError(0, "offline", String(fault));
    if (known.temporary) {
      this.#later(entry, known);
    } else if (entry.files.length > 1) {
      // One file may spoil the batch: send each alone and refuse only the guilty.
      for (const file of entry.files) this.queue.unshift({ drop: entry.drop, files: [file], key: newKey(), attempt: 0 });
    } else {
      entry.drop.refused.push({ name: entry.files[0].name, why: known.message });
    }
  }

  /**
   * @param {{drop: Drop, files: File[], key: string, attempt: number}} entry
   * @param {ApiError} fault
   */
  #later(entry, fault) {
    entry.attempt += 1;
    const waitS = backoffS(entry.attempt, fault.retryAfterS);
    entry.drop.note = fault.status === 429
      ? "The queue is full; going on as soon as there is room"
      : fault.status === 0
        ? "The server can't be reached; trying again"
        : "The server is busy; trying again";
    this.full = fault.status === 429;
    this.queue.unshift(entry);
    this.pausedUntil = Math.max(this.pausedUntil, performance.now() + waitS * 1000);
    setTimeout(() => this.#pump(), waitS * 1000 + 20);
  }

  /**
   * `Retry-After` is a forecast from the rate until then; the figures that the server sends
   * every second are what is so now. With room for some batches there is no need to wait on.
   */
  #resumeWithRoom() {
    if (!this.full) return;
    const { counts, queue_limit_jobs: limit } = this.store.stats;
    const held = (counts.queued ?? 0) + (counts.backoff ?? 0) + (counts.leased ?? 0);
    if (held > limit - Math.max(ROOM_FILES, limit * ROOM_SHARE)) return;
    this.full = false;
    this.pausedUntil = 0;
    this.#pump();
  }

  /** @param {{changed: Map<string, import("./api.js").Job>, removed: Set<string>}} detail */
  #follow({ changed, removed }) {
    for (const drop of this.drops) {
      if (drop.waiting.size === 0) continue;
      for (const job of changed.values()) {
        if (TERMINAL.has(job.state) && drop.waiting.has(job.id)) drop.take(job);
      }
      for (const id of removed) {
        if (drop.waiting.delete(id)) drop.failed += 1;
      }
    }
    this.#changed();
  }
}
