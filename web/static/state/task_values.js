// What a task's fields can be, in words, and what its dates mean. No markup.

export const STATUSES = [
  { value: "todo", label: "To do" },
  { value: "in_progress", label: "In progress" },
  { value: "in_review", label: "In review" },
  { value: "done", label: "Done" },
  { value: "cancelled", label: "Cancelled" },
];
export const PRIORITIES = [
  { value: "urgent", label: "Urgent" },
  { value: "high", label: "High" },
  { value: "medium", label: "Medium" },
  { value: "low", label: "Low" },
];

/** A choice in words. */
export const labelOf = (choices, value) => choices.find((choice) => choice.value === value)?.label ?? value;
export const statusLabel = (status) => labelOf(STATUSES, status);
export const priorityLabel = (priority) => labelOf(PRIORITIES, priority);

// --- dates ---

/**
 * A date as the date field has it (`2026-12-24`), of a task's `due_at`; empty without one. What is due at midnight UTC is due on that day,
 * wherever the reader is.
 */
export function dueDay(dueAt) {
  if (!dueAt) return "";
  return isDay(dueAt) ? dueAt.slice(0, 10) : localDay(new Date(dueAt));
}

const localDay = (at) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
const isDay = (dueAt) => dueAt.length === 10 || /T00:00:00(\.0+)?(Z|\+00:00)$/.test(dueAt);
const two = (number) => String(number).padStart(2, "0");
const midday = (day) => new Date(`${day}T12:00:00`);
const today = () => localDay(new Date());
/** From today on; negative when it is over. */
export const daysUntil = (day) => Math.round((midday(day) - midday(today())) / 86_400_000);

/** Whether what is not finished should have been by now. */
export const isOverdue = (task) => isOpen(task) && Boolean(task.due_at) && isPast(task.due_at);
const isPast = (dueAt) => (isDay(dueAt) ? daysUntil(dueDay(dueAt)) < 0 : new Date(dueAt) < new Date());
export const isOpen = (task) => task.status !== "done" && task.status !== "cancelled";

/** `Today`, `Tomorrow`, `Fri, 4 Dec`, `4 Dec 2027`. */
export function dueText(dueAt) {
  const day = dueDay(dueAt);
  const days = daysUntil(day);
  if (days >= -1 && days <= 1) return ["Yesterday", "Today", "Tomorrow"][days + 1];
  const near = Math.abs(days) < 7;
  const otherYear = day.slice(0, 4) !== today().slice(0, 4);
  const how = { day: "numeric", month: "short", ...(near && { weekday: "short" }), ...(otherYear && { year: "numeric" }) };
  return midday(day).toLocaleDateString(undefined, how);
}

/** When it is due, in full. */
export function dueInFull(dueAt) {
  const date = midday(dueDay(dueAt)).toLocaleDateString(undefined, { dateStyle: "full" });
  return isDay(dueAt) ? date : `${date}, ${new Date(dueAt).toLocaleTimeString(undefined, { timeStyle: "short" })}`;
}
