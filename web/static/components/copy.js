// Copying to the clipboard what one wants to send to somebody.
import { paths, toast } from "../ui.js";

/** Copies it, and says so. `what` it is: `The link`. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text); // missing where the page did not come by https
    toast(`${what} is copied.`);
  } catch {
    toast(`The browser does not let the page copy it: ${text}`, { kind: "error" });
  }
}

export const linkOf = (task) => location.origin + paths.task(task.ref);
