"""Following a conversation: what a surface sees of it, whatever is lost, late or doubled on the way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import conversations, follow, tasks
from core.access import Principal
from core.errors import ModelFaltered, ModelRefused, NotFound, StorageUnavailable
from core.events import Event, Lagged, MessageAdded, MessageChanged, TextDelta
from core.follow import Follower, ReplyText
from core.frames import Frame
from core.ids import new_id
from core.live import LiveEvents
from core.models import JSON, Decision
from core.ports import Draft, Lease, UnitOfWork
from core.text import utf16_cut, utf16_len
from tests.databases import on_both
from tests.fakes import Call, Gate
from tests.integration.conftest import Start, World

new_database = on_both


class Viewer:
    """A surface that keeps to the protocol: it shows what the frames say."""

    def __init__(self, frames: AsyncGenerator[Frame, None]) -> None:
        self._frames = frames
        self.seen: list[Frame] = []
        self.texts: dict[str, str] = {}
        self.streams: dict[str, int] = {}

    async def until(self, event: str, holds: Callable[[JSON], bool] = lambda _: True, seconds: float = 30) -> JSON:
        """Reads on to the next frame of this kind."""
        async with asyncio.timeout(seconds):
            async for frame in self._frames:
                self.seen.append(frame)
                self._show(frame)
                if frame.event == event and holds(frame.payload):
                    return frame.payload
        raise AssertionError(f"the frames ended before {event}")

    async def shows(self, message_id: UUID | None, text: str, seconds: float = 30) -> None:
        """Reads on until the reply's text is this."""
        if self.texts.get(str(message_id)) != text:
            await self.until("llm_delta", lambda _: self.texts.get(str(message_id)) == text, seconds)

    async def rest(self) -> list[str]:
        """The events that come until the frames end."""
        async with asyncio.timeout(30):
            return [frame.event async for frame in self._frames]

    def count(self, event: str) -> int:
        return sum(frame.event == event for frame in self.seen)

    def _show(self, frame: Frame) -> None:
        match frame.event:
            case "snapshot":
                for message in frame.payload["messages"]:
                    if message["role"] == "assistant":
                        self._set(message)
            case "new_message" | "message_changed" if frame.payload["role"] == "assistant":
                self._set(frame.payload)
            case "llm_complete":
                self.texts[frame.payload["message_id"]] = frame.payload["content"]
            case "llm_delta":
                self._extend(frame.payload)

    def _set(self, message: JSON) -> None:
        self.texts[message["id"]], self.streams[message["id"]] = message["content"], message["stream_no"]

    def _extend(self, delta: JSON) -> None:
        message_id, offset = delta["message_id"], delta["offset"]
        text, stream_no = self.texts.get(message_id, ""), self.streams.get(message_id, 0)
        assert delta["stream_no"] >= stream_no
        assert offset <= utf16_len(text), "a gap"
        if delta["stream_no"] == stream_no:
            known = utf16_len(text) - offset
            self.texts[message_id] = text + delta["delta"][len(utf16_cut(delta["delta"], known)) :]
        else:
            self.texts[message_id] = utf16_cut(text, offset) + delta["delta"]
            self.streams[message_id] = delta["stream_no"]


@asynccontextmanager
async def watching(world: World, conversation: UUID, who: Principal | None = None) -> AsyncIterator[Viewer]:
    async with aclosing(Follower(world.app.storage, world.app.live, who or world.admin, conversation).frames()) as frames:
        viewer = Viewer(frames)
        await viewer.until("snapshot")
        yield viewer


# --- the whole way ---


async def test_a_reply_is_followed_from_the_post_to_the_end(world: World) -> None:
    gate = Gate()
    world.model.will("Making it.", Call("create_task", {"title": "Buy milk"})).will("Done 🥛", gate, "!")
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        posted = await world.post(chat.id, "Create a task")
        await viewer.shows(posted.reply_id, "Making it.\n\nDone 🥛")
        gate.open()
        complete = await viewer.until("llm_complete")

    assert (complete["content"], complete["status"]) == ("Making it.\n\nDone 🥛!", "completed")
    assert complete["metadata"]["tokens_in"] == 20
    assert [frame.payload["role"] for frame in viewer.seen if frame.event == "new_message"] == ["user", "assistant"]
    states = [frame.payload["state"] for frame in viewer.seen if frame.event == "tool_call"]
    assert states[-1] == "done"  # so quickly that its beginning need not be told
    assert viewer.count("snapshot") == 1


