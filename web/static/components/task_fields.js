// The fields of a task, each an editor `{value, onChange, disabled}` with values as the HTTP API has them, and how they are shown. Used by the
// details, the board and the dialog for a new task. Whoever imports this module has css/task_fields.css, too.
import { get } from "../api.js";
import { me, tasks } from "../state/lists.js";
import { PRIORITIES, STATUSES, dueDay, dueInFull, dueText, isOverdue, labelOf } from "../state/task_values.js";
import { Avatar, html, Icon, place, style, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../ui.js";

await style("task_fields");

const MAX_LABELS = 20;
const MAX_LABEL = 50;

// --- how a field is shown ---

/** A circle that fills as the task goes on. */
export function StatusIcon({ status }) {
  return html`<svg class="task-status" data-task-status=${status} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
    <circle cx="8" cy="8" r="6" />
    ${STATUS_MARKS[status]}
  </svg>`;
}

const STATUS_MARKS = {
  in_progress: html`<path class="fill" d="M8 4.5a3.5 3.5 0 0 1 0 7z" />`,
  in_review: html`<path class="fill" d="M8 4.5a3.5 3.5 0 1 1-3.5 3.5H8z" />`,
  done: html`<path class="mark" d="m5.3 8.2 1.9 1.9 3.6-4" />`,
  cancelled: html`<path class="mark" d="m5.9 5.9 4.2 4.2m0-4.2-4.2 4.2" />`,
};

/** Bars, as many as it is urgent; the most urgent is a filled mark. */
export function PriorityIcon({ priority }) {
  const bars = { low: 1, medium: 2, high: 3 }[priority];
  return html`<svg class="task-priority" data-priority=${priority} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
    ${bars
      ? [0, 1, 2].map(
          (bar) => html`<rect class=${bar < bars ? "on" : ""} x=${2 + bar * 4.5} y=${10 - bar * 3.5} width="3" height=${4 + bar * 3.5} rx="1" />`,
        )
      : html`<rect class="on" x="1.5" y="1.5" width="13" height="13" rx="3.5" /><path class="mark" d="M8 4.6v4M8 11.2v.1" />`}
  </svg>`;
}

/** When it is due, marked where that is over. */
export function Due({ task }) {
  const late = isOverdue(task);
  const about = `${late ? "Overdue: was due" : "Due"} ${dueInFull(task.due_at)}`;
  return html`<time class="due" data-late=${late} datetime=${task.due_at} title=${about}>
    <span class="visually-hidden">${late ? "Overdue: " : "Due "}</span>${dueText(task.due_at)}
  </time>`;
}

// --- editors ---

/** One of a few: a `select` that shows an icon for each choice where the browser can. */
function Choice({ value, onChange, disabled, id, label, choices, icon }) {
  return html`<select class="choice" id=${id} aria-label=${id ? undefined : label} title=${label} value=${value} disabled=${disabled}
    onChange=${(event) => onChange(event.currentTarget.value)}>
    <button type="button"><span class="choice-shown">${icon(value)}${labelOf(choices, value)}</span></button>
    ${choices.map((choice) => html`<option value=${choice.value} selected=${choice.value === value}>${icon(choice.value)}${choice.label}</option>`)}
  </select>`;
}

/** With an `id` for its label, or without one with a label of its own; so have all below. */
export function StatusField(props) {
  return html`<${Choice} label="Status" ...${props} choices=${STATUSES} icon=${(status) => html`<${StatusIcon} status=${status} />`} />`;
}

export function PriorityField(props) {
  return html`<${Choice} label="Priority" ...${props} choices=${PRIORITIES} icon=${(priority) => html`<${PriorityIcon} priority=${priority} />`} />`;
}

/** `value`: a user's name, or null. */
export function AssigneeField({ value, onChange, disabled, id }) {
  const list = useMemo(() => `people-${++made}`, []);
  const [open, setOpen] = useState(false);
  const button = useRef(null);
  const popover = useRef(null);
  const settle = () => place(popover.current, button.current);
  const choose = (name) => {
    popover.current.hidePopover();
    button.current.focus();
    if (name !== value) onChange(name);
  };
  return html`<button ref=${button} type="button" class="choice" id=${id} popovertarget=${list} disabled=${disabled} aria-haspopup="dialog"
      aria-label=${`Assignee: ${value ?? "nobody"}`} title="Assignee">
      <span class="choice-shown">${value ? html`<${Avatar} name=${value} />` : NOBODY}<span class="ellipsis">${value ?? "Nobody"}</span></span>
    </button>
    <div ref=${popover} id=${list} popover="auto" class="menu people" role="dialog" aria-label="Assignee"
      onToggle=${(event) => setOpen(event.newState === "open")}>
      ${open && html`<${People} value=${value} choose=${choose} settle=${settle} list=${`${list}-list`} />`}
    </div>`;
}

let made = 0;
const NOBODY = html`<span class="avatar nobody" aria-hidden="true"></span>`;

function People({ value, choose, settle, list }) {
  const [query, setQuery] = useState("");
  const [found, setFound] = useState(null);
  const [error, setError] = useState("");
  const [at, setAt] = useState(0);
  const input = useRef(null);
  useEffect(() => input.current.focus(), []);
  useLayoutEffect(settle, [found === null]); // not with each letter: it would jump
  useEffect(() => {
    const asking = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setFound((await get(`/users?limit=20&query=${encodeURIComponent(query.trim())}`, { signal: asking.signal })).users.map((user) => user.name));
        setError("");
      } catch (failure) {
        if (failure.name !== "AbortError") setError(failure.message);
      }
    }, query ? 150 : 0);
    return () => {
      clearTimeout(timer);
      asking.abort();
    };
  }, [query]);

  const others = (found ?? []).filter((name) => query || name !== me.name);
  const names = query ? others : [null, me.name, ...others];
  const key = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) setAt((at + step + names.length) % (names.length || 1));
    else if (event.key === "Enter" && names.length) choose(names[at]);
    else return;
    event.preventDefault();
  };
  return html`<input ref=${input} class="input" type="search" placeholder="Find somebody" aria-label="Find somebody" role="combobox"
      aria-expanded="true"
      aria-controls=${list} aria-activedescendant=${names.length ? `${list}-${at}` : undefined} value=${query} onKeyDown=${key}
      onInput=${(event) => {
        setQuery(event.currentTarget.value);
        setAt(0);
      }} />
    <ul role="listbox" id=${list} aria-label="People">
      ${names.map(
        (name, index) => html`<li key=${name ?? ""} id=${`${list}-${index}`} role="option" class="menu-item" aria-selected=${name === value}
          data-at=${index === at} onPointerMove=${() => setAt(index)} onClick=${() => choose(name)}>
          ${name ? html`<${Avatar} name=${name} />` : NOBODY}<span class="ellipsis">${name ?? "Nobody"}</span>
          ${name === me.name && html`<small>you</small>`}
        </li>`,
      )}
    </ul>
    ${error && html`<p class="people-note" role="alert">${error}</p>`}
    ${!error && found && !names.length && html`<p class="people-note">Nobody is called that.</p>`}`;
}

