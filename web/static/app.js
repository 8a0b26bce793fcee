// The page: its frame, which view stands in it, the keys that work everywhere, and what starts it all.
import { signedIn, signedOut } from "./api.js";
import { Sidebar, closeDrawer, drawer, isShown, newChat, newTask, pathOf, search, showShortcuts, step, titleOf } from "./components/sidebar.js";
import { connect, connection, nextAttempt } from "./socket.js";
import { OWNER, UNSENT, conversations, me, openConversations, unread } from "./state/lists.js";
import {
  Icon,
  Notices,
  Status,
  Time,
  announce,
  complain,
  computed,
  detailsOpen,
  effect,
  follow,
  go,
  html,
  keep,
  kept,
  keptNames,
  lazy,
  paths,
  render,
  route,
  subject,
  useEffect,
  useErrorBoundary,
  useRef,
  useState,
} from "./ui.js";

const Chat = lazy(() => import("./components/chat.js"), "Chat", "chat");
const Beside = lazy(() => import("./components/beside.js"), "Beside");
const Board = lazy(() => import("./components/board.js"), "Board", "board");
const Settings = lazy(() => import("./components/settings/settings.js"), "Settings", "settings");
const Composer = lazy(() => import("./components/composer.js"), "Composer");

// --- the frame ---