async def test_who_joins_in_the_middle_gets_the_text_so_far_and_the_rest(world: World) -> None:
    first, second = Gate(), Gate()
    world.model.will("So far", first, ", so good", second, ".")
    chat = await world.chat()
    async with world.working():
        posted = await world.post(chat.id, "Hello")
        await first.reached()
        async with watching(world, chat.id) as viewer:
            assert viewer.texts[str(posted.reply_id)] in ("", "So far")
            first.open()
            await viewer.shows(posted.reply_id, "So far, so good")
            second.open()
            assert (await viewer.until("llm_complete"))["content"] == "So far, so good."


async def test_who_joins_in_the_middle_gets_what_was_said_just_before_also_when_nothing_more_comes(world: World) -> None:
    gate = Gate()
    world.model.will("So far", gate)
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as first:
        posted = await world.post(chat.id, "Hello")
        await first.shows(posted.reply_id, "So far")
        async with watching(world, chat.id) as second:
            await second.shows(posted.reply_id, "So far")


async def test_who_joins_in_the_middle_gets_what_was_said_just_before_also_when_it_is_stored_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "DRAFT_SECONDS", 0.05)  # before the worker stores any draft
    await test_who_joins_in_the_middle_gets_what_was_said_just_before_also_when_nothing_more_comes(world)


async def test_nothing_of_an_older_stream_is_shown_after_a_newer_one_was_told(world: World) -> None:
    chat = await world.chat()
    posted = await world.post(chat.id, "Hello")
    assert posted.turn_id
    assert posted.reply_id
    turn_id, reply_id = posted.turn_id, posted.reply_id
    changed = MessageChanged(conversation_id=chat.id, message_id=reply_id)
    async with watching(world, chat.id) as viewer:
        await world.write(lambda uow: uow.turns.update(turn_id, stream_no=2))
        world.app.live.publish(changed, _delta(chat.id, reply_id, 1, 0, "Half of"), _delta(chat.id, reply_id, 2, 0, "All"))
        await viewer.shows(reply_id, "All")
        world.app.live.publish(changed)
        await viewer.until("message_changed", lambda reply: reply["content"] == "All")


async def test_a_second_attempt_replaces_the_text_of_the_first(world: World) -> None:
    gate = Gate()
    world.model.will("Half of", ModelFaltered("It broke.", reason="CUT")).will("All", gate, " of it.")
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        posted = await world.post(chat.id, "Hello")
        await viewer.shows(posted.reply_id, "All")
        retried = [frame.payload for frame in viewer.seen if frame.event == "turn_changed" and frame.payload.get("error_code")]
        assert retried[0]["error_code"] == "CUT"
        gate.open()
        assert (await viewer.until("llm_complete"))["content"] == "All of it."


async def test_a_failed_reply_ends_with_what_to_do(world: World) -> None:
    world.model.will("Part", ModelRefused("Set OPENAI_API_KEY.", reason="NO_KEY"))
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        await world.post(chat.id, "Hello")
        complete = await viewer.until("llm_complete")
        error = await viewer.until("llm_error")

    assert (complete["content"], complete["status"]) == ("Part", "failed")
    assert (error["error"], error["error_code"]) == ("Set OPENAI_API_KEY.", "NO_KEY")


async def test_queued_turns_tell_their_place_and_move_up(world: World) -> None:
    gate = Gate()
    world.model.will(gate, "one")
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        await world.post(chat.id, "First")
        await gate.reached()
        second = await world.post(chat.id, "Second")
        waiting = await viewer.until("turn_changed", lambda turn: turn["turn_id"] == str(second.turn_id))
        assert (waiting["status"], waiting["position"]) == ("queued", 1)
        gate.open()
        await viewer.until("turn_changed", lambda turn: (turn["turn_id"], turn["position"]) == (str(second.turn_id), 0))


