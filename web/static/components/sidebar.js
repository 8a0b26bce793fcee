// The sidebar: the conversations, each a knot on the thread with what its agent does; what one can make, find and do with them; who is signed in.
// On a phone it is a drawer.
import { get } from "../api.js";
import { conversations, leave, me, unread } from "../state/lists.js";
import {
  Avatar,
  Icon,
  Menu,
  Status,
  Time,
  complain,
  computed,
  follow,
  go,
  html,
  paths,
  route,
  setTheme,
  signal,
  theme,
  toast,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
} from "../ui.js";

/** Whether the drawer is open, on a phone. */
export const drawer = signal(false);

const TABS = {
  all: ["All", () => true, "No conversations yet. Write the first message, or make a task."],
  tasks: ["Tasks", (each) => each.task_ref, "No tasks here. Make one with New task."],
  chats: ["Chats", (each) => !each.task_ref, "No chats here. Begin one with New chat."],
  unread: ["Unread", (each) => unread(each), "Nothing is unread."],
};
const tab = signal("all");
const words = signal("");
const archived = signal(null); // {items, total, error} while the archive is shown
const unreads = computed(() => (conversations.items.value ?? []).filter(unread).length);

/** What the list shows now; null until it came. */
const shown = computed(() => {
  const items = archived.value ? archived.value.items : conversations.items.value;
  const [, wanted] = archived.value ? TABS.all : TABS[tab.value];
  const sought = words.value.trim().toLowerCase();
  return items && items.filter((each) => wanted(each) && `${each.task_ref ?? ""} ${titleOf(each)}`.toLowerCase().includes(sought));
});

export const titleOf = (conversation) => conversation.title || "New chat";
export const pathOf = ({ id, task_ref }) => (task_ref ? paths.task(task_ref) : paths.conversation(id));
export function isShown({ id, task_ref }) {
  const { view, name } = route.value;
  return view === "task" ? name.toUpperCase() === task_ref : view === "conversation" && name === id;
}

export const search = (query = "") => import("./search.js").then((module) => module.search(query), complain);
export const newTask = () => import("./new_task.js").then((module) => module.newTask(), complain);
export const showShortcuts = () => import("./shortcuts.js").then((module) => module.showShortcuts(), complain);

export function newChat() {
  go(paths.home);
  setTimeout(() => document.querySelector("#main textarea")?.focus());
}

/** Opens the conversation above or below the one that is shown. */
export function step(by) {
  const rows = shown.value ?? [];
  const at = rows.findIndex(isShown);
  const next = rows[at < 0 ? 0 : at + by];
  if (next) go(pathOf(next));
}

export function Sidebar() {
  const nav = useRef(null);
  useEffect(() => void (drawer.value = false), [route.value]);
  useLayoutEffect(() => {
    if (drawer.value) nav.current.querySelector(".close-drawer").focus(); // not the filter: a keyboard would cover the list
  }, [drawer.value]);
  return html`<nav ref=${nav} id="sidebar" class="sidebar" data-open=${drawer.value} aria-label="Conversations">
      <header class="sidebar-head">
        <a class="brand" href=${paths.home} onClick=${follow}><span class="brand-mark"><${Icon} name="agent" /></span>Onethread</a>
        <button class="icon-button" aria-label="Search everywhere" title="Search everywhere (Ctrl K)" onClick=${() => search()}>
          <${Icon} name="search" />
        </button>
        <button class="icon-button only-phone close-drawer" aria-label="Close the list" title="Close" onClick=${closeDrawer}>
          <${Icon} name="close" />
        </button>
      </header>
      <div class="sidebar-make">
        <a class="button primary" href=${paths.home} onClick=${follow}><${Icon} name="plus" size=${18} />New chat</a>
        <button class="button" onClick=${newTask}><${Icon} name="task" size=${18} />New task</button>
      </div>
      <a class="sidebar-link" href=${paths.board} aria-current=${route.value.view === "board" ? "page" : undefined} onClick=${follow}>
        <${Icon} name="board" />Board
      </a>
      <${Filters} />
      <${List} />
      <footer class="sidebar-foot"><${Person} /></footer>
    </nav>
    <div class="scrim" hidden=${!drawer.value} onClick=${closeDrawer}></div>`;
}

export function closeDrawer() {
  drawer.value = false;
  requestAnimationFrame(() => document.getElementById("open-drawer").focus()); // until then it is inert
}

