"""A chat platform that lives in the test's process and keeps the contract of `bots.surface.ChatSurface`, its failures included.

The `Platform` is the remote side: it outlives every process that talks to it. A `FakeSurface` is one process's client.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from bots.pacing import Budget
from bots.surface import (
    Busy,
    Call,
    Event,
    Limits,
    MessageGone,
    Part,
    PlaceClosed,
    Profile,
    RemoteFile,
    Spot,
    SurfaceError,
    TooLong,
    Unclear,
)
from core.attachments import Upload
from core.errors import InvalidInput
from core.ids import new_id
from core.models import JSON, Account, AgentStatus, ChannelKind, Identity, Place

_T = TypeVar("_T")
CLOCKS_DIFFER = timedelta(seconds=60)
"""At most, between this machine and the platform."""
ACCOUNT = Account(surface="fake", id="T1")


@dataclass(slots=True)
class RemoteMessage:
    id: str
    place: Place
    nonce: UUID
    parts: list[Part]
    """Everything that it ever showed, the newest last."""
    at: list[float]
    """When, by the event loop's clock."""
    posted_at: datetime
    answers: str = ""
    deleted: bool = False

    @property
    def part(self) -> Part:
        return self.parts[-1]

    @property
    def text(self) -> str:
        return self.part.text


