// The settings: which sections there are, and the one that is shown. Each section is a module that comes when it is opened.
import { me } from "../../state/lists.js";
import { Icon, follow, html, lazy, paths, useLayoutEffect, useRef } from "../../ui.js";

const section = (name, title, icon, load, component) => ({ name, title, icon, component: lazy(load, component) });

const OWN = [
  section("profile", "Profile", "user", () => import("./profile.js"), "Profile"),
  section("accounts", "Accounts", "link", () => import("./accounts.js"), "Accounts"),
  section("tokens", "Access tokens", "key", () => import("./tokens.js"), "Tokens"),
  section("connections", "Connections", "plug", () => import("./connections.js"), "Connections"),
  section("models", "Models", "model", () => import("./models.js"), "Models"),
  section("usage", "Usage", "chart", () => import("./usage.js"), "Usage"),
];
const ADMINS = [
  section("users", "Users", "users", () => import("./users.js"), "Users"),
  section("projects", "Projects", "project", () => import("./projects.js"), "Projects"),
  section("queue", "Queue and workers", "queue", () => import("./queue.js"), "Queue"),
];

/** @param {{section: string}} props its name; empty: the list of sections on a phone, the first one beside it elsewhere */
export function Settings({ section: name }) {
  const whole = useRef(null);
  const before = useRef(name);
  const shown = [...OWN, ...ADMINS].find((each) => each.name === (name || "profile"));
  useLayoutEffect(() => {
    if (before.current === name) return;
    const from = before.current;
    before.current = name;
    whole.current.parentElement.scrollTop = 0;
    // On a phone what was pressed is not shown any more.
    const here = name ? ".settings-back" : `.settings-nav a[href="${CSS.escape(paths.settings(from))}"]`;
    if (!document.activeElement?.checkVisibility() || document.activeElement === document.body) whole.current.querySelector(here)?.focus();
  }, [name]);
  return html`<div class="settings" data-section=${name} ref=${whole}>
    <nav class="settings-nav" aria-label="Settings">
      <h1>Settings</h1>
      <${Group} sections=${OWN} shown=${shown} />
      ${me.admin && html`<h2>For admins</h2><${Group} sections=${ADMINS} shown=${shown} />`}
    </nav>
    <div class="settings-body">
      <a class="settings-back only-phone" href=${paths.settings()} onClick=${follow}><${Icon} name="back" /> All settings</a>
      ${content(shown)}
    </div>
  </div>`;
}

function Group({ sections, shown }) {
  return html`<ul>
    ${sections.map(
      (each) => html`<li key=${each.name}>
        <a href=${paths.settings(each.name)} aria-current=${each === shown ? "page" : undefined} onClick=${follow}><${Icon} name=${each.icon} />
          <span class="grow">${each.title}</span><span class="only-phone"><${Icon} name="chevron-right" size=${16} /></span></a>
      </li>`,
    )}
  </ul>`;
}

function content(shown) {
  if (!shown) return html`<div class="empty-state"><h2>There is no such section</h2><p>Choose one from the list.</p></div>`;
  if (ADMINS.includes(shown) && !me.admin) {
    return html`<div class="empty-state"><${Icon} name="key" size=${28} /><h2>Only for admins</h2><p>Ask an admin of this Onethread.</p></div>`;
  }
  return html`<${shown.component} key=${shown.name} />`;
}
