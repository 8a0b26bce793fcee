"""The commands `/task` and `/link` of every chat platform: what may stand behind them, and what comes back."""

import difflib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bots import link_command
from bots.follow_commands import Following, Target, Wish, wish
from bots.markdown import neutral, plain
from bots.people import NO_PLATFORM, People, Stranger, enter
from bots.places import Places
from bots.policy import Policy
from bots.services import Services
from bots.surface import ChatSurface, PlaceClosed, SurfaceError
from bots.view import page
from core import bindings, conversations, tasks, wording
from core.access import Principal
from core.errors import InvalidInput, OnethreadError
from core.frames import binding_json
from core.ids import new_id
from core.models import NEW_THREAD, Conversation, InboundEvent, Place, Task, TaskStatus
from core.ports import TaskFilter, UnitOfWork

_BESIDES = (
    "In a task's own thread its ref may be left out.",
    "In any thread these can be written, too: `!follow OT-12`, `!unfollow`, `!where` and `!stop`.",
    "`/link` says who you are on the page.",
)
_LISTED = 15
_LINES = 20
"""Of a description."""
_DEFAULT = "default"
"""Chosen as a model: none in particular."""
_OPEN = frozenset({TaskStatus.TODO, TaskStatus.IN_PROGRESS, TaskStatus.IN_REVIEW})
_STATUSES = frozenset(map(str, TaskStatus))
_REF = re.compile(r"[A-Za-z][A-Za-z0-9]*-\d+")
_CHOICES = 25
_MENTION = re.compile(r"<@!?(\w+)(?:\|[^>]*)?>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A `/task` or a `/link` that somebody typed."""

    text: str
    """What stands behind it."""
    person: str
    """Their id on the platform."""
    place: Place
    event_id: str
    """The same command, told again, has the same."""
    ref: str | None = None
    """The task's, on a platform that asks for it apart; empty where it was left out. None: it may stand in the text."""
    has_threads: bool = True
    """Whether a thread can be made for whoever reads along where it was typed."""
    at: datetime | None = None
    """When it was typed, by the platform's clock, where people talk without the bot at the place; None elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    principal: Principal
    command: Command
    rest: str
    """What stands behind the subcommand."""


class Commands:
    """Answers the commands of one account."""

    def __init__(self, services: Services, surface: ChatSurface, people: People, policy: Policy) -> None:
        self._services = services
        self._surface = surface
        self._people = people
        self._places = Places(services, surface, policy)
        self._following = Following(services, surface, self._places)

    async def run(self, command: Command) -> str:
        """What the person alone is told of their `/task`, markdown. Never raises what can be told in a sentence."""
        return await _sentence(self._run(command))

    async def link(self, command: Command) -> str:
        """Likewise, of their `/link`."""
        return await _sentence(self._link(command))

    async def refs(self, person: str, place: Place, typed: str, limit: int = _CHOICES) -> Sequence[tuple[str, str]]:
        """The tasks that may be meant, as (ref, title), the open ones first. Strangers are shown none."""
        try:
            principal = await self._people.admit(person, place.channel)
            async with self._services.storage.read() as uow:
                wanted = [TaskFilter(statuses=each, query=typed.strip()) for each in (_OPEN, _STATUSES - _OPEN)]
                listings = [await tasks.listing(uow, principal, each, limit=limit) for each in wanted]
        except (OnethreadError, Stranger, SurfaceError):
            return []
        return [(task.ref, task.title) for listing in listings for task in listing.tasks][:limit]

    async def models(self, person: str, place: Place, typed: str, limit: int = _CHOICES) -> Sequence[str]:
        """What may be meant of what can be chosen as a model. Strangers are shown nothing."""
        try:
            await self._people.admit(person, place.channel)
        except (OnethreadError, Stranger, SurfaceError):
            return []
        known = [_DEFAULT, *(each.id for each in self._services.models() if each.available)]
        return [each for each in known if typed.strip().lower() in each.lower()][:limit]

    async def _run(self, command: Command) -> str:
        principal = await self._people.admit(command.person, command.place.channel)
        name, _, rest = command.text.strip().partition(" ")
        subcommand = SUBCOMMANDS.get(name.lower() or "help")
        if subcommand is None:
            return _unknown(name, command)
        await self._enter(principal, command.place)
        return await subcommand.run(self, _Call(principal=principal, command=command, rest=rest.strip()))

    async def _link(self, command: Command) -> str:
        await self._people.admit(command.person, command.place.channel)
        return await link_command.answer(self._services, self._surface.account, command.person, command.text)

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
        if found.has_more:
            lines.append(f"… and {found.total - len(lines)}{'' if found.is_exact else '+'} more: look for words with `/task list`")
        return "\n".join(lines)

    async def show(self, call: _Call) -> str:
        async with self._services.storage.read() as uow:
            task, _ = await _task(uow, call)
            names = await uow.users.names([task.assignee_id] if task.assignee_id else [])
            shown = await bindings.of_conversation(uow, call.principal, task.conversation_id)
            here = next((each for each in shown if each.place == call.command.place), None)
            also = wording.also([binding_json(each, {}) for each in shown], but=str(here.id) if here else "")
        facts = [
            f"priority {task.priority}",
            f"assigned to {names[task.assignee_id]}" if task.assignee_id else "assigned to nobody",
            *([f"due {task.due_at:%Y-%m-%d}"] if task.due_at else []),
            *([f"labels {_safe(', '.join(task.labels))}"] if task.labels else []),
        ]
        homes = [each.place for each in shown if each.opened and each.is_on and not each.followed]
        links = [f"[Its thread]({self._surface.link(place)})" for place in homes if place.account == self._surface.account]
        said = [_line(task), " · ".join(facts), _quoted(task), *links, _safe(also[:1].upper() + also[1:])]
        return "\n\n".join(filter(None, said))

    async def new(self, call: _Call) -> str:
        """The task, and a thread for it that delivery opens with the task's card."""
        place = call.command.place
        words, kind = await self._surface.markdown(call.rest), await self._surface.kind(place.channel, place.thread)
        title = plain(words, len(words))  # whole: one that is too long is refused, as it stands nowhere else
        async with self._services.storage.write() as uow:
            if not await uow.inbound.add(self._noted(call.command, uow.now)):
                return "This task was made already."
            task = await tasks.create(uow, call.principal, title, visibility=kind.visibility)
            if not call.command.has_threads:
                return f"Made {_line(task)}\n\nNo thread can be made here. Talk about it [on the web]({self._page(task)})."
            thread = f"{NEW_THREAD}{new_id()}"
            await bindings.bind(uow, call.principal, task.conversation_id, replace(place, thread=thread), opened=False, kind=kind)
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
            chosen = None if wanted == _DEFAULT else wanted
            await conversations.set_model(uow, call.principal, conversation.id, chosen)
        return f"From now on: `{chosen or self._usual_model(conversation)}`"

    async def follow(self, call: _Call) -> str:
        """In the thread, or the chat, where it is typed; in a channel in a thread that delivery opens."""
        wanted, place = _wish(call), call.command.place
        kind = await self._surface.kind(place.channel, place.thread)
        target = Target(place=place, opened=True, kind=kind, label=await self._following.label(place, kind), since=call.command.at)
        if not (place.thread or self._places.is_chat(place, kind)):
            if not call.command.has_threads:
                raise InvalidInput("No thread can be made here. Follow it in a text channel, or in a thread.")
            target = replace(target, place=replace(place, thread=f"{NEW_THREAD}{new_id()}"), opened=False)
        async with self._services.storage.write() as uow:
            if not await uow.inbound.add(self._noted(call.command, uow.now)):
                return "This is followed already."
            return (await self._following.follow(uow, call.principal, target, wanted)).text

    async def unfollow(self, call: _Call) -> str:
        async with self._services.storage.write() as uow:
            return (await self._following.unfollow(uow, call.principal, call.command.place, _named(call))).text

    async def where(self, call: _Call) -> str:
        async with self._services.storage.read() as uow:
            return (await self._following.where(uow, call.principal, call.command.place, _named(call))).text

    async def help(self, call: _Call) -> str:
        return _help(call.command)

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

    def _page(self, task: Task) -> str:
        return page(self._services.url, task.conversation_id)

    def _usual_model(self, conversation: Conversation) -> str:
        return conversation.project_model or self._services.posting.default_model

    def _models(self, conversation: Conversation) -> str:
        now = conversation.model or self._usual_model(conversation)
        known = [
            f"- `{each.id}`" + ("" if each.available else f" (its key is missing: {each.missing[0]})") for each in self._services.models()
        ]
        return "\n".join([f"Now: `{now}`", *known, f"Choose: `/task model` with an id, or with `{_DEFAULT}`"])


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
    "follow": _Subcommand(takes="<OT-12> [read-only]", summary="shows a task here, too, as it goes on", run=Commands.follow),
    "unfollow": _Subcommand(takes="[OT-12]", summary="ends that", run=Commands.unfollow),
    "where": _Subcommand(takes="[OT-12]", summary="tells where a task is shown", run=Commands.where),
    "model": _Subcommand(takes="[OT-12] [id or default]", summary="shows the models, or chooses one", run=Commands.model),
    "help": _Subcommand(takes="", summary="shows this", run=Commands.help),
}


