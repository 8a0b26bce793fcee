// The conversation that is open: its messages as they grow, the turns that answer them, and what a person does about them. docs/protocol.md tells
// how a reply is put together. Objects are replaced when they change, never changed in place.
import { get, patch, post, remove } from "../api.js";
import { resync, subscribe } from "../socket.js";
import { batch, computed, signal } from "../ui.js";
import { conversations } from "./lists.js";

const WRITE_MS = 50; // Text that came within so long is shown at once.
const PAGE = 50;
const LARGE_PAGE = 100;
const ENDED = ["completed", "failed", "cancelled"];
const UNFINISHED = ["queued", "running", "waiting"];

/**
 * null, or `{topic, state, detail, conversation, task, hasMore}`. `state`: `loading`, `ready`, `missing` (there is none, or it may not be seen),
 * `deleted` (while it was open) or `failed`, for which `detail` says why. `hasMore`: there are messages before the first.
 */
export const opened = signal(null);
/** Ascending by `seq`. */
export const messages = signal([]);
/** The turns that have not ended, by their reply's id. */
export const turns = signal(new Map());
/** `{total, by_model}`, null until it is known. */
export const usage = signal(null);
/** The reply that ended last while it was watched. */
export const answered = signal(null);

/** The turn that can be stopped: the one that runs or waits for a person, or the first in the queue; null without one. */
export const busy = computed(() => inOrder()[0] ?? null);

/** Whether a message will not change by itself any more. */
export const ended = (message) => ENDED.includes(message.status);

/** How many turns come before this one. */
export const before = (turn) => inOrder().findIndex((each) => each.turn_id === turn.turn_id);

/** The seq of the newest message that is finished, as are all before it; 0 without one. */
export const newestFinished = () => {
  const list = messages.peek();
  const place = list.findIndex((message) => !ended(message));
  return (place < 0 ? list.at(-1) : list[place - 1])?.seq ?? 0;
};

const writing = new Map(); // by reply: {text, stream_no}, ahead of what is shown
let timer = 0;
let lacking = false; // text is missing, and a snapshot was asked for
let earlier = null; // the page that is on its way

/** Opens `conversation:<id>` or `task:<ref>`, until the function that it gives is called. One is open at a time. */
export function open(topic) {
  reset({ topic, state: "loading", detail: "", hasMore: false, ...listed(topic) });
  const leave = subscribe(topic, { snapshot, frame, refused });
  return () => {
    leave();
    if (opened.peek()?.topic === topic) reset(null);
  };
}

/** Loads it anew, after it failed. */
export function reopen() {
  change({ state: "loading", detail: "" });
  resync(opened.peek().topic);
}

// --- what a person does: each throws ApiError ---

/** Stops the turn of `busy`. */
export async function stop() {
  const turn = busy.peek();
  if (turn) took(await post(`/turns/${turn.turn_id}/cancel`));
}

/** Answers a failed or stopped message again. */
export async function retry(turnId) {
  posted(await post(`/turns/${turnId}/retry`));
}

/** @param {"approve" | "deny"} decision */
export async function decide(approvalId, decision) {
  const { status, decided_by } = await post(`/approvals/${approvalId}`, { decision });
  const message = messages.peek().find((each) => each.tool_calls.some((call) => call.approval_id === approvalId));
  const call = message?.tool_calls.find((each) => each.approval_id === approvalId);
  if (!call) return;
  const isNews = call.state === "awaiting_approval"; // otherwise a frame told of what came after it already
  const state = status === "approved" ? "running" : "failed";
  setCall({ ...call, message_id: message.id, decided_by, ...(isNews && { approval: status, state }) });
}

/** Answers the question that a reply ended with. */
export async function answer(messageId, option) {
  posted(await post(`/messages/${messageId}/answer`, { option }));
}

export async function edit(messageId, content) {
  putNewer(await patch(`/messages/${messageId}`, { content }));
}

export async function erase(messageId) {
  await remove(`/messages/${messageId}`);
  update(messageId, (message) => ({ ...message, content: "", attachments: [], tool_calls: [], deleted_at: new Date().toISOString() }));
}

/** Takes in the answer to a message that was sent, before the live frames tell of it. */
export function posted({ conversation_id, user_message, message }) {
  if (opened.peek()?.state === "ready" && opened.peek().conversation.id === conversation_id) putNewer(user_message, message);
}

