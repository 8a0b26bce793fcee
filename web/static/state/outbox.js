// Messages on their way: each is kept here, over a reload too, until the server said that it has it. The same key goes with every attempt, so
// that it is stored once, whatever was lost in between; messages for one conversation go one after the other.
import { newKey, patch, post, signedOut } from "../api.js";
import { connection } from "../socket.js";
import { batch, effect, keep, kept, keptNames, signal, untracked } from "../ui.js";
import { OWNER, UNSENT, me } from "./lists.js";

const DAY = 86400000;
const MOST_AGE = 7 * DAY; // so long the server knows a key again
const PAUSES = [1000, 2000, 4000, 8000, 15000];
const MOST_TRIES = 6; // while the server is there for everything else
const SHOWN_AFTERWARDS = 30000;
const SIGN_IN = "you to sign in";
const KEY_KNOWN = "This key was used before"; // core/messages.py
const LOST_FILES = "The page was reloaded, which keeps no files. Retry sends the text without them.";
const LOST_FILES_PERHAPS = "The page was reloaded before it was known whether this arrived. If it did not, Retry sends the text without its files.";

/**
 * @typedef {object} Entry
 * @property {string} key its Idempotency-Key
 * @property {string | null} conversation_id
 * @property {string | null} group of a new chat that the server does not know yet: the key of its first message
 * @property {string} content
 * @property {File[]} files
 * @property {string[]} missing names of files that were lost with a reload
 * @property {string | null} model
 * @property {"sending" | "failed"} state
 * @property {string} waiting what it waits for before it is tried again by itself: "", "the connection" or "you to sign in"
 * @property {string} error why it failed, for people
 * @property {number} retry_at when it may be tried again, in ms as Date.now(); 0: at any time
 * @property {string} created_at
 * @property {number} after the seq of the last message that was known when it was first tried
 * @property {boolean} tried whether the server may have it
 * @property {string | null} message_id once the server has it; the entry stays until a thread shows that message (`arrived`)
 */

/** @type {{value: Entry[]}} in the order in which they were written */
export const outbox = signal([]);

const under_way = new Set(); // queues with a request that was not answered
const promises = new Map(); // by key: what resolves the promise of `send`
const listeners = new Set();
const newest = new Map(); // by conversation: the seq of the last message that was shown
const tab = newKey();
let timer = 0;

/**
 * Sends a message: into a conversation or a new chat. Never throws: what fails stays in `outbox`.
 * @param {{conversation_id?: string, content: string, files?: File[], model?: string}} message
 * @returns {Promise<object | null>} the server's answer, whenever it comes; null where the message was discarded
 */
export function send({ conversation_id = null, content, files = [], model = null }) {
  const key = newKey();
  const group = !conversation_id ? (outbox.peek().find((each) => each.group)?.group ?? key) : null;
  const created_at = new Date().toISOString();
  const about = { key, conversation_id, group, created_at, after: 0, message_id: null, tried: false };
  const entry = { ...about, content, files, missing: [], model, ...fresh };
  const waiting = outbox.peek().findLast((each) => queueOf(each) === queueOf(entry))?.waiting ?? "";
  outbox.value = [...outbox.peek(), { ...entry, waiting }];
  store(key);
  return new Promise((done) => {
    promises.set(key, done);
    next(queueOf(find(key)));
  });
}

const fresh = { state: "sending", waiting: "", error: "", retry_at: 0, tries: 0 };

/** Tries a failed one again. */
export function resend(key) {
  const entry = find(key);
  if (!entry || entry.message_id) return;
  change(key, fresh);
  next(queueOf(entry));
}

export function discard(key) {
  remove(key);
  promises.get(key)?.(null);
  promises.delete(key);
}

/** Forgets what stands in the conversation by now. */
export function arrived(messages) {
  const last = messages.at(-1);
  if (last) raise(last);
  const ids = new Set(messages.map((each) => each.id));
  if (outbox.peek().some((each) => ids.has(each.message_id))) outbox.value = outbox.peek().filter((each) => !ids.has(each.message_id));
}

function raise({ conversation_id, seq }) {
  newest.set(conversation_id, Math.max(seq, newest.get(conversation_id) ?? 0));
}

/** Whether it is one of these messages. The live frame of a message may come before the answer to its request, which tells its id. */
export function stands({ message_id, state, tried, content, after }, messages) {
  if (message_id) return messages.some((each) => each.id === message_id);
  if (state !== "sending" || !tried) return false;
  return messages.some((each) => each.seq > after && each.author === me.name && each.content === content);
}

/** Calls `listener(answer, entry)` whenever the server has one, until the function that it gives is called. `entry` is as it was when it was sent. */
export function onPosted(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** What is to be said of an entry. */
export function told(entry) {
  if (entry.state === "failed") return `Not sent: ${entry.error}`;
  if (entry.waiting) return `Waiting for ${entry.waiting} …`;
  const count = entry.files.length;
  return count ? `Sending with ${count} ${count === 1 ? "file" : "files"} …` : "Sending …";
}

// --- sending ---

const find = (key) => outbox.peek().find((each) => each.key === key);
const queueOf = (entry) => entry.conversation_id ?? entry.group;

function flush() {
  clearTimeout(timer);
  for (const queue of new Set(outbox.peek().map(queueOf))) next(queue);
}

async function next(queue) {
  const entry = outbox.peek().find((each) => queueOf(each) === queue && each.state === "sending" && !each.message_id);
  if (!entry || under_way.has(queue)) return;
  if (signedOut.peek()) return void waits(entry, SIGN_IN);
  under_way.add(queue);
  const goes_on = await attempt(entry);
  under_way.delete(queue);
  if (goes_on) next(find(entry.key) ? queueOf(find(entry.key)) : queue);
}

/** Whether the queue goes on. */
async function attempt(entry) {
  if ((kept(OWNER) ?? me.id) !== me.id) return waits(entry, SIGN_IN); // somebody else is, with this browser
  if (!entry.tried) change(entry.key, { tried: true, after: newest.get(entry.conversation_id) ?? 0 });
  try {
    delivered(entry, await post("/chat", bodyOf(entry), { key: entry.key, prefer: "respond-async", signal: deadline(entry) }));
    return true;
  } catch (error) {
    return refused(entry, error);
  }
}

function bodyOf({ content, conversation_id, model, files }) {
  const fields = { message: content };
  if (conversation_id) fields.conversation_id = conversation_id;
  if (model) fields.model = model;
  if (!files.length) return fields;
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const file of files) form.append("files", file, file.name);
  return form;
}

