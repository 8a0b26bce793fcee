// The lists of conversations and of tasks, live from all surfaces, and who is signed in.
import { get, put } from "../api.js";
import { resync, subscribe } from "../socket.js";
import { computed, keep, signal } from "../ui.js";

const PAGE = 50;

/** Who is signed in: `{id, name, admin}`. */
export const me = JSON.parse(document.querySelector("meta[name=onethread-user]").content);

/** Where this browser keeps who opened the page last: another page may be of somebody who was signed in before. */
export const OWNER = "onethread:user";
keep(OWNER, me.id);

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

/** Tells the server, and the person's other pages, that everything up to the message `seq` was seen. */
export function markRead(id, seq) {
  const conversation = conversations.get(id);
  if (!seq || (conversation?.read_seq ?? -1) >= seq) return;
  read(id, seq);
  put(`/conversations/${id}/read`, { seq }).catch(() => {}); // the next look tells it again
}

function read(id, seq) {
  const conversation = conversations.get(id);
  if (conversation && (conversation.read_seq ?? -1) < seq) conversations.put({ ...conversation, read_seq: seq });
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
  let cursor = null; // of the next page of tasks

  const change = (edit) => {
    if (!known.peek()) return;
    const next = new Map(known.peek());
    edit(next);
    known.value = next;
  };
  const take = (page) => {
    total.value = page.total;
    cursor = page.next_cursor ?? null;
  };
  const set = (next, item) => {
    const before = next.get(item.id);
    next.set(item.id, noted({ ...before, ...item }, before));
  };

  return {
    items: computed(() => known.value && [...known.value.values()].sort(compare)),
    error,
    total,
    hasMore: computed(() => known.value !== null && known.value.size < total.value),
    get: (id) => known.peek()?.get(id),
    /** Puts in what is new, and replaces what is known; what it lacks (`read_seq` in a live change) stays. */
    put: (item) =>
      change((next) => {
        if (!next.has(item.id)) total.value++;
        set(next, item);
      }),
    drop: (id) => change((next) => next.delete(id) && total.value--),
    again: () => resync(name),

    open(frame) {
      return subscribe(name, {
        frame,
        snapshot(page) {
          take(page);
          error.value = "";
          known.value = new Map(page[name].map((item) => [item.id, noted(item)]));
        },
        refused: ({ detail }) => (error.value = detail),
      });
    },

    /** Loads the next page; throws ApiError. */
    async more() {
      const where = cursor ? `cursor=${cursor}` : `offset=${known.peek().size}`;
      const page = await get(`/${name}?limit=${PAGE}&${where}`);
      take(page);
      change((next) => page[name].forEach((item) => set(next, item)));
    },
  };
}
