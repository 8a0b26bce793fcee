// Where a message is written: its text, its files, who is to answer it, and what was begun and not sent. What was sent goes to state/outbox.js, which
// never loses it; it comes with the first key that is pressed, since the page's first load is counted.
import { patch, post, signedOut } from "../api.js";
import { connection } from "../socket.js";
import { UNSENT, conversations, me } from "../state/lists.js";
import { Icon, complain, html, keep, kept, keptNames, lazy, preload, style, useEffect, useLayoutEffect, useRef, useState } from "../ui.js";

export const MOST_CHARACTERS = 10000; // core/messages.py
const COUNTED_FROM = 9000;
const OVERLAY = "dialog[open], .menu:popover-open";

const NEXT = "Write on; it is answered next";
const PLACEHOLDERS = { waiting: "Writing something else denies it", running: NEXT, queued: NEXT };
const STOP_MS = 10000; // then one does not mean it any more
const SHORTEN = "Shorten it or attach it as a file.";
const SIGNED_OUT = "You are signed out. What you write is kept; it can be sent when you signed in again.";

const Attached = lazy(() => import("./attachments.js"), "Attached", "chat");
const ModelList = lazy(() => import("./models.js"), "ModelList", "models");

/**
 * @param {{conversation_id?: string | null, model?: string | null, busy?: object | null, onStop?: () => Promise<void>,
 *   placeholder?: string}} props without conversation it begins a new chat, which opens when the server has it. `model`
 *   is the conversation's; `busy` is there while `onStop` has something to stop
 */
export const Composer = (props) => html`<${Writing} key=${placeOf(props)} ...${props} />`;