/** `value`: a task's `due_at`, or null; told is a date or null. */
export function DueField({ value, onChange, disabled, id }) {
  const day = dueDay(value);
  const [typed, setTyped] = useState(null); // while it is being typed: each digit makes another date
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const take = (next) => {
    clearTimeout(timer.current);
    setTyped(null);
    if (next !== null && next !== day) onChange(next || null);
  };
  const change = (event) => {
    const next = event.currentTarget.value;
    clearTimeout(timer.current);
    setTyped(next);
    if (next >= "1000") timer.current = setTimeout(take, 700, next);
  };
  const leave = () => take(typed !== null && (typed >= "1000" || !typed) ? typed : null);
  const key = (event) => {
    if (event.key !== "Enter" || event.isComposing || typed === null) return;
    event.preventDefault(); // a form would be sent without it
    leave();
  };
  return html`<span class="due-field">
    <input class="input" type="date" id=${id} aria-label=${id ? undefined : "Due"} min="1000-01-01" max="9999-12-31"
      value=${typed ?? day} data-empty=${!(typed ?? day)} disabled=${disabled} onChange=${change} onBlur=${leave} onKeyDown=${key} />
    ${value &&
    !disabled &&
    html`<button type="button" class="icon-button small" aria-label="Remove the due date" title="Remove the due date" onClick=${() => take("")}>
      ${CROSS}
    </button>`}
  </span>`;
}

const CROSS = html`<${Icon} name="close" size=${14} />`;

/** `value`: a list of texts. */
export function LabelsField({ value, onChange, disabled, id }) {
  const list = useMemo(() => `labels-${++made}`, []);
  const [typed, setTyped] = useState("");
  const input = useRef(null);
  const known = tasks.items.value ?? [];
  const others = useMemo(() => [...new Set(known.flatMap((task) => task.labels))].filter((label) => !value.includes(label)).sort(), [known, value]);
  const add = () => {
    const words = typed.split(",").map((word) => word.trim().slice(0, MAX_LABEL));
    const added = words.filter((word, index) => word && !value.includes(word) && words.indexOf(word) === index);
    setTyped("");
    if (added.length) onChange([...value, ...added].slice(0, MAX_LABELS));
  };
  const drop = (label) => {
    onChange(value.filter((each) => each !== label));
    input.current?.focus();
  };
  const key = (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      add();
    } else if (event.key === "Backspace" && !typed && value.length) drop(value.at(-1));
    else if (event.key === "Escape" && typed) {
      event.stopPropagation();
      event.preventDefault();
      setTyped("");
    }
  };
  return html`<div class="labels-field" onClick=${(event) => event.target === event.currentTarget && input.current?.focus()}>
    ${value.map(
      (label) => html`<span key=${label} class="label-chip">
        <span class="ellipsis" dir="auto">${label}</span>
        ${!disabled &&
        html`<button type="button" aria-label=${`Remove the label ${label}`} title="Remove" onClick=${() => drop(label)}>${CROSS}</button>`}
      </span>`,
    )}
    ${!disabled && value.length < MAX_LABELS &&
    html`<input ref=${input} id=${id} list=${list} dir="auto" aria-label=${id ? undefined : "Add a label"} placeholder=${value.length ? "Add" : "Add a label"}
        value=${typed}
        maxlength="200" autocomplete="off" onInput=${(event) => setTyped(event.currentTarget.value)} onKeyDown=${key} onBlur=${add} />
      <datalist id=${list}>${others.slice(0, 100).map((label) => html`<option value=${label} />`)}</datalist>`}
  </div>`;
}
