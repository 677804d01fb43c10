/** The cluster: tiles with plots, who executed what, and the workers. */
import { byId, h, oncePerFrame } from "./dom.js";
import { count, duration, durations, rate } from "./format.js";
import { drawTimeline, sparkline } from "./charts.js";

const WINDOW_MS = 60_000;
const SPANS_MAX = 4000;
const PLOT_SECONDS = 60;
const LIVENESS = /** @type {Record<string, string>} */ ({ alive: "alive", suspect: "suspect", dead: "gone" });

export class ClusterView {
  /**
   * @param {import("./store.js").Store} store
   * @param {(worker: any) => void} drain
   */
  constructor(store, drain) {
    this.store = store;
    this.drain = drain;
    this.visible = false;
    /** @type {import("./charts.js").Span[]} */
    this.spans = [];
    /** @type {Map<string, {worker: string, from: number}>} jobs that are being executed, by id */
    this.executing = new Map();
    this.draw = oncePerFrame(() => this.visible && this.#draw());
    store.addEventListener("jobs", (event) => this.#take(/** @type {CustomEvent} */ (event).detail));
    for (const kind of ["stats", "workers", "link"]) store.addEventListener(kind, this.draw);
    setInterval(() => this.visible && this.#drawTimeline(), 500);
  }

  /** @param {boolean} visible */
  show(visible) {
    this.visible = visible;
    this.draw();
  }

  /** @param {{changed: Map<string, import("./api.js").Job>, removed: Set<string>}} detail */
  #take({ changed, removed }) {
    for (const id of removed) this.executing.delete(id);
    for (const job of changed.values()) {
      this.#noteLoss(job);
      if (!job.worker || !job.started_at || !job.finished_at) continue;
      const kind = job.state === "failed" ? "bad" : job.attempts > 1 ? "again" : "ok";
      this.spans.push({ worker: job.worker, from: Date.parse(job.started_at), to: Date.parse(job.finished_at), kind });
    }
    if (this.spans.length > SPANS_MAX) this.spans.splice(0, this.spans.length - SPANS_MAX);
  }

  /**
   * A job that leaves a worker without an end was lost there: the worker died, hung or was cut off.
   * @param {import("./api.js").Job} job
   */
  #noteLoss(job) {
    const before = this.executing.get(job.id);
    this.executing.delete(job.id);
    const waitsAgain = job.state === "queued" || job.state === "backoff";
    if (before && (waitsAgain || (job.attempts > 1 && before.worker !== job.worker))) {
      this.spans.push({ ...before, to: Date.now(), kind: "lost" });
    }
    if (job.state === "leased" && job.worker && job.started_at) {
      this.executing.set(job.id, { worker: job.worker, from: Date.parse(job.started_at) });
    }
  }

  #draw() {
    byId("tiles").replaceChildren(...this.#tiles());
    const workers = [...this.store.workers.values()];
    this.#drawWorkers(workers);
    this.#drawTimeline();
  }

  #tiles() {
    const { stats, history } = this.store;
    if (!stats) return [h("p", { class: "sub" }, "No figures yet.")];
    const column = (/** @type {"queued" | "rate" | "p50" | "p99"} */ name) => history.map((entry) => entry[name]);
    const last = history[history.length - 1];
    return [
      tile("Waiting", count(last.queued), "images", column("queued")),
      tile("Throughput", rate(last.rate), "images/s", column("rate")),
      tile("Latency, median · p99", last.p99 ? durations(last.p50 / 1000, last.p99 / 1000) : "–", "", column("p50"), column("p99")),
      tile("Workers ready", `${stats.workers_ready}`, `of ${stats.workers_alive}`, []),
    ];
  }

  /** @param {any[]} workers */
  #drawWorkers(workers) {
    const list = byId("workers");
    const focused = document.activeElement instanceof HTMLElement && list.contains(document.activeElement) ? document.activeElement.dataset.worker : undefined;
    list.replaceChildren(...workers.map((worker) => this.#worker(worker)));
    if (focused) /** @type {HTMLElement | null} */ (list.querySelector(`button[data-worker="${CSS.escape(focused)}"]`))?.focus();
    byId("timeline-panel").hidden = workers.length === 0;
  }

  /** @param {any} worker */
  #worker(worker) {
    const tag = worker.admission === "accepting" ? LIVENESS[worker.liveness] : worker.admission;
    const card = h(
      "li",
      { class: "worker", "data-liveness": worker.liveness },
      h("div", { class: "head" }, h("span", { class: "dot", "aria-hidden": "true" }), h("strong", {}, worker.name), h("span", { class: "tag" }, worker.ready || worker.liveness === "dead" ? tag : "warming up")),
      h("p", { class: "sub" }, [worker.engine, worker.model, worker.address].filter(Boolean).join(" · ")),
      slots(worker),
      numbers(worker),
    );
    if (worker.fault) card.append(h("p", { class: "fault" }, worker.fault.message));
    card.append(this.#foot(worker));
    return card;
  }

  /** @param {any} worker */
  #foot(worker) {
    const foot = h("div", { class: "foot" }, h("span", { class: "sub" }, worker.software));
    if (worker.admission === "accepting" && worker.liveness !== "dead") {
      foot.append(h("button", { class: "button", type: "button", "data-worker": worker.id, onclick: () => this.drain(worker), title: "Finish what it executes, then leave" }, "Drain"));
    }
    return foot;
  }

  #drawTimeline() {
    const now = Date.now();
    const names = [...this.store.workers.values()].map((worker) => worker.name);
    const executing = [...this.executing.values()].map((span) => ({ ...span, to: now, kind: /** @type {const} */ ("now") }));
    drawTimeline(/** @type {HTMLCanvasElement} */ (byId("timeline")), [...this.spans, ...executing], names, now, WINDOW_MS);
  }
}

/**
 * @param {string} title
 * @param {string} value
 * @param {string} unit
 * @param {number[]} values
 * @param {number[]} [second]
 */
function tile(title, value, unit, values, second) {
  const element = h("div", { class: "tile" }, h("p", { class: "title" }, title), h("p", { class: "value" }, value, h("span", { class: "unit" }, unit)));
  if (values.length) element.append(sparkline(values, Math.max(PLOT_SECONDS, values.length), second));
  return element;
}

/** @param {any} worker */
function slots(worker) {
  const row = h("div", { class: "slots", role: "img", "aria-label": `${worker.held} of ${worker.slots} slots held, ${worker.executing} executing` });
  for (let index = 0; index < Math.min(worker.slots, 24); index += 1) {
    row.append(h("i", { class: index < worker.executing ? "executing" : index < worker.held ? "held" : "" }));
  }
  row.append(h("span", {}, `${worker.held} of ${worker.slots} slots`));
  return row;
}

/** @param {any} worker */
function numbers(worker) {
  const shown = [
    ["images/s", rate(worker.rate_per_s)],
    ["done", count(worker.completed)],
    ["suspicion φ", worker.phi >= 100 ? ">100" : worker.phi.toFixed(1)],
    ["round trip", worker.rtt_ms === null ? "–" : duration(worker.rtt_ms / 1000)],
  ];
  return h("dl", { class: "numbers" }, ...shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