function Filters() {
  const onKeyDown = (event) => {
    if (event.key === "Enter") search(words.value);
    else if (event.key === "Escape" && words.value) words.value = "";
    else if (event.key === "ArrowDown") document.querySelector(".thread-list .row")?.focus();
    else return;
    event.stopPropagation();
  };
  return html`<div class="sidebar-filters">
    <input class="input filter" type="search" dir="auto" placeholder="Filter" aria-label="Filter the list" value=${words.value} maxlength="200" autocomplete="off"
      onInput=${(event) => (words.value = event.currentTarget.value)} onKeyDown=${onKeyDown} />
    <div class="tabs" role="group" aria-label="Which conversations">
      ${Object.entries(TABS).map(
        ([name, [label]]) => html`<button key=${name} class="tab" aria-pressed=${!archived.value && tab.value === name} onClick=${() => choose(name)}>
          ${label}${name === "unread" && unreads.value > 0 && html`<span class="count">${unreads.value}</span>`}
        </button>`,
      )}
      <button class="tab icon-tab" aria-pressed=${!!archived.value} aria-label="Archived" title="Archived" onClick=${showArchived}>
        <${Icon} name="archive" size=${16} />
      </button>
    </div>
  </div>`;
}

function choose(name) {
  tab.value = name;
  archived.value = null;
}

/** The archive is not followed live: it is read when it is opened. */
async function showArchived() {
  if (archived.value) return choose(tab.value);
  archived.value = { items: null, total: 0, error: "" };
  await moreArchived();
}

async function moreArchived() {
  const known = archived.value?.items ?? [];
  try {
    const page = await get(`/conversations?archived=true&limit=50&offset=${known.length}`);
    if (archived.value) archived.value = { items: [...known, ...page.conversations], total: page.total, error: "" };
  } catch (error) {
    if (archived.value) archived.value = { ...archived.value, error: error.message };
  }
}

/** Takes out what was brought back or removed. */
export const dropArchived = ({ id }) => {
  const now = archived.value;
  if (now?.items) archived.value = { ...now, items: now.items.filter((each) => each.id !== id), total: now.total - 1 };
};

function List() {
  const items = shown.value;
  const error = archived.value ? archived.value.error : conversations.error.value;
  const hasMore = archived.value ? (archived.value.items?.length ?? 0) < archived.value.total : conversations.hasMore.value;
  const [at, setAt] = useState(null); // the row that Tab comes to
  const list = useRef(null);
  const current = items?.find(isShown)?.id;
  useLayoutEffect(() => list.current?.querySelector("li:has([aria-current])")?.scrollIntoView({ block: "nearest" }), [current]);
  if (error && !items) {
    return html`<div class="thread-list empty-state" role="alert">
      <p>${error}</p>
      <button class="button" onClick=${archived.value ? moreArchived : conversations.again}>Try again</button>
    </div>`;
  }
  if (!items) return html`<${Skeletons} />`;
  const reached = items.find((each) => each.id === at) ?? items.find(isShown) ?? items[0];
  const onKeyDown = (event) => {
    const rows = [...event.currentTarget.querySelectorAll(".row")];
    const from = rows.findIndex((row) => row.parentElement.contains(document.activeElement));
    const to = { ArrowDown: from + 1, ArrowUp: from - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined || event.altKey || !rows[to]) return;
    event.preventDefault();
    setAt(rows[to].parentElement.dataset.id);
    rows[to].focus();
  };
  return html`<div ref=${list} class="thread-list" onKeyDown=${onKeyDown}>
    ${archived.value &&
    html`<p class="list-note">
      <span class="grow">Archived</span><button class="button small quiet" onClick=${() => choose("all")}>Back to all</button>
    </p>`}
    ${items.length > 0 && html`<ul>${items.map((each) => row(each, isShown(each), each === reached))}</ul>`}
    ${hasMore && html`<${More} key=${items.length} byItself=${!words.value && (archived.value || tab.value === "all")} />`}
    ${words.value.trim() &&
    html`<button class="button quiet everywhere" onClick=${() => search(words.value)}>
      <${Icon} name="search" size=${18} /><span class="clipped">Search everywhere for “${words.value.trim()}”</span>
    </button>`}
    ${!items.length && !hasMore && html`<${Empty} />`}
  </div>`;
}

function Empty() {
  const text = words.value.trim() ? "Nothing in this list has these words." : archived.value ? "Nothing is archived." : TABS[tab.value][2];
  return html`<div class="empty-state"><p>${text}</p></div>`;
}

function Skeletons() {
  return html`<div class="thread-list" role="status" aria-label="Loading the conversations">
    ${[70, 45, 60, 80, 50].map(
      (width) => html`<div key=${width} class="skeleton-row">
        <span class="skeleton" style=${{ width: `${width}%` }}></span><span class="skeleton" style=${{ width: `${width / 2}%` }}></span>
      </div>`,
    )}
  </div>`;
}

