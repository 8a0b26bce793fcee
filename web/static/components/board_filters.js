// What the board is filtered by.
import { filters, isFiltered, labels, names, noFilter, NOBODY } from "../state/board.js";
import { me } from "../state/lists.js";
import { PRIORITIES } from "../state/task_values.js";
import { html, Icon } from "../ui.js";

const DUE = [
  ["overdue", "Overdue"],
  ["week", "Due in a week"],
  ["none", "Without a date"],
];

export function Filters() {
  const chosen = filters.value;
  const choose = (name) => (event) => (filters.value = { ...filters.value, [name]: event.currentTarget.value });
  const others = names.value.filter((name) => name !== me.name);
  const onKeyDown = (event) => {
    if (event.key !== "Escape" || !chosen.text) return;
    event.stopPropagation();
    filters.value = { ...chosen, text: "" };
  };
  return html`<div class="board-filters" role="search" aria-label="Filter the tasks">
    <label class="board-search">
      <${Icon} name="search" /><span class="visually-hidden">Words in ref, title, description or labels</span>
      <input class="input" type="search" dir="auto" placeholder="Filter" value=${chosen.text} onInput=${choose("text")} onKeyDown=${onKeyDown} />
    </label>
    <${Filter} label="Assignee" any="Anyone" value=${chosen.assignee} onChange=${choose("assignee")}
      choices=${[[me.name, "Me"], [NOBODY, "Nobody"], ...others.map((name) => [name, name])]} />
    <${Filter} label="Priority" any="Any priority" value=${chosen.priority} onChange=${choose("priority")}
      choices=${PRIORITIES.map(({ value, label }) => [value, label])} />
    <${Filter} label="Label" any="Any label" value=${chosen.label} onChange=${choose("label")}
      choices=${labels.value.map((label) => [label, label])} />
    <${Filter} label="Due" any="Due any time" value=${chosen.due} onChange=${choose("due")} choices=${DUE} />
    ${isFiltered.value && html`<button class="button quiet small" onClick=${() => (filters.value = noFilter)}>Clear</button>`}
  </div>`;
}

function Filter({ label, any, value, onChange, choices }) {
  const known = !value || choices.some(([choice]) => choice === value);
  const all = known ? choices : [...choices, [value, value]]; // its last task went away
  const shown = all.find(([choice]) => choice === value)?.[1] ?? any;
  return html`<select class="choice board-filter" aria-label=${label} title=${label} value=${value} data-active=${value !== ""}
      onChange=${onChange}>
    <button type="button"><span class="ellipsis">${shown}</span><${Icon} name="chevron-down" /></button>
    <option value="" selected=${!value}>${any}</option>
    ${all.map(([choice, text]) => html`<option key=${choice} value=${choice} selected=${choice === value}>${text}</option>`)}
  </select>`;
}
