// For admins: who there is, who may sign in, and the links by which they set a password.
import { get, patch, post } from "../../api.js";
import { me } from "../../state/lists.js";
import { Avatar, Menu, complain, date, dateTime, html, toast, useEffect, useState } from "../../ui.js";
import { confirm } from "../dialog.js";
import { Loaded, Panel, Secret, Wrong, useLoaded, useSending } from "./parts.js";

const PAGE = 100;
const TYPING_MS = 200;

const page = (query, cursor) => get(`/admin/users?limit=${PAGE}&query=${encodeURIComponent(query)}${cursor ? `&cursor=${cursor}` : ""}`);

export function Users() {
  const [typed, setTyped] = useState("");
  const [query, setQuery] = useState("");
  const [listed, setListed] = useState(null); // {users, next_cursor}, of all pages that were asked for
  const [link, setLink] = useState(null);
  useEffect(() => {
    const timer = setTimeout(() => setQuery(typed.trim()), TYPING_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  const first = useLoaded(() => page(query).then(setListed), [query]);
  const more = async () => {
    const next = await page(query, listed.next_cursor);
    setListed((before) => ({ users: [...before.users, ...next.users], next_cursor: next.next_cursor }));
  };
  const onChanged = (user) => setListed((before) => ({ ...before, users: before.users.map((each) => (each.id === user.id ? user : each)) }));
  return html`<${Panel} title="Add somebody" about="They come in by a link, which you give them: it lets them set a password.">
      <${New} onAdded=${({ user, ...made }) => (setLink({ name: user.name, ...made }), first.again())} />
      ${link &&
      html`<${Secret} key=${link.link} text=${link.link} what="The link" onDone=${() => setLink(null)}>
        Give this link to <b>${link.name}</b>, and to nobody else: whoever
        opens it first sets their password. It is shown now and never again, and works once, until ${dateTime(link.expires_at)}.</${Secret}>`}
    </${Panel}>
    <${Panel} title="Users" action=${html`<input class="input filter" type="search" placeholder="Filter" aria-label="Filter users"
      maxlength="64" value=${typed} onInput=${(event) => setTyped(event.currentTarget.value)} />`}>
      <${Loaded} of=${{ ...first, value: listed }}>${({ users, next_cursor }) => html`
        ${users.length === 0 && html`<p class="panel-about">Nobody of that name.</p>`}
        <ul class="rows">
          ${users.map((user) => html`<${User} key=${user.id} user=${user} onChanged=${onChanged}
            onLink=${(made) => setLink({ name: user.name, ...made })} />`)}
        </ul>
        ${next_cursor && html`<div><button type="button" class="button"
          onClick=${() => more().catch(complain)}>Show more</button></div>`}`}</${Loaded}>
    </${Panel}>`;
}

function New({ onAdded }) {
  const [name, setName] = useState("");
  const [admin, setAdmin] = useState(false);
  const [busy, error, run] = useSending();
  const add = async (event) => {
    event.preventDefault();
    if (!(await run(async () => onAdded(await post("/admin/users", { name: name.trim(), admin }))))) return;
    setName("");
    setAdmin(false);
  };
  return html`<form class="form inline" onSubmit=${add}>
    <div class="field grow"><label for="user-name">Name</label>
      <input id="user-name" class="input" required maxlength="64" placeholder="kim" autocomplete="off" autocapitalize="none" spellcheck=${false}
        value=${name} onInput=${(event) => setName(event.currentTarget.value)} /></div>
    <label class="check"><input type="checkbox" checked=${admin} onChange=${(event) => setAdmin(event.currentTarget.checked)} /> Admin</label>
    <button class="button primary" disabled=${busy || !name.trim()}>Add</button>
    <${Wrong} error=${error} />
  </form>`;
}

function User({ user, onLink, onChanged }) {
  const { id, name, admin, disabled_at, has_password, created_at } = user;
  const change = async (fields, done) => {
    onChanged(await patch(`/admin/users/${id}`, fields));
    toast(done);
  };
  const makeLink = async () => onLink(await post(`/admin/users/${id}/link`));
  const disable = async () => {
    const sure = await confirm({
      title: `Disable ${name}?`,
      text: "They are signed out everywhere, and their tokens are refused. What they wrote stays. You can enable them again.",
      action: "Disable",
      danger: true,
    });
    if (sure) await change({ disabled: true }, `${name} is disabled.`);
  };
  const item = (label, icon, act, danger = false) => ({ label, icon, danger, onSelect: () => act().catch(complain) });
  const another = id !== me.id; // nobody takes anything from themselves, nor changes their password without the present one
  const items = () => [
    !disabled_at && item("New link for a password", "link", makeLink),
    !disabled_at && !admin && item("Make an admin", "key", () => change({ admin: true }, `${name} is an admin.`)),
    admin && item("Make a member", "user", () => change({ admin: false }, `${name} is no admin any more.`)),
    disabled_at && item("Enable", "check", () => change({ disabled: false }, `${name} is enabled.`)),
    !disabled_at && item("Disable", "close", disable, true),
  ];
  return html`<li data-off=${Boolean(disabled_at)}>
    <${Avatar} name=${name} />
    <div class="grow"><span><b>${name}</b>${!another && html` <span class="faint">(you)</span>`}</span>
      <span class="small">since <time dateTime=${created_at} title=${dateTime(created_at)}>${date(created_at)}</time>
        ${!has_password && ", no password yet"}</span></div>
    ${admin && html`<span class="badge">admin</span>`} ${disabled_at && html`<span class="badge off" title=${dateTime(disabled_at)}>disabled</span>`}
    ${another && html`<${Menu} label=${`What to do with ${name}`} items=${items} />`}
  </li>`;
}
