// Where a conversation is followed on Slack and Discord: the list, which changes while one looks, and what a person changes about it.
import { get, patch, post, remove } from "../api.js";
import { opened } from "../state/conversation.js";
import { Icon, announce, go, html, paths, style, useEffect, useLayoutEffect, useRef, useState } from "../ui.js";
import { onPlatform, placeOf } from "./chat.js";
import { Dialog, open } from "./dialog.js";
import { ORIGINS } from "./message.js";
import { Ago, Code, Loaded, Segments, Wrong, either, useLoaded, useSending } from "./settings/parts.js";

const MODES = [
  ["two_way", "Two-way"],
  ["watch", "Read-only"],
];
const MEANS = {
  two_way: "What is written there comes in here, and the agent answers it.",
  watch: "People there read along. What they write there stays there.",
};
const MOST_KNOWN = 6; // of the channels that are offered at once

let showing = null;

/** Shows it for a conversation, until somebody closes it; nothing more while it is shown, or about to be. */
export const showFollowing = (conversation) => (showing ??= show(conversation).finally(() => (showing = null)));

async function show({ id, task_ref }) {
  await Promise.all([style("settings"), style("following")]);
  return open(({ done }) => html`<${Following} id=${id} name=${task_ref ?? location.origin + paths.conversation(id)} done=${done} />`);
}

/** @param {{id: string, name: string, done: () => void}} props `name`: what one types elsewhere for the conversation */
function Following({ id, name, done }) {
  const conversation = opened.value?.conversation;
  const live = conversation?.id === id ? conversation.bindings : null;
  const following = useLoaded(() => get(`/conversations/${id}/bindings`), [id, JSON.stringify(live)]);
  const [asking, setAsking] = useState(null); // {count, place, text, action, run} while a person is asked whether they mean it
  const asked = useRef(0);
  const heading = useRef(null);
  useLayoutEffect(() => {
    if (document.activeElement === document.body) heading.current.focus(); // what had the focus is not there any more
  });

  /** Does what `send(confirmed)` asks of the server for a place; where others would read along, once the person said so. Throws ApiError. */
  const change = async (place, action, send, said = standing) => {
    const told = (binding) => (setAsking(null), announce(said(binding)), following.again());
    try {
      told(await send(false));
    } catch (error) {
      if (!error.asks) throw error;
      setAsking({ count: ++asked.current, place, text: error.message, action, run: () => send(true).then(told) });
    }
  };
  const leave = () => (done(), go(paths.settings("accounts")));
  return html`<${Dialog} label="Followed in" class="wide following" onClose=${() => done()}>
    <div class="body">
      <header>
        <h2 ref=${heading} class="grow" tabindex="-1">Followed in</h2>
        <button type="button" class="icon-button" aria-label="Close" title="Close" onClick=${() => done()}><${Icon} name="close" /></button>
      </header>
      <${Loaded} of=${following}>${({ bindings, places, platforms }) =>
        html`<${Bindings} bindings=${bindings} change=${change} />
          ${asking && html`<${Asking} key=${asking.count} ...${asking} onCancel=${() => setAsking(null)} />`}
          <${Elsewhere} id=${id} places=${places.filter(isNoneOf(bindings))} platforms=${platforms} change=${change} leave=${leave} />
          ${platforms.length > 0 && html`<${There} name=${name} platforms=${platforms} />`}`}
      </${Loaded}>
    </div>
  </${Dialog}>`;
}

// --- where it is followed ---

function Bindings({ bindings, change }) {
  const shown = bindings.filter(({ state }) => state !== "off");
  const before = bindings.filter(({ state }) => state === "off");
  if (!bindings.length) return html`<p>Nowhere else yet. Whoever may see it here can have it shown in a channel, too, and answer it from there.</p>`;
  return html`${shown.length > 0 && html`<${Rows} label="Where it is followed" bindings=${shown} change=${change} />`}
    ${before.length > 0 &&
    html`<details class="following-before" open=${!shown.length}>
      <summary>Not followed any more (${before.length})</summary>
      <${Rows} label="Where it is not followed any more" bindings=${before} change=${change} />
    </details>`}`;
}

