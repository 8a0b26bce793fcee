// Which models can be asked here, and what the others lack.
import { html } from "../../ui.js";
import { loadModels, providerName } from "../models.js";
import { Loaded, Panel, either, useLoaded } from "./parts.js";

export function Models() {
  const models = useLoaded(loadModels);
  return html`<${Loaded} of=${models}>${({ available, missing, fallback }) => html`
    <${Panel} title="Can be asked" about="Where a conversation chooses none, its project's model answers, otherwise the default.">
      ${fallback?.available === false &&
      html`<p class="settings-error">The default model <b>${fallback.id}</b> cannot be asked: ${either(fallback.missing)} is not set.</p>`}
      <ul class="rows models">
        ${available.flatMap(([provider, each]) =>
          each.map(
            (model) => html`<li key=${model.id}><b>${providerName(provider)}</b><code class="grow">${model.id}</code>
              ${model.default && html`<span class="badge on">default</span>`}</li>`,
          ),
        )}
      </ul>
      <p class="panel-about">Any other model that litellm knows can be chosen by its id, such as <code>ollama_chat/llama3.1</code>: in a
        conversation, or for all of them by <code>ONETHREAD_MODEL</code>.</p>
    </${Panel}>
    ${missing.length > 0 &&
    html`<${Panel} title="Not set up" about="Whoever runs the server sets the variable, in its environment or in the file .env, and starts it again.">
      <ul class="rows models">
        ${missing.flatMap(([provider, each]) =>
          each.map(
            (model) => html`<li key=${model.id}><b>${providerName(provider)}</b><code class="grow faint">${model.id}</code>
              <code class="variables">${either(model.missing)}</code></li>`,
          ),
        )}
      </ul>
    </${Panel}>`}`}</${Loaded}>`;
}
