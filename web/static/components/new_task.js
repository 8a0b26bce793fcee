// The dialog for a new task. What was written in it stays until the task is made, also when it is closed in between.
import { get, newKey, post } from "../api.js";
import { complain, go, html, paths, useEffect, useRef, useState } from "../ui.js";
import { Dialog, open } from "./dialog.js";
import { AssigneeField, DueField, PriorityField } from "./task_fields.js";

const MAX_TITLE = 200;
const MAX_DESCRIPTION = 10000;
const NOTHING = { title: "", description: "", assignee: null, priority: "medium", due_at: null, project: null };
let begun = { ...NOTHING };

/** @returns {Promise<object | null>} the task, which is then shown; null where none was made */
export async function newTask() {
  const task = await open(NewTask);
  if (task) go(paths.task(task.ref));
  return task;
}

function NewTask({ done }) {
  const [fields, setFields] = useState(begun);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const [projects, setProjects] = useState([]);
  const key = useRef(newKey());
  const set = (name) => (value) => {
    begun = { ...begun, [name]: value };
    setFields(begun);
  };
  const typed = (name) => (event) => set(name)(event.currentTarget.value);
  useEffect(() => void get("/projects").then((answer) => setProjects(answer.projects), complain), []);
  const onSubmit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError("");
    try {
      const task = await post("/tasks", given(fields), { key: key.current });
      begun = { ...NOTHING };
      done(task);
    } catch (failure) {
      if (!failure.temporary) key.current = newKey(); // nothing was made by that key; another text may go with the next
      setError(failure.message);
      setBusy(false);
    }
  };
  return html`<${Dialog} label="New task" class="wide" onClose=${() => done(null)}>
    <form onSubmit=${onSubmit} onKeyDown=${(event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.currentTarget.requestSubmit()}>
      <h2>New task</h2>
      <div class="field">
        <label for="new-title">Title</label>
        <input id="new-title" class="input" dir="auto" autofocus required maxlength=${MAX_TITLE} autocomplete="off"
          value=${fields.title} onInput=${typed("title")} />
      </div>
      <div class="field">
        <label for="new-description">Description</label>
        <textarea id="new-description" class="input" dir="auto" maxlength=${MAX_DESCRIPTION} rows="4" placeholder="What the agent and others should know; Markdown"
          value=${fields.description} onInput=${typed("description")}></textarea>
      </div>
      <div class="pair">
        <div class="field"><label for="new-assignee">Assignee</label>
          <${AssigneeField} id="new-assignee" value=${fields.assignee} onChange=${set("assignee")} /></div>
        <div class="field"><label for="new-priority">Priority</label>
          <${PriorityField} id="new-priority" value=${fields.priority} onChange=${set("priority")} /></div>
        <div class="field"><label for="new-due">Due</label><${DueField} id="new-due" value=${fields.due_at} onChange=${set("due_at")} /></div>
      </div>
      ${projects.length > 1 &&
      html`<div class="field">
        <label for="new-project">Project</label>
        <select id="new-project" class="select" value=${fields.project ?? projects[0].key} onChange=${typed("project")}>
          ${projects.map((project) => html`<option key=${project.key} value=${project.key}>${project.key}: ${project.name}</option>`)}
        </select>
      </div>`}
      <p class="hint">Everybody can read a task and what is said in it.</p>
      ${error && html`<p class="error" role="alert">${error}</p>`}
      <div class="actions">
        <button type="button" class="button" onClick=${() => done(null)}>Cancel</button>
        <button class="button primary" disabled=${busy || !fields.title.trim()}>Make the task</button>
      </div>
    </form>
  </${Dialog}>`;
}

/** What was filled in; all else is as the server has it by default. */
const given = (fields) => Object.fromEntries(Object.entries(fields).filter(([name, value]) => value && value !== NOTHING[name]));
