// The board: all tasks in columns by status, live from all surfaces. A card is moved with the mouse, by keys or by its menu.
import { columns, filters, isFiltered, keepLoaded, loadAll, loadError, loading, matching, noFilter, total } from "../state/board.js";
import { openTasks, tasks } from "../state/lists.js";
import { moveTask, TaskConflict } from "../state/task_edits.js";
import { isOpen, STATUSES, statusLabel } from "../state/task_values.js";
import { announce, html, Icon, keep, kept, signal, toast, useEffect, useLayoutEffect, useRef, useState } from "../ui.js";
import { Filters } from "./board_filters.js";
import { CardMenu, openCardMenu } from "./card_menu.js";
import { inWords } from "./history.js";
import { adding, cardOf, current, dragged, NewCard, over, tabStop } from "./task_card.js";
import { StatusIcon } from "./task_fields.js";

/** So many cards of a column are shown at first, and with each more; of what is finished only the newest. */
const SHOWN = { open: 60, closed: 15 };
const FOLDED = "onethread:board-folded";
const folded = signal(new Set((kept(FOLDED) ?? "cancelled").split(",")));

export function Board() {
  useEffect(() => {
    const close = openTasks();
    const stop = keepLoaded();
    return () => {
      stop();
      close();
    };
  }, []);
  return html`<section class="board" aria-labelledby="board-title">
    <header class="board-head">
      <h1 id="board-title">Board</h1>
      <${Count} />
      ${(total.value > 0 || isFiltered.value || !columns.value) && html`<${Filters} />`}
    </header>
    <${Body} />
    <${CardMenu} move=${move} />
  </section>`;
}

function Count() {
  if (!columns.value) return null;
  const all = `${total.value} ${total.value === 1 ? "task" : "tasks"}`;
  // Told to who cannot see it only where they asked for it: not with each page that comes, or each task that somebody makes.
  return html`<p class="board-count" role=${isFiltered.value && !loading.value ? "status" : undefined}>
    ${isFiltered.value ? `${matching.value} of ${all}` : all}${loading.value && html`<span class="board-loading">, loading more …</span>`}
  </p>`;
}

// --- what is below them ---

function Body() {
  if (tasks.error.value && !columns.value)
    return html`<div class="empty-state" role="alert">
      <p>The tasks could not be loaded: ${tasks.error.value}</p>
      <button class="button" onClick=${tasks.again}>Try again</button>
    </div>`;
  if (!columns.value) return html`<${Skeleton} />`;
  if (!total.value && !adding.value)
    return html`<div class="empty-state">
      <h2>No tasks yet</h2>
      <p>
        A task is a piece of work with a conversation of its own: you, your colleagues and the agent talk about it here, in Slack, in Discord or in an
        IDE.
      </p>
      <button class="button primary" onClick=${() => (adding.value = "todo")}><${Icon} name="plus" />New task</button>
    </div>`;
  return html`
    ${loadError.value &&
    html`<div class="banner" role="alert">
      Some tasks are missing: ${loadError.value} <button class="button small" onClick=${loadAll}>Try again</button>
    </div>`}
    ${isFiltered.value &&
    !matching.value &&
    html`<div class="board-nothing" role="status">
      No task is like that. <button class="button quiet small" onClick=${() => (filters.value = noFilter)}>Clear the filters</button>
    </div>`}
    <${Columns} />`;
}

function Skeleton() {
  return html`<div class="board-columns" role="status" aria-label="Loading the tasks">
    ${STATUSES.slice(0, 4).map(
      ({ value, label }, column) => html`<section class="column">
        <h2 class="column-head"><${StatusIcon} status=${value} /> ${label}</h2>
        <ul class="cards">${[0, 1, 2].slice(column % 2).map(() => html`<li class="task-card skeleton"></li>`)}</ul>
      </section>`,
    )}
  </div>`;
}

function Columns() {
  const ref = useRef(null);
  const shown = columns.value;
  const [tab, setTab] = useState(0);
  const had = cardOfFocus(); // before it may be taken out to appear elsewhere
  useLayoutEffect(() => {
    if (had && document.activeElement === document.body) focusCard(ref.current, had) || focusCard(ref.current, tabStop.peek());
  }, [shown]);
  const scrolled = (event) => setTab(Math.round((event.currentTarget.scrollLeft / event.currentTarget.scrollWidth) * shown.length));
  const show = (index) => ref.current.children[index].scrollIntoView({ inline: "start", block: "nearest", behavior: "smooth" });
  return html`<nav class="board-tabs" aria-label="Columns">
      ${shown.map(
        (column, index) => html`<button key=${column.status} aria-current=${index === tab ? "true" : undefined} onClick=${() => show(index)}>
          <${StatusIcon} status=${column.status} />${statusLabel(column.status)} <small>${column.tasks.length}</small>
        </button>`,
      )}
    </nav>
    <p id="board-keys" class="visually-hidden">
      Arrow keys go from card to card; Shift with the left or right arrow key moves the card to another column; M opens its menu.
    </p>
    <div class="board-columns" ref=${ref} onKeyDown=${onKey} onFocusIn=${focused} onScroll=${scrolled}>
      ${shown.map((column) => html`<${Column} key=${column.status} ...${column} />`)}
    </div>`;
}

