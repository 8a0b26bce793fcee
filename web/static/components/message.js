// One message as it hangs on the thread: who said it and where, its text, files and tool calls, what became of it, and what may be done with it.
import { Copy, Markdown } from "../markdown.js";
import { ended, erase } from "../state/conversation.js";
import { me } from "../state/lists.js";
import { Avatar, Icon, Time, bytes, complain, dateTime, html, lazy, paths, useErrorBoundary, useLayoutEffect, useRef, useState } from "../ui.js";
import { Outcome, Progress, Spent } from "./fate.js";
import { Question } from "./question.js";
import { ToolCall } from "./toolcall.js";

const Editor = lazy(() => import("./editor.js"), "Editor");
/** By a message's source or a surface's name: how it is called, and its icon. */
export const ORIGINS = {
  __proto__: null,
  slack: ["Slack", "slack"],
  discord: ["Discord", "discord"],
  mcp: ["IDE", "code"],
  terminal: ["Terminal", "terminal"],
  api: ["API", "plug"],
};
const IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/**
 * @param {object} props
 * @param {object} props.message
 * @param {object | null} props.turn the unfinished turn that writes it
 * @param {number} props.before how many turns come before that one
 * @param {object | null} props.next the message that answered the question with which it ends
 * @param {boolean} props.last whether nobody said anything after it
 * @param {boolean} props.asked whether the reply was asked for by who is signed in
 * @param {boolean} props.shown whether the address points at it
 */
export function Message(props) {
  const { message } = props;
  const failed = useRef(null);
  useErrorBoundary(() => (failed.current = message));
  if (failed.current === message) return html`<${Plain} message=${message} />`;
  return isNotice(message) ? html`<${Notice} ...${props} />` : html`<${Shown} ...${props} />`;
}

/** What cannot be shown as it should be takes nothing else with it. */
function Plain({ message }) {
  return html`<article class="post" id=${`m${message.seq}`}>
    <p class="note danger">This message cannot be shown as it should be.</p>
    <p class="md plain" dir="auto">${message.content}</p>
  </article>`;
}

/** Whether it only tells who made the conversation be followed where: nobody said it. */
export const isNotice = ({ metadata }) => !!metadata.notice;

function Notice({ message, shown }) {
  const bad = message.metadata.notice === "ended";
  return html`<p class=${`post notice${shown ? " shown" : ""}`} id=${`m${message.seq}`} data-kind=${message.metadata.notice}>
    <${Icon} name=${bad ? "warning" : "link"} size=${14} /><span dir="auto">${message.content}</span> <${Time} at=${message.created_at} />
  </p>`;
}

