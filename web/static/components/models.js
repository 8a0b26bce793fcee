// Which model answers: those that can be asked, those that lack a key and which, and any other by its id.
import { get } from "../api.js";
import { Icon, html, useEffect, useLayoutEffect, useRef, useState } from "../ui.js";

/** By how litellm spells them: how they are called. */
const NAMES = {
  __proto__: null,
  anthropic: "Anthropic",
  openai: "OpenAI",
  gemini: "Google Gemini",
  groq: "Groq",
  mistral: "Mistral",
  deepseek: "DeepSeek",
  xai: "xAI",
  openrouter: "OpenRouter",
  together_ai: "Together AI",
  cohere: "Cohere",
  cerebras: "Cerebras",
  perplexity: "Perplexity",
  azure: "Azure OpenAI",
  bedrock: "Amazon Bedrock",
  vertex_ai: "Google Vertex AI",
  ollama: "Ollama",
  lm_studio: "LM Studio",
  hosted_vllm: "vLLM",
  demo: "Demo (offline)",
};

export const providerName = (id) => NAMES[id] ?? id;

/**
 * Both by provider; `fallback` is the default model.
 * @returns {Promise<{available: [string, object[]][], missing: [string, object[]][], fallback: object}>}
 */
export async function loadModels() {
  const models = await get("/models");
  return { available: byProvider(models, true), missing: byProvider(models, false), fallback: models.find((each) => each.default) };
}

function byProvider(models, available) {
  const groups = new Map();
  for (const model of models) if (model.available === available) groups.set(model.provider, [...(groups.get(model.provider) ?? []), model]);
  return [...groups];
}

/**
 * The content of the menu. The choice is the conversation's, not one message's: one place to look, and it holds on every surface.
 * @param {{model: string | null, is_new: boolean, onPick: (id: string | null) => void}} props null is the default
 */
export function ModelList({ model, is_new, onPick }) {
  const [models, setModels] = useState(null);
  const [error, setError] = useState("");
  const [typed, setTyped] = useState("");
  const list = useRef(null);
  useEffect(() => {
    loadModels().then(setModels, (failure) => setError(failure.message));
  }, []);
  useLayoutEffect(() => list.current?.querySelector("[aria-pressed=true]")?.focus(), [models]);
  const moved = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const all = [...list.current.querySelectorAll("button")];
    if (!step) return;
    event.preventDefault();
    all.at((all.indexOf(document.activeElement) + step) % all.length).focus();
  };
  const named = (event) => {
    event.preventDefault();
    if (typed.trim()) onPick(typed.trim());
  };
  if (error) return html`<p class="models-note" role="alert">${error}</p>`;
  if (!models) return html`<div class="loading" role="status" aria-label="Loading"></div>`;
  const known = models.available.some(([, each]) => each.some(({ id }) => id === model));
  return html`
    <p class="models-note">${is_new ? "Answers in this new chat." : "Answers here from the next message on, whoever writes it."}</p>
    <div class="models-list" ref=${list} onKeyDown=${moved}>
      <${Choice} id=${null} chosen=${!model} onPick=${onPick} label="Default model" about=${models.fallback?.id} />
      ${model && !known && html`<${Choice} id=${model} chosen=${true} onPick=${onPick} label=${model} about="Chosen by its id" />`}
      ${models.available.map(
        ([provider, each]) => html`<${Provider} key=${provider} provider=${provider} models=${each} model=${model} onPick=${onPick} />`,
      )}
      ${models.missing.length > 0 &&
      html`<p class="models-note">Not set up here. Whoever runs the server sets a key:</p>
        ${models.missing.map(
          ([provider, each]) => html`<div class="models-provider missing" key=${provider}>
            <h3>${providerName(provider)}</h3>
            <p>${variables(each[0].missing)}</p>
          </div>`,
        )}`}
    </div>
    <form class="models-other" onSubmit=${named}>
      <input class="input" aria-label="Another model, by its id" placeholder="Another: provider/model" value=${typed} maxlength="150"
        spellcheck=${false} autocapitalize="none" autocomplete="off" onInput=${(event) => setTyped(event.currentTarget.value)} />
      <button class="button small" disabled=${!typed.trim()}>Use</button>
    </form>`;
}

function Provider({ provider, models, model, onPick }) {
  return html`<div class="models-provider" role="group" aria-label=${providerName(provider)}>
    <h3>${providerName(provider)}</h3>
    <div>
      ${models.map(
        (each) => html`<${Choice} key=${each.id} id=${each.id} chosen=${model === each.id} onPick=${onPick}
          label=${each.id.slice(each.id.indexOf("/") + 1)} about=${each.default && "default"} />`,
      )}
    </div>
  </div>`;
}

function Choice({ id, chosen, label, about, onPick }) {
  return html`<button type="button" class="menu-item" aria-pressed=${chosen} title=${id} onClick=${() => onPick(id)}>
    <span class="grow">${label}${about && html` <small>${about}</small>`}</span>${chosen && html`<${Icon} name="check" size=${16} />`}
  </button>`;
}

/** "A", "A or B", or with many of them the first two. */
function variables(names) {
  const shown = names.slice(0, 2).map((name) => html`<code>${name}</code>`);
  return shown.length === 1 ? shown : [shown[0], " or ", shown[1], names.length > 2 && " (or another of its keys)"];
}
