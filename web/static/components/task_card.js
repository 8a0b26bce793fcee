// A task as a card on the board, and the card in which a new one is written.
import { newKey, post } from "../api.js";
import { columns, fitting } from "../state/board.js";
import { tasks } from "../state/lists.js";
import { priorityLabel, statusLabel } from "../state/task_values.js";
import {
  announce, Avatar, computed, follow, html, Icon, paths, signal, Status, useComputed, useEffect, useRef, useState,
} from "../ui.js";
import { openCardMenu } from "./card_menu.js";
import { Due, PriorityIcon } from "./task_fields.js";

const LABELS = 3; // so many are shown

export const current = signal(null); // the id of the card that the keys act on
export const dragged = signal(null); // the task that is being dragged
export const over = signal(null); // the column that it is over
export const adding = signal(null); // the column in which a task is being written

/** The one card that Tab comes to; arrows lead to the others. */
export const tabStop = computed(() => {
  const shown = columns.value ?? [];
  const stays = shown.some((column) => column.tasks.some((task) => task.id === current.value));
  return stays ? current.value : shown.find((column) => column.tasks.length)?.tasks[0].id;
});

const cards = new WeakMap(); // by task: what did not change is not rendered again

export function cardOf(task) {
  if (!cards.has(task)) cards.set(task, html`<${Card} key=${task.id} task=${task} />`);
  return cards.get(task);
}

function Card({ task }) {
  const { ref, title, priority, assignee, agent_status, agent_status_message } = task;
  const stop = useComputed(() => tabStop.value === task.id).value ? 0 : -1;
  const isDragged = useComputed(() => dragged.value?.id === task.id).value;
  const onDragStart = (event) => {
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", `${ref} ${title}`);
    dragged.value = task;
  };
  const onDragEnd = () => (dragged.value = over.value = null);
  return html`<li class="task-card" data-task=${task.id} data-dragged=${isDragged} aria-busy=${Boolean(task.moving)} draggable="true"
      onDragStart=${onDragStart} onDragEnd=${onDragEnd}>
    <div class="card-top">
      <span class="card-priority" title=${`Priority: ${priorityLabel(priority)}`}>
        <${PriorityIcon} priority=${priority} /><span class="visually-hidden">${priorityLabel(priority)}</span>
      </span>
      <span class="card-ref">${ref}</span>
      ${agent_status !== "idle" && html`<${Status} status=${agent_status} message=${agent_status_message} />`}
      ${assignee &&
      html`<span class="card-person" title=${`Assigned to ${assignee}`}>
        <${Avatar} name=${assignee} /><span class="visually-hidden">Assigned to ${assignee}</span>
      </span>`}
      <button class="icon-button small card-menu-button" tabindex=${stop} aria-label=${`Menu of ${ref}`} title="Menu" aria-haspopup="menu"
        onClick=${(event) => openCardMenu(task, event.currentTarget)}><${Icon} name="more" /></button>
    </div>
    <a class="card-title" href=${paths.task(ref)} draggable=${false} tabindex=${stop} dir="auto" aria-describedby="board-keys"
      onClick=${follow}>${title}</a>
    <${Facts} task=${task} />
  </li>`;
}

function Facts({ task }) {
  const { due_at, labels } = task;
  if (!due_at && !labels.length) return null;
  const more = labels.slice(LABELS);
  return html`<div class="card-facts">
    ${due_at && html`<${Due} task=${task} />`}
    ${labels.slice(0, LABELS).map((label) => html`<span key=${label} class="label-chip"><span class="ellipsis" dir="auto">${label}</span></span>`)}
    ${more.length > 0 && html`<span title=${more.join(", ")}>+${more.length}</span>`}
  </div>`;
}

export function NewCard({ status }) {
  const input = useRef(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const key = useRef(newKey()); // a task is made once, however often its request is sent
  useEffect(() => input.current.focus(), []);
  const close = () => (adding.value = null);
  const save = async (event) => {
    event.preventDefault();
    const title = input.current.value.trim();
    if (!title || busy) return;
    setBusy(true);
    try {
      const task = await post("/tasks", { title, status, ...fitting() }, { key: key.current });
      tasks.put(task);
      announce(`${task.ref} made.`);
      input.current.value = "";
      key.current = newKey();
      setError("");
    } catch (failure) {
      if (!failure.temporary) key.current = newKey(); // nothing was made by this one; another title may go with the next
      setError(failure.message);
    }
    setBusy(false);
    input.current?.focus();
  };
  const onKeyDown = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    close();
  };
  return html`<li class="task-card new">
    <form onSubmit=${save}>
      <input ref=${input} class="input" aria-label=${`Title of a new task in ${statusLabel(status)}`} placeholder="What is to be done?"
        maxlength="200" readonly=${busy} onKeyDown=${onKeyDown} onInput=${() => error && setError("")} />
      ${error && html`<p class="error" role="alert">${error}</p>`}
      <div class="card-new-actions">
        <button class="button primary small" disabled=${busy}>Add</button>
        <button class="button quiet small" type="button" onClick=${close}>Close</button>
      </div>
    </form>
  </li>`;
}
