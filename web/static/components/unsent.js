// What was sent and has not arrived: below the messages of its conversation, or above where a new chat is begun.
import { me } from "../state/lists.js";
import { discard, onPosted, outbox, resend, told } from "../state/outbox.js";
import { Avatar, Icon, go, html, paths, route, useEffect, useState } from "../ui.js";
import { moveDraft } from "./composer.js";

/** Of new chats. */
export const NewChat = () => html`<${Unsent} entries=${outbox.value.filter((each) => each.group)} />`;

// When the server has the first message of a new chat, its conversation opens, with what was written on meanwhile.
onPosted(({ conversation_id }, entry) => {
  if (!entry.group || route.peek().view !== "home") return;
  moveDraft("home", conversation_id);
  go(paths.conversation(conversation_id));
});

/** Entries of the outbox, below the messages of their conversation and much like them. */
export function Unsent({ entries }) {
  if (!entries.length) return null;
  const first = entries.find((each) => each.waiting);
  return html`<ul class="unsent" aria-label="Not sent yet">
    ${entries.map((entry) => html`<${UnsentMessage} key=${entry.key} entry=${entry} first=${entry === first} />`)}
  </ul>`;
}

function UnsentMessage({ entry, first }) {
  const seconds = useCountdown(entry.retry_at);
  const failed = entry.state === "failed";
  const names = [...entry.files.map((file) => file.name), ...entry.missing];
  const again = failed ? "Retry" : first && "Try now";
  return html`<li class="unsent-message" data-state=${entry.state}>
    <${Avatar} name=${me.name} />
    <header><b dir="auto">${me.name}</b>${!failed && html`<span role="status">${told(entry)}</span>`}</header>
    <p class="unsent-text" dir="auto">${entry.content}</p>
    ${names.length > 0 && html`<p class="unsent-files"><${Icon} name="attach" size=${16} /><bdi>${names.join(", ")}</bdi></p>`}
    ${(failed || entry.waiting) &&
    html`<div class="unsent-more">
      ${failed && html`<span role="alert">${told(entry)}</span>`}
      ${seconds > 0 && html`<span class="unsent-seconds">It can be sent in ${seconds} s.</span>`}
      ${again && html`<button type="button" class="button small" onClick=${() => resend(entry.key)}>${again}</button>`}
      <button type="button" class="button small quiet" onClick=${() => discard(entry.key)}>Discard</button>
    </div>`}
  </li>`;
}

/** Seconds until `at` (in ms as Date.now()), counted down. */
export function useCountdown(at) {
  const left = () => Math.max(0, Math.ceil((at - Date.now()) / 1000));
  const [seconds, setSeconds] = useState(left);
  useEffect(() => {
    setSeconds(left());
    if (left() === 0) return;
    const timer = setInterval(() => {
      setSeconds(left());
      if (left() === 0) clearInterval(timer);
    }, 500);
    return () => clearInterval(timer);
  }, [at]);
  return seconds;
}