function Writing({ conversation_id = null, model = null, busy, onStop, placeholder }) {
  const place = placeOf({ conversation_id });
  const is_new = place === "home";
  const [text, setText] = useState(() => draftOf(place));
  const [files, setFiles] = useState(() => filesOf(place));
  const [hint, setHint] = useState("");
  const [picked, setPicked] = useState(undefined); // until the conversation tells the same
  const [NewChat, setNewChat] = useState(null); // what waits above; it comes when somebody writes
  const field = useRef(null);
  const sending = useRef(null); // the promise of what was sent last, until the server answered it
  const chosen = picked === undefined ? model : picked;
  const length = countOf(text);

  const write = (next) => {
    if (is_new) preload("Chat");
    setText(next);
    setHint("");
    keepDraft(place, next);
  };
  const attach = (next) => {
    setFiles(next);
    keepFiles(place, next);
  };

  const add = async (added) => {
    try {
      const { sifted } = await import("./attachments.js");
      const { taken, refusals } = sifted(added, filesOf(place).length);
      attach([...filesOf(place), ...taken]);
      setHint(refusals.join(" "));
      return taken.length > 0;
    } catch {
      setHint("The server cannot be reached. Attach it again in a moment.");
    }
  };

  const submit = async (event) => {
    event?.preventDefault();
    const content = text.replace(/^(?:[^\S\n]*\n)+/, "").trimEnd();
    if (signedOut.value) return setHint(SIGNED_OUT);
    if (length > MOST_CHARACTERS) return setHint(`${tooLong(length)} ${SHORTEN}`);
    if (!content && !files.length) return setHint("The message is empty. Write something first.");
    const said = content || `(${files.map((file) => file.name).join(", ")})`; // as it is for files alone from a chat platform
    setText("");
    setHint("");
    attach([]);
    field.current.focus();
    const parts = Promise.all([import("../state/outbox.js"), is_new && import("./unsent.js")]);
    const sent = parts.then(([{ send }]) => {
      if (draftOf(place) === text) keepDraft(place, ""); // from here on the outbox keeps it
      return send({ conversation_id, content: said, files, model: is_new ? chosen : null });
    });
    const under_way = (sending.current = sent.catch(() => null));
    under_way.then(() => sending.current === under_way && (sending.current = null));
    try {
      await sent;
    } catch {
      const since = draftOf(place);
      write(since === text ? text : [text, since].filter(Boolean).join("\n"));
      attach([...files, ...filesOf(place)]);
      setHint("The server cannot be reached. What you wrote is kept; try again in a moment.");
    }
  };

  const stop = async () => {
    try {
      if (busy && onStop) return await onStop();
      const asked = Date.now();
      const posted = await sending.current; // the turn is known with the server's answer
      if (posted && Date.now() - asked < STOP_MS) await post(`/turns/${posted.turn_id}/cancel`);
    } catch (error) {
      complain(error);
    }
  };

  const pick = async (next) => {
    setPicked(next);
    if (is_new) return;
    try {
      const changed = await patch(`/conversations/${conversation_id}`, { model: next });
      if (conversations.get(conversation_id)) conversations.put(changed);
    } catch (error) {
      setPicked(undefined);
      complain(error);
    }
  };

  useLayoutEffect(() => grow(field.current), [text]);
  useEffect(() => setPicked(undefined), [model]);
  useEffect(() => {
    if (matchMedia("(hover: hover)").matches && !document.querySelector(OVERLAY)) field.current.focus({ preventScroll: true });
  }, []);
  useEffect(() => followDraft(place, () => field.current.value, setText), []);
  useEffect(() => {
    if (!is_new || !(text || files.length || keptNames(UNSENT).length)) return;
    const parts = Promise.all([import("./unsent.js"), style("chat")]);
    parts.then(([{ NewChat }]) => setNewChat(() => NewChat)).catch(() => {}); // tried again with the next key
  }, [text, files]);
  useEffect(() => {
    const pressed = (event) => {
      if (!(busy && onStop) && !(sending.current && connection.value === "online")) return;
      const elsewhere = event.target !== field.current && event.target.closest?.("input, textarea, select, [contenteditable]");
      if (event.key !== "Escape" || event.defaultPrevented || event.isComposing || elsewhere || document.querySelector(OVERLAY)) return;
      event.preventDefault();
      stop();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [Boolean(busy), onStop]);
  const dropping = useDrop(add);

  const pressed = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    if (event.repeat) return event.preventDefault(); // held down, perhaps since it was on a button
    if (matchMedia("(pointer: coarse)").matches && !event.ctrlKey && !event.metaKey) return; // on a phone's keyboard, Send is the button
    submit(event);
  };
  const pasted = (event) => {
    if (!event.clipboardData.files.length || event.clipboardData.types.includes("text/plain")) return;
    event.preventDefault();
    add([...event.clipboardData.files]);
  };
  const asFile = async () => {
    field.current.focus();
    if (await add([new File([text], "message.txt", { type: "text/plain" })])) write("");
  };

  const too_long = length > MOST_CHARACTERS;
  return html`
    ${NewChat && html`<${NewChat} />`}
    <form class=${`composer ${dropping ? "dropping" : ""}`} aria-label="Write a message" onSubmit=${submit}>
      ${files.length > 0 && html`<ul class="composer-files" aria-label="Files to be sent">
        ${files.map((file) => html`<${Attached} key=${file} file=${file} onRemove=${() => {
          attach(files.filter((each) => each !== file));
          setHint("");
          field.current.focus();
        }} />`)}
      </ul>`}
      <textarea ref=${field} rows="1" dir="auto" aria-label="Message" aria-describedby="composer-hint" value=${text} enterkeyhint="enter"
        placeholder=${placeholder ?? PLACEHOLDERS[busy?.status] ?? "Write a message"}
        onInput=${(event) => write(event.currentTarget.value)} onKeyDown=${pressed} onPaste=${pasted}></textarea>
      <div class="composer-bar">
        <${Attach} onFiles=${add} />
        <${ModelButton} model=${chosen} is_new=${is_new} onPick=${pick} />
        <span class=${`composer-count ${too_long ? "danger" : ""}`}>
          ${length >= COUNTED_FROM && `${length.toLocaleString("en")} / ${MOST_CHARACTERS.toLocaleString("en")}`}
        </span>
        ${busy && onStop && html`<button type="button" class="icon-button composer-stop" aria-label="Stop the answer" title="Stop the answer (Esc)"
          onClick=${() => (writeOn(), stop())}><${Icon} name="stop" /></button>`}
        <button class="icon-button composer-send" aria-label="Send" title=${signedOut.value ? "Sign in again to send" : "Send (Enter)"}
          aria-disabled=${signedOut.value || (!text.trim() && !files.length)}><${Icon} name="send" /></button>
      </div>
      ${dropping && html`<p class="composer-drop">Drop files to attach them</p>`}
    </form>
    <p class="composer-hint" id="composer-hint" role="status">
      ${hint || (signedOut.value && SIGNED_OUT) || (too_long && `${tooLong(length)} ${SHORTEN}`)}
      ${too_long && html` <button type="button" class="button small" onClick=${asFile}>Attach it as a file</button>`}
    </p>`;
}

export const tooLong = (length) => {
  const [most, has] = [MOST_CHARACTERS, length].map((each) => each.toLocaleString("en"));
  return `A message has at most ${most} characters; this one has ${has}.`;
};

/** As the server counts: an emoji is one. */
export const countOf = (text) => (text.length < COUNTED_FROM ? text.length : [...text].length);

/** Makes a field as high as its text; css says how far. Its form stays as high as it is meanwhile, or what is around would scroll. */
export function grow(field) {
  field.form.style.minHeight = `${field.form.offsetHeight}px`;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
  field.form.style.minHeight = "";
}

/** For when what was pressed goes away: the focus goes to where one writes, or on a phone, where that opens the keyboard, to the thread. */
export const writeOn = () =>
  document.querySelector(matchMedia("(hover: hover)").matches ? ".composer textarea" : ".thread-box")?.focus({ preventScroll: true });

// --- what was begun: texts are kept in this browser, for who wrote them; files as long as the page lives ---

const MOST_DRAFTS = 50;
const MOST_KEPT = 20000; // characters of each: twice what can be sent
const DRAFTS = `onethread:${me.id}:draft:`;
const attached = new Map();

/** Where somebody writes: the name of a draft. */
const placeOf = ({ conversation_id }) => conversation_id ?? "home";

const draftOf = (place) => textOf(kept(DRAFTS + place));
const filesOf = (place) => attached.get(place) ?? [];

function textOf(draft) {
  return draft?.slice(draft.indexOf(" ") + 1) ?? ""; // behind the time of its last change
}

export function keepDraft(place, text) {
  keep(DRAFTS + place, text.trim() ? `${Date.now()} ${text.slice(0, MOST_KEPT)}` : null);
  const names = keptNames(DRAFTS);
  if (names.length <= MOST_DRAFTS) return;
  const ages = new Map(names.map((name) => [name, parseInt(kept(name))]));
  keep(names.reduce((oldest, name) => (ages.get(name) < ages.get(oldest) ? name : oldest)), null);
}

/** @param {File[]} files */
function keepFiles(place, files) {
  if (files.length) attached.set(place, files);
  else attached.delete(place);
}

/** Takes along what was written on in a new chat while its first message was sent. */
export function moveDraft(from, to) {
  if (draftOf(from)) keepDraft(to, draftOf(from));
  keepDraft(from, "");
  if (filesOf(from).length) keepFiles(to, filesOf(from));
  keepFiles(from, []);
}

/** Calls `changed(text)` when another tab of this browser writes, or sends, the draft of this place; not where `own()` differs from what was kept. */
function followDraft(place, own, changed) {
  const told = ({ key, oldValue, newValue }) => {
    if (key === DRAFTS + place && (!own().trim() || own() === textOf(oldValue))) changed(textOf(newValue));
  };
  addEventListener("storage", told);
  return () => removeEventListener("storage", told);
}

// --- files ---

export const FOLDER = "inode/directory";

function Attach({ onFiles }) {
  const input = useRef(null);
  const chosen = () => {
    onFiles([...input.current.files]);
    input.current.value = ""; // the same file may be chosen again
  };
  return html`<input ref=${input} type="file" multiple hidden onChange=${chosen} />
    <button type="button" class="icon-button" aria-label="Attach files" title="Attach files (or paste, or drop them)"
      onClick=${() => input.current.click()}>
      <${Icon} name="attach" />
    </button>`;
}

/** True while files are held over the page; dropped anywhere, they are attached. */
function useDrop(add) {
  const [over, setOver] = useState(false);
  const latest = useRef(add);
  latest.current = add;
  useEffect(() => {
    const has_files = (event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
    const on = {
      dragover(event) {
        if (!has_files(event)) return;
        event.preventDefault();
        setOver(true);
      },
      dragleave: (event) => event.relatedTarget || setOver(false),
      drop(event) {
        if (!has_files(event)) return;
        event.preventDefault();
        setOver(false);
        latest.current(dropped(event.dataTransfer));
      },
    };
    for (const [name, does] of Object.entries(on)) addEventListener(name, does);
    return () => Object.entries(on).forEach(([name, does]) => removeEventListener(name, does));
  }, []);
  return over;
}

/** The files, and each folder as one without bytes. */
const dropped = ({ items }) =>
  [...items]
    .filter((item) => item.kind === "file")
    .map((item) => (item.webkitGetAsEntry?.()?.isDirectory ? new File([], item.getAsFile().name, { type: FOLDER }) : item.getAsFile()));

// --- who answers ---

function ModelButton({ model, is_new, onPick }) {
  const [open, setOpen] = useState(false);
  const button = useRef(null);
  const panel = useRef(null);
  useLayoutEffect(() => {
    if (!open) return;
    const { left, top } = button.current.getBoundingClientRect();
    const most = innerWidth - panel.current.offsetWidth - 8;
    const place = { left: Math.max(8, Math.min(left, most)), bottom: innerHeight - top + 6, maxHeight: top - 16 };
    for (const [name, value] of Object.entries(place)) panel.current.style[name] = `${value}px`;
  }, [open]);
  const pick = (id) => {
    panel.current.hidePopover();
    button.current.focus();
    onPick(id);
  };
  return html`<button ref=${button} type="button" class="button quiet small composer-model" aria-haspopup="dialog" aria-expanded=${open}
      popovertarget="composer-models" title=${`Who answers: ${model || "the default model"}`}>
      <span>${model ? model.slice(model.lastIndexOf("/") + 1) : "Default model"}</span><${Icon} name="chevron-down" size=${14} />
    </button>
    <div ref=${panel} id="composer-models" popover="auto" class="menu composer-models" role="dialog" aria-label="Who answers"
      onToggle=${(event) => setOpen(event.newState === "open")}>
      ${open && html`<${ModelList} model=${model} is_new=${is_new} onPick=${pick} />`}
    </div>`;
}
