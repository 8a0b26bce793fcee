// What every component builds on: markup (htm bound to Preact), addresses, parts that come when they are needed, how numbers and times are
// written, and the small elements (Icon, Status, Time, Menu, toasts). One module, because each one more is a request before the page can be used.
import { h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";
import { batch, computed, effect, signal, untracked, useComputed } from "./vendor/signals.js";
import { useCallback, useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";

export const html = htm.bind(h);
export { batch, computed, effect, h, render, signal, untracked };
export { useCallback, useComputed, useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState };

// --- addresses: what is shown follows from the path alone, so that every view can be linked, reloaded and gone back to ---

export const paths = {
  home: "/",
  board: "/board",
  /** @param {string} id */
  conversation: (id) => `/conversations/${encodeURIComponent(id)}`,
  /** @param {string} ref such as `OT-12` */
  task: (ref) => `/tasks/${encodeURIComponent(ref)}`,
  /** @param {string} section */
  settings: (section = "") => (section ? `/settings/${section}` : "/settings"),
};

/**
 * What is shown: `{view: "home" | "board" | "conversation" | "task" | "settings" | "unknown", name, message}`. `name` is the conversation's id, the
 * task's ref or the section of the settings; `message` the seq of the message to be shown (`#12`), or null.
 */
export const route = signal(read());

/** Shows another view. `replace` leaves no way back to the present one. */
export function go(path, { replace = false } = {}) {
  if (path === location.pathname + location.hash) return;
  history[replace ? "replaceState" : "pushState"](null, "", path);
  route.value = read();
}

/** For `onClick` of a link of the page: opens it in here, but leaves new tabs and windows to the browser. */
export function follow(event) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(event.currentTarget.getAttribute("href"));
}

/** What the view is about, for the window's title; the view says it. */
export const subject = signal("");
/** Whether a task's details are shown beside its conversation. */
export const detailsOpen = signal(false);

addEventListener("popstate", () => (route.value = read()));

function read() {
  const [first = "", second = ""] = location.pathname.split("/").slice(1).map(decoded);
  const message = /^#\d+$/.test(location.hash) ? Number(location.hash.slice(1)) : null;
  switch (first) {
    case "":
      return { view: "home", name: "", message };
    case "board":
      return { view: "board", name: "", message };
    case "settings":
      return { view: "settings", name: second, message };
    case "conversations":
      return { view: second ? "conversation" : "home", name: second, message };
    case "tasks":
      return { view: second ? "task" : "board", name: second, message };
    default:
      return { view: "unknown", name: "", message };
  }
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a lone % that somebody typed
  }
}

// --- parts that come when they are needed: a module, with its style sheet ---

const sheets = new Map();

/** Loads `/static/css/<name>.css` once. */
export function style(name) {
  if (!sheets.has(name)) sheets.set(name, load(name));
  return sheets.get(name);
}

function load(name) {
  return new Promise((done, failed) => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: `/static/css/${name}.css` });
    link.onload = () => done();
    link.onerror = () => {
      sheets.delete(name);
      link.remove();
      failed(new Error(`css/${name}.css did not load`));
    };
    document.head.append(link);
  });
}

/** Rises with each connection to the server: what could not be loaded before is tried again. */
export const reconnections = signal(0);

const parts = new Map(); // by name: what loads it

/** Loads a lazy component that will soon be shown, so that it is there at once then. */
export const preload = (name) => parts.get(name)().catch(() => {}); // then it is tried again when it is shown

/**
 * A component that loads itself when it is first shown: `lazy(() => import("./board.js"), "Board", "board")` is the export `Board`, with
 * css/board.css. Where it cannot be loaded, it says so, and tries again when one asks for it or the server is back.
 */
export function lazy(load, name, sheet) {
  let component = null;
  const fetched = () => Promise.all([load(), sheet && style(sheet)]).then(([module]) => (component = module[name]));
  parts.set(name, fetched);
  return function Lazy(props) {
    const [state, setState] = useState(component ? "ready" : "loading");
    const [error, setError] = useState("");
    const again = () => setState("loading");
    useEffect(() => {
      if (state === "loading") fetched().then(() => setState("ready"), ({ message }) => (setError(message), setState("failed")));
      if (state !== "failed") return;
      const before = reconnections.peek();
      return reconnections.subscribe((now) => now !== before && again());
    }, [state]);
    if (component) return html`<${component} ...${props} />`;
    if (state === "loading") return html`<div class="loading" role="status" aria-label="Loading"></div>`;
    return html`<div class="empty-state" role="alert">
      <p>This part of the page could not be loaded. Perhaps the server is away, or was upgraded.</p>
      <small>${error}</small>
      <button class="button" onClick=${again}>Try again</button>
      <button class="button quiet" onClick=${() => location.reload()}>Reload the page</button>
    </div>`;
  };
}