const Rows = ({ label, bindings, change }) => html`<ul class="bindings" aria-label=${label}>
  ${bindings.map((each) => html`<${Binding} key=${each.id} binding=${each} change=${change} />`)}
</ul>`;

function Binding({ binding, change }) {
  const { id, surface, url, mode, state, why, home, by, created_at } = binding;
  const [busy, error, run] = useSending();
  const place = placeOf(binding);
  const isAddress = url.startsWith("https://");
  const choose = (to) => run(() => change(place, verb(to), (confirmed) => patch(`/bindings/${id}`, { mode: to, confirmed })));
  const unfollow = () => run(() => change(place, "Unfollow", () => remove(`/bindings/${id}`), () => `Not followed in ${place} any more.`));
  const gone = state === "off" || state === "ended";
  return html`<li class="binding" data-state=${state} aria-busy=${busy || state === "pending"}>
    <${Icon} name=${ORIGINS[surface]?.[1] ?? "chat"} />
    <div class="binding-about">
      <p>${isAddress ? html`<a href=${url} target="_blank" rel="noopener noreferrer"><bdi>${place}</bdi></a>` : html`<bdi>${place}</bdi>`}</p>
      ${state === "ended" && html`<p class="binding-why"><${Icon} name="warning" size=${16} />${why || "Nothing can be shown there any more."}</p>`}
      ${state === "pending" && html`<p class="hint" role="status">Asking ${onPlatform(surface)} about this place …</p>`}
      <p class="hint">${home ? "It began there" : by ? html`By <bdi>${by}</bdi>` : "By somebody"}, <${Ago} at=${created_at} /></p>
      <${Wrong} error=${error} />
    </div>
    ${gone
      ? html`<button type="button" class="button small" aria-disabled=${busy} onClick=${() => choose(state === "off" ? "watch" : mode)}>
          ${state === "off" ? "Follow again, read-only" : "Try again"}
        </button>`
      : html`<select class="select" aria-label=${`What goes on in ${place}`} title=${MEANS[mode]} aria-disabled=${busy} value=${mode}
          onChange=${({ currentTarget }) => choose(currentTarget.value)}>
          ${MODES.map(([value, label]) => html`<option key=${value} value=${value} selected=${value === mode}>${label}</option>`)}
        </select>`}
    ${state !== "off" &&
    html`<button type="button" class="icon-button" aria-label=${`Unfollow ${place}`} title="Unfollow" aria-disabled=${busy} onClick=${unfollow}>
      <${Icon} name="close" size=${16} />
    </button>`}
  </li>`;
}

/** `#ops on Slack: asked for, read-only.`, of a binding as it is after a change. */
function standing(binding) {
  const [, how] = MODES.find(([mode]) => mode === binding.mode);
  return `${placeOf(binding)}: ${binding.state === "pending" ? "asked for, " : ""}${how.toLowerCase()}.`;
}

const verb = (mode) => (mode === "two_way" ? "Make it two-way" : "Follow");

/** That others would read along at a place, and whether that is meant. */
function Asking({ place, text, action, run, onCancel }) {
  const [busy, error, send] = useSending();
  const box = useRef(null);
  useEffect(() => {
    const opener = document.activeElement;
    box.current.querySelector("button").focus();
    box.current.scrollIntoView({ block: "nearest" });
    return () => opener?.isConnected && opener.focus();
  }, []);
  return html`<section ref=${box} class="following-asks" role="alertdialog" aria-label="Others would read along" aria-describedby="following-asks">
    <p id="following-asks"><${Icon} name="users" size=${18} /><span><b><bdi>${place}</bdi></b><br />${text}</span></p>
    <${Wrong} error=${error} />
    <div class="actions">
      <button type="button" class="button small" aria-disabled=${busy} onClick=${() => busy || onCancel()}>Cancel</button>
      <button type="button" class="button small primary" aria-disabled=${busy} onClick=${() => send(run)}>${action}</button>
    </div>
  </section>`;
}

// --- somewhere else ---