function Column({ status, tasks: found }) {
  const step = isOpen({ status }) ? SHOWN.open : SHOWN.closed;
  const [limit, setLimit] = useState(step);
  const isFolded = folded.value.has(status) && adding.value !== status;
  const label = statusLabel(status);
  const drop = {
    onDragOver: (event) => {
      if (!dragged.value) return;
      event.preventDefault();
      over.value = status;
    },
    onDragLeave: (event) => !event.currentTarget.contains(event.relatedTarget) && over.value === status && (over.value = null),
    onDrop: (event) => {
      event.preventDefault();
      if (dragged.value) move(dragged.value, status);
      dragged.value = over.value = null;
    },
  };
  const name = html`<${StatusIcon} status=${status} /> ${label} <span class="column-count">${found.length}</span>`;
  const rest = found.length - limit;
  const add = `New task in ${label}`;
  return html`<section class="column" data-status=${status} data-folded=${isFolded} data-over=${over.value === status}
      aria-label=${`${label}: ${found.length}`} ...${drop}>
    <h2 class="column-head">
      ${status === "cancelled"
        ? html`<button class="column-fold" aria-expanded=${!isFolded} title=${isFolded ? "Unfold" : "Fold"} onClick=${() => fold(status)}>
            ${name}
          </button>`
        : name}
      ${!isFolded &&
      html`<button class="icon-button small" aria-label=${add} title=${add} onClick=${() => (adding.value = status)}>
        <${Icon} name="plus" />
      </button>`}
    </h2>
    ${!isFolded &&
    html`<ul class="cards" aria-label=${label}>
      ${adding.value === status && html`<${NewCard} key="new" status=${status} />`}
      ${found.slice(0, limit).map(cardOf)}
      ${rest > 0 && html`<li key="more"><${More} count=${rest} more=${() => setLimit(limit + step * 4)} auto=${isOpen({ status })} /></li>`}
      ${!found.length && adding.value !== status && html`<li key="none" class="column-empty">${dragged.value ? "Drop it here" : "Nothing here"}</li>`}
    </ul>`}
  </section>`;
}

function fold(status) {
  const next = new Set(folded.value);
  if (!next.delete(status)) next.add(status);
  folded.value = next;
  keep(FOLDED, [...next].join(","));
}

/** The rest of a column: by a button, or when one comes near its end. */
function More({ count, more, auto }) {
  const button = useRef(null);
  useEffect(() => {
    if (!auto) return;
    const watch = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && more(), { rootMargin: "400px" });
    watch.observe(button.current);
    return () => watch.disconnect();
  }, [auto, more]);
  return html`<button ref=${button} class="button quiet small column-more" onClick=${more}>Show more (${count})</button>`;
}

// --- moving ---

/** Shows it at once, and says how it went where it did not. */
async function move(task, status) {
  const seen = tasks.get(task.id) ?? task;
  const at = columns.value.find((column) => column.tasks.some((each) => each.id === task.id));
  if ((at?.status ?? seen.status) === status) return;
  const moving = moveTask(seen, status);
  announce(`${task.ref} moved to ${statusLabel(status)}.`);
  try {
    await moving;
  } catch (error) {
    const failed = `${task.ref} was not moved: ${error.message}`;
    toast(error instanceof TaskConflict ? `${error.message} ${inWords("status", error.theirs.status)}` : failed, { kind: "error" });
  }
}

const cardOfFocus = () => document.activeElement?.closest("[data-task]")?.dataset.task;

function focused(event) {
  const card = event.target.closest("[data-task]");
  if (card) current.value = card.dataset.task;
}

function focusCard(board, id) {
  const link = board.querySelector(`[data-task="${id}"] .card-title`);
  link?.focus({ preventScroll: true });
  link?.closest(".task-card").scrollIntoView({ block: "nearest", inline: "nearest" });
  return Boolean(link);
}

const AROUND = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0], Home: [0, -Infinity], End: [0, Infinity] };

function onKey(event) {
  const element = event.target.closest("[data-task]");
  if (!element || !event.target.matches(".card-title") || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = columns.value.findIndex((column) => column.tasks.some((task) => task.id === element.dataset.task));
  const task = columns.value[at]?.tasks.find((each) => each.id === element.dataset.task);
  if (!task) return;
  if (event.key === "m" || event.key === "M") openCardMenu(task, element.querySelector(".card-menu-button"));
  else if (event.key === " ") event.target.click();
  else if (event.key in AROUND) {
    const [across, along] = AROUND[event.key];
    if (event.shiftKey && across) {
      const next = STATUSES[at + across];
      if (next) move(task, next.value);
    } else focusNeighbour(event.currentTarget, element, across, along);
  } else return;
  event.preventDefault();
}

function focusNeighbour(board, element, across, along) {
  const own = [...element.parentElement.querySelectorAll("[data-task]")];
  const index = own.indexOf(element);
  let next = own[Math.max(0, Math.min(index + along, own.length - 1))];
  if (across) {
    const lists = [...board.querySelectorAll(".cards")].map((list) => [...list.querySelectorAll("[data-task]")]).filter((list) => list.length);
    const list = lists[lists.findIndex((each) => each[0] === own[0]) + across];
    next = list?.[Math.min(index, list.length - 1)];
  }
  if (next) focusCard(board, next.dataset.task);
}