// --- how numbers and times are written ---

const UNITS = [
  ["y", 365 * 86400],
  ["mo", 30 * 86400],
  ["w", 7 * 86400],
  ["d", 86400],
  ["h", 3600],
  ["m", 60],
];
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

/** `now`, `5m`, `3h`, `2d`, `6w`; what is to come as `in 5m`. @param {string | Date} iso */
export function ago(iso) {
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? [];
  if (!unit) return "now";
  const text = Math.floor(Math.abs(seconds) / size) + unit;
  return seconds < 0 ? `in ${text}` : text;
}

/** `26 Nov 2026, 09:15`, in the reader's own zone and language. */
export const dateTime = (iso) => full.format(new Date(iso));
/** `26 Nov 2026`. */
export const date = (iso) => day.format(new Date(iso));
/** `1.4 MB`. */
export const bytes = (n) => (n < 1000 ? `${n} B` : n < 1e6 ? `${round(n / 1e3)} kB` : `${round(n / 1e6)} MB`);
/** `840`, `12k`, `1.2M`. */
export const tokens = (n) => (n < 1000 ? `${n}` : n < 1e6 ? `${round(n / 1e3)}k` : `${round(n / 1e6)}M`);

/** `$0.0042`; an unknown cost is `unknown`, never 0. @param {number | string | null} cost in US dollars */
export function money(cost) {
  if (cost == null) return "unknown";
  const amount = Number(cost);
  if (amount > 0 && amount < 0.0001) return "< $0.0001";
  return `$${amount.toFixed(amount === 0 || amount >= 1 ? 2 : 4)}`;
}

const round = (n) => (n < 10 ? Math.round(n * 10) / 10 : Math.round(n));

// --- light or dark ---

const THEME = "onethread:theme";

/** `auto` (as the system has it), `light` or `dark`; kept in this browser. */
export const theme = signal(kept(THEME) ?? "auto");

export function setTheme(value) {
  theme.value = value;
  keep(THEME, value === "auto" ? null : value);
}

effect(() => {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
});

/** What this browser keeps under a name; null where it keeps nothing. */
export function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is forbidden here
  }
}

/** The names under which it keeps something, of those that begin so. */
export function keptNames(start) {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(start));
  } catch {
    return [];
  }
}

/** Keeps a text, or with null nothing more; where storage is full or forbidden, nothing. */
export function keep(name, text) {
  try {
    if (text === null) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    // then it lasts as long as the page
  }
}

// --- small elements ---