/** The next page: by itself once it is scrolled to, or when somebody asks for it. */
function More({ byItself }) {
  const end = useRef(null);
  const [busy, setBusy] = useState(false);
  const load = async () => {
    setBusy(true);
    await (archived.value ? moreArchived() : conversations.more().catch(complain));
    setBusy(false);
  };
  useEffect(() => {
    if (!byItself) return;
    const watch = new IntersectionObserver(([entry]) => entry.isIntersecting && (watch.disconnect(), load()), { rootMargin: "200px" });
    watch.observe(end.current);
    return () => watch.disconnect();
  }, [byItself]);
  return html`<button ref=${end} class="button quiet small more" disabled=${busy} onClick=${load}>${busy ? "Loading …" : "Show older ones"}</button>`;
}

const rows = new WeakMap(); // by conversation: what did not change is not rendered again

function row(conversation, current, reached) {
  const about = `${current} ${reached} ${unread(conversation)}`;
  const known = rows.get(conversation);
  if (known?.about === about) return known.vnode;
  const vnode = html`<${Row} key=${conversation.id} conversation=${conversation} current=${current} reached=${reached} />`;
  rows.set(conversation, { about, vnode });
  return vnode;
}

function Row({ conversation, current, reached }) {
  const { id, task_ref, agent_status: status, agent_status_message: message, message_count: count } = conversation;
  const idle = status === "idle";
  return html`<li data-id=${id}>
    <a class="row" href=${pathOf(conversation)} data-unread=${unread(conversation)} aria-current=${current ? "page" : undefined}
      tabindex=${reached ? 0 : -1} onClick=${follow}>
      <${Status} status=${status} message=${message} short />
      <span class="row-title" dir="auto">${titleOf(conversation)}</span>
      <span class="row-when"><${Time} at=${conversation.spoken_at ?? conversation.updated_at} /></span>
      <span class="row-about">
        ${task_ref && html`<span class="ref">${task_ref}</span>`}
        <span class="clipped" data-status=${idle ? undefined : status} dir="auto">${idle ? counted(count) : message || LABELS[status]}</span>
        ${unread(conversation) && html`<span class="unread-dot"><span class="visually-hidden">Unread</span></span>`}
      </span>
    </a>
    <${Menu} class="icon-button row-menu" label=${`What to do with ${titleOf(conversation)}`} items=${() => itemsFor(conversation)} />
  </li>`;
}

const LABELS = { thinking: "Thinking", executing: "Executing", waiting_for_user: "Waits for you", error: "Failed" };
const counted = (count) => (count === 1 ? "1 message" : count ? `${count} messages` : "No messages");

/** The menu of a conversation, here and in its own header. @returns {import("../ui.js").Item[]} */
export function itemsFor(conversation) {
  const act = (name) => () => import("./actions.js").then((module) => module[name](conversation)).catch(complain);
  const away = conversation.archived_at;
  return [
    { label: "Rename", icon: "edit", onSelect: act("rename") },
    unread(conversation) && { label: "Mark as read", icon: "check", onSelect: act("read") },
    { label: "Copy link", icon: "link", onSelect: act("copyLink") },
    { label: away ? "Bring back" : "Archive", icon: "archive", onSelect: act(away ? "unarchive" : "archive") },
    { label: conversation.task_ref ? `Delete ${conversation.task_ref}` : "Delete", icon: "trash", danger: true, onSelect: act("erase") },
  ];
}

function Person() {
  const items = () => [
    { label: "Settings", icon: "settings", href: paths.settings() },
    { label: "Keyboard shortcuts", icon: "keyboard", hint: "?", onSelect: showShortcuts },
    ...[
      ["auto", "Light or dark as the system"],
      ["light", "Light"],
      ["dark", "Dark"],
    ].map(([value, label]) => ({ label, icon: "theme", checked: theme.value === value, onSelect: () => setTheme(value) })),
    { label: "Sign out", icon: "sign-out", onSelect: signOut },
  ];
  return html`<${Menu} class="button quiet person" label=${`${me.name}: settings and signing out`} items=${items}>
    <${Avatar} name=${me.name} /><span class="clipped grow">${me.name}</span><${Icon} name="settings" size=${18} />
  </${Menu}>`;
}

export async function signOut() {
  const answer = await fetch("/logout", { method: "POST" }).catch(() => null);
  if (answer?.ok) leave();
  else toast("The server cannot be reached, so you are still signed in. Try again in a moment.", { kind: "error" });
}
