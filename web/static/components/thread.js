// The thread: all messages of the open conversation, in a box that follows its end for as long as the reader is there. A message that did not
// change is not made again: its markup is kept beside it.
import { answered, before, ended, loadEarlier, messages, newestFinished, opened, showMessage, turns } from "../state/conversation.js";
import { conversations, markRead, me } from "../state/lists.js";
import { arrived, outbox, stands } from "../state/outbox.js";
import { Icon, announce, date, html, route, toast, useEffect, useLayoutEffect, useRef, useState } from "../ui.js";
import { Unsent } from "./unsent.js";
import { Message, isNotice } from "./message.js";

const NEAR_END = 40; // px: whoever is so near to the end goes on with it
const NEAR_START = 800; // px: so early the page before is asked for

export function Thread() {
  const box = useRef(null);
  const column = useRef(null);
  const reading = useRef({ follows: true, top: 0, first: 0, anchor: null, sent: 0 }).current;
  const [away, setAway] = useState(0); // the seq that was the last when the reader left the end; 0 while they are there
  const [problem, setProblem] = useState("");
  const list = messages.value;
  const { conversation, task, hasMore } = opened.value;
  const waiting = outbox.value.filter((entry) => entry.conversation_id === conversation.id && !stands(entry, list));

  // Where earlier messages come in above, what is being read must stay where it is.
  const first = list[0]?.seq ?? 0;
  if (first < reading.first && box.current) reading.anchor = { id: `m${reading.first}`, top: topOf(`m${reading.first}`) };
  reading.first = first;
  if (waiting.length > reading.sent) reading.follows = true;
  reading.sent = waiting.length;

  const toEnd = () => {
    if (!reading.follows || !box.current) return;
    box.current.scrollTop = box.current.scrollHeight;
    reading.top = box.current.scrollTop; // not its height: what is told of this scrolling, maybe after a composer grew, is not the reader's
  };
  const seen = () => {
    if (reading.follows && document.visibilityState === "visible") read(conversation.id);
  };
  const wantsEarlier = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    return hasMore && !problem && (scrollHeight <= clientHeight || (!reading.follows && scrollTop < NEAR_START));
  };
  const earlier = () => {
    setProblem("");
    loadEarlier().catch((error) => setProblem(error.message));
  };

  useLayoutEffect(() => {
    if (reading.anchor) {
      box.current.scrollTop += topOf(reading.anchor.id) - reading.anchor.top;
      reading.anchor = null;
    } else toEnd();
    seen();
    if (wantsEarlier()) earlier();
  });
  useEffect(() => {
    if (!box.current) return; // it went before this was done
    const grown = new ResizeObserver(toEnd); // pictures that came, code that was coloured, a composer that grew
    grown.observe(column.current);
    grown.observe(box.current);
    document.addEventListener("visibilitychange", seen);
    return () => {
      grown.disconnect();
      document.removeEventListener("visibilitychange", seen);
    };
  }, [conversation.id]);
  useEffect(() => void point(route.value.message, reading, setAway), [route.value.message, conversation.id]);
  useEffect(() => arrived(list), [list]);
  const finished = answered.value;
  useEffect(() => finished && announce(spoken(finished)), [finished]);

  const onScroll = () => {
    if (!box.current) return; // told of when it is gone already
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    const isEnd = scrollHeight - scrollTop - clientHeight <= NEAR_END;
    // Only who scrolls up leaves the end: it also moves away when something comes in.
    if (isEnd) reading.follows = true;
    else if (scrollTop < reading.top - 1) reading.follows = false;
    reading.top = scrollTop;
    setAway((seq) => (reading.follows ? 0 : seq || (messages.peek().at(-1)?.seq ?? 0)));
    seen();
    if (wantsEarlier()) earlier();
  };
  const onLatest = () => {
    reading.follows = true;
    setAway(0);
    toEnd();
  };

  return html`<div class="thread">
    <div
      class=${`thread-box${reading.follows ? " follows" : ""}`}
      ref=${box}
      role="log"
      aria-live="off"
      aria-label="Messages"
      tabindex="0"
      onScroll=${onScroll}
    >
      <div class="thread-column" ref=${column}>
        ${hasMore && html`<${Earlier} problem=${problem} onAgain=${earlier} />`}
        ${!list.length && !waiting.length && html`<${Empty} task=${task} />`}
        ${rows(list)}
        <${Unsent} entries=${waiting} />
      </div>
    </div>
    ${away > 0 && html`<button class="button latest" onClick=${onLatest}><${Icon} name="down" />Latest${news(list, away)}</button>`}
  </div>`;
}

