// The history of a task: who changed what, by themselves or by the agent, from what to what.
import { get } from "../api.js";
import { dueInFull, priorityLabel, statusLabel } from "../state/task_values.js";
import { Avatar, html, Time, useEffect, useState } from "../ui.js";

const PAGE = 15;

/** Read again when the task's version changes. @param {{id: string, version: number}} props */
export function History({ id, version }) {
  const [changes, setChanges] = useState(null); // the newest first
  const [hasMore, setHasMore] = useState(false);
  const [error, setError] = useState("");
  const [again, setAgain] = useState(0);
  useEffect(() => {
    const asking = new AbortController();
    read(id, "", asking.signal).then(
      (page) => {
        setError("");
        setChanges((old) => {
          const joins = old?.length && page.changes.some((change) => change.id === old[0].id);
          if (!joins) setHasMore(page.has_more);
          return joins ? merged(page.changes, old) : page.changes;
        });
      },
      (failure) => failure.name !== "AbortError" && setError(failure.message),
    );
    return () => asking.abort();
  }, [id, version, again]);
  const more = async () => {
    try {
      const page = await read(id, changes.at(-1).id);
      setChanges((old) => merged(old, page.changes));
      setHasMore(page.has_more);
    } catch (failure) {
      setError(failure.message);
    }
  };
  return html`<section class="history" aria-label="History">
    <h3>History</h3>
    ${error &&
    html`<p class="history-error" role="alert">
      ${error} <button class="button quiet small" onClick=${() => setAgain(again + 1)}>Try again</button>
    </p>`}
    ${changes
      ? html`<ol>${changes.map((change) => html`<${Change} key=${change.id} ...${change} />`)}</ol>`
      : !error && html`<p class="skeleton" role="status" aria-label="Loading the history"></p>`}
    ${hasMore && html`<button class="button quiet small" onClick=${more}>Show earlier changes</button>`}
  </section>`;
}

const read = (id, before, signal) => get(`/tasks/${id}/changes?limit=${PAGE}${before && `&before=${before}`}`, { signal });

function merged(newer, older) {
  const known = new Set(newer.map((change) => change.id));
  return [...newer, ...older.filter((change) => !known.has(change.id))];
}

function Change({ at, by, by_agent, field, before, after }) {
  return html`<li data-field=${field}>
    <${Avatar} name=${by_agent ? undefined : by} />
    <div>
      <span class="history-who" dir="auto">${by_agent ? html`<b>Agent</b> for ${by}` : html`<b>${by}</b>`}</span>${" "}
      <span class="history-what">${what(field, before, after)}</span>${" "}
      <span class="history-when"><${Time} at=${at} /></span>
    </div>
  </li>`;
}

function what(field, before, after) {
  switch (field) {
    case "created":
      return "made the task";
    case "status":
      return html`moved it from ${shown(statusLabel(before))} to ${shown(statusLabel(after))}`;
    case "priority":
      return html`changed the priority from ${shown(priorityLabel(before))} to ${shown(priorityLabel(after))}`;
    case "title":
      return html`renamed it from ${shown(before)} to ${shown(after)}`;
    case "assignee":
      if (!after) return html`took it from ${shown(before)}`;
      return before ? html`passed it from ${shown(before)} to ${shown(after)}` : html`assigned it to ${shown(after)}`;
    case "due_at":
      if (!after) return html`removed the due date ${shown(dueInFull(before))}`;
      if (!before) return html`set the due date ${shown(dueInFull(after))}`;
      return html`moved the due date from ${shown(dueInFull(before))} to ${shown(dueInFull(after))}`;
    case "labels":
      return labels(before ?? [], after ?? []);
    case "description":
      return "changed the description"; // what it said before is not kept
    default:
      return html`changed ${field}`; // a field that a newer server knows
  }
}

const shown = (text) => html`<q dir="auto">${text}</q>`;

function labels(before, after) {
  const added = after.filter((label) => !before.includes(label));
  const removed = before.filter((label) => !after.includes(label));
  const list = (names) => names.map((name, index) => html`${index > 0 && ", "}${shown(name)}`);
  if (!added.length && !removed.length) return "sorted the labels";
  return html`${added.length > 0 && html`added the label${added.length > 1 && "s"} ${list(added)}`}
    ${added.length > 0 && removed.length > 0 && " and "}
    ${removed.length > 0 && html`removed the label${removed.length > 1 && "s"} ${list(removed)}`}`;
}

/** What a field is now, as a sentence. */
export function inWords(field, value) {
  switch (field) {
    case "status":
      return `It is in “${statusLabel(value)}” now.`;
    case "priority":
      return `Its priority is “${priorityLabel(value)}” now.`;
    case "assignee":
      return value ? `It is assigned to ${value} now.` : "It is assigned to nobody now.";
    case "due_at":
      return value ? `It is due ${dueInFull(value)} now.` : "It has no due date now.";
    default:
      return value.length ? `Its ${field} are ${value.join(", ")} now.` : `It has no ${field} now.`;
  }
}
