// The search through everything that one may read: titles first, then what was said.
import { get } from "../api.js";
import { Icon, Status, Time, go, html, style, useEffect, useRef, useState } from "../ui.js";
import { Dialog, open } from "./dialog.js";
import { pathOf, titleOf } from "./sidebar.js";

const PAUSE_MS = 180;
const MOST = 30;

export async function search(query = "") {
  await style("search");
  return open(({ done }) => html`<${Search} first=${query} done=${done} />`);
}

function Search({ first, done }) {
  const [query, setQuery] = useState(first);
  const [found, setFound] = useState(null); // {query, results}
  const [error, setError] = useState("");
  const [at, setAt] = useState(0);
  const [again, setAgain] = useState(0);
  const list = useRef(null);
  const sought = query.trim();
  useEffect(() => {
    setError("");
    if (!sought) return setFound(null);
    const asking = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const { results } = await get(`/search?limit=${MOST}&query=${encodeURIComponent(sought)}`, { signal: asking.signal });
        setFound({ query: sought, results });
        setAt(0);
      } catch (failure) {
        if (failure.name !== "AbortError") setError(failure.message);
      }
    }, PAUSE_MS);
    return () => (clearTimeout(timer), asking.abort());
  }, [sought, again]);
  useEffect(() => list.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" }), [at]);

  const results = found?.results ?? [];
  const show = (result) => {
    done();
    go(pathOf(result.conversation) + (result.message ? `#${result.message.seq}` : ""));
  };
  const onKeyDown = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && results.length) setAt((at + by + results.length) % results.length);
    else if (event.key === "Enter" && !event.isComposing && results[at] && found.query === sought) show(results[at]);
    else return;
    event.preventDefault();
  };
  return html`<${Dialog} label="Search" class="search" onClose=${() => done()}>
    <div class="search-field">
      <${Icon} name="search" />
      <input type="search" dir="auto" autofocus autocomplete="off" maxlength="200" placeholder="Search titles and messages"
        aria-label="Search titles and messages" role="combobox"
        aria-expanded=${results.length > 0} aria-controls="search-results" aria-activedescendant=${results.length ? `result-${at}` : undefined}
        value=${query} onInput=${(event) => setQuery(event.currentTarget.value)} onKeyDown=${onKeyDown} />
      <button class="icon-button" aria-label="Close the search" title="Close" onClick=${() => done()}><${Icon} name="close" /></button>
    </div>
    ${error
      ? html`<div class="empty-state" role="alert"><p>${error}</p><button class="button" onClick=${() => setAgain(again + 1)}>Try again</button></div>`
      : html`<ul ref=${list} id="search-results" role="listbox" aria-label="What was found">
          ${results.map(
            (result, place) => html`<${Result} key=${place} id=${`result-${place}`} result=${result} query=${found.query} selected=${place === at}
              onPoint=${() => setAt(place)} onClick=${() => show(result)} />`,
          )}
        </ul>`}
    <p class="search-note" role="status">${note(sought, found, error)}</p>
  </${Dialog}>`;
}

function note(sought, found, error) {
  if (error) return "";
  if (!sought) return "Titles and refs come first, then messages, the newest first.";
  if (found?.query !== sought) return "Searching …";
  if (!found.results.length) return `Nothing was found for “${sought}”.`;
  return found.results.length === 1 ? "1 result" : `${found.results.length === MOST ? "The first " : ""}${found.results.length} results`;
}

function Result({ id, result, query, selected, onPoint, onClick }) {
  const { conversation, message, excerpt } = result;
  const who = message && (message.role === "user" ? (message.author ?? "Somebody") : "Agent");
  return html`<li id=${id} class="result" role="option" aria-selected=${selected} onPointerMove=${onPoint} onClick=${onClick}>
    <${Status} status=${conversation.agent_status} short />
    <span class="result-title">
      ${conversation.task_ref && html`<span class="ref">${conversation.task_ref}</span>${" "}`}
      <span dir="auto"><${Marked} text=${titleOf(conversation)} query=${query} /></span>
    </span>
    <${Time} at=${message?.created_at ?? conversation.updated_at} />
    ${message && html`<span class="result-text" dir="auto"><b>${who}:</b> <${Marked} text=${excerpt} query=${query} /></span>`}
  </li>`;
}

/** The text, with each of the words marked in it. */
function Marked({ text, query }) {
  const words = query.split(/\s+/).map((word) => word.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  return text.split(new RegExp(`(${words.join("|")})`, "i")).map((part, place) => (place % 2 ? html`<mark>${part}</mark>` : part));
}
