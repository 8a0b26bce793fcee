"""The commands of the terminal, lines that begin with a slash, and their completion."""

import asyncio
import difflib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from core import conversations, messages, tasks, wording
from core.attachments import MAX_BYTES, MAX_FILES, Upload
from core.errors import Conflict, InvalidInput, OnethreadError
from core.frames import WORKER_SILENT
from core.llm.providers import PROVIDERS, key_of, missing_keys, provider_of
from core.models import Conversation, Task, TaskStatus
from core.ports import TaskFilter
from onethread.bootstrap import App
from onethread.terminal.session import SOURCE, Confirmation, Session
from onethread.terminal.text import Fragments, fold, fragments, one_line

_LISTED = 20
_REFS = 100
_NAME_COLUMN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str
    takes: str
    summary: str
    run: Callable[[Session, str], Awaitable[None]]


async def run(session: Session, line: str) -> None:
    """Carries out a line that begins with a slash; raises InvalidInput for an unknown command."""
    name, _, rest = line[1:].partition("\n" if "\n" in line.partition(" ")[0] else " ")
    command = _BY_NAME.get(name.strip().lower())
    if command is None:
        closest = difflib.get_close_matches(name.lower(), _BY_NAME, n=1, cutoff=0.5)
        meant = f"Did you mean /{closest[0]}?" if closest else "/help lists the commands."
        raise InvalidInput(f"There is no command /{one_line(name, 40)}. {meant} A line that begins with // sends the slash.")
    await command.run(session, rest.strip())


