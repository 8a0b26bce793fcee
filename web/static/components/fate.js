// What becomes of a reply: what it waits for, how it ended, who gave it and what that cost.
import { retry } from "../state/conversation.js";
import { me } from "../state/lists.js";
import { Icon, complain, html, money, tokens, useState } from "../ui.js";
import { writeOn } from "./composer.js";
import { useCountdown } from "./unsent.js";

const WHY = {
  __proto__: null,
  RATE_LIMITED: "is busy",
  UNAVAILABLE: "is busy",
  TIMEOUT: "takes too long",
  KEY_MISSING: "has no key",
  KEY_REJECTED: "has a wrong key",
  OUT_OF_CREDIT: "has no credit left",
  MODEL_UNKNOWN: "is not known",
  NOT_INSTALLED: "is not installed",
};

/** What an unfinished reply waits for. */
export function Progress({ turn, before, hasText }) {
  if (!turn || turn.status === "running") return hasText ? null : html`<${Thinking} />`;
  if (turn.status === "waiting") return null; // the tool call itself asks for the decision
  if (before > 0) return html`<p class="progress" role="status">Waiting, ${before} before you.</p>`;
  if (turn.retry_at) return html`<${Countdown} at=${turn.retry_at} problem=${turn.error} />`;
  if (turn.no_worker) {
    return html`<p class="note warning" role="status">
      No worker runs that could answer. The message is kept and answered as soon as one does${me.admin && html`: <code>onethread worker</code>`}.
    </p>`;
  }
  return html`<p class="progress" role="status">Waiting for a worker …</p>`;
}

function Thinking() {
  return html`<p class="progress" role="status"><span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>Thinking …</p>`;
}

function Countdown({ at, problem }) {
  const seconds = useCountdown(Date.parse(at));
  const when = seconds >= 90 ? `${Math.round(seconds / 60)} min` : `${seconds} s`;
  return html`<div class="note warning">
    ${problem && html`<p>${problem}</p>`}
    <p class="countdown">${seconds ? `Trying again in ${when} …` : "Trying again …"}</p>
  </div>`;
}

/** That a reply failed or was stopped, with the way to get another one. */
export function Outcome({ message }) {
  const [asking, setAsking] = useState(false);
  if (message.status !== "failed" && message.status !== "cancelled") return null;
  const again = async () => {
    setAsking(true);
    writeOn();
    await retry(message.turn_id).catch(complain);
    setAsking(false);
  };
  const failed = message.status === "failed";
  const said = failed ? (message.metadata.error?.message ?? "The answer failed.") : message.content ? "Stopped here." : "Stopped before it began.";
  return html`<div class=${`note ${failed ? "danger" : "stopped"}`} role=${failed ? "alert" : undefined}>
    <p dir="auto">${said}</p>
    <button class="button small" disabled=${asking} onClick=${again}><${Icon} name="retry" size=${16} />Retry</button>
  </div>`;
}

/** Who answered, and what it cost. */
export function Spent({ about }) {
  if (!about.model) return null;
  const instead = about.fallback_from && `instead of ${short(about.fallback_from)}, which ${WHY[about.fallback_reason] ?? "failed"}`;
  const cost = about.cost == null ? "cost unknown" : money(about.cost);
  const count = about.tokens_in != null && about.tokens_in + about.tokens_out;
  const details = [
    about.model,
    about.tokens_in != null && `${about.tokens_in} tokens in, ${about.tokens_out} out`,
    about.tokens_cached > 0 && `${about.tokens_cached} of them cached`,
    about.estimated && "counted here, the provider reported none",
    about.seconds != null && `${about.seconds} s`,
    about.rounds > 1 && `${about.rounds} rounds`,
    about.finish_reason === "length" && "cut off: the longest answer allowed was reached",
  ];
  return html`<span class="spent" title=${details.filter(Boolean).join("\n")}>
    <span>${short(about.model)}</span>
    ${instead && html`<span class="instead">${instead}</span>`}
    ${count > 0 && html`<span>${about.estimated ? "≈" : ""}${tokens(count)} tokens</span><span>${cost}</span>`}
  </span>`;
}

/** A model's name without its provider's. */
const short = (model) => model.replace(/^[^/]*\//, "");
