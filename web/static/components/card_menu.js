// The menu of a card: one for the whole board, shown beside the card that it was opened on.
import { STATUSES } from "../state/task_values.js";
import { entries, go, html, Icon, moveInMenu, paths, place, signal, useEffect, useLayoutEffect, useRef } from "../ui.js";
import { copy, linkOf } from "./copy.js";
import { StatusIcon } from "./task_fields.js";

const opened = signal(null); // {task, button}, a new one each time

/** Opens it beside a button; Esc and a click elsewhere close it, and the focus goes back. */
export const openCardMenu = (task, button) => (opened.value = { task, button });

/** @param {{move: (task: object, status: string) => void}} props */
export function CardMenu({ move }) {
  const menu = useRef(null);
  const { task, button } = opened.value ?? {};
  useLayoutEffect(() => {
    if (!button) return;
    button.focus();
    menu.current.showPopover();
    place(menu.current, button);
    entries(menu.current)[0].focus();
  }, [opened.value]);
  useEffect(() => () => (opened.value = null), []);
  const after = (what) => () => {
    menu.current.hidePopover();
    what();
  };
  const act = (icon, label, what) => html`<button type="button" class="menu-item" role="menuitem" tabindex="-1" onClick=${after(what)}>
    <${Icon} name=${icon} size=${16} />${label}
  </button>`;
  const to = ({ value, label }) => html`<button key=${value} type="button" class="menu-item" role="menuitemradio" tabindex="-1"
    aria-checked=${value === task.status} onClick=${after(() => move(task, value))}>
    <${StatusIcon} status=${value} /><span class="grow">${label}</span>${value === task.status && html`<${Icon} name="check" size=${16} />`}
  </button>`;
  return html`<div ref=${menu} popover="auto" class="menu" role="menu" aria-label=${task ? `Menu of ${task.ref}` : "Menu"} onKeyDown=${moveInMenu}>
    ${task &&
    html`<p class="menu-title" role="presentation">Move to</p>
      ${STATUSES.map(to)}
      <hr />
      ${act("chat", "Open", () => go(paths.task(task.ref)))} ${act("link", "Copy link", () => copy(linkOf(task), "The link"))}
      ${act("copy", `Copy ${task.ref}`, () => copy(task.ref, task.ref))}`}
  </div>`;
}
