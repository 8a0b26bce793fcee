// What the board shows: all tasks, loaded page by page, filtered and laid out in columns. No markup.
import { computed, effect, signal } from "../ui.js";
import { tasks } from "./lists.js";
import { moves } from "./task_edits.js";
import { PRIORITIES, STATUSES, daysUntil, dueDay, isOpen, isOverdue } from "./task_values.js";

export const noFilter = { text: "", assignee: "", priority: "", label: "", due: "" };
export const NOBODY = "\0"; // as a filter of assignees: no user is called that
/** What is looked for. `assignee` a name or NOBODY, `due` one of `overdue`, `week`, `none`; empty texts ask for nothing. */
export const filters = signal(noFilter);
export const isFiltered = computed(() => Object.values(filters.value).some(Boolean));

/** Whether pages are still being loaded, and why they could not be. */
export const loading = signal(false);
export const loadError = signal("");

/** The tasks as they were before the list came anew, shown until all of that is loaded, so that no card vanishes for a moment. */
const before = signal(null);

const all = computed(() => {
  const items = tasks.items.value;
  if (!items || !before.value) return items;
  const fresh = new Set(items.map((task) => task.id));
  return [...items, ...before.value.filter((task) => !fresh.has(task.id))];
});

/** The assignees and labels that occur. */
export const names = computed(() => occurring((task) => [task.assignee]));
export const labels = computed(() => occurring((task) => task.labels));

function occurring(values) {
  const found = new Set((all.value ?? []).flatMap(values));
  found.delete(null);
  return [...found].sort((a, b) => a.localeCompare(b));
}

/** `[{status, tasks}]`, a column each; null until the list came. A task that is being moved is where it is going. */
export const columns = computed(() => {
  if (!all.value) return null;
  const wanted = matcher(filters.value);
  const byStatus = new Map(STATUSES.map(({ value }) => [value, []]));
  for (const task of all.value) {
    if (!wanted(task)) continue;
    const moving = moves.value.get(task.id)?.status;
    byStatus.get(moving ?? task.status)?.push(moving ? { ...task, status: moving, moving: true } : task);
  }
  return [...byStatus].map(([status, found]) => ({ status, tasks: found.sort(isOpen({ status }) ? byUrgency : byChange) }));
});

/** How many tasks there are, and how many of them are looked for. */
export const total = computed(() => all.value?.length ?? 0);
export const matching = computed(() => (columns.value ?? []).reduce((sum, column) => sum + column.tasks.length, 0));

const rank = new Map(PRIORITIES.map(({ value }, index) => [value, index]));
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const byUrgency = (a, b) => rank.get(a.priority) - rank.get(b.priority) || compare(a.due_at ?? "~", b.due_at ?? "~") || compare(b.id, a.id);
const byChange = (a, b) => compare(b.updated_at, a.updated_at) || compare(b.id, a.id);

function matcher({ text, assignee, priority, label, due }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (task) =>
    (!assignee || (assignee === NOBODY ? !task.assignee : task.assignee === assignee)) &&
    (!priority || task.priority === priority) &&
    (!label || task.labels.includes(label)) &&
    (!due || DUE[due](task)) &&
    words.every((word) => searchable(task).includes(word));
}

const DUE = {
  overdue: isOverdue,
  week: (task) => isOpen(task) && Boolean(task.due_at) && daysUntil(dueDay(task.due_at)) < 7,
  none: (task) => !task.due_at,
};

const texts = new WeakMap();

function searchable(task) {
  if (!texts.has(task)) texts.set(task, [task.ref, task.title, task.description, ...task.labels, task.assignee ?? ""].join("\n").toLowerCase());
  return texts.get(task);
}

/** What a new task must have so that the present filters show it. */
export function fitting() {
  const { assignee, priority, label } = filters.value;
  return { ...(assignee && assignee !== NOBODY && { assignee }), ...(priority && { priority }), ...(label && { labels: [label] }) };
}

/** Loads whatever lacks, until the function that it gives is called. */
export function keepLoaded() {
  let complete = null;
  return effect(() => {
    const items = tasks.items.value;
    if (!items) return;
    if (tasks.hasMore.value) {
      before.value = complete;
      loadAll();
    } else {
      complete = items;
      before.value = null;
    }
  });
}

/** Loads the pages that lack, one after another. */
export async function loadAll() {
  if (loading.peek()) return;
  loading.value = true;
  loadError.value = "";
  try {
    for (let had = -1; tasks.hasMore.peek() && tasks.items.peek().length > had; ) {
      had = tasks.items.peek().length;
      await tasks.more();
    }
  } catch (error) {
    loadError.value = error.message;
  }
  loading.value = false;
}
