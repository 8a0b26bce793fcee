// Dialogs: modal, closed by Esc or a click beside them, and the focus goes back to where it was. `confirm` and `ask` are questions that are awaited.
import { h, html, render, style, useLayoutEffect, useRef, useState } from "../ui.js";

await style("dialog");

/**
 * @param {{label: string, onClose: () => void, class?: string, sticky?: boolean, children: any}} props `sticky`: neither Esc nor a click beside it
 *   closes it
 */
export function Dialog({ label, onClose, class: name = "", sticky = false, children }) {
  const dialog = useRef(null);
  const pressed = useRef(null);
  useLayoutEffect(() => {
    const opener = document.activeElement;
    dialog.current.showModal();
    dialog.current.querySelector("[autofocus]")?.focus();
    const shown = dialog.current;
    return () => {
      shown.close(); // as long as it is open, nothing beside it takes the focus
      if (opener?.isConnected) opener.focus();
    };
  }, []);
  const onCancel = (event) => {
    if (event.target !== dialog.current) return; // a file picker's cancel bubbles, too
    event.preventDefault();
    if (!sticky) onClose();
  };
  const onClick = (event) => {
    // Only where the press began beside it, too: text that is marked beyond the edge must not close what one writes in.
    if (!sticky && event.target === dialog.current && pressed.current === dialog.current) onClose();
  };
  return html`<dialog ref=${dialog} class=${`dialog ${name}`} aria-label=${label} onCancel=${onCancel} onClick=${onClick}
    onPointerDown=${(event) => (pressed.current = event.target)} onKeyDown=${(event) => event.stopPropagation()}>${children}</dialog>`;
}

/**
 * Shows a dialog outside of the page's own tree, until it calls its `done`.
 * @param {(props: {done: (result: any) => void}) => any} component
 */
export function open(component) {
  return new Promise((resolve) => {
    const root = document.body.appendChild(document.createElement("div"));
    const done = (result) => {
      render(null, root);
      root.remove();
      resolve(result);
    };
    render(h(component, { done }), root);
  });
}

/**
 * Asks whether something should be done. The focus is on doing nothing where it cannot be undone.
 * @param {{title: string, text: string, action?: string, danger?: boolean}} question
 * @returns {Promise<boolean>}
 */
export const confirm = ({ title, text, action = "Continue", danger = false }) =>
  open(
    ({ done }) => html`<${Dialog} label=${title} onClose=${() => done(false)}>
      <form onSubmit=${(event) => (event.preventDefault(), done(true))}>
        <h2>${title}</h2>
        <p>${text}</p>
        <div class="actions">
          <button type="button" class="button" autofocus=${danger} onClick=${() => done(false)}>Cancel</button>
          <button class=${`button primary${danger ? " danger" : ""}`} autofocus=${!danger}>${action}</button>
        </div>
      </form>
    </${Dialog}>`,
  );

/**
 * Asks for a line of text; null where somebody gave up. What `save` throws is shown, and the text stays.
 * @param {{title: string, label: string, value?: string, action?: string, maxLength?: number, save?: (text: string) => Promise<any>}} question
 * @returns {Promise<string | null>}
 */
export const ask = (question) => open(({ done }) => html`<${Ask} ...${question} done=${done} />`);

function Ask({ title, label, value = "", action = "Save", maxLength = 200, save, done }) {
  const [text, setText] = useState(value);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const onSubmit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await save?.(text.trim());
      done(text.trim());
    } catch (failure) {
      setError(failure.message);
      setBusy(false);
    }
  };
  return html`<${Dialog} label=${title} onClose=${() => done(null)}>
    <form onSubmit=${onSubmit}>
      <h2>${title}</h2>
      <div class="field">
        <label for="ask">${label}</label>
        <input id="ask" class="input" dir="auto" autofocus autocomplete="off" maxlength=${maxLength} value=${text} aria-invalid=${!!error}
          onInput=${(event) => setText(event.currentTarget.value)} onFocus=${(event) => event.currentTarget.select()} />
        ${error && html`<p class="error" role="alert">${error}</p>`}
      </div>
      <div class="actions">
        <button type="button" class="button" onClick=${() => done(null)}>Cancel</button>
        <button class="button primary" disabled=${busy || !text.trim()}>${action}</button>
      </div>
    </form>
  </${Dialog}>`;
}
