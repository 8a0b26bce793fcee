// A task's details beside its chat: every field can be changed here. Whoever else changes the task meanwhile is not overwritten.
import { changeTask, TaskConflict } from "../state/task_edits.js";
import { isOverdue } from "../state/task_values.js";
import { complain, dateTime, html, Icon, lazy, Menu, Time, toast, useEffect, useRef, useState } from "../ui.js";
import { erase } from "./actions.js";
import { copy, linkOf } from "./copy.js";
import { Text } from "./editable.js";
import { History, inWords } from "./history.js";
import { AssigneeField, DueField, LabelsField, PriorityField, StatusField } from "./task_fields.js";

const Markdown = lazy(() => import("../markdown.js"), "Markdown");
const MAX_TITLE = 200;
const MAX_DESCRIPTION = 10000;
const FIELDS = [
  ["status", "Status", StatusField],
  ["assignee", "Assignee", AssigneeField],
  ["priority", "Priority", PriorityField],
  ["due_at", "Due", DueField],
  ["labels", "Labels", LabelsField],
];

/** @param {{task: object, onClose: () => void}} props */
export function Details({ task: told, onClose }) {
  const [answered, setAnswered] = useState(null); // by the server to a change: it may be ahead of what was told
  const [pending, setPending] = useState({}); // fields that are being changed, shown as if they were
  const known = answered?.id === told.id && answered.version > told.version ? answered : told;
  const task = { ...known, ...pending };

  const pane = useRef(null);
  useEffect(() => {
    if (!isOver()) return;
    const opener = document.activeElement;
    pane.current.querySelector("[aria-label^=Close]").focus();
    return () => opener?.isConnected && opener.focus();
  }, []);

  /** Throws what went wrong; `seen` is the task as the person saw it. */
  const change = async (fields, seen = known) => {
    try {
      setAnswered(await changeTask(seen, fields));
    } catch (error) {
      if (error instanceof TaskConflict) setAnswered(error.theirs);
      throw error;
    }
  };
  const choose = async (field, value) => {
    const fields = { [field]: value };
    setPending((others) => ({ ...others, ...fields }));
    try {
      await change(fields);
    } catch (error) {
      if (error instanceof TaskConflict) toast(`${error.message} ${inWords(field, error.theirs[field])}`, { kind: "error" });
      else complain(error);
    }
    setPending((others) => (others[field] === value ? without(others, field) : others));
  };

  const onKeyDown = (event) => event.key === "Escape" && isOver() && !event.target.closest("select, [popover]") && onClose();
  const items = () => [
    { label: `Copy ${task.ref}`, icon: "copy", onSelect: () => copy(task.ref, task.ref) },
    { label: "Delete the task", icon: "trash", danger: true, onSelect: () => erase(conversationOf(task)).catch(complain) },
  ];
  const link = () => copy(linkOf(task), "The link");
  return html`<div ref=${pane} class="details" onKeyDown=${onKeyDown}>
    <header class="details-head">
      <h2><span class="visually-hidden">Details of </span><span class="ref">${task.ref}</span></h2>
      <span class="grow"></span>
      <button class="icon-button" aria-label="Copy the link" title="Copy the link" onClick=${link}><${Icon} name="link" size=${18} /></button>
      <${Menu} label="More for this task" items=${items} />
      <button class="icon-button" aria-label="Close the details" title="Close the details" onClick=${onClose}>
        <${Icon} name="close" size=${18} />
      </button>
    </header>
    <div class="details-body">
      <${Text} key=${`${task.id} title`} field="title" label="Title" task=${known} change=${change} required max=${MAX_TITLE}
        view=${(title) => html`<h3 class="details-title" dir="auto">${title}</h3>`} />
      <div class="details-fields">
        ${FIELDS.map(([field, label, Field]) => html`<${Row} key=${field} ...${{ field, label, Field, task, choose }} />`)}
      </div>
      <section class="details-description" aria-label="Description">
        <${Text} key=${`${task.id} description`} field="description" label="Description" task=${known} change=${change} multiline
          max=${MAX_DESCRIPTION} view=${described} />
      </section>
      <p class="details-times">Created ${dateTime(task.created_at)} · changed <${Time} at=${task.updated_at} /></p>
      <${History} key=${task.id} id=${task.id} version=${known.version} />
    </div>
  </div>`;
}

const conversationOf = (task) => ({ id: task.conversation_id, task_ref: task.ref, title: task.title });

/** Whether the details lie over the chat, instead of beside it. */
const isOver = () => matchMedia("(max-width: 1099px)").matches;

function Row({ field, label, Field, task, choose }) {
  const id = `details-${field}`;
  const late = field === "due_at" && isOverdue(task);
  return html`<label for=${id}>${label}</label>
    <div class="details-field" data-late=${late} title=${late ? "Overdue" : undefined}>
      <${Field} id=${id} value=${task[field]} onChange=${(value) => choose(field, value)} />
    </div>`;
}

function described(text) {
  if (!text) return html`<p class="details-none">Add a description …</p>`;
  return html`<div class="details-markdown" dir="auto"><${Markdown} text=${text} /></div>`;
}

function without(fields, name) {
  const { [name]: _, ...left } = fields;
  return left;
}
