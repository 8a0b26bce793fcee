// Personal access tokens: for programs that act as oneself.
import { get, post, remove } from "../../api.js";
import { me } from "../../state/lists.js";
import { complain, date, dateTime, follow, html, paths, toast, useState } from "../../ui.js";
import { confirm } from "../dialog.js";
import { Code, Loaded, Panel, Secret, Wrong, useLoaded, useSending } from "./parts.js";

const SCOPES = [
  ["tasks:read", "Read tasks", ""],
  ["tasks:write", "Make, change and delete tasks", ""],
  ["chat", "Talk with the agent", "and have it read and change tasks"],
  ["admin", "Act as an admin", "but neither add users nor make admins"],
];
const LIFETIMES = [
  ["30", "30 days"],
  ["90", "90 days"],
  ["365", "A year"],
  ["", "Until it is revoked"],
];

export function Tokens() {
  const listed = useLoaded(() => get("/tokens"));
  const [made, setMade] = useState(null);
  const revoke = async (token) => {
    const sure = await confirm({
      title: `Revoke “${token.name}”?`,
      text: "The program that uses it is turned away at once. This cannot be undone.",
      action: "Revoke",
      danger: true,
    });
    if (!sure) return;
    await remove(`/tokens/${token.id}`);
    toast(`“${token.name}” is revoked.`);
    if (made?.id === token.id) setMade(null);
    listed.again();
  };
  const onMade = (token) => {
    setMade(token);
    listed.again();
  };
  return html`<${Panel} title="New token" about="A program that holds one acts as you, within what it may. It can never change your password.">
      <${New} onMade=${onMade} />
      ${made && html`<${Made} key=${made.id} token=${made} onDone=${() => setMade(null)} />`}
    </${Panel}>
    <${Panel} title="Your tokens">
      <${Loaded} of=${listed}>${({ tokens }) =>
        tokens.length
          ? html`<ul class="rows">
              ${tokens.map((token) => html`<${Token} key=${token.id} token=${token} onRevoke=${() => revoke(token).catch(complain)} />`)}
            </ul>`
          : html`<p class="panel-about">You have none.</p>`}</${Loaded}>
    </${Panel}>`;
}

function Made({ token, onDone }) {
  return html`<${Secret} text=${token.secret} what="The token" onDone=${onDone}>This is the token <b>${token.name}</b>. It is shown now and
      never again: put it where it is needed, and nowhere else.</${Secret}>
    <p class="panel-about">A program sends it so:</p>
    <${Code} what="The command" text=${`curl -H "Authorization: Bearer ${token.secret}" ${location.origin}/api/me`} />
    <p class="panel-about">For an editor see <a href=${paths.settings("connections")} onClick=${follow}>Connections</a>, or let it be set up by
      ${" "}<code>onethread mcp config</code>.</p>`;
}

function New({ onMade }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(["tasks:read", "tasks:write", "chat"]);
  const [days, setDays] = useState("90");
  const [busy, error, run] = useSending();
  const offered = SCOPES.filter(([scope]) => scope !== "admin" || me.admin);
  const toggle = (scope) => setScopes(scopes.includes(scope) ? scopes.filter((each) => each !== scope) : [...scopes, scope]);
  const make = async (event) => {
    event.preventDefault();
    const wanted = { name: name.trim(), scopes, expires_in_days: days ? Number(days) : null };
    if (await run(async () => onMade(await post("/tokens", wanted)))) setName("");
  };
  return html`<form class="form" onSubmit=${make}>
    <div class="pair">
      <div class="field"><label for="token-name">Name</label>
        <input id="token-name" class="input" required maxlength="100" placeholder="laptop, CI, Cursor …" autocomplete="off" value=${name}
          onInput=${(event) => setName(event.currentTarget.value)} /></div>
      <div class="field"><label for="token-days">Valid for</label>
        <select id="token-days" class="select" value=${days} onChange=${(event) => setDays(event.currentTarget.value)}>
          ${LIFETIMES.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}
        </select></div>
    </div>
    <fieldset class="choices column"><legend>It may</legend>
      ${offered.map(
        ([scope, label, more]) => html`<label key=${scope}><input type="checkbox" checked=${scopes.includes(scope)} onChange=${() => toggle(scope)} />
          <span>${label}${more && html`<span class="faint"> ${more}</span>`}</span></label>`,
      )}
    </fieldset>
    <${Wrong} error=${error} />
    <div><button class="button primary" disabled=${busy || !name.trim() || !scopes.length}>Make the token</button></div>
  </form>`;
}

function Token({ token, onRevoke }) {
  const { name, scopes, created_at, expires_at } = token;
  const expired = expires_at && Date.parse(expires_at) <= Date.now();
  const day = (at) => html`<time dateTime=${at} title=${dateTime(at)}>${date(at)}</time>`;
  const end = expires_at ? html`${expired ? "expired" : "valid until"} ${day(expires_at)}` : "valid until it is revoked";
  return html`<li data-off=${expired}>
    <div class="grow"><b>${name}</b>
      <span class="chips">${scopes.map((scope) => html`<span key=${scope} class="chip">${scope}</span>`)}</span>
      <span class="small">made ${day(created_at)}, ${end}</span></div>
    ${expired && html`<span class="badge off">expired</span>`}
    <button type="button" class="button small danger" aria-label=${`Revoke ${name}`} onClick=${onRevoke}>Revoke</button>
  </li>`;
}
