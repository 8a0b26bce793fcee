// What the sections of the settings are made of.
import { Icon, ago, dateTime, html, useCallback, useEffect, useLayoutEffect, useRef, useState } from "../../ui.js";
import { copy } from "../copy.js";

/** @param {{title: string, about?: any, action?: any, children?: any}} props `action` stands beside the title */
export function Panel({ title, about, action, children }) {
  return html`<section class="panel">
    <header><h2 class="grow">${title}</h2>${action}</header>
    ${about && html`<p class="panel-about">${about}</p>`}
    ${children}
  </section>`;
}

/**
 * What was loaded, anew whenever `needs` change: `{value, error, again}`. `value` is null until it came, and stays while it is loaded again.
 * @param {() => Promise<any>} load
 * @param {{every?: number}} how `every` so many milliseconds it is loaded again, while the page is looked at
 */
export function useLoaded(load, needs = [], { every = 0 } = {}) {
  const [state, setState] = useState({ value: null, error: "" });
  const [round, setRound] = useState(0);
  const again = useCallback(() => setRound((before) => before + 1), []);
  useEffect(() => {
    let wanted = true;
    let timer = 0;
    const later = () => {
      if (every) timer = setTimeout(() => (document.visibilityState === "visible" ? again() : later()), every);
    };
    load()
      .then(
        (value) => wanted && setState({ value, error: "" }),
        (failure) => wanted && setState((before) => ({ ...before, error: failure.message })),
      )
      .then(() => wanted && later());
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [...needs, round]);
  return { ...state, again };
}

/**
 * Shows `children(value)`, or that it is loading, or why it could not be: then beside what came before, which keeps its state.
 * @param {{of: {value: any, error: string, again: () => void}, children: (value: any) => any}} props
 */
export function Loaded({ of: { value, error, again }, children }) {
  return html`${error &&
    html`<div class="settings-error" role="alert">
      <${Icon} name="warning" /><span class="grow">${error}</span><button type="button" class="button small" onClick=${again}>Try again</button>
    </div>`}
    ${value !== null ? children(value) : !error && html`<div class="loading" role="status" aria-label="Loading"></div>`}`;
}

/** What is shown once, to be copied. @param {{text: string, what: string, onDone: () => void, children: any}} props `what`: "The token" */
export function Secret({ text, what, onDone, children }) {
  const field = useRef(null);
  useLayoutEffect(() => field.current.focus(), []);
  return html`<div class="secret">
    <p role="status">${children}</p>
    <div class="secret-text">
      <input ref=${field} class="input" readonly aria-label=${what} value=${text} onFocus=${(event) => event.currentTarget.select()} />
      <button type="button" class="button" onClick=${() => copy(text, what)}><${Icon} name="copy" size=${16} /> Copy</button>
      <button type="button" class="icon-button" aria-label="Hide it for good" title="Hide it for good" onClick=${onDone}>
        <${Icon} name="close" size=${16} /></button>
    </div>
  </div>`;
}

/** "3h ago", of what happened; the full time when one points at it. @param {{at: string}} props */
export function Ago({ at }) {
  const text = ago(at);
  const now = text === "now" || text.startsWith("in "); // by a clock that is slow
  return html`<time dateTime=${at} title=${dateTime(at)}>${now ? "just now" : `${text} ago`}</time>`;
}

/** "in 3h", of what is to come. @param {{at: string}} props */
export function Soon({ at }) {
  const text = ago(at);
  return html`<time dateTime=${at} title=${dateTime(at)}>${text.startsWith("in ") ? text : "soon"}</time>`;
}

/** "A", "A or B", "A, B or C". */
export const either = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`);

/** A command or a file's content, to be copied. @param {{text: string, what: string}} props */
export function Code({ text, what }) {
  return html`<div class="code-line">
    <pre><code>${text}</code></pre>
    <button type="button" class="icon-button" aria-label=${`Copy ${what}`} title=${`Copy ${what}`} onClick=${() => copy(text, what)}>
      <${Icon} name="copy" size=${16} /></button>
  </div>`;
}

/**
 * One of a few, side by side.
 * @param {{label: string, of: [any, any][], chosen: any, onChoose: (value: any) => void}} props `of` values and how they are called
 */
export function Segments({ label, of, chosen, onChoose }) {
  return html`<div class="segments" role="group" aria-label=${label}>
    ${of.map(
      ([value, name]) => html`<button key=${value} type="button" class="button small" aria-pressed=${chosen === value} 
        onClick=${() => onChoose(value)}>${name}</button>`,
    )}
  </div>`;
}

/** `error`, where a form failed, said once. */
export const Wrong = ({ error }) => error && html`<p class="error" role="alert">${error}</p>`;

/** What runs while a form is sent: `[busy, error, run]`; `run(action)` gives whether it succeeded, and does nothing while another one runs. */
export function useSending() {
  const [state, setState] = useState({ busy: false, error: "" });
  const running = useRef(false);
  const run = async (action) => {
    if (running.current) return false;
    running.current = true;
    setState({ busy: true, error: "" });
    let error = "";
    try {
      await action();
    } catch (failure) {
      error = failure.message;
    }
    running.current = false;
    setState({ busy: false, error });
    return !error;
  };
  return [state.busy, state.error, run];
}
