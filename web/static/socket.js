// The live WebSocket (docs/protocol.md): one connection, many topics. It comes back by itself and joins again; joining is the resync.
import { reconnections, signal } from "./ui.js";
import { me, signedIn } from "./api.js";

/** `connecting` (the first time), `online`, `offline` (it tries again by itself) or `ended` (nobody is signed in any more). */
export const connection = signal("connecting");
/** When the next attempt is made, in ms as Date.now(); 0 while none waits. */
export const nextAttempt = signal(0);

const PAUSES = [500, 1000, 2000, 5000, 10000];
const SLOWLY = 2; // the place in PAUSES where one begins who is to come back later
const OPENING_MS = 10000;
const REPLY_MS = 20000;
const SILENCE_MS = 25000; // the server may have nothing to say, or the network is gone, which nothing else tells
const PING_MS = 5000;
const SIGN_IN_AGAIN = 4401;
const TOO_MUCH = [1008, 1013];

/** @type {WebSocket | null} */
let socket = null;
let attempts = 0; // since the server last answered
let timer = 0;
let opening = 0; // the timer of an attempt
let lastRef = 0;
let heardAt = 0;
const topics = new Map(); // by name: Set of followers
const waiting = new Map(); // by ref: what to do with the reply
const joins = new Map(); // by topic: the ref of the last join, which alone counts

/** Connects; also at once where it is waiting to try again. */
export function connect() {
  clearTimeout(timer);
  nextAttempt.value = 0;
  if (socket) return;
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws?user=${me.id}`);
  opening = setTimeout(hangUp, OPENING_MS);
  socket.onopen = () => {
    clearTimeout(opening);
    heardAt = Date.now();
    for (const topic of topics.keys()) join(topic);
  };
  socket.onmessage = (message) => receive(JSON.parse(message.data));
  socket.onclose = (event) => closed(event.code);
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
  join(topic); // again where it was joined: the newcomer needs the snapshot
  return () => {
    const left = topics.get(topic);
    left?.delete(follower);
    if (left?.size || !topics.delete(topic)) return;
    forget(topic);
    request(topic, "leave").catch(() => {});
  };
}

/** Joins a topic again: everything of it is told anew. */
export function resync(topic) {
  if (topics.has(topic)) join(topic);
}

function join(topic) {
  if (!isOpen()) return; // it is joined when the connection is there
  forget(topic);
  const reply = request(topic, "join");
  joins.set(topic, lastRef);
  reply.then(
    (snapshot) => each(topic, (follower) => follower.snapshot(snapshot)),
    (error) => {
      if (error.retry_after) setTimeout(resync, error.retry_after * 1000, topic);
      if (error.error_code) each(topic, (follower) => follower.refused(error));
    },
  );
}

/** The reply to an earlier join of it is not waited for. */
function forget(topic) {
  const ref = joins.get(topic);
  clearTimeout(waiting.get(ref)?.tooLate);
  waiting.delete(ref);
  joins.delete(topic);
}

function each(topic, tell) {
  for (const follower of [...(topics.get(topic) ?? [])]) tell(follower);
}

const isOpen = () => socket?.readyState === WebSocket.OPEN;

function request(topic, event, within = REPLY_MS) {
  return new Promise((done, failed) => {
    if (!isOpen()) return failed({});
    const ref = ++lastRef;
    waiting.set(ref, { done, failed, tooLate: setTimeout(hangUp, within) });
    socket.send(JSON.stringify({ topic, event, ref, payload: {} }));
  });
}

function receive({ topic, event, ref, payload }) {
  heardAt = Date.now();
  if (event === "reply") {
    answered();
    const asked = waiting.get(ref);
    waiting.delete(ref);
    clearTimeout(asked?.tooLate);
    if (payload.status === "ok") asked?.done(payload.response);
    else asked?.failed(payload.response);
  } else if (event === "snapshot") each(topic, (follower) => follower.snapshot(payload));
  else each(topic, (follower) => follower.frame(event, payload));
}

/** Only now it counts as there: a server that cannot serve opens a connection, too, and closes it. */
function answered() {
  attempts = 0;
  if (connection.value === "online") return;
  connection.value = "online";
  reconnections.value++;
}

/** Gives the connection up. Where the network is gone, nobody answers the closing, so it is not waited for. */
function hangUp() {
  const lost = socket;
  if (!lost) return;
  lost.onopen = lost.onmessage = lost.onclose = null;
  lost.close();
  closed(1006);
}

function closed(code) {
  socket = null;
  clearTimeout(opening);
  for (const { failed, tooLate } of waiting.values()) {
    clearTimeout(tooLate);
    failed({});
  }
  waiting.clear();
  joins.clear();
  if (code === SIGN_IN_AGAIN) {
    connection.value = "ended";
    signedIn().then((still) => still !== false && later()); // by another session, as after one changed the password
    return;
  }
  if (TOO_MUCH.includes(code)) attempts = Math.max(attempts, SLOWLY);
  later();
}

function later() {
  if (socket) return;
  if (connection.value !== "connecting" || attempts > 0) connection.value = "offline";
  const pause = PAUSES[Math.min(attempts++, PAUSES.length - 1)] * (0.5 + Math.random() / 2);
  nextAttempt.value = Date.now() + pause;
  clearTimeout(timer);
  timer = setTimeout(connect, pause);
}

/** Asks whether the other side is still there, or connects. */
function look() {
  if (connection.value === "ended") return;
  if (isOpen()) request(null, "ping", PING_MS).catch(() => {});
  else connect();
}

addEventListener("online", look);
addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
setInterval(() => isOpen() && Date.now() - heardAt >= SILENCE_MS && look(), PING_MS);
