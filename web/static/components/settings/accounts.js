// The accounts on chat platforms that are oneself: linked by a code, listed, unlinked.
import { get, post, remove } from "../../api.js";
import { complain, date, dateTime, html, toast, useEffect, useRef, useState } from "../../ui.js";
import { onPlatform } from "../chat.js";
import { confirm } from "../dialog.js";
import { Loaded, Panel, Secret, Wrong, useLoaded, useSending } from "./parts.js";

/** Milliseconds after which it is looked again whether the code was typed. */
const AWAITED = 3000;

export function Accounts() {
  const [code, setCode] = useState(null);
  const listed = useLoaded(() => get("/accounts"), [code], { every: code && AWAITED });
  useNew(listed.value?.accounts, (account) => {
    setCode(null);
    toast(`${account.name} on ${onPlatform(account.surface)} is you from now on.`);
  });
  const unlink = async ({ surface, account, external_id, name }) => {
    const sure = await confirm({
      title: `Unlink ${name} on ${onPlatform(surface)}?`,
      text: "What you said with it stays yours. Whoever writes with it from then on is somebody new here.",
      action: "Unlink",
      danger: true,
    });
    if (!sure) return;
    await remove(`/accounts/${[surface, account, external_id].map(encodeURIComponent).join("/")}`);
    toast(`${name} on ${onPlatform(surface)} is unlinked.`);
    listed.again();
  };
  return html`<${Panel} title="Link an account" about=${html`Once your account on Slack or Discord is linked, you are one and the same person there and
      here. Type <code>/link</code> there and open what you are given, or make a code here and type that there.`}>
      ${code ? html`<${Made} key=${code.code} code=${code} onDone=${() => setCode(null)} />` : html`<${Make} onMade=${setCode} />`}
    </${Panel}>
    <${Panel} title="Your accounts">
      <${Loaded} of=${listed}>${({ accounts }) =>
        accounts.length
          ? html`<ul class="rows">${accounts.map(
              (account) => html`<${Account} key=${keyOf(account)} of=${account} onUnlink=${() => unlink(account).catch(complain)} />`,
            )}</ul>`
          : html`<p class="panel-about">None is linked.</p>`}</${Loaded}>
    </${Panel}>`;
}

const keyOf = ({ surface, account, external_id }) => `${surface} ${account} ${external_id}`;

/** Calls `onNew` with an account that was not among those that were loaded before. */
function useNew(accounts, onNew) {
  const before = useRef(null);
  useEffect(() => {
    if (!accounts) return;
    const found = before.current && accounts.find((each) => !before.current.has(keyOf(each)));
    before.current = new Set(accounts.map(keyOf));
    if (found) onNew(found);
  }, [accounts]);
}

function Make({ onMade }) {
  const [busy, error, run] = useSending();
  return html`<${Wrong} error=${error} />
    <div><button type="button" class="button primary" disabled=${busy} onClick=${() => run(async () => onMade(await post("/accounts/code")))}>Make
      a code</button></div>`;
}

function Made({ code: { code, expires_in }, onDone }) {
  useEffect(() => {
    const timer = setTimeout(onDone, expires_in * 1000); // not by its time of day: the browser's clock may be wrong
    return () => clearTimeout(timer);
  }, []);
  return html`<${Secret} text=${`/link ${code}`} what="The command" onDone=${onDone}>Type this on Slack or Discord, yourself: whoever types it will
    act as you there. It works once, within ${Math.round(expires_in / 60)} minutes.</${Secret}>`;
}

function Account({ of: { surface, account, external_id, name, linked_at, by_operator }, onUnlink }) {
  return html`<li>
    <div class="grow"><b>${name} on ${onPlatform(surface)}</b>
      <span class="small">account ${external_id}, in ${account}; ${
        linked_at ? html`linked <time dateTime=${linked_at} title=${dateTime(linked_at)}>${date(linked_at)}</time>` : "you came here with it first"
      }</span></div>
    ${
      by_operator
        ? html`<span class="badge">linked by the operator</span>`
        : html`<button type="button" class="button small danger" aria-label=${`Unlink ${name} on ${onPlatform(surface)}`} onClick=${onUnlink}>
            Unlink</button>`
    }
  </li>`;
}