/** Drawn by us as strokes on a grid of 20. */
const ICONS = {
  agent: "M3.8 16c0-6.5 2.7-11 6.5-11 3.3 0 5.2 2.4 5.2 5.1s-1.9 4.4-4 4.4-3.3-1.4-3.3-3.1 1.2-2.7 2.6-2.7",
  archive: "M3 4.5h14v3H3zM4.5 7.5V16h11V7.5M8 10.5h4",
  attach: "M15.5 9.5 10 15a3.7 3.7 0 0 1-5.3-5.2l6-6a2.5 2.5 0 0 1 3.5 3.5l-5.8 5.9a1.2 1.2 0 0 1-1.8-1.7L12 6.2",
  back: "M15.5 10h-11M9 5.5 4.5 10 9 14.5",
  board: "M3.5 4h3.7v12H3.5zM8.2 4h3.7v8H8.2zM12.8 4h3.7v10h-3.7z",
  chart: "M3.5 16.5h13M6 13.5V10M10 13.5V4.5M14 13.5V7.5",
  chat: "M4 4.5h12v9H9.5L6 16.5v-3H4z",
  check: "m4.5 10.5 3.5 3.5 7.5-8",
  "chevron-down": "m5.5 8 4.5 4.5L14.5 8",
  "chevron-right": "m8 5.5 4.5 4.5L8 14.5",
  clock: "M10 3.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13ZM10 6.5V10l2.5 2",
  close: "m5 5 10 10M15 5 5 15",
  code: "m6.5 6-4 4 4 4M13.5 6l4 4-4 4M11.2 4.5 8.8 15.5",
  copy: "M7.5 7.5H16V16H7.5zM4.5 12.5H4V4h8.5v.5",
  discord: "M6 5.5c2.6-.9 5.4-.9 8 0 1.6 2.5 2.4 5.3 2.2 8.5-1 .8-2 1.3-3.2 1.5l-.8-1.7c-1.4.3-3 .3-4.4 0L7 15.5c-1.2-.2-2.2-.7-3.2-1.5C3.6 10.8 4.4 8 6 5.5ZM7.8 10.2v.6M12.2 10.2v.6",
  down: "M10 4v12M5.5 11.5 10 16l4.5-4.5",
  edit: "m4 16 .8-3.2 8.7-8.7a1.3 1.3 0 0 1 1.8 0l.6.6a1.3 1.3 0 0 1 0 1.8L7.2 15.2zM12 5.6 14.4 8",
  file: "M5 3h6.5L15 6.5V17H5zM11.5 3v3.5H15",
  history: "M4 10a6 6 0 1 0 1.8-4.3L3.8 7.7M3.5 4v3.7h3.7M10 7v3.2l2.2 1.6",
  image: "M3.5 4.5h13v11h-13zM3.5 13.5l4-4 3.5 3.5 2-2 3.5 3.5M12.5 7.5v.6",
  info: "M10 3.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13ZM10 9.2v4M10 6.5v.5",
  key: "M6.5 9.5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8.7 10.3 15 4M12.5 6.5l2.5 2.5",
  keyboard: "M2.5 5.5h15v9h-15zM5.5 8.5h.5M9 8.5h.5M12.5 8.5h.5M6.5 11.8h7",
  link: "M8.5 11.5a3 3 0 0 0 4.3 0l2.4-2.4a3 3 0 0 0-4.3-4.3l-1 1M11.5 8.5a3 3 0 0 0-4.3 0l-2.4 2.4a3 3 0 0 0 4.3 4.3l1-1",
  list: "M4 5.5h12M4 10h12M4 14.5h12",
  model: "M10 3.5 16 7v6l-6 3.5L4 13V7zM4 7l6 3.5L16 7M10 10.5v6",
  more: "M4.7 10h.1M10 10h.1M15.2 10h.1",
  panel: "M3 4.5h14v11H3zM12.5 4.5v11",
  plug: "M7 3.5v4M13 3.5v4M5 7.5h10v2a5 5 0 0 1-10 0zM10 14.5v2.5",
  plus: "M10 4v12M4 10h12",
  project: "M3 5h5l1.5 2H17v8.5H3z",
  queue: "M3.5 5h9M3.5 10h13M3.5 15h6M15 3.5v3M13.5 5h3",
  retry: "M16 10a6 6 0 1 1-1.8-4.3l2 2M16.5 4v3.7h-3.7",
  search: "M9 3.8a5.2 5.2 0 1 0 0 10.4A5.2 5.2 0 0 0 9 3.8ZM12.8 12.8l3.7 3.7",
  send: "M10 16V4M5 8.8 10 4l5 4.8",
  settings: "M3.5 6h7M14 6h2.5M3.5 14H6M9.5 14h7M12.2 4.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6ZM7.8 12.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6Z",
  "sign-out": "M8.5 4H4v12h4.5M8 10h8.5M13 6.5l3.5 3.5-3.5 3.5",
  slack: "M8 3v9M12 8v9M3 8h9M8 12h9",
  stop: "M5.5 5.5h9v9h-9z",
  task: "M4 4h12v12H4zM7 10.2l2.2 2.2L13.2 8",
  terminal: "M3 4.5h14v11H3zM6 8l2.2 2L6 12M10.5 12.5H14",
  theme: "M10 3.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13ZM10 3.5v13M10 6.5h4.5M10 10h6.5M10 13.5h4.5",
  tool: "M12.5 3.8a4 4 0 0 0-3.7 5.5L3.5 14.5l2 2 5.2-5.3a4 4 0 0 0 5.5-3.7L13.8 9.8l-2-.6-.6-2z",
  trash: "M4 5.5h12M7.5 5.5v-2h5v2M5.5 5.5l.7 11h7.6l.7-11M8.5 8.5v5M11.5 8.5v5",
  user: "M10 3.5a3.2 3.2 0 1 0 0 6.4 3.2 3.2 0 0 0 0-6.4ZM3.8 16.5c.6-3 3-4.5 6.2-4.5s5.6 1.5 6.2 4.5",
  users: "M7.5 4a2.8 2.8 0 1 0 0 5.6A2.8 2.8 0 0 0 7.5 4ZM2.5 16c.4-2.7 2.4-4 5-4s4.6 1.3 5 4M13 4.3a2.8 2.8 0 0 1 0 5M14.5 12.2c1.7.4 2.8 1.7 3 3.8",
  warning: "M10 3.5 17.5 16.5h-15zM10 8v4.2M10 14.3v.1",
};

