// Copying to the clipboard what one wants to send to somebody.
import { paths, toast } from "../ui.js";

/** Copies it, and says so. `what` it is: `The link`. */
export async function copy(text, what) {
  if (await copied(text)) toast(`${what} is copied.`);
  else toast(`The browser does not let the page copy it: ${text}`, { kind: "error" });
}

/** Puts a text on the clipboard; false where the browser does not let us. */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text); // missing where the page did not come by https
    return true;
  } catch {
    const fill = (event) => (event.preventDefault(), event.clipboardData.setData("text/plain", text));
    document.addEventListener("copy", fill, { once: true });
    const done = document.execCommand("copy");
    document.removeEventListener("copy", fill);
    return done;
  }
}

export const linkOf = (task) => location.origin + paths.task(task.ref);
