// For admins: projects, and what the agent is told in each of them.
import { get, patch, post } from "../../api.js";
import { html, toast, useLayoutEffect, useRef, useState } from "../../ui.js";
import { loadModels } from "../models.js";
import { Loaded, Panel, Wrong, useLoaded, useSending } from "./parts.js";

const NEW = { key: "", name: "", instructions: "", model: null };

export function Projects() {
  const listed = useLoaded(() => get("/projects"));
  const models = useLoaded(loadModels);
  const [open, setOpen] = useState(null); // a project's key, or "" for a new one
  const list = useRef(null);
  const close = () => {
    list.current = open; // where the focus goes back to
    setOpen(null);
  };
  const saved = (project) => {
    toast(`${project.key} is saved.`, { kind: "success" });
    listed.again();
    close();
  };
  useLayoutEffect(() => {
    if (open === null && list.current !== null) document.querySelector(`[data-opens="${list.current}"]`)?.focus();
  }, [open]);
  const form = (project) => html`<${Form} project=${project} models=${models.value?.available ?? []} onSaved=${saved} onCancel=${close} />`;
  const add = html`<button type="button" class="button" data-opens="" disabled=${open === ""} onClick=${() => setOpen("")}>New project</button>`;
  return html`<${Panel} title="Projects" action=${add} about="A project groups tasks, begins their refs with its key, and instructs the agent.">
    ${open === "" && form(NEW)}
    <${Loaded} of=${listed}>${({ projects }) => html`<ul class="rows">
      ${projects.map((project) =>
        open === project.key
          ? html`<li key=${project.key} class="opened">${form(project)}</li>`
          : html`<li key=${project.key}>
              <span class="ref">${project.key}</span>
              <div class="grow"><b>${project.name}</b><span class="small clipped">${project.instructions || "No instructions"}</span>
                ${project.model && html`<span class="small">answered by <code>${project.model}</code></span>`}</div>
              <button type="button" class="button small" data-opens=${project.key} aria-label=${`Edit ${project.key}`}
                onClick=${() => setOpen(project.key)}>Edit</button>
            </li>`,
      )}
    </ul>`}</${Loaded}>
  </${Panel}>`;
}

function Form({ project, models, onSaved, onCancel }) {
  const [fields, setFields] = useState(project);
  const [busy, error, run] = useSending();
  const form = useRef(null);
  useLayoutEffect(() => form.current.querySelector("input").focus(), []);
  const isNew = project === NEW;
  const set = (name) => (event) => setFields({ ...fields, [name]: event.currentTarget.value });
  const save = (event) => {
    event.preventDefault();
    const { key, name, instructions } = fields;
    const about = { name: name.trim(), instructions, model: fields.model?.trim() || null };
    return run(async () => onSaved(await (isNew ? post("/projects", { key: key.trim(), ...about }) : patch(`/projects/${key}`, about))));
  };
  const escaped = (event) => event.key === "Escape" && !event.defaultPrevented && onCancel();
  return html`<form class="form" ref=${form} aria-label=${isNew ? "New project" : `Project ${project.key}`} onSubmit=${save} onKeyDown=${escaped}>
    <div class="pair">
      ${isNew &&
      html`<div class="field"><label for="project-key">Key</label>
        <input id="project-key" class="input key" required maxlength="10" placeholder="WEB" autocomplete="off" autocapitalize="characters"
          spellcheck=${false} value=${fields.key} onInput=${set("key")} />
        <p class="hint">2-10 letters and digits; it stays.</p></div>`}
      <div class="field"><label for="project-name">Name</label>
        <input id="project-name" class="input" required maxlength="200" autocomplete="off" value=${fields.name} onInput=${set("name")} /></div>
      <div class="field"><label for="project-model">Model</label>
        <input id="project-model" class="input" list="project-models" maxlength="150" placeholder="the default" autocomplete="off"
          autocapitalize="none" spellcheck=${false} value=${fields.model ?? ""} onInput=${set("model")} />
        <datalist id="project-models">${models.flatMap(([, each]) => each.map(({ id }) => html`<option key=${id} value=${id} />`))}</datalist></div>
    </div>
    <div class="field"><label for="project-instructions">Instructions</label>
      <textarea id="project-instructions" class="input" rows="8" maxlength="20000" dir="auto"
        placeholder="What the agent is told in every conversation of the project" value=${fields.instructions}
        onInput=${set("instructions")}></textarea></div>
    <${Wrong} error=${error} />
    <div class="row-of-buttons">
      <button class="button primary" disabled=${busy || !fields.name.trim() || !fields.key.trim()}>Save</button>
      <button type="button" class="button" onClick=${onCancel}>Cancel</button>
    </div>
  </form>`;
}