/** One of ICONS; beside text, or in a button that has a label. */
export function Icon({ name, size = 20 }) {
  return html`<svg class="icon" viewBox="0 0 20 20" width=${size} height=${size} aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
}

/** As core/models.py has them: their labels, and ○ ◐ ◉ ◎ ✕ drawn, so that they are the same in every font: strokes, and what is filled. */
const RING = "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11Z";
const STATUSES = {
  idle: ["Idle", RING],
  thinking: ["Thinking", RING, "M8 2.5a5.5 5.5 0 0 0 0 11Z"],
  executing: ["Executing", RING, "M8 5.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5Z"],
  waiting_for_user: ["Waiting", RING + "M8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4Z"],
  error: ["Error", "m3.5 3.5 9 9m0-9-9 9"],
};

/** What the agent does, and in what words. @param {{status: string, message?: string, short?: boolean}} props `short`: the sign alone */
export function Status({ status, message = "", short = false }) {
  const [label, strokes, filled] = STATUSES[status] ?? STATUSES.idle;
  const more = message !== label && message;
  return html`<span class="status" data-status=${status} title=${more ? `${label}: ${message}` : label}>
    <svg class="sign" viewBox="0 0 16 16" width="13" height="13" aria-hidden="true">
      <path d=${strokes} />${filled && html`<path class="filled" d=${filled} />`}
    </svg>
    <span class=${short ? "visually-hidden" : "words"}>${label}${!short && more && html`<span class="message"> ${message}</span>`}</span>
  </span>`;
}

/** A person or the agent, as a small round sign. @param {{name?: string}} props without a name it is the agent */
export function Avatar({ name }) {
  if (!name) return html`<span class="avatar agent" aria-hidden="true"><${Icon} name="agent" size=${16} /></span>`;
  return html`<span class="avatar" data-hue=${hue(name)} aria-hidden="true">${[...name][0].toUpperCase()}</span>`;
}

const hue = (name) => [...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;

/** Rises every half minute, so that what is told relative to now stays true. */
const halfMinutes = signal(0);
setInterval(() => halfMinutes.value++, 30000);

/** When something happened, relative to now; the full time when one points at it. @param {{at: string}} props */
export function Time({ at }) {
  void halfMinutes.value;
  const past = Math.min(Date.parse(at), Date.now()); // what happened is not to come, however slow this clock is
  return html`<time dateTime=${at} title=${dateTime(at)}>${ago(new Date(past))}</time>`;
}

/**
 * A line of a menu; what is falsy is left out.
 * @typedef {{label: string, icon?: string, danger?: boolean, checked?: boolean, href?: string, hint?: string, onSelect?: () => void}} Item
 */

let menus = 0;

/**
 * A button that opens a menu. Esc and a click elsewhere close it, arrows move in it.
 * @param {{label: string, icon?: string, class?: string, children?: any, items: () => (Item | null | false)[]}} props `items` is asked when it
 *   opens; `children` is what the button shows instead of the icon
 */
export function Menu({ label, icon = "more", items, children, class: name = "icon-button" }) {
  const [id] = useState(() => `menu-${++menus}`);
  const [open, setOpen] = useState(false);
  const button = useRef(null);
  const menu = useRef(null);
  useLayoutEffect(() => {
    if (!open) return;
    place(menu.current, button.current);
    entries(menu.current)[0]?.focus();
  }, [open]);
  const select = (item) => (event) => {
    menu.current.hidePopover();
    if (item.href) follow(event);
    item.onSelect?.();
  };
  return html`<button ref=${button} type="button" class=${name} aria-label=${label} title=${label} aria-haspopup="menu"
      aria-expanded=${open} popovertarget=${id}>
      ${children ?? html`<${Icon} name=${icon} />`}
    </button>
    <div ref=${menu} id=${id} class="menu" role="menu" aria-label=${label} popover="auto"
      onToggle=${(event) => setOpen(event.newState === "open")} onKeyDown=${moveInMenu}>
      ${open &&
      items()
        .filter(Boolean)
        .map((item) => html`<${Entry} key=${item.label} item=${item} onClick=${select(item)} />`)}
    </div>`;
}

/** The items of a menu, in their order. */
export const entries = (menu) => [...menu.querySelectorAll("[role^=menuitem]")];

/** For `onKeyDown` of a menu that is a popover: arrows, Home and End move in it, Tab leaves it. */
export function moveInMenu(event) {
  event.stopPropagation();
  const all = entries(event.currentTarget);
  const at = all.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (event.key === "Tab") event.currentTarget.hidePopover();
  if (to === undefined) return;
  event.preventDefault();
  all.at(to % all.length)?.focus();
}

function Entry({ item, onClick }) {
  const { label, icon, href, hint, checked, danger } = item;
  const about = {
    class: `menu-item${danger ? " danger" : ""}`,
    role: checked === undefined ? "menuitem" : "menuitemradio",
    "aria-checked": checked,
    tabIndex: -1,
    onClick,
  };
  const inner = html`${icon && html`<${Icon} name=${icon} />`}<span class="grow">${label}</span>${hint && html`<kbd class="kbd">${hint}</kbd>`}
    ${checked && html`<${Icon} name="check" />`}`;
  return href ? html`<a href=${href} ...${about}>${inner}</a>` : html`<button type="button" ...${about}>${inner}</button>`;
}

/** Puts a popover below what opened it, or above where there is more room. */
export function place(popover, opener) {
  const from = opener.getBoundingClientRect();
  const { width, height } = popover.getBoundingClientRect();
  const below = from.bottom + 4 + height <= innerHeight || from.top < height;
  const top = below ? Math.min(from.bottom + 4, innerHeight - height - 4) : from.top - height - 4;
  const left = from.left + width <= innerWidth - 8 ? from.left : from.right - width;
  Object.assign(popover.style, { top: `${Math.max(4, top)}px`, left: `${Math.max(8, left)}px` });
}

// --- what is said in passing ---

const toasts = signal([]);
const spoken = signal("");
let lastToast = 0;
const TOAST_MS = 6000;

/**
 * A short notice that goes away by itself; one about a failure, or with something to do, stays a little longer.
 * @param {string} text
 * @param {{kind?: "info" | "success" | "error", action?: {label: string, run: () => void}}} how
 */
export function toast(text, { kind = "info", action } = {}) {
  const id = ++lastToast;
  const end = () => (toasts.value = toasts.value.filter((each) => each.id !== id));
  toasts.value = [...toasts.value.filter((each) => each.text !== text).slice(-2), { id, text, kind, action, end }];
  setTimeout(end, action || kind === "error" ? TOAST_MS * 2 : TOAST_MS);
}

/** For `catch`: shows what went wrong, and nothing where somebody gave up by themselves. */
export const complain = (error) => error.name !== "AbortError" && toast(error.message, { kind: "error" });

/** Tells who cannot see the page what happened, once and without interrupting. */
export function announce(text) {
  spoken.value = "";
  setTimeout(() => (spoken.value = text), 50);
}

/** The toasts and the live region; shown once, by app.js. The toasts are in the top layer, so that a dialog does not hide them. */
export function Notices() {
  const shown = toasts.value;
  const place = useRef(null);
  useLayoutEffect(() => {
    if (place.current.matches(":popover-open")) place.current.hidePopover();
    if (shown.length) place.current.showPopover();
  }, [shown]);
  return html`<div class="visually-hidden" role="status" aria-live="polite" id="announcer">${spoken.value}</div>
    <div class="toasts" popover="manual" ref=${place}>
      ${shown.map(
        ({ id, text, kind, action, end }) => html`<div key=${id} class="toast" data-kind=${kind} role=${kind === "error" ? "alert" : "status"}>
          <span class="grow">${text}</span>
          ${action && html`<button type="button" class="button small" onClick=${() => (end(), action.run())}>${action.label}</button>`}
          <button type="button" class="icon-button" aria-label="Dismiss" title="Dismiss" onClick=${end}><${Icon} name="close" size=${16} /></button>
        </div>`,
      )}
    </div>`;
}
