// A text of a task that is edited in its place.
import { changeTask, TaskConflict } from "../state/task_edits.js";
import { complain, html, Icon, useEffect, useRef, useState } from "../ui.js";

/**
 * A text that is shown, and edited in its place: saved when one leaves it or with Ctrl+Enter, left as it was with Esc. When somebody else changes
 * it while it is being edited, what was typed stays, and theirs is shown.
 */
export function Text({ field, label, task, change, view, multiline = false, required = false, max }) {
  const [edit, setEdit] = useState(null); // {text, seen, error, busy}: `seen` is the task as it was when the editing began
  const area = useRef(null);
  const shown = useRef(null);
  const now = useRef(null);
  now.current = edit;
  const server = task[field];
  const theirs = edit && server !== edit.seen[field];

  const save = async (seen) => {
    const { text, busy } = now.current ?? {};
    if (text === undefined || busy) return;
    const value = multiline ? text.trimEnd() : text.trim();
    if (value === seen[field]) return setEdit(null);
    if (required && !value) return setEdit({ ...now.current, error: `It needs a ${field}.` });
    setEdit({ ...now.current, seen, error: "", busy: true });
    try {
      await change({ [field]: value }, seen);
      setEdit(null);
    } catch (error) {
      setEdit((still) => still && { ...still, busy: false, error: error instanceof TaskConflict ? "" : error.message });
    }
  };
  const leave = (event) => {
    if (!theirs && !event.currentTarget.contains(event.relatedTarget)) save(edit.seen);
  };
  const key = (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") setEdit(null);
    else if (event.key === "Enter" && (!multiline || event.ctrlKey || event.metaKey)) {
      if (!theirs) save(edit.seen);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  useEffect(() => {
    if (!edit) return;
    area.current.focus();
    if (!multiline) area.current.select();
    return () => requestAnimationFrame(() => document.activeElement === document.body && shown.current?.focus());
  }, [edit !== null]);
  // The pane was closed while something was typed: nothing of it is lost.
  useEffect(
    () => () => {
      const { text, seen: before, busy } = now.current ?? {};
      if (before && !busy && text !== before[field]) changeTask(before, { [field]: text }).catch(complain);
    },
    [],
  );

  if (!edit) {
    const begin = (event) => {
      const isOther = event.target.closest("a, button.copy, summary") || getSelection().toString();
      if (!isOther) setEdit({ text: server, seen: task, error: "", busy: false });
    };
    const name = `Edit the ${field}`;
    return html`<div key="shown" class="editable" onClick=${begin}>
      ${view(server)}
      <button ref=${shown} type="button" class="icon-button editable-button" aria-label=${name} title=${name}>
        <${Icon} name="edit" size=${16} />
      </button>
    </div>`;
  }
  const typed = (event) => {
    const text = event.currentTarget.value;
    setEdit({ ...edit, text: multiline ? text : text.replace(/\s*\n\s*/g, " "), error: "" });
  };
  const stay = (event) => event.preventDefault(); // in the field: leaving it would save
  const left = max - edit.text.length;
  return html`<div key="edited" class="editing" onFocusOut=${leave}>
    <textarea ref=${area} class=${`input ${multiline ? "long" : "short"}`} aria-label=${label} dir="auto" maxlength=${max} rows=${multiline ? 6 : 1}
      value=${edit.text} readonly=${edit.busy} aria-invalid=${Boolean(edit.error)} onInput=${typed} onKeyDown=${key} />
    ${edit.error && html`<p class="editing-error" role="alert">${edit.error}</p>`}
    ${theirs
      ? html`<div class="conflict" role="alert">
          <p>Somebody else changed the ${field} meanwhile. Now it is:</p>
          <blockquote dir="auto">${server || "(empty)"}</blockquote>
          <div class="conflict-actions">
            <button type="button" class="button primary small" onClick=${() => save(task)}>Save mine</button>
            <button type="button" class="button small" onClick=${() => setEdit(null)}>Take theirs</button>
          </div>
        </div>`
      : html`<div class="editing-foot">
          <button type="button" class="button primary small" disabled=${edit.busy} onClick=${() => save(edit.seen)}>Save</button>
          <button type="button" class="button quiet small" onPointerDown=${stay} onClick=${() => setEdit(null)}>Cancel</button>
          <span class="hint">${left < max / 10 ? `${left} left` : `${multiline ? "Markdown · Ctrl+Enter saves" : "Enter saves"} · Esc cancels`}</span>
        </div>`}
  </div>`;
}