async def test_a_queued_turn_says_that_no_worker_is_there(world: World) -> None:
    chat = await world.chat()
    async with watching(world, chat.id) as viewer:
        await world.post(chat.id, "Hello")
        assert (await viewer.until("turn_changed"))["no_worker"] is True


async def test_an_approval_is_asked_for_and_its_end_is_told(world: World) -> None:
    await world.task("Buy milk")
    world.model.will(Call("delete_task", {"ref": "OT-1"})).will("Gone.")
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        posted = await world.post(chat.id, "Delete it")
        asked = await viewer.until("tool_call", lambda call: call["state"] == "awaiting_approval")
        assert (asked["name"], asked["arguments"]) == ("delete_task", {"ref": "OT-1"})
        approval = await world.approval(posted)
        assert asked["approval_id"] == str(approval.id)
        await world.decide(approval, Decision.APPROVE)
        await viewer.until("tool_call", lambda call: call["state"] == "done")


async def test_a_renamed_conversation_and_a_changed_task_are_told(world: World) -> None:
    chat, task = await world.chat(), await world.task("Buy milk")
    async with watching(world, chat.id) as viewer:
        await world.write(lambda uow: conversations.rename(uow, world.admin, chat.id, "Shopping"))
        assert (await viewer.until("conversation_changed"))["title"] == "Shopping"
    async with watching(world, task.conversation_id) as viewer:
        await world.write(lambda uow: tasks.update(uow, world.admin, "OT-1", {"status": "done"}))
        assert (await viewer.until("task_changed"))["status"] == "done"


# --- ends ---


async def test_a_deleted_conversation_ends_the_frames(world: World) -> None:
    chat = await world.chat()
    async with watching(world, chat.id) as viewer:
        await world.write(lambda uow: conversations.delete(uow, world.admin, chat.id))
        assert (await viewer.rest())[-1] == "conversation_deleted"


async def test_a_task_that_is_deleted_while_its_agent_works_is_told_to_its_followers(world: World) -> None:
    gate = Gate()
    world.model.will("So far", gate)
    task = await world.task("Buy milk")
    async with world.working(), watching(world, task.conversation_id) as viewer:
        await world.post(task.conversation_id, "Hello")
        await gate.reached()
        await world.write(lambda uow: tasks.delete(uow, world.admin, "OT-1"))
        assert (await viewer.rest())[-2:] == ["task_deleted", "conversation_deleted"]


async def test_nobody_follows_what_they_may_not_see(world: World) -> None:
    kim = await world.user("kim")
    chat = await world.chat()

    with pytest.raises(NotFound):
        async with watching(world, chat.id, kim):
            raise AssertionError


async def test_a_follower_that_is_closed_leaves_nothing_behind(world: World) -> None:
    chat = await world.chat()
    async with watching(world, chat.id):
        assert world.app.live.followed == {chat.id}
    assert world.app.live.followed == frozenset()


# --- gaps ---


async def test_the_end_of_a_reply_is_told_to_who_reads_late(world: World) -> None:
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        await world.ask(chat.id, "Hello")
        assert (await viewer.until("llm_complete"))["content"] == "OK."
    assert "llm_delta" not in [frame.event for frame in viewer.seen]


async def test_what_a_reply_did_is_told_before_its_end_to_who_reads_late(world: World) -> None:
    await world.task("Buy milk")
    world.model.will(Call("delete_task", {"ref": "OT-1"})).will("Gone.")
    chat = await world.chat()
    async with watching(world, chat.id) as viewer:
        async with world.working():
            posted = await world.post(chat.id, "Delete it")
            await viewer.until("tool_call", lambda call: call["state"] == "awaiting_approval")
        await world.decide(await world.approval(posted), Decision.APPROVE)
        await viewer.until("tool_call", lambda call: call["state"] == "running")
        async with world.working():
            await world.ended(posted)
            await viewer.until("llm_complete")
    [*_, last] = [frame.payload for frame in viewer.seen if frame.event == "tool_call"]
    assert (last["state"], last["decided_by"]) == ("done", "admin")


