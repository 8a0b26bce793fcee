// The live WebSocket (docs/protocol.md): one connection, many topics. It comes back by itself and joins again; joining is the resync.
import { signal } from "./ui.js";
import { signedIn } from "./api.js";

/** `connecting` (the first time), `online`, `offline` (it tries again by itself) or `ended` (nobody is signed in any more). */
export const connection = signal("connecting");
/** When the next attempt is made, in ms as Date.now(); 0 while none waits. */
export const nextAttempt = signal(0);

const PAUSES = [500, 1000, 2000, 5000, 10000];
const REPLY_MS = 20000;
const SIGN_IN_AGAIN = 4401;

/** @type {WebSocket | null} */
let socket = null;
let attempts = 0;
let timer = 0;
let lastRef = 0;
const topics = new Map(); // by name: Set of followers
const waiting = new Map(); // by ref: what to do with the reply

/** Connects; also at once where it is waiting to try again. */
export function connect() {
  clearTimeout(timer);
  nextAttempt.value = 0;
  if (socket) return;
  const opening = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket = opening;
  opening.onopen = () => {
    attempts = 0;
    connection.value = "online";
    for (const topic of topics.keys()) join(topic);
  };
  opening.onmessage = (message) => receive(JSON.parse(message.data));
  opening.onclose = (event) => closed(event.code);
}

/**
 * Follows a topic until the function that it gives is called. `snapshot(payload)` is called with the whole state, at first and whenever something
 * may have been missed; `frame(event, payload)` with each change after it; `refused({error_code, detail})` where it cannot be joined.
 */
export function subscribe(topic, { snapshot, frame, refused = () => {} }) {
  const follower = { snapshot, frame, refused };
  const followers = topics.get(topic);
  if (followers) followers.add(follower);
  else topics.set(topic, new Set([follower]));
  if (connection.value === "online") join(topic); // again where it was joined: the newcomer needs the snapshot
  return () => {
    const left = topics.get(topic);
    left?.delete(follower);
    if (!left?.size && topics.delete(topic)) request(topic, "leave").catch(() => {});
  };
}

/** Joins a topic again: everything of it is told anew. */
export function resync(topic) {
  if (connection.value === "online" && topics.has(topic)) join(topic);
}

function join(topic) {
  request(topic, "join").then(
    (snapshot) => each(topic, (follower) => follower.snapshot(snapshot)),
    (error) => error.error_code && each(topic, (follower) => follower.refused(error)),
  );
}

function each(topic, tell) {
  for (const follower of [...(topics.get(topic) ?? [])]) tell(follower);
}

function request(topic, event, payload = {}) {
  return new Promise((done, failed) => {
    if (socket?.readyState !== WebSocket.OPEN) return failed({});
    const ref = ++lastRef;
    const tooLate = setTimeout(() => waiting.delete(ref) && socket?.close(), REPLY_MS);
    waiting.set(ref, { done, failed, tooLate });
    socket.send(JSON.stringify({ topic, event, ref, payload }));
  });
}

function receive({ topic, event, ref, payload }) {
  if (event === "reply") {
    const asked = waiting.get(ref);
    waiting.delete(ref);
    clearTimeout(asked?.tooLate);
    if (payload.status === "ok") asked?.done(payload.response);
    else asked?.failed(payload.response);
  } else if (event === "snapshot") each(topic, (follower) => follower.snapshot(payload));
  else each(topic, (follower) => follower.frame(event, payload));
}

function closed(code) {
  socket = null;
  for (const { failed, tooLate } of waiting.values()) {
    clearTimeout(tooLate);
    failed({});
  }
  waiting.clear();
  if (code === SIGN_IN_AGAIN) {
    connection.value = "ended";
    signedIn().then((still) => still && connect()); // by another session, as after one changed the password
    return;
  }
  if (connection.value === "online" || attempts > 0) connection.value = "offline";
  const pause = PAUSES[Math.min(attempts++, PAUSES.length - 1)] * (0.5 + Math.random() / 2);
  nextAttempt.value = Date.now() + pause;
  timer = setTimeout(connect, pause);
}

addEventListener("online", connect);
addEventListener("visibilitychange", () => document.visibilityState === "visible" && connection.value === "offline" && connect());
