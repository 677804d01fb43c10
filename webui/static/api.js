/**
 * The REST API, with `fetch` injected. Errors are `ApiError`s that carry the
 * problem's code and how long to wait before trying again.
 */

/**
 * @typedef {object} Guess
 * @property {string} label
 * @property {number} class_id
 * @property {number} confidence
 */
/**
 * @typedef {object} Job
 * @property {string} id
 * @property {string} submission
 * @property {string} name
 * @property {string} state
 * @property {string} submitted_at
 * @property {string | null} started_at
 * @property {string | null} finished_at
 * @property {number} attempts
 * @property {string | null} worker
 * @property {string | null} model
 * @property {number} size_bytes
 * @property {string} media_type
 * @property {{label: string, class_id: number, confidence: number, top5: Guess[], timings_ms: Record<string, number>} | null} result
 * @property {{code: string, message: string} | null} error
 */

export class ApiError extends Error {
  /**
   * @param {number} status 0 where the server couldn't be reached
   * @param {string} code
   * @param {string} detail
   * @param {number | null} retryAfterS
   */
  constructor(status, code, detail, retryAfterS = null) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same request may succeed later. */
  get temporary() {
    return this.code === "key_in_use" || this.status === 0 || this.status === 408 || this.status === 429 || (this.status >= 500 && this.status !== 507);
  }
}

export class Api {
  /** @param {typeof fetch} fetcher */
  constructor(fetcher) {
    this.fetch = fetcher;
  }

  /**
   * @param {string} path below /api/v1
   * @param {RequestInit} [options]
   * @returns {Promise<any>}
   */
  async call(path, options = {}) {
    let response;
    try {
      response = await this.fetch(`/api/v1${path}`, { ...options, headers: { Accept: "application/json", ...options.headers } });
    } catch (fault) {
      if (options.signal?.aborted) throw fault;
      throw new ApiError(0, "offline", "the server can't be reached");
    }
    if (!response.ok) throw await problem(response);
    return response.status === 204 ? null : response.json();
  }

  /** @param {string} path */
  get(path) {
    return this.call(path);
  }

  /**
   * @param {string} path
   * @param {unknown} [body] sent as JSON
   */
  post(path, body) {
    return this.#send("POST", path, body);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} body
   */
  #send(method, path, body) {
    if (body === undefined) return this.call(path, { method });
    return this.call(path, { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  }

  /**
   * @param {string} path
   * @param {unknown} [body] sent as JSON
   */
  remove(path, body) {
    return this.#send("DELETE", path, body);
  }

  /**
   * Send files as one submission.
   * @param {File[]} files
   * @param {string} key an Idempotency-Key: the same for every try
   * @param {AbortSignal} signal
   * @returns {Promise<{submission: string, jobs: Job[]}>}
   */
  submit(files, key, signal) {
    const form = new FormData();
    for (const file of files) form.append("image", file, file.webkitRelativePath || file.name || "pasted image");
    return this.call("/jobs", { method: "POST", body: form, signal, headers: { "Idempotency-Key": key } });
  }
}

/**
 * @param {Response} response
 * @returns {Promise<ApiError>}
 */
async function problem(response) {
  const retryAfter = Number(response.headers.get("Retry-After"));
  let body = null;
  try {
    body = await response.json();
  } catch {
    body = null;
  }
  return new ApiError(
    response.status,
    body?.code ?? "unknown",
    body?.detail ?? `the server answered ${response.status}`,
    retryAfter > 0 ? retryAfter : null,
  );
}

/** A key for one request; works without a secure context, as on a lab's http address. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Full-jitter exponential back-off, at least what the server asked for.
 * @param {number} attempt from 1
 * @param {number | null} retryAfterS
 * @param {() => number} random
 */
export function backoffS(attempt, retryAfterS, random = Math.random) {
  const jittered = random() * Math.min(15, 0.5 * 2 ** attempt);
  return Math.max(retryAfterS ?? 0, 0.2) + jittered;
}