async def test_a_gap_is_closed_by_reading_the_stored_draft(world: World) -> None:
    gate = Gate()
    world.model.will("0123", gate, "456789")
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        posted = await world.post(chat.id, "Count")
        await viewer.shows(posted.reply_id, "0123")
        turn = await world.turn(posted)
        assert posted.reply_id
        # somebody else's draft runs ahead: the deltas between 4 and 8 were lost on the way
        lost = Draft(lease=Lease(turn_id=turn.id, token=turn.lease_token), reply_id=posted.reply_id, stream_no=1, text="01234567")
        await world.write(lambda uow: uow.messages.save_drafts([lost]))
        world.app.live.publish(_delta(chat.id, posted.reply_id, 1, 8, "89"))
        await viewer.shows(posted.reply_id, "0123456789", seconds=3)
        gate.open()
        assert (await viewer.until("llm_complete"))["content"] == "0123456789"
    assert viewer.count("snapshot") == 1


async def test_a_follower_that_lagged_gets_the_whole_state_again(world: World) -> None:
    gate = Gate()
    world.model.will("So far", gate, " so good")
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        posted = await world.post(chat.id, "Hello")
        await gate.reached()
        for _ in range(1_001):  # more than fit into a subscription
            world.app.live.publish(MessageChanged(conversation_id=chat.id, message_id=posted.message_id))
        snapshot = await viewer.until("snapshot")
        assert [message["role"] for message in snapshot["messages"]] == ["user", "assistant"]
        gate.open()
        assert (await viewer.until("llm_complete"))["content"] == "So far so good"


async def test_a_message_that_the_snapshot_shows_is_not_told_as_new_when_its_event_comes_late(world: World) -> None:
    chat = await world.chat()
    posted = await world.post(chat.id, "Hello")
    async with watching(world, chat.id) as viewer:
        world.app.live.publish(MessageAdded(conversation_id=chat.id, message_id=posted.message_id))
        await world.post(chat.id, "Next")
        await viewer.until("new_message")

    assert [frame.payload["content"] for frame in viewer.seen if frame.event == "new_message"] == ["Next"]


async def test_text_that_comes_after_the_end_of_a_reply_is_dropped(world: World) -> None:
    chat = await world.chat()
    async with world.working(), watching(world, chat.id) as viewer:
        posted = await world.post(chat.id, "Hello")
        assert posted.reply_id
        await viewer.until("llm_complete")
        for offset in (0, 3, 50):
            world.app.live.publish(_delta(chat.id, posted.reply_id, 1, offset, "late"))
        await world.post(chat.id, "Next")
        before = len(viewer.seen)
        await viewer.until("llm_complete")

    after = [frame for frame in viewer.seen[before:] if frame.event == "llm_delta"]
    assert str(posted.reply_id) not in {frame.payload["message_id"] for frame in after}


async def test_a_follower_reads_nothing_while_nothing_happens(world: World) -> None:
    chat = await world.chat()
    follower = Follower(world.app.storage, world.app.live, world.admin, chat.id)
    async with world.working(), aclosing(follower.frames()) as frames:
        viewer = Viewer(frames)
        await viewer.until("snapshot")
        posted = await world.post(chat.id, "Hello")
        assert posted.reply_id
        await viewer.until("llm_complete")
        world.app.live.publish(
            _delta(chat.id, posted.reply_id, 1, 50, "late"), MessageChanged(conversation_id=chat.id, message_id=new_id())
        )
        await world.write(lambda uow: conversations.rename(uow, world.admin, chat.id, "New"))
        await viewer.until("conversation_changed")

    assert follower._held == []