async def _sentence(work: Awaitable[str]) -> str:
    try:
        return await work
    except (OnethreadError, Stranger, PlaceClosed) as error:
        return str(error)
    except SurfaceError:
        return NO_PLATFORM


async def _task(uow: UnitOfWork, call: _Call) -> tuple[Task, str]:
    """The task whose ref is given, or the one of the thread; and what stands behind the ref."""
    if ref := _ref(call):
        rest = call.rest if call.command.ref else call.rest.partition(" ")[2].strip()
        return await tasks.get(uow, call.principal, ref.upper() if _REF.fullmatch(ref) else ref), rest
    binding = await bindings.at(uow, call.command.place)
    task = await uow.tasks.of_conversation(binding.conversation_id) if binding else None
    if task is None:
        raise InvalidInput("Say which task, by its ref, for example `OT-12`. See them: `/task list`")
    return await tasks.get(uow, call.principal, str(task.id)), call.rest


async def _conversation(uow: UnitOfWork, call: _Call) -> tuple[Conversation, str]:
    """The task's whose ref is given, or the one that is shown where the command was typed; and what stands behind the ref."""
    binding = None if _ref(call) else await bindings.at(uow, call.command.place)
    if binding:
        return await conversations.get(uow, call.principal, binding.conversation_id), call.rest
    task, rest = await _task(uow, call)
    return await conversations.get(uow, call.principal, task.conversation_id), rest


