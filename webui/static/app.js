/** Puts the page together. */
import { Api, ApiError } from "./api.js";
import { ClusterView } from "./cluster-view.js";
import { drawCode } from "./code-view.js";
import { Details, confirm } from "./dialogs.js";
import { byId } from "./dom.js";
import { plural } from "./format.js";
import { listen } from "./intake.js";
import { JobsView } from "./jobs-view.js";
import { Notices } from "./notices.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { Uploads } from "./uploads.js";
import { UploadsView } from "./uploads-view.js";

const api = new Api(window.fetch.bind(window));
const store = new Store();
const notices = new Notices(store);
const uploads = new Uploads(api, store);

/**
 * Run what a click asked for, and say what went wrong.
 * @param {() => Promise<unknown>} act
 */
async function attempt(act) {
  try {
    await act();
  } catch (fault) {
    notices.say(fault instanceof ApiError ? fault.message : String(fault));
  }
}

const actions = {
  /** @param {string} id */
  open: (id) => details.open(id),
  /** @param {string} id */
  cancel: (id) => attempt(async () => store.putJobs([await api.post(`/jobs/${id}/cancel`)])),
  /** @param {string} id */
  retry: (id) =>
    attempt(async () => {
      store.putJobs((await api.post(`/jobs/${id}/retry`)).jobs);
      await api.remove(`/jobs/${id}`);
      store.removeJobs([id]);
    }),
  /** @param {string} id */
  remove: (id) =>
    attempt(async () => {
      await api.remove(`/jobs/${id}`);
      store.removeJobs([id]);
    }),
};
const details = new Details(store, actions);
const jobs = new JobsView(store, api, actions);
const cluster = new ClusterView(store, (worker) => attempt(() => api.post(`/workers/${encodeURIComponent(worker.id)}/drain`)));
new UploadsView(uploads);

async function reloadWorkers() {
  store.setWorkers((await api.get("/workers")).workers);
}

/** Read everything: at the start, and when events were missed. */
async function reload() {
  try {
    const [model, stats] = await Promise.all([api.get("/model"), api.get("/stats"), reloadWorkers(), jobs.reload()]);
    store.setModel(model);
    store.setStats(stats);
    await uploads.refresh();
  } catch (fault) {
    if (!(fault instanceof ApiError)) throw fault;
    setTimeout(reload, 2000 + Math.random() * 1000);
  }
}

function showView() {
  const wanted = location.hash.replace(/^#\/?/, "") || "classify";
  const view = ["classify", "cluster", "code"].includes(wanted) ? wanted : "classify";
  for (const link of document.querySelectorAll("[data-view]")) {
    const name = /** @type {HTMLElement} */ (link).dataset.view ?? "";
    if (name === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    byId(`view-${name}`).hidden = name !== view;
  }
  cluster.show(view === "cluster");
  scrollTo({ top: 0, behavior: "instant" });
  if (view === "code") drawCode(location.origin);
}

function listenToToolbar() {
  byId("clear").addEventListener("click", async () => {
    const total = Object.values(store.stats?.counts ?? {}).reduce((sum, value) => sum + value, 0) || store.jobs.size;
    const yes = await confirm(`Remove ${plural(total, "image")} and their results? What is under way is cancelled.`, "Remove all");
    if (yes) await attempt(async () => { await api.remove("/jobs"); store.removeJobs([...store.jobs.keys()]); });
  });
  byId("retry-failed").addEventListener("click", () => attempt(retryFailed));
  byId("cancel-waiting").addEventListener("click", () => attempt(() => api.post("/jobs/cancel")));
  jobs.dispatchFilter = () => {
    /** @type {HTMLAnchorElement} */ (byId("export-csv")).href = `/api/v1/results.csv${jobs.query}`;
    /** @type {HTMLAnchorElement} */ (byId("export-json")).href = `/api/v1/results.json${jobs.query}`;
  };
}

async function retryFailed() {
  const failed = (await api.get("/jobs?state=failed&limit=1000")).jobs.map((/** @type {{id: string}} */ job) => job.id);
  if (!failed.length) return;
  store.putJobs((await api.post("/jobs/retry", { jobs: failed })).jobs);
  await api.remove("/jobs", { jobs: failed });
  store.removeJobs(failed);
}

listen((files) => uploads.add(files), (url) => attempt(() => uploads.addUrl(url)));
listenToToolbar();
addEventListener("hashchange", showView);
showView();
new Stream(store, reload, reloadWorkers).open();
