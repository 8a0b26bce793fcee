"""The command `/task` of every chat platform: what may stand behind it, and what comes back."""

import difflib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from bots.markdown import neutral, plain
from bots.people import NO_PLATFORM, People, Stranger, enter
from bots.services import Services
from bots.surface import ChatSurface, PlaceClosed, SurfaceError
from core import bindings, conversations, tasks
from core.access import Principal
from core.errors import InvalidInput, OnethreadError
from core.ids import new_id
from core.models import Conversation, InboundEvent, Place, Task, TaskStatus
from core.ports import TaskFilter, UnitOfWork

_LISTED = 15
_LINES = 20
"""Of a description."""
_OPEN = frozenset({TaskStatus.TODO, TaskStatus.IN_PROGRESS, TaskStatus.IN_REVIEW})
_STATUSES = frozenset(map(str, TaskStatus))
_REF = re.compile(r"[A-Za-z][A-Za-z0-9]*-\d+")
_MENTION = re.compile(r"<@!?(\w+)(?:\|[^>]*)?>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A `/task` that somebody typed."""

    text: str
    """What stands behind `/task`."""
    person: str
    """Their id on the platform."""
    place: Place
    event_id: str
    """The same command, told again, has the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    principal: Principal
    command: Command
    rest: str
    """What stands behind the subcommand."""


class Commands:
    """Answers the commands of one account."""

    def __init__(self, services: Services, surface: ChatSurface, people: People) -> None:
        self._services = services
        self._surface = surface
        self._people = people

    async def run(self, command: Command) -> str:
        """What the person alone is told, markdown. Never raises what can be told in a sentence."""
        try:
            return await self._run(command)
        except (OnethreadError, Stranger, PlaceClosed) as error:
            return str(error)
        except SurfaceError:
            return NO_PLATFORM

    async def _run(self, command: Command) -> str:
        principal = await self._people.admit(command.person, command.place.channel)
        name, _, rest = command.text.strip().partition(" ")
        subcommand = SUBCOMMANDS.get(name.lower() or "help")
        if subcommand is None:
            return _unknown(name)
        await self._enter(principal, command.place)
        return await subcommand.run(self, _Call(principal=principal, command=command, rest=rest.strip()))

    # --- the subcommands ---

    async def list(self, call: _Call) -> str:
        status = call.rest.lower().replace(" ", "_")
        if status in _STATUSES:
            where = TaskFilter(statuses=frozenset({status}))
        else:
            where = TaskFilter(statuses=frozenset() if call.rest else _OPEN, query=call.rest)
        async with self._services.storage.read() as uow:
            found = await tasks.listing(uow, call.principal, where, limit=_LISTED)
            names = await uow.users.names([each.assignee_id for each in found.tasks if each.assignee_id])
        if not found.tasks:
            return _none(status, call.rest)
        lines = [f"- {_line(task)}" + (f" · {names[task.assignee_id]}" if task.assignee_id else "") for task in found.tasks]
        more = [f"… and {found.total - len(lines)}{'' if found.is_exact else '+'} more: `/task list <words>`"] if found.has_more else []
        return "\n".join([*lines, *more])

    async def show(self, call: _Call) -> str:
        async with self._services.storage.read() as uow:
            task, _ = await _task(uow, call)
            names = await uow.users.names([task.assignee_id] if task.assignee_id else [])
            shown = await bindings.of_conversation(uow, call.principal, task.conversation_id)
        facts = [
            f"priority {task.priority}",
            f"assigned to {names[task.assignee_id]}" if task.assignee_id else "assigned to nobody",
            *([f"due {task.due_at:%Y-%m-%d}"] if task.due_at else []),
            *([f"labels {_safe(', '.join(task.labels))}"] if task.labels else []),
        ]
        places = [each.place for each in shown if each.opened]
        links = [f"[Its thread]({self._surface.link(place)})" for place in places if place.account == self._surface.account]
        return "\n\n".join([_line(task), " · ".join(facts), *([_quoted(task)] if task.description else []), *links])

    async def new(self, call: _Call) -> str:
        """The task, and a thread for it that delivery opens with the task's card."""
        channel = call.command.place.channel
        words, kind = await self._surface.markdown(call.rest), await self._surface.kind(channel)
        title = plain(words, len(words))  # whole: one that is too long is refused, as it stands nowhere else
        async with self._services.storage.write() as uow:
            if not await uow.inbound.add(self._noted(call.command, uow.now)):
                return "This task was made already."
            task = await tasks.create(uow, call.principal, title, visibility=kind.visibility)
            thread = Place(account=self._surface.account, channel=channel, thread=f"new-{new_id()}")
            await bindings.bind(uow, call.principal, task.conversation_id, thread, opened=False)
        return f"Made {_line(task)}"

    async def assign(self, call: _Call) -> str:
        async with self._services.storage.read() as uow:
            task, who = await _task(uow, call)
        if not who:
            raise InvalidInput("Say to whom: `/task assign OT-12 alice`, `me` or `nobody`.")
        who = await self._with_names(who, call.command.place.channel)
        async with self._services.storage.write() as uow:
            name = await self._assignee(uow, call.principal, who)
            changed = await tasks.update(uow, call.principal, task.ref, {"assignee": name})
        return f"{_line(changed)} · assigned to {name or 'nobody'}"

    async def done(self, call: _Call) -> str:
        async with self._services.storage.write() as uow:
            task, _ = await _task(uow, call)
            return _line(await tasks.update(uow, call.principal, task.ref, {"status": TaskStatus.DONE}))

    async def model(self, call: _Call) -> str:
        async with self._services.storage.write() as uow:
            conversation, wanted = await _conversation(uow, call)
            if not wanted:
                return self._models(conversation)
            chosen = None if wanted == "default" else wanted
            await conversations.set_model(uow, call.principal, conversation.id, chosen)
        return f"From now on: `{chosen or self._usual_model(conversation)}`"

    async def help(self, _call: _Call) -> str:
        return _help()

    # --- helpers ---

    async def _enter(self, principal: Principal, place: Place) -> None:
        async with self._services.storage.read() as uow:
            is_shown = await bindings.at(uow, place) is not None
        if is_shown:
            async with self._services.storage.write() as uow:
                await enter(uow, principal, place)

    def _noted(self, command: Command, now: datetime) -> InboundEvent:
        """That the command was obeyed: where it is told again, it is not obeyed again."""
        account = self._surface.account
        return InboundEvent(
            id=new_id(),
            surface=account.surface,
            account=account.id,
            key=f"command:{command.event_id}",
            lane=command.place.channel,
            payload={},
            attempts=0,
            run_after=now,
            waits=False,
            received_at=now,
            done_at=now,
        )

    async def _with_names(self, text: str, channel: str) -> str:
        """`text` with the names that those have here whom it mentions. Who never came is met."""
        for mention in _MENTION.finditer(text):
            try:
                met = await self._people.admit(mention[1], channel)
            except Stranger:
                raise InvalidInput("A task can only be assigned to somebody whom I may talk with.") from None
            async with self._services.storage.read() as uow:
                text = text.replace(mention[0], (await uow.users.names([met.user_id]))[met.user_id])
        return text

    async def _assignee(self, uow: UnitOfWork, principal: Principal, who: str) -> str | None:
        """The user's name; None for nobody."""
        name = who.removeprefix("@").strip()
        if name.lower() == "nobody":
            return None
        if name.lower() == "me":  # whatever somebody calls themselves
            return (await uow.users.names([principal.user_id]))[principal.user_id]
        if user := await uow.users.by_name(name):
            return user.name
        known = {each.name.casefold(): each.user_id for each in await uow.identities.all(self._surface.account)}
        user_id = known.get(name.casefold()) or await tasks.user_id(uow, name)
        return (await uow.users.names([user_id]))[user_id]

    def _usual_model(self, conversation: Conversation) -> str:
        return conversation.project_model or self._services.posting.default_model

    def _models(self, conversation: Conversation) -> str:
        now = conversation.model or self._usual_model(conversation)
        known = [
            f"- `{each.id}`" + ("" if each.available else f" (its key is missing: {each.missing[0]})") for each in self._services.models()
        ]
        return "\n".join([f"Now: `{now}`", *known, "Choose: `/task model <id>`, or `/task model default`"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subcommand:
    takes: str
    summary: str
    run: Callable[[Commands, _Call], Awaitable[str]]


SUBCOMMANDS: Mapping[str, _Subcommand] = {
    "list": _Subcommand(takes="[status or words]", summary="shows the open tasks, or those that you look for", run=Commands.list),
    "show": _Subcommand(takes="[OT-12]", summary="shows a task", run=Commands.show),
    "new": _Subcommand(takes="<title>", summary="makes a task with a thread of its own", run=Commands.new),
    "assign": _Subcommand(takes="[OT-12] <name, me or nobody>", summary="says whose it is", run=Commands.assign),
    "done": _Subcommand(takes="[OT-12]", summary="marks it as done", run=Commands.done),
    "model": _Subcommand(takes="[OT-12] [id or default]", summary="shows the models, or chooses one", run=Commands.model),
    "help": _Subcommand(takes="", summary="shows this", run=Commands.help),
}


async def _task(uow: UnitOfWork, call: _Call) -> tuple[Task, str]:
    """The task whose ref comes first, or the one of the thread; and what stands behind it."""
    ref, _, rest = call.rest.partition(" ")
    if _REF.fullmatch(ref):
        return await tasks.get(uow, call.principal, ref.upper()), rest.strip()
    binding = await bindings.at(uow, call.command.place)
    task = await uow.tasks.of_conversation(binding.conversation_id) if binding else None
    if task is None:
        raise InvalidInput("Say which task, by its ref, for example `OT-12`. See them: `/task list`")
    return await tasks.get(uow, call.principal, str(task.id)), call.rest


async def _conversation(uow: UnitOfWork, call: _Call) -> tuple[Conversation, str]:
    """The task's whose ref comes first, or the one that is shown where the command was typed; and what stands behind it."""
    ref, _, _ = call.rest.partition(" ")
    binding = None if _REF.fullmatch(ref) else await bindings.at(uow, call.command.place)
    if binding:
        return await conversations.get(uow, call.principal, binding.conversation_id), call.rest
    task, rest = await _task(uow, call)
    return await conversations.get(uow, call.principal, task.conversation_id), rest


def _help() -> str:
    lines = [f"- `{' '.join(filter(None, ('/task', name, each.takes)))}` {each.summary}" for name, each in SUBCOMMANDS.items()]
    return "\n".join([*lines, "In a task's own thread its ref may be left out."])


def _unknown(name: str) -> str:
    closest = difflib.get_close_matches(name.lower(), SUBCOMMANDS, n=1, cutoff=0.5)
    hint = f" Did you mean `/task {closest[0]}`?" if closest else ""
    return f"There is no such command.{hint}\n{_help()}"


def _none(status: str, words: str) -> str:
    match status:
        case "":
            return "No task is open. Make one: `/task new <title>`"
        case TaskStatus.DONE:
            return "No task is done yet."
        case _ if status in _STATUSES:
            return f"No task is {status.replace('_', ' ')}."
    return f"No task has these words: {_safe(words)}"


def _line(task: Task) -> str:
    return f"**{task.ref}** {_safe(task.title)} · {task.status.replace('_', ' ')}"


def _quoted(task: Task) -> str:
    return "\n".join(f"> {_safe(line)}" for line in task.description.splitlines()[:_LINES])


def _safe(text: str) -> str:
    """What people wrote, on one line and without markup."""
    return neutral(plain(text, 300))
