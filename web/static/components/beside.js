// What stands beside the conversation of a task: its details.
import { opened } from "../state/conversation.js";
import { detailsOpen, html, lazy, subject, useEffect } from "../ui.js";

const Details = lazy(() => import("./details.js"), "Details", "details");

export function Beside() {
  const { task, conversation } = opened.value ?? {};
  const title = task?.title ?? conversation?.title;
  useEffect(() => {
    if (title) subject.value = title;
  }, [title]);
  if (!task || !detailsOpen.value) return null;
  const close = () => (detailsOpen.value = false);
  return html`<div class="aside-scrim" onClick=${close}></div>
    <aside class="aside" aria-label=${`Details of ${task.ref}`}><${Details} key=${task.id} task=${task} onClose=${close} /></aside>`;
}
