// For admins: how much work waits, who does it, and what went wrong. Read anew every five seconds while one looks.
import { get, post } from "../../api.js";
import { Icon, complain, follow, html, paths, toast, useState } from "../../ui.js";
import { confirm } from "../dialog.js";
import { Ago, Loaded, Panel, Segments, Soon, useLoaded } from "./parts.js";

const EVERY_MS = 5000;
const LABELS = { queued: "Queued", running: "Running", waiting: "Waits for a person", failed: "Failed" };
const KINDS = [["", "All"], ...Object.entries(LABELS)];

export function Queue() {
  const state = useLoaded(() => get("/admin/queue"), [], { every: EVERY_MS });
  return html`<${Loaded} of=${state}>${(queue) => html`
    <${Panel} title="Queue"><${Depth} queue=${queue} /></${Panel}>
    <${Turns} onChanged=${state.again} />
    <${Workers} workers=${queue.workers} />`}</${Loaded}>`;
}

function Depth({ queue }) {
  const { turns, oldest_queued_seconds: age, failed_last_day, paused_models, workers } = queue;
  return html`${!workers.some((worker) => worker.alive) &&
    html`<p class="settings-error" role="alert"><${Icon} name="warning" /><span>No worker is alive, so nothing is answered. Start one:
      ${" "}<code>onethread worker</code></span></p>`}
    <dl class="totals">
      <div><dt>Queued</dt><dd>${turns.queued}</dd></div>
      <div><dt>The oldest waits</dt><dd>${age === null ? "–" : lasting(age)}</dd></div>
      <div><dt>Running</dt><dd>${turns.running}</dd></div>
      <div><dt>Wait for a person</dt><dd>${turns.waiting}</dd></div>
      <div><dt>Failed in a day</dt><dd>${failed_last_day}</dd></div>
    </dl>
    ${paused_models.map(
      (pause) => html`<p key=${pause.model} class="settings-error"><${Icon} name="clock" /><span><b>${pause.model}</b> is paused: its provider turned
        everybody away, first <${Ago} at=${pause.paused_since} />. It is asked again <${Soon} at=${pause.paused_until} />.</span></p>`,
    )}`;
}

function lasting(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function Turns({ onChanged }) {
  const [kind, setKind] = useState("");
  const [more, setMore] = useState(null); // {turns, next_cursor}: what somebody asked for beyond the first page
  const listed = useLoaded(() => page(kind), [kind], { every: EVERY_MS });
  const act = async (turn, what, done) => {
    await post(`/admin/turns/${turn.turn_id}/${what}`);
    toast(done);
    setMore(null);
    listed.again();
    onChanged();
  };
  const stop = async (turn) => {
    const sure = await confirm({
      title: "Stop this answer?",
      text: `${turn.author} asked for it. What was written of it so far stays.`,
      action: "Stop it",
      danger: true,
    });
    if (sure) await act(turn, "cancel", "It is stopped.");
  };
  const showMore = async (turns, cursor) => {
    const next = await page(kind, cursor);
    setMore({ turns: [...turns, ...next.turns], next_cursor: next.next_cursor });
  };
  const choose = (name) => {
    setMore(null);
    setKind(name);
  };
  return html`<${Panel} title="Turns" about="A turn is one message with its answer. What is said in others' conversations is not shown here.">
    <${Segments} label="Which turns" of=${KINDS} chosen=${kind} onChoose=${choose} />
    <${Loaded} of=${listed}>${(first) => {
      const known = new Set(first.turns.map((turn) => turn.turn_id));
      const turns = [...first.turns, ...(more?.turns ?? []).filter((turn) => !known.has(turn.turn_id))];
      const cursor = more ? more.next_cursor : first.next_cursor;
      return html`${turns.length === 0 && html`<p class="panel-about">None.</p>`}
        <ul class="rows wide">
          ${turns.map((turn) => html`<${Turn} key=${turn.turn_id} turn=${turn}
            onRetry=${() => act(turn, "retry", "It is answered again.").catch(complain)} onStop=${() => stop(turn).catch(complain)} />`)}
        </ul>
        ${cursor && html`<div><button type="button" class="button"
          onClick=${() => showMore(turns, cursor).catch(complain)}>Show more</button></div>`}`;
    }}</${Loaded}>
  </${Panel}>`;
}

const page = (kind, cursor) => get(`/admin/turns?limit=50${kind ? `&status=${kind}` : ""}${cursor ? `&cursor=${cursor}` : ""}`);

function Turn({ turn, onRetry, onStop }) {
  const { status, title, task_ref, conversation_id, author, model, error, error_code, failures, no_worker, created_at } = turn;
  const path = task_ref ? paths.task(task_ref) : paths.conversation(conversation_id);
  return html`<li>
    <div class="grow">
      <span>${task_ref && html`<span class="ref">${task_ref}</span> `}
        ${title === null
          ? html`<b class="faint">A private conversation</b>`
          : html`<a href=${path} onClick=${follow} dir="auto">${title || "New chat"}</a>`}</span>
      <span class="small">${author}, <${Ago} at=${created_at} />, ${model}${failures > 1 && `, ${failures} attempts failed`}</span>
      ${no_worker && html`<span class="small error">No worker that runs can ask this model.</span>`}
      ${error && html`<span class="small error" title=${error_code}>${error}</span>`}
    </div>
    <span class="badge" data-turn=${status}>${LABELS[status]}</span>
    ${status === "failed"
      ? html`<button type="button" class="button small" onClick=${onRetry}>Retry</button>`
      : html`<button type="button" class="button small danger" onClick=${onStop}>Stop</button>`}
  </li>`;
}

const MOST_NAMED = 4;
const few = (names) => (names.length > MOST_NAMED ? `${names.length} providers` : names.join(", "));

function Workers({ workers }) {
  return html`<${Panel} title="Workers" about="Who answers. Those that fell silent are listed for a day.">
    ${workers.length === 0 && html`<p class="panel-about">None.</p>`}
    <ul class="rows wide">
      ${workers.map(
        (worker) => html`<li key=${worker.id} data-off=${!worker.alive}>
          <div class="grow"><b>${worker.host}</b><span class="small">process ${worker.pid}, started <${Ago} at=${worker.started_at} />, heard of
              ${" "}<${Ago} at=${worker.heartbeat_at} /></span>
            ${worker.unserved.length > 0 && html`<span class="small" title=${worker.unserved.join(", ")}>has no key for ${few(worker.unserved)}</span>`}</div>
          <span class="chip">answers ${worker.running} of at most ${worker.concurrency}</span>
          ${worker.alive ? html`<span class="badge on">alive</span>` : html`<span class="badge off">silent</span>`}
        </li>`,
      )}
    </ul>
  </${Panel}>`;
}
