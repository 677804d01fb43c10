/**
 * The event stream into the store. The browser reconnects by itself and says
 * which event it saw last; where the server can't continue from there it says
 * `reset`, and everything is read again.
 */

const RETRY_S = 3;

export class Stream {
  /**
   * @param {import("./store.js").Store} store
   * @param {() => Promise<void>} reload reads everything again
   * @param {() => Promise<void>} reloadWorkers
   */
  constructor(store, reload, reloadWorkers) {
    this.store = store;
    this.reload = reload;
    this.reloadWorkers = reloadWorkers;
    this.lastId = "";
    this.loaded = false;
  }

  open() {
    const after = this.lastId ? `?after=${encodeURIComponent(this.lastId)}` : "";
    const source = new EventSource(`/api/v1/events${after}`);
    source.addEventListener("error", () => this.#broken(source));
    source.addEventListener("core", (event) => this.#core(JSON.parse(event.data)));
    this.#on(source, "job", (job) => this.store.putJobs([job]));
    this.#on(source, "removed", (removed) => this.store.removeJobs(removed.jobs));
    this.#on(source, "stats", (stats) => this.store.setStats(stats));
    this.#on(source, "worker", (worker) => this.store.putWorker(worker));
    this.#on(source, "workers", () => this.reloadWorkers());
    this.#on(source, "model", () => this.reload());
    this.#on(source, "reset", () => this.reload());
  }

  /**
   * @param {EventSource} source
   * @param {string} kind
   * @param {(value: any) => void} take
   */
  #on(source, kind, take) {
    source.addEventListener(kind, (event) => {
      if (event.lastEventId) this.lastId = event.lastEventId;
      take(JSON.parse(event.data));
    });
  }

  /** @param {{up: boolean}} core */
  async #core(core) {
    this.store.setLink(core.up ? "live" : "down");
    if (core.up && !this.loaded) {
      this.loaded = true;
      await this.reload();
    }
  }

  /** @param {EventSource} source */
  #broken(source) {
    this.store.setLink("reconnecting");
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(() => this.open(), RETRY_S * 1000 * (0.5 + Math.random()));
  }
}