async def test_a_follower_waits_for_a_database_that_is_away(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start() as world:
        chat = await world.chat()
        async with watching(world, chat.id) as viewer:
            refused = asyncio.Event()

            @asynccontextmanager
            async def away() -> AsyncIterator[UnitOfWork]:
                refused.set()
                raise StorageUnavailable("The database is away.")
                yield

            reading = asyncio.create_task(viewer.until("snapshot"))
            with monkeypatch.context() as patch:
                patch.setattr(world.app.storage, "read", away)
                await world.post(chat.id, "Hello")
                async with asyncio.timeout(30):
                    await refused.wait()
            assert len((await reading)["messages"]) == 2


# --- the text of one reply, whatever arrives in whatever order ---


def _delta(conversation: UUID, message: UUID, stream_no: int, offset: int, text: str) -> TextDelta:
    return TextDelta(conversation_id=conversation, message_id=message, stream_no=stream_no, offset=offset, text=text)


_pieces = st.lists(st.text(alphabet=st.sampled_from("ab🥛é\u200d"), min_size=1, max_size=4), min_size=1, max_size=6)


@st.composite
def _deliveries(draw: st.DrawFn) -> tuple[list[TextDelta], str]:
    """The deltas of several streams of one reply, cut elsewhere, doubled, late; and the text that they end with."""
    here, message = new_id(), new_id()
    events: list[TextDelta] = []
    kept = ""
    for stream_no in range(1, draw(st.integers(1, 3)) + 1):
        text = kept
        for piece in draw(_pieces):
            events.append(_delta(here, message, stream_no, utf16_len(text), piece))
            text += piece
            if draw(st.booleans()):  # a stored draft, read by somebody, tells all of it again
                events.append(_delta(here, message, stream_no, 0, text))
        if draw(st.booleans()):
            events.append(draw(st.sampled_from(events)))
        kept, last = draw(st.sampled_from(["", text])), text
    return events, last


@settings(derandomize=True, deadline=None)
@given(_deliveries())
def test_a_replys_text_is_exact_whatever_is_doubled_or_late(case: tuple[list[TextDelta], str]) -> None:
    events, expected = case
    reply, shown = ReplyText(0, ""), ""
    for delta in events:
        assert reply.fits(delta)
        if change := reply.apply(delta):
            offset, text = change
            shown = utf16_cut(shown, offset) + text
        assert shown == reply.text
        assert reply.length == utf16_len(reply.text)
    assert shown == expected


def test_a_delta_beyond_the_text_does_not_fit() -> None:
    here, message = new_id(), new_id()
    reply = ReplyText(2, "🥛")

    assert reply.fits(_delta(here, message, 2, 2, "x"))
    assert not reply.fits(_delta(here, message, 2, 3, "x"))
    assert not reply.fits(_delta(here, message, 3, 3, "x"))
    assert reply.fits(_delta(here, message, 1, 99, "x"))
    assert reply.apply(_delta(here, message, 1, 0, "stale")) is None
    assert reply.apply(_delta(here, message, 3, 0, "new")) == (0, "new")


# --- the bus ---


async def test_a_subscriber_that_does_not_keep_up_lags_and_the_publisher_never_waits() -> None:
    live, here = LiveEvents(), new_id()
    with live.subscribe(here, size=3) as slow, live.subscribe(here) as quick:
        sent = [MessageChanged(conversation_id=here, message_id=new_id()) for _ in range(5)]
        live.publish(*sent)

        assert quick.waiting() == sent
        assert slow.waiting() == [Lagged(), sent[4]]
        live.publish(sent[0])
        assert slow.waiting() == [sent[0]]


async def test_a_subscriber_hears_its_conversation_and_everybody_hears_state() -> None:
    live, here, there = LiveEvents(), new_id(), new_id()
    with live.subscribe(here) as one, live.subscribe() as every:
        mine = MessageChanged(conversation_id=here, message_id=new_id())
        other = MessageChanged(conversation_id=there, message_id=new_id())
        delta = _delta(here, new_id(), 1, 0, "x")
        live.publish(mine, other, delta, Lagged())

        assert one.waiting() == [mine, delta, Lagged()]
        assert every.waiting() == [mine, other, Lagged()]


async def test_an_event_wakes_who_waits_for_it() -> None:
    live, here = LiveEvents(), new_id()
    sent: list[Event] = [MessageChanged(conversation_id=here, message_id=new_id()), Lagged()]
    with live.subscribe(here) as subscription:
        waiting = asyncio.create_task(subscription.get())
        await asyncio.sleep(0)
        live.publish(*sent)
        async with asyncio.timeout(30):
            assert [await waiting, await subscription.get()] == sent