class Completions(Completer):
    """Command names, then what fits the command: task refs, statuses, models, files."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        return ()

    async def get_completions_async(self, document: Document, complete_event: CompleteEvent) -> AsyncGenerator[Completion, None]:
        line = document.text_before_cursor
        if not line.startswith("/") or line.startswith("//"):
            return
        name, blank, rest = line[1:].partition(" ")
        if not blank:
            for command in COMMANDS:
                if command.name.startswith(name.lower()):
                    yield Completion(f"/{command.name}", start_position=-len(line), display_meta=command.summary)
            return
        if name == "attach":
            for completion in self._paths.get_completions(Document(rest), complete_event):
                yield completion
            return
        for word, meta in await self._words(name):
            if word.lower().startswith(rest.lower()):
                yield Completion(word, start_position=-len(rest), display_meta=meta)

    async def _words(self, name: str) -> list[tuple[str, str]]:
        match name:
            case "open":
                return await self._refs()
            case "tasks":
                return [(status.value, "") for status in TaskStatus]
            case "chats":
                return [("archived", "")]
            case "model":
                return [("default", ""), *((provider.default_model, provider.label) for provider in PROVIDERS)]
        return []

    async def _refs(self) -> list[tuple[str, str]]:
        try:
            principal = await self._app.principal()
            async with self._app.storage.read() as uow:
                page = await tasks.page(uow, principal, TaskFilter(), limit=_REFS)
        except OnethreadError:
            return []
        return [(task.ref, one_line(task.title, 50)) for task in page.tasks]


async def _help(session: Session, _: str) -> None:
    for command in COMMANDS:
        _two_columns(session, f"/{command.name} {command.takes}", command.summary)
    for keys, meaning in _KEYS:
        _two_columns(session, keys, meaning)


async def _new(session: Session, title: str) -> None:
    if not title:
        await session.leave()
        session.note("A new private chat. It begins with your first message.")
        return
    async with session.app.storage.write() as uow:
        task = await tasks.create(uow, session.principal, title)
    await session.open(task.conversation_id)


async def _tasks(session: Session, words: str) -> None:
    status = words.lower().replace(" ", "_").replace("-", "_")
    where = TaskFilter(statuses=frozenset({status})) if status in set(TaskStatus) else TaskFilter(query=words)
    async with session.app.storage.read() as uow:
        page = await tasks.page(uow, session.principal, where, limit=_LISTED)
        names = await uow.users.names({task.assignee_id for task in page.tasks if task.assignee_id})
    if not page.tasks:
        session.note("No tasks." if not words else f"No tasks for “{one_line(words, 40)}”.")
        session.note("/new TITLE makes one.")
    for task in page.tasks:
        _print_task(session, task, names)
    if page.total > len(page.tasks):
        session.note(f"… {page.total - len(page.tasks)} more; narrow it down: /tasks STATUS or WORDS")


async def _open(session: Session, what: str) -> None:
    if not what:
        raise InvalidInput("Say what to open: /open OT-3, or a number from /chats.")
    if what.isdecimal():
        await session.open(_numbered(session, int(what)))
        return
    async with session.app.storage.read() as uow:
        task = await tasks.get(uow, session.principal, what)
    await session.open(task.conversation_id)


async def _chats(session: Session, which: str) -> None:
    archived = which.lower() == "archived"
    if which and not archived:
        raise InvalidInput("/chats lists conversations, /chats archived those that were put away.")
    async with session.app.storage.read() as uow:
        page = await conversations.page(uow, session.principal, archived=archived, limit=_LISTED)
        now = uow.now
    session.chats = [each.id for each in page.conversations]
    if not page.conversations:
        session.note("No archived conversations." if archived else "No conversations yet. Your first message begins one.")
    for number, each in enumerate(page.conversations, 1):
        count = page.message_counts.get(each.id, 0)
        _print_chat(session, number, each, f"{count} message{'' if count == 1 else 's'}, {ago(each.updated_at, now)}")
    if page.total > len(page.conversations):
        session.note(f"… {page.total - len(page.conversations)} older ones")


async def _archive(session: Session, _: str) -> None:
    if session.conversation_id is None:
        raise Conflict("There is nothing to archive yet.")
    async with session.app.storage.write() as uow:
        await conversations.archive(uow, session.principal, session.conversation_id)
    session.note("Archived. /unarchive or the next message here brings it back; /chats archived lists what is put away.")


async def _unarchive(session: Session, _: str) -> None:
    if session.conversation_id is None:
        raise Conflict("Open an archived conversation first: /chats archived, then /open N.")
    async with session.app.storage.write() as uow:
        await conversations.unarchive(uow, session.principal, session.conversation_id)
    session.note("It is listed in /chats.")


async def _where(session: Session, _: str) -> None:
    if session.conversation_id is None:
        raise Conflict("Nothing is begun yet that could be followed elsewhere.")
    if not session.talk.known:
        raise Conflict("It is being loaded. Ask again in a moment.")
    places = session.talk.conversation["bindings"]
    if not places:
        session.note("Followed nowhere else.")
    for number, place in enumerate(places, 1):
        facts = (wording.standing(place), f"by {place['by']}" if place["by"] else "", place["url"])
        _two_columns(session, f"{number} {wording.place(place)}", " · ".join(filter(None, facts)))
    name = session.talk.conversation["task_ref"] or session.conversation_id
    session.note(f"onethread bind {name} LINK has it followed elsewhere; --off N in place of LINK ends that.")


async def _retry(session: Session, _: str) -> None:
    if session.conversation_id is None:
        raise Conflict("There is nothing to retry yet.")
    async with session.app.storage.write() as uow:
        turn = await uow.turns.last(session.conversation_id)
        if turn is None:
            raise Conflict("There is nothing to retry yet.")
        await messages.retry(uow, session.principal, turn.id, rules=session.app.rules, source=SOURCE)


async def _model(session: Session, model: str) -> None:
    if not model:
        await _print_models(session)
        return
    chosen = None if model == "default" else model
    if session.conversation_id is None:
        session.model = chosen
    else:
        async with session.app.storage.write() as uow:
            await conversations.set_model(uow, session.principal, session.conversation_id, chosen)
    session.note(f"From now on: {one_line(chosen or session.app.rules.default_model, 80)}")
    if chosen and (missing := missing_keys(chosen, session.app.settings.environ)):
        session.note(f"Its key is missing: set {' or '.join(missing)} and start again.", "class:error")
    elif chosen and provider_of(chosen) is None:
        session.note("This provider is not in the list of /model; whether it answers depends on its name and key.")


async def _attach(session: Session, name: str) -> None:
    if name == "-":
        session.uploads = []
        return
    if not name:
        raise InvalidInput("Name a file: /attach report.txt. It goes with your next message; /attach - takes all of them back.")
    if len(session.uploads) >= MAX_FILES:
        raise InvalidInput(f"A message has at most {MAX_FILES} files.")
    session.uploads.append(await asyncio.to_thread(_read, name.strip("'\"")))


async def _note(session: Session, text: str) -> None:
    if not text:
        raise InvalidInput("Write what is to be noted: /note We decided for tea. The model reads it with the next message.")
    await session.note_down(text)


async def _edit(session: Session, text: str) -> None:
    last = session.talk.last_said_by(session.user.name)
    if last is None:
        raise Conflict("You have said nothing here that could be changed.")
    if not text:
        session.screen.text = f"/edit {last['content']}"
        return
    async with session.app.storage.write() as uow:
        await messages.edit(uow, session.principal, UUID(last["id"]), text, rules=session.app.rules)


async def _delete(session: Session, _: str) -> None:
    last = session.talk.last_said_by(session.user.name)
    if last is None:
        raise Conflict("You have said nothing here that could be deleted.")

    async def delete() -> None:
        async with session.app.storage.write() as uow:
            await messages.delete(uow, session.principal, UUID(last["id"]))

    session.confirmation = Confirmation(question=f"Delete “{one_line(last['content'], 40)}”?", work=delete)


async def _stop(session: Session, _: str) -> None:
    await session.stop()


async def _usage(session: Session, _: str) -> None:
    if session.conversation_id is None:
        session.note("Nothing was used yet.")
        return
    async with session.app.storage.read() as uow:
        usage = await uow.usage.of_conversation(session.conversation_id)
    about = "~" if usage.estimated else ""
    cached = f", {usage.tokens_cached:,} of them cached" if usage.tokens_cached else ""
    session.note(
        f"This conversation: {about}{usage.tokens_in:,} tokens in{cached}, {about}{usage.tokens_out:,} out, {wording.price(usage.cost)}."
    )


async def _status(session: Session, _: str) -> None:
    settings = session.app.settings
    async with session.app.storage.read() as uow:
        workers = await uow.workers.alive(uow.now - WORKER_SILENT)
        unfinished = await uow.turns.open_count()
    facts = {
        "user": session.user.name,
        "conversation": session.talk.title if session.talk.known else "none yet",
        "model": session.talk.conversation.get("model") or session.model or session.app.rules.default_model,
        "workers": f"{len(workers)} alive, {unfinished} message{'' if unfinished == 1 else 's'} queued or running",
        "data": str(settings.data_dir),
        "log": str(settings.log_file),
    }
    for name, value in facts.items():
        _two_columns(session, name, value)


async def _quit(session: Session, _: str) -> None:
    session.screen.exit()


COMMANDS = (
    Command(name="new", takes="[TITLE]", summary="a new private chat, or with a title a new task", run=_new),
    Command(name="tasks", takes="[STATUS or WORDS]", summary="lists tasks", run=_tasks),
    Command(name="open", takes="OT-3 or N", summary="opens a task, or a chat by its number in /chats", run=_open),
    Command(name="chats", takes="[archived]", summary="lists conversations, the latest first", run=_chats),
    Command(name="archive", takes="", summary="puts this conversation away; the next message brings it back", run=_archive),
    Command(name="unarchive", takes="", summary="brings this conversation back", run=_unarchive),
    Command(name="where", takes="", summary="where else this conversation is followed", run=_where),
    Command(name="retry", takes="", summary="answers the last message again after a failure or stop", run=_retry),
    Command(name="stop", takes="", summary="stops the answer, like Ctrl-C", run=_stop),
    Command(name="edit", takes="[TEXT]", summary="changes your last message", run=_edit),
    Command(name="delete", takes="", summary="deletes your last message", run=_delete),
    Command(name="note", takes="TEXT", summary="adds context without asking for an answer", run=_note),
    Command(name="attach", takes="FILE", summary="adds a file to your next message", run=_attach),
    Command(name="model", takes="[ID or default]", summary="shows the models, or chooses one for this conversation", run=_model),
    Command(name="usage", takes="", summary="tokens and cost of this conversation", run=_usage),
    Command(name="status", takes="", summary="who, where, and who answers", run=_status),
    Command(name="help", takes="", summary="this list", run=_help),
    Command(name="quit", takes="", summary="leaves; what is not answered yet goes on later", run=_quit),
)
_BY_NAME = {command.name: command for command in COMMANDS} | {"exit": next(each for each in COMMANDS if each.name == "quit")}
_KEYS = (
    ("Ctrl-C", "stops the answer, or clears the line"),
    ("Ctrl-D", "leaves"),
    ("Alt-Enter, Ctrl-J", "a new line within a message"),
    ("Up, Ctrl-R", "what you typed before"),
    ("//text", "sends a message that begins with a slash"),
)


def ago(moment: datetime, now: datetime) -> str:
    seconds = max(int((now - moment).total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "now"


def _two_columns(session: Session, name: str, value: str) -> None:
    width = session.screen.width
    column = _NAME_COLUMN if width >= 60 else 0
    cells = [("", character, place) for place, character in enumerate(one_line(value, 400), 1)]
    label: Fragments = [("", "  "), ("class:bold", name.strip().ljust(column))]
    if not column or len(name.strip()) >= column:
        session.screen.print(label)
        label = [("", " " * (2 + column))]
    for row in fold(cells, width - column - 6):
        session.screen.print([*label, ("class:dim", "  "), *fragments(row)])
        label = [("", " " * (2 + column))]


def _print_task(session: Session, task: Task, names: dict[UUID, str]) -> None:
    facts = [task.status.value.replace("_", " "), task.priority.value]
    facts += [f"@{names.get(task.assignee_id, '?')}"] if task.assignee_id else []
    facts += [f"due {task.due_at:%Y-%m-%d}"] if task.due_at else []
    end = f"  ({', '.join(facts)})"
    title = one_line(task.title, max(session.screen.width - len(task.ref) - len(end) - 4, 12))
    session.screen.print([("class:bold", f"  {task.ref} "), ("", title), ("class:dim", end)])


def _print_chat(session: Session, number: int, conversation: Conversation, facts: str) -> None:
    ref = f"{conversation.task_ref} " if conversation.task_ref else ""
    width = max(session.screen.width - len(facts) - 10, 12)
    title = one_line(f"{ref}{conversation.title or 'New chat'}", width)
    session.screen.print([("class:bold", f"  {number:>2} "), ("", title), ("class:dim", f"  ({facts})")])


async def _print_models(session: Session) -> None:
    environ = session.app.settings.environ
    present = session.talk.conversation.get("model") or session.model
    session.note(f"Now: {one_line(present or session.app.rules.default_model, 80)}{'' if present else ' (the default)'}")
    for provider in PROVIDERS:
        ready = not provider.key_names or key_of(provider, environ) is not None
        mark = "✔" if ready else "○"
        _two_columns(session, f"{mark} {provider.label}", provider.default_model if ready else f"set {provider.key_names[0]}")
    session.note("/model ID takes any id that litellm knows; /model default goes back.")


def _numbered(session: Session, number: int) -> UUID:
    if not session.chats:
        raise InvalidInput("See the numbers with /chats first.")
    if not 1 <= number <= len(session.chats):
        raise InvalidInput(f"There is no number {number}. See the numbers with /chats.")
    return session.chats[number - 1]


def _read(name: str) -> Upload:
    path = Path(name).expanduser()
    try:
        if not path.is_file():
            raise InvalidInput(f"There is no file {str(path)!r}.")
        length = path.stat().st_size
        if length > MAX_BYTES:
            raise InvalidInput(f"{path.name!r} has {wording.size(length)}; {wording.size(MAX_BYTES)} is the most.")
        if not length:
            raise InvalidInput(f"{path.name!r} is empty.")
        return Upload(name=path.name, data=path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror}.") from None
