// Files before they are sent: which of them can be, and what becomes of each. They come with the first file, or with a conversation.
import { Icon, bytes, html, useEffect, useState } from "../ui.js";
import { FOLDER } from "./composer.js";

const MOST_FILES = 10; // core/attachments.py
const MOST_BYTES = 10 * 1024 * 1024;
const READ_BYTES = 50000; // core/llm/history.py: what the agent reads of a text file
const SEEN = ["image/png", "image/jpeg", "image/gif", "image/webp"]; // core/llm/images.py: what it sees with a model that can
const SEEN_BYTES = 3750000;

/** Those that the server would take beside `count` others, and a sentence for each that it would not. */
export function sifted(files, count) {
  const taken = [];
  const refusals = [];
  for (const file of files) {
    if (file.type === FOLDER) refusals.push(`“${file.name}” is a folder. Attach the files in it.`);
    else if (!file.size) refusals.push(`The file “${file.name}” is empty.`);
    else if (file.size > MOST_BYTES) refusals.push(`The file “${file.name}” is larger than ${bytes(MOST_BYTES)}, which is the most.`);
    else if (count + taken.length < MOST_FILES) taken.push(file);
    else refusals.push(`The file “${file.name}” was left out: a message has at most ${MOST_FILES}.`);
  }
  return { taken, refusals };
}

export function Attached({ file, onRemove }) {
  const [picture, setPicture] = useState("");
  const [[note, more], setNote] = useState(["", ""]);
  useEffect(() => {
    noteOf(file).then(setNote);
    if (!file.type.startsWith("image/")) return;
    const address = URL.createObjectURL(file);
    setPicture(address);
    return () => URL.revokeObjectURL(address);
  }, [file]);
  return html`<li class="composer-file" title=${[file.name, more].filter(Boolean).join(": ")}>
    ${picture ? html`<img src=${picture} alt="" onError=${() => setPicture("")} />` : html`<${Icon} name="file" />`}
    <span><bdi>${file.name}</bdi><small>${[bytes(file.size), note].filter(Boolean).join(" · ")}</small></span>
    <button type="button" class="icon-button" aria-label=${`Remove ${file.name}`} title="Remove" onClick=${onRemove}><${Icon} name="close" /></button>
  </li>`;
}

/** What the agent reads of a file, where that is not all: in short, and as a sentence. */
async function noteOf(file) {
  try {
    const head = new Uint8Array(await file.slice(0, READ_BYTES).arrayBuffer());
    if (head.includes(0)) throw new TypeError("no text");
    new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: true });
    return file.size > READ_BYTES ? ["read in part", `the agent reads its first ${bytes(READ_BYTES)}.`] : ["", ""];
  } catch {
    if (!SEEN.includes(file.type)) return ["for people", "people can open it; the agent reads text only, and is told its name."];
    if (file.size > SEEN_BYTES) return ["for people", `people can open it; the agent is told its name, and sees at most ${bytes(SEEN_BYTES)}.`];
    return ["if the model sees images", "the agent sees it if its model can see images; otherwise it is told its name."];
  }
}