def _ref(call: _Call) -> str:
    """Empty where none is given."""
    if call.command.ref is not None:
        return call.command.ref.strip()
    first, _, _ = call.rest.partition(" ")
    return first if _REF.fullmatch(first) else ""


def _named(call: _Call) -> str:
    """What names a conversation; empty where nothing does."""
    return call.rest.strip() if call.command.ref is None else call.command.ref.strip()


def _wish(call: _Call) -> Wish:
    if call.command.ref is None:
        return wish(call.rest, "/task follow")
    wanted = wish(f"{call.command.ref} {call.rest}", "/task follow")
    return replace(wanted, again="choose `confirm` in the command, too.")


def _help(command: Command) -> str:
    takes_text = command.ref is None  # other platforms show by themselves what a command takes
    takes = {name: each.takes if takes_text else "" for name, each in SUBCOMMANDS.items()}
    lines = [f"- `{' '.join(filter(None, ('/task', name, takes[name])))}` {each.summary}" for name, each in SUBCOMMANDS.items()]
    return "\n".join([*lines, *_BESIDES])


def _unknown(name: str, command: Command) -> str:
    closest = difflib.get_close_matches(name.lower(), SUBCOMMANDS, n=1, cutoff=0.5)
    hint = f" Did you mean `/task {closest[0]}`?" if closest else ""
    return f"There is no such command.{hint}\n{_help(command)}"


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
    """Its description; empty where it has none."""
    return "\n".join(f"> {_safe(line)}" for line in task.description.splitlines()[:_LINES])


def _safe(text: str) -> str:
    """What people wrote, on one line and without markup."""
    return neutral(plain(text, 300))
