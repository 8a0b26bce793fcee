// The HTTP API: every request of the page, and what its failures say to a person. What is live comes by the WebSocket (socket.js).
import { signal } from "./ui.js";

/** Who this page is of: `{id, name, admin}`. The browser's cookie is perhaps somebody else's by now. */
export const me = JSON.parse(document.querySelector("meta[name=onethread-user]").content);

/** True since the server said that nobody is signed in any more. The page then asks to sign in again; nothing that was written is lost. */
export const signedOut = signal(false);

export class ApiError extends Error {
  /**
   * @param {string} detail a sentence for people
   * @param {{status?: number, code?: string, retryAfter?: number, asks?: boolean}} about `status` 0: the server was not reached. `retryAfter` in
   *   seconds. `asks`: the same with `confirmed: true` does it.
   */
  constructor(detail, { status = 0, code = "NETWORK", retryAfter = 0, asks = false } = {}) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
    this.asks = asks;
  }

  /** Whether the same request may succeed later, unchanged. */
  get temporary() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

const UNREACHED = "The server cannot be reached. Check your connection and try again.";
const TOO_LATE = "The server did not answer in time. Try again in a moment.";
const MOST_MS = 30000;
const SIGN_IN = "You are not signed in any more.";

/**
 * The JSON of the answer, null where there is none; throws ApiError.
 * @param {string} method
 * @param {string} path from `/api` on: `/conversations?limit=50`
 * @param {object | FormData} [body]
 * @param {{key?: string, prefer?: string, signal?: AbortSignal}} [how] `key`: the Idempotency-Key; with it a repetition does nothing twice
 */
export async function api(method, path, body, { key, prefer, signal = AbortSignal.timeout(MOST_MS) } = {}) {
  const headers = { Accept: "application/json", "X-Onethread-User": me.id };
  if (key) headers["Idempotency-Key"] = key;
  if (prefer) headers.Prefer = prefer;
  const form = body instanceof FormData;
  if (body !== undefined && !form) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch("/api" + path, { method, headers, signal, body: body === undefined || form ? body : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(error.name === "TimeoutError" ? TOO_LATE : UNREACHED);
  }
  if (response.ok) return response.status === 204 ? null : read(response);
  throw await failure(response);
}

/** A new Idempotency-Key. Not by crypto.randomUUID, which is missing on a page that came by plain http from another host. */
export const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export const get = (path, how) => api("GET", path, undefined, how);
export const post = (path, body = {}, how) => api("POST", path, body, how);
export const put = (path, body = {}) => api("PUT", path, body);
export const patch = (path, body) => api("PATCH", path, body);
export const remove = (path) => api("DELETE", path);

/**
 * Whether the page's person is signed in; null where the server does not say. Sets `signedOut`; where it is somebody else, the page is loaded anew as
 * theirs. A 401 alone does not tell: a wrong present password is one, too, and what only admins may.
 */
export async function signedIn() {
  const answer = await fetch("/api/me").catch(() => null);
  if (answer?.status === 401) return !(signedOut.value = true);
  const who = answer?.ok ? await answer.json().catch(() => null) : null;
  if (!who) return null;
  if (who.id === me.id) return true;
  signedOut.value = true; // for as long as somebody keeps it from being loaded anew
  location.reload();
  return false;
}

async function read(response) {
  try {
    return await response.json();
  } catch {
    throw new ApiError(UNREACHED, { status: 0 });
  }
}

async function failure(response) {
  const problem = await response.json().catch(() => ({}));
  const code = problem.error_code ?? `HTTP_${response.status}`;
  if (response.status === 401 && code === "UNAUTHORIZED") await signedIn();
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  const detail = problem.detail ?? (response.status === 401 ? SIGN_IN : `The server answered ${response.status}. Try again in a moment.`);
  return new ApiError(detail, { status: response.status, code, retryAfter, asks: problem.confirm });
}