function Page() {
  return html`<div class="page">
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <${Sidebar} />
    <main id="main" class="main" tabindex="-1" inert=${drawer.value}>
      <${Topbar} /><${Connection} /><${Whole}><${View} /></${Whole}>
    </main>
    <${SignedOut} />
    <${Notices} />
  </div>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

/** On a phone only. */
function Topbar() {
  return html`<header class="topbar only-phone">
    <button id="open-drawer" class="icon-button" aria-label="Open the list" title="Conversations" aria-expanded=${drawer.value} aria-controls="sidebar"
      onClick=${() => (drawer.value = true)}><${Icon} name="list" /></button>
    ${unreadCount.value > 0 && html`<span class="count">${unreadCount.value}<span class="visually-hidden"> unread</span></span>`}
    <span class="grow clipped">${heading.value}</span>
    <button class="icon-button" aria-label="Search everywhere" title="Search everywhere" onClick=${() => search()}><${Icon} name="search" /></button>
    <a class="icon-button" href=${paths.home} aria-label="New chat" title="New chat" onClick=${follow}><${Icon} name="plus" /></a>
  </header>`;
}

/** Where a view cannot be rendered, the rest of the page stays. */
function Whole({ children }) {
  const [error, again] = useErrorBoundary((failure) => console.error(failure));
  useEffect(() => error && again(), [route.value]);
  if (!error) return children;
  return html`<div class="view empty-state" role="alert">
    <h1>This cannot be shown</h1>
    <p>Something in the page is broken. What you wrote is kept.</p>
    <small>${error.message}</small>
    <button class="button" onClick=${again}>Try again</button>
  </div>`;
}

function View() {
  const { view, name } = route.value;
  const first = useRef(true);
  useEffect(() => {
    if (first.current) return void (first.current = false);
    if (NAMES[view]) announce(NAMES[view]);
    if (document.activeElement === document.body) document.getElementById("main").focus({ preventScroll: true }); // where it was is gone
  }, [view, name]);
  switch (view) {
    case "home":
      return html`<${Home} />`;
    case "board":
      return html`<div class="view"><${Board} /></div>`;
    case "settings":
      return html`<div class="view"><${Settings} section=${name} /></div>`;
    case "conversation":
      return html`<${Talk} key=${name} topic=${`conversation:${name}`} />`;
    case "task":
      return html`<${Talk} key=${name} topic=${`task:${name}`} />`;
    default:
      return html`<div class="view empty-state">
        <h1>There is nothing here</h1>
        <p>The link may be incomplete.</p>
        <a class="button" href=${paths.home} onClick=${follow}>Go to the start</a>
      </div>`;
  }
}

function Talk({ topic }) {
  return html`<div class="split"><div class="view"><${Chat} topic=${topic} /></div><${Beside} /></div>`;
}

const WANTING = { waiting_for_user: 0, error: 1 };
const MOST_WANTING = 5;

function Home() {
  const wanting = (conversations.items.value ?? [])
    .filter((each) => each.agent_status in WANTING || unread(each))
    .sort((a, b) => (WANTING[a.agent_status] ?? 2) - (WANTING[b.agent_status] ?? 2))
    .slice(0, MOST_WANTING);
  return html`<div class="view home">
    <div class="home-body">
      <span class="brand-mark big"><${Icon} name="agent" size=${30} /></span>
      <h1>What should be done, ${me.name}?</h1>
      <p class="home-about">One thread from here to Slack, Discord and your editor. The agent answers in it, and keeps your tasks.</p>
      <${Composer} conversation_id=${null} placeholder="Ask, or say what to do" />
      ${wanting.length > 0 &&
      html`<section class="wanting" aria-label="Waiting for you">
        <h2>Waiting for you</h2>
        <ul>
          ${wanting.map(
            (each) => html`<li key=${each.id}>
              <a href=${pathOf(each)} onClick=${follow}>
                <${Status} status=${each.agent_status} short />
                ${each.task_ref && html`<span class="ref">${each.task_ref}</span>`}
                <span class="grow clipped" dir="auto">${titleOf(each)}</span>
                <span class="wanting-why">${each.agent_status in WANTING ? each.agent_status_message || "Waits for you" : "New answer"}</span>
                <${Time} at=${each.spoken_at} />
              </a>
            </li>`,
          )}
        </ul>
      </section>`}
    </div>
  </div>`;
}

// --- the window's title ---

const NAMES = { home: "New chat", board: "Board", settings: "Settings", unknown: "Nothing here" };
const unreadCount = computed(() => (conversations.items.value ?? []).filter(unread).length);
const heading = computed(() => NAMES[route.value.view] ?? (subject.value || "Conversation"));

let titled = ""; // the place whose title it is
effect(() => {
  const { view, name } = route.value;
  const listed = (conversations.items.value ?? []).find(isShown);
  // Where it is in no list that is loaded, the view itself says it.
  if (listed) subject.value = titleOf(listed);
  else if (titled !== view + name) subject.value = view === "task" ? name : "";
  titled = view + name;
});
effect(() => {
  document.title = `${unreadCount.value ? `(${unreadCount.value}) ` : ""}${heading.value} · Onethread`;
});

// --- the connection, and who is signed in ---

const PATIENCE_MS = 700; // a connection that is back so soon was never missed

function Connection() {
  const [now, setNow] = useState(0);
  const away = connection.value === "offline";
  useEffect(() => {
    if (!away) return setNow(0);
    const first = setTimeout(() => setNow(Date.now()), PATIENCE_MS);
    const each = setInterval(() => setNow((shown) => shown && Date.now()), 500);
    return () => (clearTimeout(first), clearInterval(each));
  }, [away]);
  if (!away || !now) return null;
  const seconds = Math.ceil((nextAttempt.value - now) / 1000);
  return html`<div class="banner connection">
    <${Icon} name="plug" />
    <span role="status">Not connected.</span>
    <span class="grow">${seconds > 0 ? `Next try in ${seconds} s` : "Trying …"}</span>
    <button class="button small" onClick=${connect}>Try now</button>
  </div>`;
}

const SignInAgain = lazy(() => import("./components/signed_out.js"), "SignInAgain");

function SignedOut() {
  return signedOut.value && html`<${SignInAgain} />`;
}

/** Looks whether one is signed in again, and goes on then. @returns {Promise<boolean | null>} null where the server does not say */
export async function goOn() {
  const still = await signedIn();
  if (still) {
    signedOut.value = false;
    connect();
  }
  return still;
}

// Somebody signed out or in, in another tab.
addEventListener("storage", ({ key }) => key === OWNER && (signedOut.value ? goOn() : signedIn()));

// --- keys ---

const SINGLE_KEYS = "onethread:single-keys";
export const singleKeys = () => kept(SINGLE_KEYS) !== "off";
export const setSingleKeys = (on) => keep(SINGLE_KEYS, on ? null : "off");

/** What is told by `?`; what the views do themselves is among it. */
export const SHORTCUTS = [
  [["Ctrl K", "/"], "Search everywhere"],
  [["N"], "New chat"],
  [["T"], "New task"],
  [["B"], "The board"],
  [["D"], "A task's details"],
  [["Alt ↑", "Alt ↓"], "The conversation above or below"],
  [["↑", "↓"], "Move in a list or a menu"],
  [["Enter"], "Send; Shift Enter begins a new line"],
  [["Esc"], "Stop the answer; close what is open"],
  [["?"], "This help"],
];

const KEYS = {
  "/": () => search(),
  n: newChat,
  t: newTask,
  b: () => go(paths.board),
  d: () => (detailsOpen.value = !detailsOpen.value),
  "?": showShortcuts,
};

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") act(event, () => search());
  else if (event.altKey && !command && event.key === "ArrowUp") act(event, () => step(-1));
  else if (event.altKey && !command && event.key === "ArrowDown") act(event, () => step(1));
  else if (event.key === "Escape" && drawer.value) act(event, closeDrawer);
  else if (!command && !event.altKey && singleKeys() && !writing(event.target) && KEYS[event.key]) act(event, KEYS[event.key]);
});

function act(event, run) {
  event.preventDefault();
  run();
}

const writing = (element) => element.matches("input, textarea, select, [contenteditable]") || element.closest("[popover], [role=menu]");

// --- the start ---

detailsOpen.value = kept("onethread:details") !== "closed" && matchMedia("(min-width: 1100px)").matches;
effect(() => {
  if (matchMedia("(min-width: 1100px)").matches) keep("onethread:details", detailsOpen.value ? null : "closed");
});
addEventListener("unhandledrejection", (event) => event.reason?.status !== undefined && (event.preventDefault(), complain(event.reason)));

render(html`<${Page} />`, document.getElementById("app"));
openConversations();
connect();
if (keptNames(UNSENT).length) import("./state/outbox.js").catch(() => {}); // what was sent before a reload, and not received, goes out now
