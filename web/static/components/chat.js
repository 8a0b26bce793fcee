// A conversation as it is shown: its title and what may be done with all of it, the thread, and where one writes.
import { busy, open, opened, posted, reopen, stop, usage } from "../state/conversation.js";
import { onPosted, outbox } from "../state/outbox.js";
import { Icon, Menu, Status, complain, detailsOpen, follow, html, money, paths, tokens, useEffect } from "../ui.js";
import "./attachments.js"; // so that files can be chosen without a connection, too
import { Composer } from "./composer.js";
import { ORIGINS } from "./message.js";
import { itemsFor } from "./sidebar.js";
import { Thread } from "./thread.js";
import { Unsent } from "./unsent.js";

/** @param {{topic: string}} props `conversation:<id>` or `task:<ref>` */
export function Chat({ topic }) {
  useEffect(() => open(topic), [topic]);
  useEffect(() => onPosted(posted), []);
  const { state = "loading", detail, conversation, task } = opened.value?.topic === topic ? opened.value : {};
  switch (state) {
    case "missing":
      return html`<${Absent} title="There is no such conversation" text="It was deleted, its address is wrong, or it is not yours to see." />`;
    case "deleted":
      return html`<${Absent} title=${task ? `${task.ref} was deleted` : "This conversation was deleted"} text="What was said in it is gone." />`;
    case "failed":
      return html`<div class="empty-state" role="alert">
        <${Icon} name="warning" />
        <h2>The conversation could not be loaded</h2>
        <p>${detail}</p>
        <button class="button" onClick=${reopen}>Try again</button>
      </div>`;
  }
  const ready = state === "ready";
  const id = conversation?.id ?? topic.slice(topic.indexOf(":") + 1);
  const begun = ready ? [] : outbox.value.filter((entry) => entry.conversation_id === id);
  return html`<section class="chat" aria-label=${conversation?.title || "Conversation"} aria-busy=${!ready}>
    <${Head} conversation=${conversation} task=${task} />
    ${ready ? html`<${Thread} />` : begun.length ? html`<${Beginning} entries=${begun} />` : html`<${Skeleton} />`}
    ${(ready || begun.length > 0) &&
    html`<div class="chat-writing"><${Composer} conversation_id=${id} model=${conversation?.model} busy=${busy.value} onStop=${stop} /></div>`}
  </section>`;
}

function Head({ conversation, task }) {
  if (!conversation) return html`<header class="chat-head"><h1><span class="skeleton title"></span></h1></header>`;
  const asks = busy.value?.status === "waiting"; // below, in better words
  return html`<header class="chat-head">
    ${conversation.task_ref && html`<a class="ref" href=${paths.task(conversation.task_ref)} onClick=${follow}>${conversation.task_ref}</a>`}
    <h1 dir="auto" title=${conversation.title}>${conversation.title || "New chat"}</h1>
    ${conversation.archived_at && html`<span class="badge">Archived</span>`}
    <${Status} status=${conversation.agent_status} message=${asks ? "" : conversation.agent_status_message} />
    <span class="grow"></span>
    <${Followed} conversation=${conversation} />
    <${Total} />
    ${task &&
    html`<button
      class="icon-button"
      aria-label="Details of the task"
      title="Details of the task"
      aria-pressed=${detailsOpen.value}
      onClick=${() => (detailsOpen.value = !detailsOpen.value)}
    ><${Icon} name="panel" /></button>`}
    <${Menu} label="More" items=${() => itemsFor(conversation)} />
  </header>`;
}

/** `Slack`, by a surface's name. */
export const onPlatform = (surface) => ORIGINS[surface]?.[0] ?? surface;

/** `#ops on Slack`; what is not open to everybody keeps its name there. As core/wording.py has it. */
export const placeOf = ({ label, kind, surface }) => `${(kind === "open" && label) || (KINDS[kind] ?? "a channel")} on ${onPlatform(surface)}`;

const KINDS = { __proto__: null, private: "a private channel", direct: "a direct message" };

/** Where else it is followed, and the way to change that. */
function Followed({ conversation }) {
  if (!conversation.bindings) return null; // not told yet
  const of = (state) => conversation.bindings.filter((each) => each.state === state);
  const shown = STANDS.map(([state, words]) => ({ state, words, places: of(state) })).filter(({ places }) => places.length);
  const show = () => import("./following.js").then(({ showFollowing }) => showFollowing(conversation)).catch(complain);
  if (!shown.length) {
    const label = "Follow in Slack or Discord";
    return html`<button class="icon-button" aria-label=${label} title=${label} onClick=${show}><${Elsewhere} /></button>`;
  }
  const where = (each) => `${each.mode === "watch" ? "read-only " : ""}in ${placeOf(each)}`;
  const all = shown.map(({ words, places }) => `${words} ${[...new Set(places.map(where))].join(", ")}`);
  const [{ words, places }] = shown;
  const worst = shown.at(-1).state;
  const surfaces = [...new Set(shown.flatMap((each) => each.places.map(({ surface }) => surface)))];
  return html`<button class="followed" data-state=${worst} title=${all.join("\n")} onClick=${show}>
    ${surfaces.map((each) => html`<${Icon} key=${each} name=${ORIGINS[each]?.[1] ?? "chat"} size=${16} />`)}
    <span class="words">${words} in <bdi>${placeOf(places[0])}</bdi></span>
    ${places.length > 1 && html`<span>+${places.length - 1}</span>`}
    ${worst === "ended" && html`<${Icon} name="warning" size=${16} />`}
  </button>`;
}

/** By a binding's state, from the best to the worst. */
const STANDS = [["live", "also"], ["pending", "asked for"], ["ended", "not shown"]];

/** Two that speak of the same. */
function Elsewhere() {
  const path = "M3.5 3.5h9V10H8l-2.5 2.3V10h-2zM10 13h2.5l2.5 2.3V13h1.5V6.8H15";
  return html`<svg class="icon" viewBox="0 0 20 20" width="20" height="20" aria-hidden="true"><path d=${path} /></svg>`;
}

/** What the whole conversation cost so far. */
function Total() {
  const total = usage.value?.total;
  if (!total || !(total.tokens_in + total.tokens_out)) return null;
  const [into, cached, out] = [total.tokens_in, total.tokens_cached, total.tokens_out].map((count) => count.toLocaleString("en"));
  const about = `Tokens in: ${into} (${cached} cached), out: ${out}`;
  const cost = total.cost == null ? "cost unknown" : money(total.cost);
  return html`<span class="chat-total" title=${about}>
    <span class="visually-hidden">So far: </span>${total.estimated ? "≈" : ""}${tokens(total.tokens_in + total.tokens_out)} tokens · ${cost}
  </span>`;
}

function Absent({ title, text }) {
  return html`<div class="empty-state">
    <${Icon} name="chat" />
    <h2>${title}</h2>
    <p>${text}</p>
    <a class="button" href=${paths.home} onClick=${follow}>Begin a new chat</a>
  </div>`;
}

/** What a chat began with, until the server told the rest. */
function Beginning({ entries }) {
  return html`<div class="thread"><div class="thread-box"><div class="thread-column"><${Unsent} entries=${entries} /></div></div></div>`;
}

function Skeleton() {
  return html`<div class="thread loading-thread" role="status" aria-label="Loading the conversation">
    <div class="thread-box"><div class="thread-column">
      ${[3, 1, 4, 2].map((lines, place) => html`<div class="post" key=${place}><span class="knot"><span class="avatar"></span></span>
        ${Array.from({ length: lines }, (_, line) => html`<span class="skeleton" key=${line}></span>`)}</div>`)}
    </div></div>
  </div>`;
}
