// A tool call of the agent: what it does in a person's words, with what, how far it is and what came of it; and the decision that it may wait for.
import { Copy } from "../markdown.js";
import { decide } from "../state/conversation.js";
import { complain, html, useState } from "../ui.js";
import { writeOn } from "./composer.js";

/** For each of our tools: to be allowed or not done, being done, done; and which arguments say of what. */
const TOOLS = {
  __proto__: null, // a model chooses names such as `constructor`
  list_tasks: ["Look through tasks", "Looking through tasks", "Looked through tasks", ["query", "status", "assignee"]],
  get_task: ["Read", "Reading", "Read", ["ref"]],
  create_task: ["Create a task", "Creating a task", "Created a task", ["title"]],
  update_task: ["Change", "Changing", "Changed", ["ref"]],
  delete_task: ["Delete", "Deleting", "Deleted", ["ref"]],
  search: ["Search for", "Searching for", "Searched for", ["query"]],
};
const MARKS = { running: "◌", done: "✓", failed: "✕", awaiting_approval: "?" };
const MOST_TOLD = 80; // characters of an argument that stand in a title
const SHORT = 20;
const STATES = { running: "is running", done: "is done", failed: "was not done", awaiting_approval: "waits for a decision" };

export function ToolCall({ call }) {
  if (call.state === "awaiting_approval" && call.approval_id) return html`<${Approval} call=${call} />`;
  const problem = problemOf(call);
  return html`<details class="tool" data-state=${call.state}>
    <summary>
      <span class="tool-mark" role="img" aria-label=${STATES[call.state]}>${MARKS[call.state]}</span>
      <${Title} call=${call} />
      ${problem && html`<span class="tool-problem">${problem}</span>`}
      ${call.approval === "approved" && html`<span class="tool-by">${by("allowed", call)}</span>`}
    </summary>
    <${Arguments} call=${call} />
    ${call.result &&
    html`<div class="tool-part">
      <h4>Result</h4>
      <pre tabindex="0"><code>${pretty(call.result)}</code></pre>
      <${Copy} text=${call.result} label="Copy the result" />
    </div>`}
  </details>`;
}

function Approval({ call }) {
  const [deciding, setDeciding] = useState(false);
  const choose = async (decision) => {
    setDeciding(true);
    writeOn();
    await decide(call.approval_id, decision).catch(complain);
    setDeciding(false);
  };
  return html`<section class="approval" aria-label="Waits for your decision">
    <p class="approval-title">
      <span class="tool-mark" aria-hidden="true">?</span><span>May the agent do this? <b><${Title} call=${call} /></b></span>
    </p>
    <${Arguments} call=${call} but=${aboutOf(call).filter((name) => call.arguments[name].length <= MOST_TOLD)} />
    <p class="approval-buttons">
      <button class="button primary" disabled=${deciding} onClick=${() => choose("approve")}>Allow</button>
      <button class="button" disabled=${deciding} onClick=${() => choose("deny")}>Deny</button>
      <span class="hint">Writing something else denies it.</span>
    </p>
  </section>`;
}

function Title({ call }) {
  const [ask, doing, done] = TOOLS[call.name] ?? unknown(call.name);
  const said = { running: doing, done }[call.state] ?? ask;
  const of = aboutOf(call)
    .map((name) => clipped(call.arguments[name]))
    .join(", ");
  const name = of.length < SHORT ? "tool-about whole" : "tool-about"; // a ref is not broken at its hyphen
  return html`<span class="tool-title">${said}${of && html` <bdi class=${name}>${of}</bdi>`}</span>`;
}

/** The names of the arguments that stand in the title. */
const aboutOf = ({ name, arguments: given }) => (TOOLS[name]?.[3] ?? []).filter((each) => typeof given?.[each] === "string" && given[each]);

const clipped = (text) => (text.length > MOST_TOLD ? `${text.slice(0, MOST_TOLD)} …` : text);

function Arguments({ call, but = [] }) {
  const given = Object.entries(call.arguments ?? {}).filter(([name]) => !but.includes(name));
  if (!given.length) return null;
  return html`<dl class="tool-part tool-arguments">
    ${given.map(
      ([name, value]) => html`<div key=${name}>
        <dt>${worded(name)}</dt>
        <dd dir="auto">${typeof value === "string" ? value : JSON.stringify(value)}</dd>
      </div>`,
    )}
  </dl>`;
}

/** Why it was not done; empty where it was, or still may be. */
function problemOf(call) {
  if (call.state !== "failed") return "";
  if (call.approval === "denied") return by("denied", call);
  if (call.approval === "expired") return "nobody allowed it in time";
  const error = parsed(call.result)?.error;
  return typeof error === "string" ? error : "not done";
}

const by = (done, call) => (call.decided_by ? `${done} by ${call.decided_by}` : done);

const worded = (name) => name.replace(/[_-]+/g, " ").trim();

function unknown(name) {
  const words = worded(name);
  return [`Use ${words}`, `Using ${words}`, `Used ${words}`];
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function pretty(text) {
  const value = parsed(text);
  return value === null || typeof value !== "object" ? text : JSON.stringify(value, null, 2);
}
