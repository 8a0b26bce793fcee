"""What a writer knows of its place: what the conversation says now, and what stands there on the platform. Nothing is sent here."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from bots import view
from bots.delivery import history
from bots.delivery.beginnings import Past
from bots.delivery.history import Item, LeftOut
from bots.delivery.outlet import Outlet
from bots.delivery.plan import LONG_AGO, NEVER, Remote, Want, all_shown, wanted
from bots.delivery.status import Status
from bots.delivery.threads import Attempts, Opening, arrangement
from bots.services import Services
from bots.surface import Call, Limits
from bots.view import View
from core.frames import Frame
from core.models import JSON, NO_THREAD, TO_ARRANGE, Binding, BindingCheck, BindingMode, Conversation, DeliveryState, Place, Task
from core.ports import UnitOfWork
from core.talk import Entry, Talk


class Over(Exception):
    """Nothing is delivered to this place any more."""


class Unchecked(Over):
    """Not before the platform was asked what the place is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A post of unknown outcome that was repeated: the first may have happened all the same, and late."""

    item: str
    nonce: UUID
    place: Place
    since: datetime
    look_at: float


class Picture:
    def __init__(self, services: Services, outlet: Outlet, binding: Binding, twins: list[Twin]) -> None:
        self.binding = binding
        self.talk = Talk()
        self.items: list[Item] = []
        self.twins = twins
        self.changed = asyncio.Event()
        """Set where something may have to be done."""
        self.is_read = False
        self.is_stale = True
        self.is_noted = False
        """Whether the database knows when it was last looked whether what the place was told first is still so."""
        self.gone = ""
        """What is to be said of what was not shown to its end, as the conversation was deleted, or the place shows another one."""
        self.not_before = 0.0
        """Nothing is done before this time, as something failed."""
        self.arrangement = arrangement(None)
        """How the place's thread is to look."""
        self.opening = Opening()
        self.arranging = Attempts()
        self.learning = Attempts()
        self._services = services
        self._outlet = outlet
        self._rules = outlet.rules
        self._left: LeftOut | None = None
        self._past = Past()

    @property
    def is_known(self) -> bool:
        return self.is_read and self.talk.known

    @property
    def place(self) -> Place:
        return self.binding.place

    @property
    def url(self) -> str:
        return view.page(self._services.url, self.binding.conversation_id)

    @property
    def first_seconds(self) -> float:
        return self._rules.first_seconds

    # --- what changes ---

    def apply(self, frame: Frame) -> None:
        self.talk.apply(frame)
        self.talk.notices.clear()
        match frame.event:
            case "llm_delta":
                self._grew(frame.payload["message_id"])
                return
            case "conversation_deleted":
                self.gone = view.DELETED
            case "tool_call" | "turn_changed" | "agent_status":
                self._unsettle_unfinished()
            case "snapshot" | "message_changed":
                self.is_stale, self._past = True, Past()
            case _:
                self.is_stale = True
        self.changed.set()

    def _grew(self, message_id: str) -> None:
        """Many pieces of text are shown by one edit: only the first of them is told."""
        item = next((item for item in self.items if item.key == message_id), None)
        if item is None:
            return
        if item.unshown_since is None or not item.remotes:
            self.changed.set()
        if item.unshown_since is None:
            item.unshown_since = _now()

    def _unsettle_unfinished(self) -> None:
        for item in self.items:
            if item.is_unfinished_reply and item.unshown_since is None:
                item.unshown_since = _now()

    async def refresh(self) -> None:
        """Reads what is to be looked after. Raises Over."""
        self.is_stale = self.is_noted = False
        past = self._past  # what is heard meanwhile may not be in it
        async with self._services.storage.read() as uow:
            binding = await uow.bindings.get(self.binding.id)
            conversation = await uow.conversations.find(self.binding.conversation_id)
            if binding is None or binding.is_former or conversation is None:
                self.gone = view.DELETED if conversation is None else view.goes_on(self.url)
                raise Over
            if binding.check is not BindingCheck.NONE:
                raise Unchecked
            # Of one that was left everything up to that is shown, and the status taken back.
            if not binding.is_delivered_to and (binding.ended or not self.is_read):
                raise Over
            if not self.is_read:
                self._left = await history.left_out(uow, binding, conversation, self._rules.backlog)
            task = await uow.tasks.of_conversation(conversation.id)
            items = await self._read(uow, binding, conversation, task, past)
        self.arrangement = arrangement(task)
        was_left = self.is_left
        # Whether the status is shown is noted meanwhile by who shows it.
        self.binding = replace(binding, status_shown=self.binding.status_shown) if self.is_read else binding
        self._renew(items, keeps_settled=was_left)

    async def _read(self, uow: UnitOfWork, binding: Binding, conversation: Conversation, task: Task | None, past: Past) -> list[Item]:
        """Nothing of a place that was left before anything was said there."""
        if not binding.is_delivered_to or (binding.mode is BindingMode.OFF and await history.is_untold(uow, binding)):
            return []
        return await history.read(uow, binding, conversation, past, task=task, left=self._left, url=self.url)

    def _renew(self, items: list[Item], *, keeps_settled: bool) -> None:
        """`keeps_settled`: a last frame stays as it is, whatever comes behind it."""
        known = {item.key: item for item in self.items}
        for place, item in enumerate(items):
            if item.key in known:
                was_settled = known[item.key].settled
                known[item.key].renew(item)
                known[item.key].settled = was_settled and keeps_settled and self.is_left
                items[place] = known[item.key]
            else:
                self._meet(item)
        self.items = items
        self.is_read = True
        self.talk.forget(but={item.key for item in items if item.is_unfinished_reply})

    def _meet(self, item: Item) -> None:
        """What was sent before this writer began may still change what is there."""
        item.seen_at = _now()
        for remote in item.remotes:
            row = remote.row
            if row.state in (DeliveryState.SENDING, DeliveryState.LIVE):
                remote.doubtful_until = _now() + self._uncertain_seconds
            if row.state is DeliveryState.SENDING:
                age = (self._services.clock.now() - row.sent_at).total_seconds()
                remote.look_at = _now() + max(self._uncertain_seconds - max(age, 0.0), 0.0)

    @property
    def _uncertain_seconds(self) -> float:
        """So long after it was begun a call of a process that was killed may still happen."""
        return self._outlet.surface.call_seconds + self._rules.settle_seconds

    # --- what is to be shown ---

    def view(self, item: Item) -> View | None:
        shown = self._view(item)
        if shown is None or item.is_head:
            return shown
        if self.is_left:
            return None if item.is_unfinished_reply and not item.stands else view.left(shown, self.url)
        return view.read_only(shown, self.url) if self.binding.mode is BindingMode.WATCH else shown

    def _view(self, item: Item) -> View | None:
        if item.said is None:
            return item.still
        said = item.said
        if item.is_unfinished_reply and (entry := self.talk.entry(item.key)):
            said = _as_told(said, entry)
        turn = self.talk.turns.get(said["turn_id"] or "")
        behind = sum(other["position"] > turn["position"] for other in self.talk.turns.values()) if turn else 0
        return view.message(said, turn=turn, agent=self.talk.agent, answer=item.answer, is_past=item.is_past, behind=behind)

    def wants(self, item: Item, shown: View | None) -> list[Want]:
        limits = self.limits(item)
        if item.limit:
            limits = replace(limits, length=item.limit)
        return wanted(shown, item.remotes, limits, item.cuts, self.url)

    def limits(self, item: Item) -> Limits:
        return self._outlet.surface.limits(self.place_of(item))

    def place_of(self, item: Item) -> Place:
        """Where it stands: all of it where its first part was posted, although a thread may have been made since."""
        # Who knows of no threads that must be made does not note them: an older version.
        if not item.stands or not self._outlet.surface.makes_threads:
            return self.place
        return replace(self.place, thread=next(remote.row.thread for remote in item.remotes if not remote.unsent))

    def dies_at(self, item: Item, remote: Remote) -> float | None:
        """When the platform lets a message not be changed any more, by the event loop's clock."""
        remote_id = remote.row.remote_id
        seconds = self._outlet.surface.live_seconds(self.place_of(item), remote_id) if remote_id else None
        return None if seconds is None else _now() + seconds - self._age(remote)

    def call_to_edit(self, item: Item, remote: Remote) -> Call:
        """What a change of it is counted as."""
        old_seconds = self.limits(item).old_seconds
        return Call.EDIT if old_seconds is None or self._age(remote) < old_seconds else Call.AMEND

    def _age(self, remote: Remote) -> float:
        return (self._services.clock.now() - remote.row.sent_at).total_seconds()

    def doing(self) -> Status | None:
        """What the agent does; None where it is not known yet, or there is no place for it."""
        turn = None if self.is_left else self.talk.turn
        return view.doing(turn, self.talk.agent) if self.is_known and self.binding.opened else None

    # --- its thread ---

    @property
    def root(self) -> str:
        """The remote message on which the thread is to be made; empty where it was made, or where that message is not there yet."""
        if self.binding.opened or self.binding.root:
            return self.binding.root
        remotes = [remote for item in self.items for remote in item.remotes]
        return next((each.row.remote_id for each in remotes if each.row.remote_id), "")

    @property
    def waits_for_thread(self) -> bool:
        """Whether one will be made, as far as is known."""
        may_be_made = not self.opening.is_impossible and self._outlet.may_make_thread(self.place.channel)
        return bool(self.root) and may_be_made and not self.is_left

    @property
    def posts_from(self) -> float:
        """New messages wait for the thread that is being made, but not for long: then they go to the channel's top."""
        if not self.waits_for_thread or self.opening.since is None:
            return LONG_AGO
        if self.opening.is_only_way:
            return NEVER
        until = self.opening.since + self._rules.open_seconds
        return until if self.opening.not_before < until else LONG_AGO

    @property
    def mark(self) -> str | None:
        """What is to be noted of the thread before anything else is done, so that whoever comes next need not or must look after it."""
        arranged = self.binding.arranged
        if self.is_left:
            return None
        if not self.binding.opened:
            is_given_up = self.root and not self.waits_for_thread
            return NO_THREAD if is_given_up and not arranged else None
        is_ours = arranged not in ("", NO_THREAD, TO_ARRANGE)
        return TO_ARRANGE if is_ours and arranged != self.arrangement.noted else None

    @property
    def is_to_be_arranged(self) -> bool:
        return self.binding.opened and self.binding.arranged == TO_ARRANGE and not self.is_left

    @property
    def is_to_be_learned(self) -> bool:
        """Whether it is not known, or not for sure any more, what the place is called and who may read there."""
        return self.binding.opened and not self.is_left and not self._outlet.knows(self.place)

    # --- how far it is ---

    @property
    def is_left(self) -> bool:
        """Whether nothing is shown any more but what was said before."""
        return self.binding.mode is BindingMode.OFF

    @property
    def is_answered(self) -> bool:
        """As far as that concerns the place."""
        return self.is_left or (not self.talk.turns and not any(item.is_unfinished_reply for item in self.items))

    @property
    def target(self) -> int:
        """The seq up to which everything was delivered."""
        target = self.binding.cursor
        for item in self.items:
            if not item.is_card:
                if not (item.settled or item.is_theirs):
                    break
                target = max(target, item.seq)
        return self._last_target(target) if self.is_left else target

    def _last_target(self, target: int) -> int:
        """The end is reached when the status was taken back, too: nobody looks after the place then."""
        until = self.binding.until or 0
        if not self.items:
            target = max(target, until)
        return max(min(target, until - 1), self.binding.cursor) if self.binding.status_shown else target

    @property
    def is_uncertain(self) -> bool:
        """Whether it is not known of some post whether it happened."""
        return any(remote.is_sending and not remote.unsent for item in self.items for remote in item.remotes)

    @property
    def is_to_be_noted(self) -> bool:
        return self.binding.followed and not self.is_left and not self.is_noted

    def is_complete(self, item: Item, shown: View | None, wants: Sequence[Want]) -> bool:
        """Whether all of a message is there in its final form."""
        has_ended = shown is None or shown.ended
        return has_ended and all_shown(item.remotes, wants) and not any(remote.is_doubtful for remote in item.remotes)


def _as_told(said: JSON, entry: Entry) -> JSON:
    """An unfinished reply as far as it was told. That it has ended is read with all that belongs to it."""
    calls = [call for _, call in sorted(entry.calls.items())]
    told = {"content": entry.text, "tool_calls": calls}
    return {**said, **told} if entry.ended else {**entry.message, **told}


def _now() -> float:
    return asyncio.get_running_loop().time()
