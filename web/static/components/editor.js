// The place where one changes what one wrote. It comes when somebody does.
import { edit } from "../state/conversation.js";
import { html, useLayoutEffect, useRef, useState } from "../ui.js";
import { MOST_CHARACTERS, countOf, grow, tooLong } from "./composer.js";

export function Editor({ message, onDone }) {
  const [text, setText] = useState(message.content);
  const [state, setState] = useState({ saving: false, problem: "" });
  const area = useRef(null);
  useLayoutEffect(() => {
    area.current.focus();
    area.current.setSelectionRange(text.length, text.length);
  }, []);
  useLayoutEffect(() => grow(area.current), [text]);
  const length = countOf(text);
  const isTooLong = length > MOST_CHARACTERS;
  const cannot = state.saving || isTooLong || !text.trim();
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
  const problem = isTooLong ? tooLong(length) : state.problem;
  return html`<form class="editor" onSubmit=${save}>
    <textarea
      class="input"
      ref=${area}
      dir="auto"
      aria-label="Edit the message"
      aria-invalid=${isTooLong}
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
