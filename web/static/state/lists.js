// The lists of conversations and of tasks, live from all surfaces, and who is signed in.
import { get, me, put } from "../api.js";
import { resync, subscribe } from "../socket.js";
import { computed, keep, signal } from "../ui.js";

const PAGE = 50;
const MARK_PAUSE_MS = 5000;

export { me };

/** Where this browser keeps who opened the page last: another page may be of somebody who was signed in before. */
export const OWNER = "onethread:user";
keep(OWNER, me.id);

/** After the session was ended: leaves the page, and lets the browser's other tabs know. */
export function leave() {
  keep(OWNER, null);
  location.assign("/login");
}

/** How the names begin under which state/outbox.js keeps what was not sent yet. */
export const UNSENT = `onethread:${me.id}:out:`;

/**
 * The conversations that are not archived, the last spoken in first. Not by `updated_at`: that changes with each status of the agent, and rows would
 * move under the cursor.
 */
export const conversations = liveList("conversations", (a, b) => b.spoken_at.localeCompare(a.spoken_at), (now, before) => ({
  ...now,
  spoken_at: before && now.message_count <= before.message_count ? before.spoken_at : now.updated_at,
}));

/** All tasks, the newest first. */
export const tasks = liveList("tasks", (a, b) => b.id.localeCompare(a.id));

/** Follows the conversations; from then on `conversations.items` is live. Called once, at the start. */
export function openConversations() {
  conversations.open((event, payload) => {
    if (event === "conversation_deleted") conversations.drop(payload.id);
    if (event === "conversation_read") read(payload.id, payload.seq);
    if (event === "conversation_changed") {
      if (payload.archived_at) conversations.drop(payload.id);
      else conversations.put(payload);
    }
  });
}

/** Follows the tasks, until the function that it gives is called. */
export const openTasks = () =>
  tasks.open((event, payload) => {
    if (event === "task_changed") tasks.put(payload);
    if (event === "task_deleted") tasks.drop(payload.id);
  });

/** Whether something was said since it was last looked at. What was never opened is not unread. */
export const unread = (conversation) => conversation.read_seq != null && conversation.last_seq > conversation.read_seq;

let markAgainAt = 0; // not before: it failed a moment ago
const unmarked = new Map(); // by conversation: up to where it was seen, which could not be told

/**
 * Tells the server, and the person's other pages, that everything up to the message `seq` was seen. False where it could not be told: it is told
 * a little later, or by the next look.
 */
export async function markRead(id, seq) {
  if (Date.now() < markAgainAt) {
    unmarked.set(id, seq);
    return false;
  }
  const before = conversations.get(id)?.read_seq ?? null;
  if (before === null || before < seq) read(id, seq);
  try {
    await put(`/conversations/${id}/read`, { seq });
    return true;
  } catch (error) {
    if (error.temporary) {
      if (!unmarked.size) setTimeout(markAgain, MARK_PAUSE_MS);
      unmarked.set(id, seq);
      markAgainAt = Date.now() + MARK_PAUSE_MS;
    }
    if (conversations.get(id)?.read_seq === seq) read(id, before);
    return false;
  }
}

function markAgain() {
  markAgainAt = 0;
  const seen = [...unmarked];
  unmarked.clear();
  for (const [id, seq] of seen) if (!((conversations.get(id)?.read_seq ?? -1) >= seq)) markRead(id, seq);
}

function read(id, seq) {
  if (conversations.get(id)) conversations.put({ id, read_seq: seq });
}

/**
 * A list as it changes. `items` is null until it came; `error` says why it did not; `total` counts those too that were not loaded.
 * @param {"conversations" | "tasks"} name of the topic, of the route and of the member of its answer
 * @param {(a: object, b: object) => number} compare
 * @param {(now: object, before?: object) => object} noted what is kept of something that changed
 */
function liveList(name, compare, noted = (item) => item) {
  const known = signal(null); // Map by id
  const error = signal("");
  const total = signal(0);
  let cursor; // of the next page of tasks; null after the last one
  let gone = null; // while a page is on its way: what was dropped meanwhile

  const change = (edit) => {
    if (!known.peek()) return;
    const next = new Map(known.peek());
    edit(next);
    known.value = next;
  };
  const take = (page) => {
    total.value = page.total;
    cursor = page.next_cursor;
  };
  const set = (next, item) => {
    const before = next.get(item.id);
    next.set(item.id, noted({ ...before, ...item }, before));
  };

  /** Whether something unknown was there before: then it is one of those that were not loaded yet. */
  const isCounted = (next, { id }) => next.size < total.value && [...next.keys()].some((each) => each > id);

  return {
    items: computed(() => known.value && [...known.value.values()].sort(compare)),
    error,
    total,
    hasMore: computed(() => known.value !== null && known.value.size < total.value),
    get: (id) => known.peek()?.get(id),
    /** Puts in what is new, and replaces what is known; what it lacks (`read_seq` in a live change) stays. */
    put: (item) =>
      change((next) => {
        if (!next.has(item.id) && !isCounted(next, item)) total.value++;
        set(next, item);
      }),
    drop(id) {
      gone?.add(id);
      change((next) => next.delete(id) && total.value--);
    },
    again: () => resync(name),

    open(frame) {
      return subscribe(name, {
        frame,
        snapshot(page) {
          const before = known.peek() ?? new Map();
          take(page);
          error.value = "";
          const next = new Map(page[name].map((item) => [item.id, noted(item, before.get(item.id))]));
          // What was loaded beyond the first page stays, unless some of it is gone: which, it does not say. Tasks are all loaded anew by the board.
          const older = cursor === undefined ? [...before].filter(([id]) => !next.has(id)) : [];
          known.value = next.size + older.length <= page.total ? new Map([...next, ...older]) : next;
        },
        refused: ({ detail }) => (error.value = detail),
      });
    },

    /** Loads the next page; throws ApiError. */
    async more() {
      const where = cursor ? `cursor=${cursor}` : `offset=${known.peek().size}`;
      gone = new Set();
      const page = await get(`/${name}?limit=${PAGE}&${where}`);
      take(page);
      // What is known is newer than the answer.
      change((next) => page[name].forEach((item) => next.has(item.id) || gone.has(item.id) || set(next, item)));
      if (cursor === null || !page[name].length) total.value = known.peek().size; // there are no more, whatever was counted
    },
  };
}
