// Who one is: name, password, look of the page, and where one is signed in.
import { get, post } from "../../api.js";
import { leave, me } from "../../state/lists.js";
import { Avatar, complain, html, setTheme, theme, toast, useState } from "../../ui.js";
import { confirm } from "../dialog.js";
import { signOut } from "../sidebar.js";
import { Loaded, Panel, Wrong, useLoaded, useSending } from "./parts.js";

const THEMES = [
  ["auto", "As the system"],
  ["light", "Light"],
  ["dark", "Dark"],
];

export function Profile() {
  const about = useLoaded(() => get("/me"));
  return html`<${Panel} title="Profile">
      <div class="who"><${Avatar} name=${me.name} /><div><b>${me.name}</b><span>${me.admin ? "Admin" : "Member"}</span></div></div>
    </${Panel}>
    <${Panel} title="Look">
      <div class="choices" role="radiogroup" aria-label="Theme">
        ${THEMES.map(
          ([value, label]) => html`<label key=${value}><input type="radio" name="theme" value=${value} checked=${theme.value === value}
            onChange=${() => setTheme(value)} /> ${label}</label>`,
        )}
      </div>
    </${Panel}>
    <${Loaded} of=${about}>${(account) => html`<${Password} account=${account} again=${about.again} />
      <${Sessions} account=${account} />`}</${Loaded}>`;
}

function Password({ account, again }) {
  const [typed, setTyped] = useState({ current: "", fresh: "", repeated: "" });
  const [busy, error, run] = useSending();
  const differ = typed.repeated !== "" && typed.fresh !== typed.repeated;
  const set = (name) => (event) => setTyped({ ...typed, [name]: event.currentTarget.value });
  const change = async (event) => {
    event.preventDefault();
    if (!(await run(() => post("/auth/password", { current: typed.current, new: typed.fresh })))) return;
    setTyped({ current: "", fresh: "", repeated: "" });
    toast(`The password is ${account.has_password ? "changed" : "set"}. Your other sessions have ended.`, { kind: "success" });
    again();
  };
  const about = account.has_password
    ? "A new one ends all your other sessions."
    : "You have none yet: you came by a link. With one you can sign in from anywhere. Setting it ends your other sessions.";
  return html`<${Panel} title="Password" about=${about}>
    <form class="form" onSubmit=${change}>
      <input class="visually-hidden" autocomplete="username" value=${me.name} readonly tabindex="-1" aria-hidden="true" />
      ${account.has_password &&
      html`<div class="field"><label for="current">Present password</label>
        <input id="current" class="input" type="password" required autocomplete="current-password" value=${typed.current}
          onInput=${set("current")} /></div>`}
      <div class="field"><label for="fresh">New password</label>
        <input id="fresh" class="input" type="password" required minlength="10" autocomplete="new-password" value=${typed.fresh}
          onInput=${set("fresh")} />
        <p class="hint">10 characters or more, and not your name.</p></div>
      <div class="field"><label for="repeated">The same again</label>
        <input id="repeated" class="input" type="password" required autocomplete="new-password" aria-invalid=${differ} value=${typed.repeated}
          onInput=${set("repeated")} />
        ${differ && html`<p class="error">The two are not the same.</p>`}</div>
      <${Wrong} error=${error} />
      <div><button class="button primary" disabled=${busy || differ || !typed.repeated}>
        ${account.has_password ? "Change the password" : "Set the password"}</button></div>
    </form>
  </${Panel}>`;
}

function Sessions({ account }) {
  const everywhere = async () => {
    const sure = await confirm({
      title: "Sign out everywhere?",
      text: account.has_password
        ? "All browsers in which you are signed in are signed out, this one too. Access tokens stay: revoke them one by one."
        : "All browsers are signed out, this one too, and you have no password. To come back you need a new link: an admin makes one, or " +
          `“onethread user link ${me.name}” on the server. Access tokens stay.`,
      action: "Sign out everywhere",
      danger: true,
    });
    if (sure) await post("/auth/sign-out-everywhere").then(leave, complain);
  };
  return html`<${Panel} title="Sessions" about="A browser stays signed in for 14 days after one signed in there.">
    <div class="row-of-buttons">
      <button type="button" class="button" onClick=${signOut}>Sign out</button>
      <button type="button" class="button danger" onClick=${everywhere}>Sign out everywhere</button>
    </div>
  </${Panel}>`;
}
