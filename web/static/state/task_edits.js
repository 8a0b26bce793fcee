// Changes of tasks by this person. What somebody else changed meanwhile is never overwritten unseen. No markup.
import { get, patch } from "../api.js";
import { signal } from "../ui.js";
import { tasks } from "./lists.js";

const TRIES = 3;

/** Somebody else changed the same field. `theirs` is the task as the server has it. */
export class TaskConflict extends Error {
  constructor(task) {
    super(`Somebody else changed ${task.ref} meanwhile.`);
    this.theirs = task;
  }
}

const queues = new Map(); // by the task's id: the last change that is under way, as a promise of the task that comes of it

/**
 * Changes fields of a task as it was seen, behind what is under way; gives the changed task. Where only other fields were changed meanwhile, that
 * stays. Throws TaskConflict where one of these was, ApiError otherwise.
 */
export async function changeTask(seen, fields) {
  const before = queues.get(seen.id);
  const mine = before ? before.then((task) => change(newer(task, seen), fields), () => change(seen, fields)) : change(seen, fields);
  queues.set(seen.id, mine);
  try {
    return await mine;
  } finally {
    if (queues.get(seen.id) === mine) queues.delete(seen.id);
  }
}

const newer = (one, other) => (one.version > other.version ? one : other);

async function change(seen, fields) {
  let version = seen.version;
  for (let left = TRIES; ; left--) {
    try {
      return known(await patch(`/tasks/${seen.id}`, { ...fields, expected_version: version }));
    } catch (error) {
      if (error.code !== "CONFLICT" || !left) throw error;
      const theirs = known(await get(`/tasks/${seen.id}`));
      if (Object.keys(fields).some((name) => !same(theirs[name], seen[name]))) throw new TaskConflict(theirs);
      version = theirs.version;
    }
  }
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function known(task) {
  tasks.put(task);
  return task;
}

/** By the task's id the status that it is being moved to: shown before the server has said so. */
export const moves = signal(new Map());

/** Moves a task to another status; throws as `changeTask` does. */
export async function moveTask(task, status) {
  const mine = { status };
  setMove(task.id, mine);
  try {
    await changeTask(task, { status });
  } finally {
    if (moves.peek().get(task.id) === mine) setMove(task.id, null);
  }
}

function setMove(id, move) {
  const next = new Map(moves.peek());
  if (move) next.set(id, move);
  else next.delete(id);
  moves.value = next;
}
