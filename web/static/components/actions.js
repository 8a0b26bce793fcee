// What is done with a conversation from its menu. A task's conversation stands for the task: it has its title, and goes with it.
import { patch, remove } from "../api.js";
import { conversations, markRead } from "../state/lists.js";
import { complain, go, paths, toast } from "../ui.js";
import { copy } from "./copy.js";
import { ask, confirm } from "./dialog.js";
import { dropArchived, isShown, pathOf, titleOf } from "./sidebar.js";

const MAX_TITLE = 200;

export function rename(conversation) {
  const { id, task_ref } = conversation;
  return ask({
    title: task_ref ? `Rename ${task_ref}` : "Rename this chat",
    label: "Title",
    value: conversation.title,
    maxLength: MAX_TITLE,
    save: async (title) => {
      const changed = await patch(task_ref ? `/tasks/${task_ref}` : `/conversations/${id}`, { title });
      if (conversations.get(id)) conversations.put({ id, title: changed.title });
    },
  });
}

export const read = ({ id, last_seq }) => markRead(id, last_seq);

export const copyLink = (conversation) => copy(location.origin + pathOf(conversation), "The link");

export async function archive(conversation) {
  await patch(`/conversations/${conversation.id}`, { archived: true });
  conversations.drop(conversation.id);
  if (isShown(conversation)) go(paths.home);
  toast(`“${titleOf(conversation)}” is archived.`, { action: { label: "Undo", run: () => unarchive(conversation).catch(complain) } });
}

export async function unarchive(conversation) {
  const changed = await patch(`/conversations/${conversation.id}`, { archived: false });
  dropArchived(conversation);
  conversations.put(changed);
}

export async function erase(conversation) {
  const { id, task_ref } = conversation;
  const sure = await confirm({
    title: task_ref ? `Delete the task ${task_ref}?` : "Delete this chat?",
    text: task_ref
      ? `“${titleOf(conversation)}” goes with its conversation, for everybody. What runs in it stops. This cannot be undone.`
      : `“${titleOf(conversation)}” goes with all its messages. What runs in it stops. This cannot be undone.`,
    action: "Delete",
    danger: true,
  });
  if (!sure) return;
  await remove(task_ref ? `/tasks/${task_ref}` : `/conversations/${id}`);
  conversations.drop(id);
  dropArchived(conversation);
  if (isShown(conversation)) go(paths.home, { replace: true });
  toast(task_ref ? `${task_ref} is deleted.` : "The chat is deleted.");
}