/** Loads the page before the first message. */
export function loadEarlier(limit = PAGE) {
  earlier ??= load(limit).finally(() => (earlier = null));
  return earlier;
}

/** Loads as far back as the message of that `seq`; whether there is one. */
export async function showMessage(seq) {
  const { topic } = opened.peek();
  while (opened.peek()?.topic === topic && opened.peek().hasMore && messages.peek()[0]?.seq > seq) await loadEarlier(LARGE_PAGE);
  return messages.peek().some((message) => message.seq === seq);
}

/** Asks again what the conversation cost. */
async function loadUsage() {
  const id = opened.peek()?.conversation?.id;
  if (!id) return;
  const found = await get(`/conversations/${id}/usage`).catch(() => null); // it is shown beside other things, and asked for again
  if (found && opened.peek()?.conversation?.id === id) usage.value = found;
}

// --- frames ---

const EVENTS = {
  __proto__: null,
  new_message: (message) => put(message),
  message_changed: (message) => put(message),
  llm_delta: delta,
  llm_complete: ({ message_id, ...end }) => {
    writing.delete(message_id);
    update(message_id, (reply) => ({ ...reply, ...end }));
  },
  tool_call: setCall,
  turn_changed: (turn) => setTurns([turn]),
  agent_status: ({ status, message }) => changeConversation({ agent_status: status, agent_status_message: message }),
  conversation_changed: changeConversation,
  task_changed: (task) => change({ task }),
  conversation_deleted: () => change({ state: "deleted" }),
  task_deleted: () => change({ state: "deleted" }),
};

function frame(event, payload) {
  if (event !== "llm_delta" && opened.peek()?.state !== "ready") return;
  EVENTS[event]?.(payload);
}

function snapshot(state) {
  const shown = messages.peek();
  const first = state.messages[0]?.seq ?? 1;
  // What was loaded by scrolling up stays, where there is no gap, and is asked for again: it may have changed, too.
  const kept = first <= (shown.at(-1)?.seq ?? 0) + 1 ? shown.filter((message) => message.seq < first) : [];
  writing.clear();
  lacking = false;
  const missed = state.messages.find((message) => message.role === "assistant" && ended(message) && isUnfinished(message.id));
  batch(() => {
    messages.value = [...kept, ...state.messages.map(same)];
    turns.value = new Map(state.turns.map((turn) => [turn.message_id, turn]));
    const hasMore = kept.length ? opened.peek().hasMore : first > 1;
    change({ state: "ready", detail: "", conversation: state.conversation, task: state.task, hasMore });
    if (missed) answered.value = missed;
  });
  loadUsage();
  if (kept.length) loadAgain(kept[0].seq, first).catch(() => {}); // the next snapshot tries again
}

function refused({ error_code, detail }) {
  // The address holds no id at all, or that of nothing.
  if (["NOT_FOUND", "VALIDATION_ERROR"].includes(error_code)) change({ state: "missing" });
  else if (opened.peek()?.state !== "ready") change({ state: "failed", detail }); // what is shown stays, as without a connection
}

// --- a reply that grows ---

function delta({ message_id, stream_no, offset, delta }) {
  const reply = messages.peek().findLast((message) => message.id === message_id);
  if (!reply || ended(reply) || lacking) return;
  const known = writing.get(message_id) ?? { text: reply.content, stream_no: reply.stream_no };
  if (stream_no < known.stream_no) return;
  if (offset > known.text.length) {
    lacking = true;
    return resync(opened.peek().topic);
  }
  writing.set(message_id, { text: known.text.slice(0, offset) + delta, stream_no });
  timer ||= setTimeout(write, WRITE_MS);
}

function write() {
  timer = 0;
  batch(() => {
    for (const [id, { text, stream_no }] of writing) update(id, (reply) => ({ ...reply, content: text, stream_no }));
  });
  writing.clear();
}

// --- the state, piece by piece ---

function reset(state) {
  clearTimeout(timer);
  timer = 0;
  lacking = false;
  earlier = null;
  writing.clear();
  batch(() => {
    opened.value = state;
    messages.value = [];
    turns.value = new Map();
    usage.value = null;
    answered.value = null;
  });
}

