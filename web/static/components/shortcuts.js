// Help with the keys. Single keys can be switched off: who speaks to their computer, or brushes the keyboard, would set them off by mistake.
import { SHORTCUTS, setSingleKeys, singleKeys } from "../app.js";
import { html, useState } from "../ui.js";
import { Dialog, open } from "./dialog.js";

export const showShortcuts = () => open(Shortcuts);

function Shortcuts({ done }) {
  const [single, setSingle] = useState(singleKeys());
  const toggle = (event) => {
    setSingle(event.currentTarget.checked);
    setSingleKeys(event.currentTarget.checked);
  };
  return html`<${Dialog} label="Keyboard shortcuts" onClose=${done}>
    <div class="body">
      <h2>Keyboard shortcuts</h2>
      <dl class="keys">
        ${SHORTCUTS.map(
          ([keys, what]) => html`<div key=${what}>
            <dt>${what}</dt>
            <dd>${keys.map((key) => html`<kbd key=${key} class="kbd">${key}</kbd> `)}</dd>
          </div>`,
        )}
      </dl>
      <label class="check"><input type="checkbox" checked=${single} onChange=${toggle} />Single keys, such as N, work outside of text fields</label>
      <div class="actions"><button class="button primary" autofocus onClick=${() => done()}>Close</button></div>
    </div>
  </${Dialog}>`;
}