function Shown({ message, turn, before, next, last, asked, shown }) {
  const [editing, setEditing] = useState(false);
  const post = useRef(null);
  const edited = useRef(false);
  useLayoutEffect(() => {
    if (edited.current && !editing) post.current.querySelector(".edit")?.focus(); // where it was before
    edited.current = editing;
  }, [editing]);
  const isReply = message.role === "assistant";
  const who = isReply ? "Agent" : (message.author ?? (message.role === "system" ? "Onethread" : "Somebody"));
  const mine = !isReply && message.author === me.name;
  const growing = isReply && !ended(message);
  const calls = message.tool_calls.filter((call) => call.name !== "ask_user"); // the question itself is shown
  const kind = `${isReply ? "reply" : "said"}${mine ? " mine" : ""}${shown ? " shown" : ""}`;
  if (message.deleted_at) {
    return html`<article ref=${post} class=${`post gone ${kind}`} id=${`m${message.seq}`} tabindex="-1">
      <${Knot} who=${who} isReply=${isReply} />
      <p class="hint">${isReply ? "This answer was deleted." : `${who} deleted this message.`}</p>
    </article>`;
  }
  return html`<article ref=${post} class=${`post ${kind}`} id=${`m${message.seq}`} aria-busy=${growing} data-status=${message.status}>
    <${Knot} who=${who} isReply=${isReply} active=${growing && turn?.status === "running"} />
    <header>
      <b dir="auto">${who}</b>
      <${Origin} source=${message.source} />
      <a class="at" href=${`${paths.conversation(message.conversation_id)}#${message.seq}`} title="Link to this message" onClick=${keepHere}>
        <${Time} at=${message.created_at} />
      </a>
      ${message.edited_at && html`<span class="edited" title=${`Edited ${dateTime(message.edited_at)}`}>edited</span>`}
      ${!isReply && !editing && html`<${Doing} message=${message} canEdit=${mine} canErase=${mine} onEdit=${() => setEditing(true)} />`}
    </header>
    ${calls.length > 0 &&
    html`<div class="tools">${calls.map((call) => html`<${ToolCall} key=${`${call.step}.${call.index}`} call=${call} />`)}</div>`}
    ${editing
      ? html`<${Editor} message=${message} onDone=${() => setEditing(false)} />`
      : message.content && html`<${Markdown} text=${message.content} growing=${growing} breaks=${!isReply} />`}
    ${message.attachments.length > 0 && html`<${Files} files=${message.attachments} />`}
    ${message.metadata.unanswered && html`<p class="note warning">${message.metadata.unanswered.message}</p>`}
    ${growing && html`<${Progress} turn=${turn} before=${before} hasText=${!!message.content} />`}
    ${message.metadata.question && !growing && html`<${Question} message=${message} given=${next} open=${last && message.status === "completed"} />`}
    ${isReply && html`<${Outcome} message=${message} />`}
    ${isReply &&
    !growing &&
    (message.content || calls.length > 0) &&
    html`<footer><${Spent} about=${message.metadata} /><${Doing} message=${message} canErase=${asked} /></footer>`}
  </article>`;
}

/** The address then points at the message; the page does not jump to it, since it is here. */
function keepHere(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  history.replaceState(null, "", event.currentTarget.getAttribute("href").replace(/^[^#]*/, location.pathname));
}

function Knot({ who, isReply, active = false }) {
  return html`<span class=${`knot${active ? " active" : ""}`}><${Avatar} name=${isReply ? "" : who} /></span>`;
}

function Origin({ source }) {
  if (!ORIGINS[source]) return null;
  const [name, icon] = ORIGINS[source];
  return html`<span class="origin" title=${`Written in ${name}`}><${Icon} name=${icon} size=${14} />${name}</span>`;
}

/** What may be done with a message. */
function Doing({ message, canEdit = false, canErase, onEdit }) {
  const isReply = message.role === "assistant";
  const name = isReply ? "answer" : "message";
  const onErase = async ({ currentTarget }) => {
    const post = currentTarget.closest(".post");
    const text = isReply
      ? "Its text goes for good, here and wherever else it is shown."
      : "Its text goes for good. An answer that is being written stops; one that is there stays.";
    try {
      const { confirm } = await import("./dialog.js");
      if (!(await confirm({ title: `Delete this ${name}?`, text, action: "Delete", danger: true }))) return;
      await erase(message.id);
    } catch (error) {
      return complain(error);
    }
    // The button goes, and with it the focus.
    requestAnimationFrame(() => document.activeElement === document.body && post.focus({ preventScroll: true }));
  };
  return html`<span class="doing">
    ${message.content &&
    html`<${Copy} class="icon-button" text=${message.content} label=${`Copy the ${name} as Markdown`}><${Icon} name="copy" size=${16} /></${Copy}>`}
    ${canEdit && html`<${Action} icon="edit" label="Edit the message" class="edit" onClick=${onEdit} />`}
    ${canErase && html`<${Action} icon="trash" label=${`Delete the ${name}`} onClick=${onErase} />`}
  </span>`;
}

function Action({ icon, label, class: name = "", onClick }) {
  return html`<button type="button" class=${`icon-button ${name}`} aria-label=${label} title=${label} onClick=${onClick}>
    <${Icon} name=${icon} size=${16} />
  </button>`;
}

function Files({ files }) {
  const address = (file) => `/api/attachments/${encodeURIComponent(file.id)}`;
  return html`<ul class="files" aria-label="Files">
    ${files.map((file) =>
      IMAGES.includes(file.media_type)
        ? html`<li key=${file.id}>
            <a class="picture" href=${address(file)} download title=${`${file.name} (${bytes(file.size)})`}>
              <img src=${address(file)} alt=${file.name} loading="lazy" decoding="async" />
            </a>
          </li>`
        : html`<li key=${file.id}>
            <a class="file" href=${address(file)} download>
              <${Icon} name="file" size=${16} /><bdi>${file.name}</bdi> <span>${bytes(file.size)}</span>
            </a>
          </li>`,
    )}
  </ul>`;
}
