// When the session has ended: to sign in again beside the page, which keeps all that was written, and to go on.
import { goOn } from "../app.js";
import { html, useEffect, useState } from "../ui.js";
import { Dialog } from "./dialog.js";

export function SignInAgain() {
  const [said, setSaid] = useState("");
  const look = async (asked) => {
    const still = await goOn();
    if (asked && !still) setSaid(still === null ? "The server cannot be reached. Try again in a moment." : "You are not signed in yet.");
  };
  useEffect(() => {
    const back = () => document.visibilityState === "visible" && look(false);
    addEventListener("focus", back);
    document.addEventListener("visibilitychange", back);
    return () => {
      removeEventListener("focus", back);
      document.removeEventListener("visibilitychange", back);
    };
  }, []);
  const here = `/login?next=${encodeURIComponent(location.pathname)}`;
  return html`<${Dialog} label="You are signed out" class="wide" sticky onClose=${() => {}}>
    <div class="body">
      <h2>You are signed out</h2>
      <p>Your session has ended. What you have written is kept: sign in again, and go on where you are.</p>
      <p>On the machine where Onethread runs, a restart of it prints a link that signs you in.</p>
      ${said && html`<p class="error" role="alert">${said}</p>`}
      <div class="actions">
        <a class="button quiet" href=${here}>Sign in here</a>
        <button class="button" onClick=${() => look(true)}>I am signed in again</button>
        <a class="button primary" href="/login" target="_blank" autofocus>Sign in in a new tab</a>
      </div>
    </div>
  </${Dialog}>`;
}
