// The question that a reply ends with: its options as buttons, one's own words, and in the end what was answered.
import { answer } from "../state/conversation.js";
import { Icon, complain, html, useState } from "../ui.js";
import { writeOn } from "./composer.js";
import { ORIGINS } from "./message.js";

/** `given`: the message that answered it, null while none did. `open`: whether it can still be answered. */
export function Question({ message, given, open }) {
  const [sending, setSending] = useState(false);
  const { options } = message.metadata.question;
  const choose = async (option) => {
    setSending(true);
    writeOn();
    await answer(message.id, option).catch(complain);
    setSending(false);
  };
  if (!open && !options.length && !given) return null;
  const chosen = given && options.includes(given.content) ? given.content : null;
  return html`<section class="question" aria-label="The agent asks">
    ${options.length > 0 &&
    html`<div class="options" role="group" aria-label="Answers">
      ${options.map(
        (option) => html`<button
          key=${option}
          class="button"
          dir="auto"
          disabled=${!open || sending}
          aria-pressed=${given ? option === chosen : undefined}
          onClick=${() => choose(option)}
        >
          ${option === chosen && html`<${Icon} name="check" size=${16} />`}${option}
        </button>`,
      )}
    </div>`}
    ${open && html`<${OwnWords} disabled=${sending} onAnswer=${choose} />`}
    ${given && html`<p class="hint">Answered by ${given.author ?? "somebody"}${on(given)}${chosen === null && " in their own words"}.</p>`}
  </section>`;
}

const on = ({ source }) => source in ORIGINS && ` in ${ORIGINS[source][0]}`;

function OwnWords({ disabled, onAnswer }) {
  const [text, setText] = useState("");
  const send = (event) => {
    event.preventDefault();
    if (text.trim()) onAnswer(text.trim());
  };
  return html`<form class="own-words" onSubmit=${send}>
    <input
      class="input"
      dir="auto"
      maxlength="10000"
      placeholder="Or in your own words"
      aria-label="Answer in your own words"
      value=${text}
      onInput=${(event) => setText(event.target.value)}
    />
    <button class="button" disabled=${disabled || !text.trim()}>Answer</button>
  </form>`;
}