/** Half a minute, and the time that its files need at 50 kB/s. */
const deadline = ({ files }) => AbortSignal.timeout(30000 + files.reduce((sum, file) => sum + file.size, 0) / 50);

function refused(entry, error) {
  if (error.code === "UNAUTHORIZED") return waits(entry, SIGN_IN);
  if (error.status === 0 || [502, 503, 504].includes(error.status)) {
    const tries = entry.tries + 1;
    change(entry.key, { tries });
    if (tries >= MOST_TRIES && connection.peek() === "online") return failed(entry, error.message);
    clearTimeout(timer);
    timer = setTimeout(flush, PAUSES[Math.min(tries, PAUSES.length) - 1]);
    return waits(entry, "the connection");
  }
  // A first attempt, with its files or as a new chat, did reach the server: this one differs from it.
  if (error.status === 409 && entry.tried && error.message.startsWith(KEY_KNOWN)) {
    discard(entry.key);
    return true;
  }
  if (error.status < 500) change(entry.key, { tried: false });
  const sentence = error.message.replace(/ Try again in \d+ s\.$/, "");
  return failed(entry, sentence, error.retryAfter ? Date.now() + error.retryAfter * 1000 : 0);
}

function waits(entry, waiting) {
  const queue = queueOf(entry);
  for (const each of outbox.peek()) if (queueOf(each) === queue && each.state === "sending" && !each.message_id) change(each.key, { waiting });
  return false;
}

function failed({ key }, error, retry_at = 0) {
  change(key, { state: "failed", waiting: "", error, retry_at });
  return true;
}

function delivered(entry, answer) {
  const { conversation_id } = answer;
  keep(UNSENT + entry.key, null);
  raise(answer.user_message);
  batch(() => {
    change(entry.key, { ...fresh, conversation_id, group: null, message_id: answer.user_message.id });
    // What was written meanwhile in the same new chat goes there, too.
    if (entry.group) for (const each of outbox.peek()) if (each.group === entry.group) change(each.key, { conversation_id, group: null });
    for (const listener of [...listeners]) listener(answer, entry);
  });
  if (entry.group && entry.model) patch(`/conversations/${conversation_id}`, { model: entry.model }).catch(() => {}); // the chat shows which it has
  promises.get(entry.key)?.(answer);
  promises.delete(entry.key);
  setTimeout(remove, SHOWN_AFTERWARDS, entry.key);
}

function change(key, fields) {
  outbox.value = outbox.peek().map((each) => (each.key === key ? { ...each, ...fields } : each));
  store(key);
}

function remove(key) {
  keep(UNSENT + key, null);
  outbox.value = outbox.peek().filter((each) => each.key !== key);
}

function store(key) {
  const entry = find(key);
  if (!entry || entry.message_id) return;
  const { files, missing, created_at, ...rest } = entry;
  keep(UNSENT + key, JSON.stringify({ ...rest, created_at, tab, missing: [...missing, ...files.map((file) => file.name)] }));
}

/** What is kept, the oldest first. */
function stored() {
  const found = keptNames(UNSENT).map((name) => parsed(kept(name)));
  return found.filter((entry) => entry?.key).sort((a, b) => a.created_at.localeCompare(b.created_at));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // somebody else wrote it
  }
}

// --- over a reload, and beside other tabs: what is kept belongs to one tab, and to another when that one is gone ---

const LOCK = "onethread:tab:";
const watched = new Set([tab]);

navigator.locks?.request(LOCK + tab, () => new Promise(() => {})); // held for as long as this tab lives
for (const each of stored()) watch(each.tab);
addEventListener("storage", ({ key, newValue }) => {
  if (key === OWNER && newValue === me.id) flush();
  if (navigator.locks && newValue && key?.startsWith(UNSENT)) watch(parsed(newValue)?.tab);
});

function watch(other) {
  if (!other || watched.has(other)) return;
  watched.add(other);
  if (navigator.locks) navigator.locks.request(LOCK + other, () => takeOver(other));
  else takeOver(other);
}

function takeOver(other) {
  for (const { tab: owner, ...entry } of stored()) {
    const { key } = entry;
    if (owner !== other || find(key)) continue;
    const age = Date.now() - Date.parse(entry.created_at);
    if (age > MOST_AGE) {
      keep(UNSENT + key, null);
      continue;
    }
    outbox.value = [...outbox.peek(), { ...entry, files: [], waiting: "" }];
    if (entry.missing.length) failed({ key }, entry.tried ? LOST_FILES_PERHAPS : LOST_FILES);
    else if (entry.state === "sending" && age > DAY) failed({ key }, "It waited here for more than a day. Send it if it still holds.");
    else store(key);
  }
  flush();
}

effect(() => {
  if (connection.value === "online" && !signedOut.value) untracked(flush);
});

addEventListener("beforeunload", (event) => {
  if (outbox.peek().some((each) => each.files.length && !each.message_id)) event.preventDefault();
});
