"""What all calls of an account go through: its limits, its lease, and whether and where the bot is let in."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import structlog

from bots.lease import Held
from bots.pacing import Pacer, Rank, Urgency
from bots.policy import Policy
from bots.remembered import Remembered
from bots.surface import AccountClosed, Busy, Call, ChatSurface
from core.models import ChannelKind, Place

_T = TypeVar("_T")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRules:
    first_seconds: float = 0.5
    """So long a reply without text is waited for: a quick answer costs one call."""
    idle_seconds: float = 10.0
    """After so long without anything to do a writer ends."""
    settle_seconds: float = 5.0
    """So long after a call without an answer it may still happen."""
    twin_seconds: float = 30.0
    """So long after a repeated post it is looked for once more whether the first one happened, too."""
    open_seconds: float = 3.0
    """So long new messages wait for their thread to be made."""
    open_call_seconds: float = 3.0
    """So long an answer is waited for when a thread is made: nothing else is sent to the place meanwhile."""
    threadless_seconds: float = 600.0
    """So long no thread is made in a channel after one was refused there."""
    learned_seconds: float = 3600.0
    """So long it is not asked again what a place is called and who may read there."""
    backoff_seconds: float = 1.0
    """After a call that failed; doubled for each further one."""
    backoff_limit_seconds: float = 60.0
    account_seconds: float = 60.0
    """So long nothing is tried where the bot is not let in."""
    storage_seconds: float = 1.0
    """Between attempts while the database is away."""
    defect_seconds: float = 1.0
    """After a defect; doubled for each further one, up to `backoff_limit_seconds`."""
    refusals: int = 5
    """So often in a row a call is tried again that the platform refuses for a reason nobody knows; then the place counts as closed."""
    last_words: int = 3
    """Attempts to say that a conversation was deleted."""
    backlog: int = 100
    """Messages that are delivered at most when a place is behind; older ones are left out."""
    shortest_part: int = 200
    """Characters. A message that the platform does not take in such parts is given up."""
    newest: int = 20
    """Messages among which are the replies that are shown while they are written."""
    gather_seconds: float = 0.05
    """Changes of bindings that come so close to one another are read together."""
    at_once: int = 50
    """Places that are behind and begin at the same time when an account is taken over."""


class Need(NamedTuple):
    """A call that is to be made."""

    call: Call
    place: Place


class Outlet:
    """What all calls of an account go through: none begins that could outlast the lease, or while the bot is not let in."""

    def __init__(self, surface: ChatSurface, held: Held, policy: Policy, rules: DeliveryRules) -> None:
        self.surface = surface
        self.pacer = Pacer()
        self.held = held
        self.rules = rules
        self._policy = policy
        self._direct: dict[str, bool] = {}
        """Which channels are direct messages: those that had to be asked for."""
        self._closed_until = 0.0
        self._threadless_until: dict[str, float] = {}
        """Channels in which no thread is made for a while."""
        self._learned = Remembered[bool](rules.learned_seconds, _now)
        """The places of which it was asked lately what they are."""
        self._posting: dict[asyncio.Task[Any], Place] = {}
        """The posts that are under way, with their notes."""
        self._looking = WeakValueDictionary[Place, asyncio.Lock]()

    async def serves(self, channel: str) -> bool:
        """Whether the operator wants the bot in this channel. Raises a SurfaceError where the platform does not tell."""
        if not self._policy.channels or channel in self._policy.channels:
            return True
        if channel not in self._direct:
            self._direct[channel] = await self.surface.kind(channel) is ChannelKind.DIRECT
        return self._direct[channel]

    @property
    def may_call(self) -> bool:
        """Whether a call may begin now."""
        return self._closed_until <= _now() and self.held.lasts > self.surface.call_seconds

    async def ready(self) -> None:
        """Waits until a call may begin."""
        await asyncio.sleep(max(self._closed_until - _now(), 0.0))
        await self.held.long_enough(self.surface.call_seconds)

    async def granted(self, call: Call, place: Place, rank: Rank) -> None:
        """Waits until the platform's limits allow such a call."""
        urgency = Urgency(rank, _now())
        await self.pacer.grant(self.surface.budgets(call, place), lambda: urgency)

    def give_back(self, call: Call, place: Place) -> None:
        """A call that was granted is not made."""
        self.pacer.give_back(self.surface.budgets(call, place))

    def busy(self, call: Call, place: Place, error: Busy) -> None:
        """The platform turned such a call away."""
        budgets = self.surface.budgets(call, place)
        narrow = {name: budget for name, budget in budgets.items() if not budget.shared}
        self.pacer.busy(narrow or budgets, error.retry_after)

    def close(self, error: AccountClosed) -> None:
        """The bot is not let in: nothing is tried for a while. Nothing is lost."""
        if self._closed_until <= _now():
            _log.warning("delivery.account_closed", surface=self.surface.account.surface, reason=error.reason)
        self._closed_until = _now() + self.rules.account_seconds

    def may_make_thread(self, channel: str) -> bool:
        return self._threadless_until.get(channel, 0.0) <= _now()

    def refuse_threads(self, channel: str) -> None:
        """None can be made there. All who want one need not ask at once, but people may allow it any time."""
        self._threadless_until[channel] = _now() + self.rules.threadless_seconds

    def knows(self, place: Place) -> bool:
        """Whether it was asked lately what the place is."""
        return self._learned.get(f"{place.channel} {place.thread}") is not None

    def learned(self, place: Place) -> None:
        self._learned.put(f"{place.channel} {place.thread}", True)

    def is_chat(self, channel: str, kind: ChannelKind) -> bool:
        """Whether a channel is one conversation by itself."""
        return kind is ChannelKind.DIRECT or self._policy.rules(channel).mode == "chat"

    def looking(self, place: Place) -> asyncio.Lock:
        """Held while posts are looked for there, until what was found is noted: otherwise two could take the same message for theirs."""
        return self._looking.setdefault(place, asyncio.Lock())

    async def posts_noted(self, place: Place) -> None:
        """Waits until the posts that are under way there are noted: what was found may be one of them."""
        if there := [task for task, at in self._posting.items() if at == place]:
            await asyncio.wait(there)

    async def finish(self, call: Coroutine[Any, Any, _T], *, posts_to: Place | None = None) -> _T:
        """Makes a call that is not cancelled in its middle: whoever is cancelled meanwhile waits for its end.

        A call that `posts_to` a place notes what it posted.
        """
        task = asyncio.create_task(call, name="delivery.call")
        if posts_to:
            self._posting[task] = posts_to
            task.add_done_callback(self._posting.pop)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=2 * self.surface.call_seconds)
            if not task.cancel() and not task.cancelled():
                task.exception()  # told to nobody: what is not noted is looked up by whoever comes next
            raise


def heed_cancellation() -> None:
    """An error that meets a cancellation takes its place in a TaskGroup of Python 3.11 and 3.12."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


def _now() -> float:
    return asyncio.get_running_loop().time()