/** What the list of conversations knows of it, so that its title is there at once. */
function listed(topic) {
  const [kind, name] = topic.split(/:(.*)/);
  const items = conversations.items.peek() ?? [];
  return { conversation: items.find((each) => (kind === "task" ? each.task_ref : each.id) === name) ?? null, task: null };
}

function change(changes) {
  if (opened.peek()) opened.value = { ...opened.peek(), ...changes };
}

function changeConversation(changes) {
  change({ conversation: { ...opened.peek().conversation, ...changes } });
}

/** Puts messages in their places; those that are known are replaced. */
function put(...found) {
  batch(() => {
    for (const message of found) {
      writing.delete(message.id);
      const known = messages.peek();
      const place = known.findLastIndex((each) => each.seq <= message.seq);
      if (known[place]?.id === message.id) update(message.id, () => message);
      else if (message.seq > (known[0]?.seq ?? 0) || !opened.peek().hasMore) messages.value = known.toSpliced(place + 1, 0, message);
    }
  });
}

/** Puts what a request was answered with: frames may have told of later things already. */
function putNewer(...found) {
  const isNewer = (message) => {
    const known = messages.peek().find((each) => each.id === message.id);
    return !known || known.updated_at < message.updated_at;
  };
  put(...found.filter(isNewer));
}

function update(id, edit) {
  const known = messages.peek();
  const place = known.findLastIndex((message) => message.id === id);
  if (place < 0) return;
  const next = edit(known[place]);
  messages.value = known.with(place, next);
  if (next.role === "assistant" && ended(next) && !ended(known[place]) && !next.deleted_at) {
    answered.value = next;
    loadUsage();
  }
}

function setCall({ message_id, ...call }) {
  const isIt = (other) => other.step === call.step && other.index === call.index;
  update(message_id, (reply) => {
    const known = reply.tool_calls.find(isIt);
    const others = reply.tool_calls.filter((other) => !isIt(other));
    const next = { ...call, decided_by: call.decided_by ?? known?.decided_by };
    return { ...reply, tool_calls: [...others, next].sort((a, b) => a.step - b.step || a.index - b.index) };
  });
}

function setTurns(changed) {
  const next = new Map(turns.peek());
  for (const turn of changed) {
    if (UNFINISHED.includes(turn.status)) next.set(turn.message_id, turn);
    else next.delete(turn.message_id);
  }
  turns.value = next;
}

/** Takes in the answer to a request about a turn. */
function took(turn) {
  batch(() => {
    putNewer(turn.message);
    setTurns([turn]);
  });
}

const isUnfinished = (id) => messages.peek().some((message) => message.id === id && !ended(message));

/** The object that is known already, where nothing of it changed: what shows it need not be made again. */
function same(message) {
  const known = messages.peek().find((each) => each.id === message.id);
  return known && JSON.stringify(known) === JSON.stringify(message) ? known : message;
}

/** In the order in which they are answered; the replies' places tell it. */
function inOrder() {
  const places = new Map(messages.value.map((message) => [message.id, message.seq]));
  const place = (turn) => places.get(turn.message_id) ?? turn.position - 1000;
  return [...turns.value.values()].sort((a, b) => place(a) - place(b));
}

async function load(limit) {
  const { topic, conversation } = opened.peek();
  const first = messages.peek()[0];
  if (!first || !conversation) return;
  const page = await get(`/conversations/${conversation.id}/messages?before=${first.seq}&limit=${limit}`);
  if (opened.peek()?.topic !== topic || messages.peek()[0]?.id !== first.id) return;
  batch(() => {
    messages.value = [...page.messages, ...messages.peek()];
    change({ hasMore: page.has_more });
  });
}

/** Replaces what is shown of the messages from one place to before another by what the server has. */
async function loadAgain(from, to) {
  const { topic, conversation } = opened.peek();
  for (let next = to; next > from; ) {
    const page = await get(`/conversations/${conversation.id}/messages?before=${next}&limit=${LARGE_PAGE}`);
    if (opened.peek()?.topic !== topic || !page.messages.length) return;
    const found = page.messages.filter((message) => message.seq >= from).map(same);
    const known = new Map(found.map((message) => [message.id, message]));
    messages.value = messages.peek().map((message) => known.get(message.id) ?? message);
    next = page.messages[0].seq;
  }
}