@dataclass(slots=True)
class RemoteThread:
    """One that was made on a message."""

    names: list[str]
    """All that it ever had, the newest last."""
    archived: bool = False
    by_people: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one call."""

    error: SurfaceError | None = None
    done: bool = False
    """Whether it is done all the same."""
    late: float | asyncio.Event | None = None
    """It is done so many seconds after the client gave up, or then."""
    takes: float = 0.0
    """Seconds before anything happens."""
    until: asyncio.Event | None = None
    """Nothing happens before this."""


@dataclass(slots=True)
class Enforced:
    """A limit that the platform keeps: so many calls in any `seconds`."""

    calls: int
    seconds: float
    times: deque[float] = field(default_factory=deque)

    def check(self, now: float) -> None:
        while self.times and self.times[0] <= now - self.seconds:
            self.times.popleft()
        if len(self.times) >= self.calls:
            raise Busy(self.times[0] + self.seconds - now)
        self.times.append(now)


class Platform:
    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self.messages: dict[str, RemoteMessage] = {}
        self.threads: dict[str, RemoteThread] = {}
        self.statuses: defaultdict[Place, list[tuple[AgentStatus, str]]] = defaultdict(list)
        self.told: list[tuple[str, str]] = []
        self.calls: list[tuple[str, str]] = []
        """Every call that arrived: what, and to which channel."""
        self.enforced: dict[str, Enforced] = {}
        """By a call's name, or by that and its place: `edit C1 1.0`."""
        self.refused = 0
        """Calls that were turned away for being too many."""
        self.longest = 1_000_000
        self.said: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.profiles: dict[str, Profile] = {}
        self.labels: dict[str, str] = {"C1": "#general"}
        """Of the open channels, those that have one."""
        self.private: set[str] = set()
        """Channels that not everybody reads."""
        self.parents: dict[str, str] = {}
        """The channel of a thread that links name like a channel."""
        self.missing: set[str] = set()
        """Channels that are not there."""
        self.readers: defaultdict[str, set[str]] = defaultdict(set)
        """Who reads in a channel."""
        self.without_dms: set[str] = set()
        """People who cannot be told anything alone."""
        self.changed = asyncio.Condition()
        self._later: set[asyncio.Task[None]] = set()

    def shown(self, channel: str = "C1") -> list[RemoteMessage]:
        """What people see, in the platform's order."""
        return [each for each in self.messages.values() if each.place.channel == channel and not each.deleted]

    def texts(self, channel: str = "C1") -> list[str]:
        return [each.text for each in self.shown(channel)]

    def newest(self, channel: str = "C1") -> Part:
        """What stands last; an empty part before there is anything."""
        shown = self.shown(channel)
        return shown[-1].part if shown else Part(text="")

    def within(self, thread: str) -> list[str]:
        """The texts in a thread."""
        return [each.text for each in self.messages.values() if each.place.thread == thread and not each.deleted]

    async def until(self, holds: Callable[[], object], seconds: float = 30) -> None:
        """Waits until what is there fulfils a condition."""
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(holds)
        except TimeoutError:
            shown = {channel: [(each.text[:60], each.part.notes) for each in self.shown(channel)] for channel in self._channels}
            raise AssertionError(f"It did not come to that. There is: {shown}, statuses {dict(self.statuses)}") from None

    @property
    def _channels(self) -> set[str]:
        return {each.place.channel for each in self.messages.values()}

    # --- what calls do ---

    def post(self, place: Place, part: Part, nonce: UUID, answers: str = "") -> str:
        self._fits(part)
        remote_id = f"{1000 + len(self.messages)}.0001"
        now = asyncio.get_running_loop().time()
        self.messages[remote_id] = RemoteMessage(remote_id, place, nonce, [part], [now], self._now(), answers)
        if place.thread in self.threads:
            self.threads[place.thread].archived = False
        return remote_id

    def edit(self, place: Place, remote_id: str, part: Part) -> None:
        self._fits(part)
        found = self.messages.get(remote_id)
        if found is None or found.deleted or found.place != place:
            raise MessageGone("The message is gone.")
        found.parts.append(part)
        found.at.append(asyncio.get_running_loop().time())

    def delete(self, remote_id: str) -> None:
        if remote_id in self.messages:
            self.messages[remote_id].deleted = True

    def make_thread(self, root: str, title: str, *, by_people: bool = False) -> str:
        """On a message that is there; once for each."""
        if root not in self.messages or self.messages[root].deleted:
            raise MessageGone("The message is gone.")
        self.threads.setdefault(root, RemoteThread([title], by_people=by_people))
        return root

    def arrange(self, thread: str, title: str, archived: bool) -> None:
        if not self.threads[thread].by_people:
            self.threads[thread].names.append(title)
            self.threads[thread].archived = archived

    def later(self, passes: Awaitable[object], effect: Callable[[], object]) -> None:
        """Does what a call asks for after that."""

        async def come() -> None:
            await passes
            effect()
            await self.tell_all()

        task = asyncio.create_task(come(), name="late call")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def tell_all(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def close(self) -> None:
        """Ends what is still under way."""
        for task in self._later:
            task.cancel()
        if self._later:
            await asyncio.wait(self._later)

    def _fits(self, part: Part) -> None:
        if len(part.text) > self.longest:
            raise TooLong("The text is too long.")


FAST = Budget(calls=10_000, seconds=1, burst=20)


class FakeSurface:
    """`budgets_of`, `limits_of` and `live_seconds_of` may be replaced; `will` queues what happens to the next calls.

    Every message is the root of a thread, but where this platform `makes_threads`.
    """

    def __init__(self, platform: Platform, *, account: Account = ACCOUNT, call_seconds: float = 0.3, makes_threads: bool = False) -> None:
        self.platform = platform
        self.makes_threads = makes_threads
        self._account = account
        self._call_seconds = call_seconds
        self.limits_of = Limits(length=1000, edit_seconds=0.01)
        self.budgets_of: dict[Call, dict[str, Budget]] = {call: {call.value: FAST} for call in Call}
        self.by_place: set[Call] = set()
        """Calls that are counted at each place by itself."""
        self.live_seconds_of: Callable[[str], float | None] = lambda _: None
        self.statuses: Collection[AgentStatus] = frozenset(AgentStatus)
        self.forgets_nonces = False
        """Whether a post is found by nothing but that nobody knows it."""
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.hanging: dict[str, asyncio.Event] = {}
        """Channels to which no call gets through before its event is set."""
        self.closed: dict[str, SurfaceError] = {}
        """Channels in which every call fails, and how."""
        self.before: Callable[[str], None] = lambda _: None
        """Told of each step of a call: where a process may be killed."""
        self.arrives_after: Callable[[], Awaitable[object]] | None = None
        """What passes after the process was killed in the middle of a call before that call is done all the same."""

    def will(self, call: str, *faults: Fault) -> None:
        self.faults[call].extend(faults)

    @property
    def account(self) -> Account:
        return self._account

    @property
    def call_seconds(self) -> float:
        return self._call_seconds

    @property
    def guesses(self) -> bool:
        return self.forgets_nonces

    def limits(self, place: Place) -> Limits:  # the same everywhere
        return self.limits_of

    def live_seconds(self, place: Place, remote_id: str) -> float | None:
        return self.live_seconds_of(remote_id)

    def budgets(self, call: Call, place: Place) -> Mapping[str, Budget]:
        budgets = self.budgets_of[call]
        return {f"{name} {place.channel} {place.thread}": each for name, each in budgets.items()} if call in self.by_place else budgets

    async def post(self, place: Place, part: Part, nonce: UUID, *, answers: str = "") -> str:
        return await self._call("post", place, lambda: self.platform.post(place, part, nonce, answers))

    async def edit(self, place: Place, remote_id: str, part: Part, nonce: UUID) -> None:
        await self._call("edit", place, lambda: self.platform.edit(place, remote_id, part))

    async def delete(self, place: Place, remote_id: str) -> None:
        await self._call("delete", place, lambda: self.platform.delete(remote_id))

    async def find(self, place: Place, nonce: UUID, since: datetime, known: Collection[str] | None) -> list[str]:
        def look() -> list[str]:
            there = [each for each in self.platform.messages.values() if each.place == place and not each.deleted]
            found = [each for each in there if each.posted_at >= since - CLOCKS_DIFFER]
            if self.forgets_nonces and known is not None:
                return [each.id for each in found if each.id not in known][:1]
            return [each.id for each in found if each.nonce == nonce]

        return await self._call("find", place, look)

    async def open(self, place: Place, root: str, title: str) -> str:
        return await self._call("open", place, lambda: self.platform.make_thread(root, title) if self.makes_threads else root)

    async def arrange(self, place: Place, title: str, *, archived: bool) -> None:
        await self._call("arrange", place, lambda: self.platform.arrange(place.thread, title, archived))

    async def show_status(self, place: Place, status: AgentStatus, sentence: str) -> None:
        await self._call("status", place, lambda: self.platform.statuses[place].append((status, sentence)))

    async def tell(self, place: Place, person: str, sentence: str, *, otherwise: str = "") -> None:
        openly = Part(text=f"@{person} {otherwise or sentence}")

        def effect() -> None:
            if person in self.platform.without_dms:
                self.platform.post(place, openly, new_id())
            else:
                self.platform.told.append((person, sentence))

        await self._call("tell", place, effect)

    def event(self, payload: JSON) -> Event | None:
        return None

    async def markdown(self, text: str) -> str:
        return text

    def meet(self, *people: Identity) -> None:
        pass

    async def profile(self, external_id: str) -> Profile:
        stranger = Profile(external_id=external_id, name=external_id, member=False)
        return self.platform.profiles.get(external_id, stranger)

    async def kind(self, channel: str, thread: str = "") -> ChannelKind:
        return ChannelKind.DIRECT if channel.startswith("D") else ChannelKind.OPEN

    async def fetch(self, file: RemoteFile) -> Upload:
        raise InvalidInput(f"{file.name} cannot be had.")

    async def earlier(self, place: Place, before: str, *, limit: int) -> Sequence[tuple[str, str]]:
        return self.platform.said[place.thread][-limit:]

    async def look_up(self, place: Place, person: str = "") -> Spot:
        return await self._call("look_up", place, lambda: self._spot(place, person))

    def _spot(self, place: Place, person: str) -> Spot:
        platform = self.platform
        if place.channel in platform.missing:
            raise PlaceClosed("There is no such channel.", reason="channel_not_found")
        parent = platform.parents.get(place.channel)
        channel, thread = (parent, place.channel) if parent else (place.channel, place.thread)
        kind = ChannelKind.DIRECT if channel.startswith("D") else ChannelKind.PRIVATE if channel in platform.private else ChannelKind.OPEN
        return Spot(
            channel=channel,
            thread=thread,
            kind=kind,
            label=platform.labels.get(channel, "") if kind is ChannelKind.OPEN else "",
            url=self.link(replace(place, channel=channel, thread=thread)),
            reads=person in platform.readers[channel],
        )

    def link(self, place: Place) -> str:
        return f"https://fake.example/{place.channel}/{place.thread}"

    async def _call(self, name: str, place: Place, effect: Callable[[], _T]) -> _T:
        try:
            self.before(f"{name} is sent")
        except BaseException:
            if self.arrives_after is not None:
                self.platform.later(self.arrives_after(), effect)
            raise
        fault = self.faults[name].popleft() if self.faults[name] else Fault()
        await self.platform.tell_all()
        try:
            async with asyncio.timeout(self._call_seconds):
                await self._arrive(name, place, fault)
        except TimeoutError:
            raise Unclear("No answer.") from None
        if fault.late is not None:
            self.platform.later(asyncio.sleep(fault.late) if isinstance(fault.late, float) else fault.late.wait(), effect)
            raise Unclear("No answer.")
        if fault.error and not fault.done:
            raise fault.error
        done = effect()
        self.before(f"{name} is done")
        await self.platform.tell_all()
        if fault.error:
            raise fault.error
        return done

    async def _arrive(self, name: str, place: Place, fault: Fault) -> None:
        if place.channel in self.hanging:
            await self.hanging[place.channel].wait()
        if place.channel in self.closed:
            raise self.closed[place.channel]
        if fault.until:
            await fault.until.wait()
        await asyncio.sleep(fault.takes)
        self.platform.calls.append((name, place.channel))
        limits = [self.platform.enforced.get(name), self.platform.enforced.get(f"{name} {place.channel} {place.thread}")]
        try:
            for limit in filter(None, limits):
                limit.check(asyncio.get_running_loop().time())
        except Busy:
            self.platform.refused += 1
            raise
