// The place where one changes what one wrote. It comes when somebody does.
import { edit } from "../state/conversation.js";
import { html, useLayoutEffect, useRef, useState } from "../ui.js";

const MOST_CHARACTERS = 10000; // core/messages.py

export function Editor({ message, onDone }) {
  const [text, setText] = useState(message.content);
  const [state, setState] = useState({ saving: false, problem: "" });
  const area = useRef(null);
  useLayoutEffect(() => {
    area.current.focus();
    area.current.setSelectionRange(text.length, text.length);
  }, []);
  useLayoutEffect(() => {
    area.current.style.height = "auto";
    area.current.style.height = `${area.current.scrollHeight + 2}px`;
  }, [text]);
  const length = [...text].length;
  const tooLong = length > MOST_CHARACTERS;
  const cannot = state.saving || tooLong || !text.trim();
  const save = async (event) => {
    event?.preventDefault();
    if (cannot) return;
    if (text.trim() === message.content) return onDone();
    setState({ saving: true, problem: "" });
    try {
      await edit(message.id, text);
      onDone();
    } catch (error) {
      setState({ saving: false, problem: error.message });
    }
  };
  const onKeyDown = (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      event.preventDefault();
      onDone();
    }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) save(event);
  };
  const problem = tooLong ? `A message has at most 10,000 characters; this one has ${length.toLocaleString("en")}.` : state.problem;
  return html`<form class="editor" onSubmit=${save}>
    <textarea
      class="input"
      ref=${area}
      dir="auto"
      aria-label="Edit the message"
      aria-invalid=${tooLong}
      value=${text}
      onInput=${(event) => setText(event.target.value)}
      onKeyDown=${onKeyDown}
    ></textarea>
    ${problem && html`<p class="error" role="alert">${problem}</p>`}
    <p class="editor-buttons">
      <button class="button small primary" disabled=${cannot}>Save</button>
      <button class="button small" type="button" onClick=${onDone}>Cancel</button>
      <span class="hint"><span class="kbd">Enter</span> saves, <span class="kbd">Esc</span> cancels</span>
    </p>
  </form>`;
}