// --- the rows ---

const made = new WeakMap(); // by message: {props, markup}
const NAMES = ["turn", "before", "next", "last", "asked", "shown"];

function rows(list) {
  const authors = new Map(list.map((message) => [message.role === "user" ? message.turn_id : null, message.author]));
  const shown = route.value.message;
  const ago = (days) => date(new Date(Date.now() - days * 86400000).toISOString());
  const lately = new Map([[ago(1), "Yesterday"], [ago(0), "Today"]]);
  const found = [];
  let day = "";
  for (const [place, message] of list.entries()) {
    const its = dayOf(message);
    if (its !== day) found.push(html`<p class="day" key=${its}><span>${lately.get(its) ?? its}</span></p>`);
    day = its;
    found.push(row(message, place, list, authors, shown));
  }
  return found;
}

const days = new Map(); // by when, to the quarter of an hour: writing dates is slow, and a thread is made anew with each piece of a text

function dayOf({ created_at }) {
  const quarter = Math.floor(Date.parse(created_at) / 900000);
  if (!days.has(quarter)) days.set(quarter, date(created_at));
  return days.get(quarter);
}

function row(message, place, list, authors, shown) {
  const turn = turns.value.get(message.id) ?? null;
  const asks = message.metadata.question;
  const props = {
    turn,
    before: turn?.status === "queued" ? before(turn) : 0,
    next: asks ? (list.slice(place + 1).find((each) => each.role === "user") ?? null) : null,
    last: asks ? list.slice(place + 1).every(isNotice) : false,
    asked: message.role === "assistant" && authors.get(message.turn_id) === me.name,
    shown: message.seq === shown,
  };
  const known = made.get(message);
  if (known && NAMES.every((name) => known.props[name] === props[name])) return known.markup;
  const markup = html`<${Message} key=${message.id} message=${message} ...${props} />`;
  made.set(message, { props, markup });
  return markup;
}

function Earlier({ problem, onAgain }) {
  if (!problem) return html`<p class="earlier">Loading earlier messages …</p>`;
  return html`<p class="earlier" role="alert">${problem} <button class="button small" onClick=${onAgain}>Try again</button></p>`;
}

function Empty({ task }) {
  return html`<div class="empty-state">
    <h2>${task ? "Nothing was said here yet" : "A new conversation"}</h2>
    <p>${task ? `Write what the agent should do about ${task.ref}.` : "Write what the agent should do."}</p>
  </div>`;
}

// --- what is read, and where ---

const topOf = (id) => document.getElementById(id)?.getBoundingClientRect().top ?? 0;

const marked = new Map(); // by conversation: how far the server was told

function read(id) {
  const seq = newestFinished();
  const known = conversations.get(id)?.read_seq ?? marked.get(id) ?? 0;
  const told = Math.min(known, marked.get(id) ?? known);
  marked.set(id, seq); // less again where a reply is asked for anew: the server takes it for unread then
  if (seq > told) markRead(id, seq).then((done) => done || marked.delete(id));
}

function news(list, away) {
  const fresh = list.filter((message) => message.seq > away && !isNotice(message)).length;
  const last = list.at(-1);
  if (last?.role === "assistant" && !ended(last) && last.content) return html` <span class="news">writing …</span>`;
  return fresh > 0 && html` <span class="news">${fresh} new</span>`;
}

/** Shows the message that the address points at. */
async function point(seq, reading, setAway) {
  if (seq === null) return;
  reading.follows = false;
  try {
    if (!(await showMessage(seq))) return toast("There is no such message here.");
  } catch (error) {
    return toast(error.message, { kind: "error" });
  }
  setAway((known) => known || (messages.peek().at(-1)?.seq ?? 0));
  // What is above has an estimated height until it was drawn once, so it is looked at again.
  for (let times = 0; times < 3; times++) {
    await new Promise(requestAnimationFrame);
    document.getElementById(`m${seq}`)?.scrollIntoView({ block: "center" });
  }
}

const SPOKEN = 300;

function spoken(reply) {
  if (reply.status === "failed") return `The answer failed. ${reply.metadata.error?.message ?? ""}`;
  if (reply.status === "cancelled") return "The answer was stopped.";
  const text = reply.content.replace(/[*_`#>|]+/g, "").slice(0, SPOKEN);
  return `${reply.metadata.question ? "The agent asks" : "The agent answered"}: ${text}`;
}