/** Whether it is not shown in that channel already. */
const isNoneOf = (bindings) => (place) =>
  !bindings.some(({ state, surface, kind, label }) => state === "live" && kind === "open" && surface === place.surface && label === place.label);

function Elsewhere({ id, places, platforms, change, leave }) {
  const linked = platforms.filter((each) => each.linked);
  const unlinked = platforms.filter((each) => !each.linked).map(({ surface }) => onPlatform(surface));
  const link = html`<a href=${paths.settings("accounts")} onClick=${(event) => (event.preventDefault(), leave())}>Settings > Accounts</a>`;
  if (!platforms.length) {
    return html`<section class="following-none">
      <h3>Follow elsewhere</h3>
      <p>Neither Slack nor Discord is set up here. An admin can do that on the server: docs/slack.md and docs/discord.md tell how.</p>
    </section>`;
  }
  return html`<section>
    <h3>Follow elsewhere</h3>
    ${linked.length > 0 && html`<${Another} id=${id} places=${places} change=${change} />`}
    ${unlinked.length > 0 &&
    html`<p class="hint">
      ${linked.length ? `To choose on ${either(unlinked)}` : `To choose a place on ${either(unlinked)}`}, link your account first: ${link}.
    </p>`}
  </section>`;
}

function Another({ id, places, change }) {
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(""); // the key of one of `places`
  const [mode, setMode] = useState("two_way");
  const [busy, error, run] = useSending();
  const sought = text.trim().toLowerCase();
  const isLink = /^<?https?:/.test(sought);
  const isSought = ({ label }) => !sought || isLink || label.toLowerCase().includes(sought);
  const offered = places.filter(isSought).filter(({ key }, place) => place < MOST_KNOWN || key === chosen);
  const onSubmit = (event) => {
    event.preventDefault();
    const place = chosen || text.trim();
    if (!place) return;
    const known = places.find(({ key }) => key === chosen);
    const send = async (confirmed) => {
      const binding = await post(`/conversations/${id}/bindings`, { place, mode, confirmed });
      setText("");
      setChosen("");
      return binding;
    };
    run(() => change(known ? `${known.label} on ${onPlatform(known.surface)}` : place, "Follow", send));
  };
  return html`<form class="another" onSubmit=${onSubmit}>
    <div class="field">
      <label for="following-place">${places.length ? "Find a channel, or paste a link" : "The link of a channel or thread"}</label>
      <input id="following-place" class="input" dir="auto" autocomplete="off" maxlength="500" value=${text} aria-invalid=${!!error}
        placeholder="https://your-team.slack.com/archives/…"
        onInput=${({ currentTarget }) => (setText(currentTarget.value), setChosen(""))} />
      ${places.length > 0 &&
      html`<div class="known" role="group" aria-label="Channels">
        ${offered.map(
          (each) => html`<button key=${each.key} type="button" class="button small" aria-pressed=${each.key === chosen}
            onClick=${() => (setChosen(each.key === chosen ? "" : each.key), isLink && setText(""))}>
            <${Icon} name=${ORIGINS[each.surface]?.[1] ?? "chat"} size=${16} /><bdi>${each.label}</bdi>
          </button>`,
        )}
        ${!offered.length && html`<span class="hint">None that you know is called so. Paste its link instead.</span>`}
      </div>`}
    </div>
    <div class="another-how">
      <${Segments} label="How" of=${MODES} chosen=${mode} onChoose=${setMode} />
      <span class="grow"></span>
      <button class="button primary" aria-disabled=${busy || !(chosen || sought)}>Follow</button>
    </div>
    <p class="hint">${MEANS[mode]}</p>
    <${Wrong} error=${error} />
  </form>`;
}

function There({ name, platforms }) {
  const surfaces = platforms.map(({ surface }) => surface);
  return html`<section>
    <h3>Or from there</h3>
    <p class="hint">In a channel of ${either(surfaces.map(onPlatform))}, type:</p>
    <${Code} what="The command" text=${`/task follow ${name}`} />
    ${surfaces.includes("slack") &&
    html`<p class="hint">In a thread of Slack, which takes no commands, write <code>!follow</code> instead of <code>/task follow</code>.</p>`}
  </section>`;
}
