"""Following conversations over the WebSocket: the same for everybody, whatever is lost, late or slow on the way."""

import asyncio
import gc
import json
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from websockets.asyncio.client import ClientConnection, connect

from core import conversations, tasks
from core.access import Principal
from core.errors import ModelFaltered, ModelRefused
from core.events import Lagged, MessageChanged
from core.live import QUEUE_SIZE
from core.models import Task
from tests.fakes import Call, Gate
from tests.integration.conftest import World
from tests.integration.web.conftest import Site, site_of
from tests.web_client import Client, Refused, Shown, client
from web.outbox import MAX_CHARACTERS, Outbox

JSON = dict[str, Any]


@asynccontextmanager
async def talking(site: Site, who: Principal | None = None) -> AsyncIterator[Client]:
    async with client(site.url, await site.token(who or site.world.admin)) as found:
        yield found


async def topic_of(site: Site) -> str:
    return f"conversation:{(await site.world.chat()).id}"


# --- the whole way ---------------------------------------------------------------------------------------------------


async def test_a_message_is_posted_answered_and_followed(site: Site) -> None:
    gate = Gate()
    site.world.model.will("Hello", gate, ", world!")
    topic = await topic_of(site)
    async with site.world.working(), talking(site) as page:
        shown = await page.join(topic)
        posted = await page.say(topic, "Hi")
        await page.until(lambda: shown.texts.get(posted["reply_id"]) == "Hello")
        gate.open()
        await page.until(lambda: shown.ended(posted["reply_id"]))

    assert shown.texts[posted["reply_id"]] == "Hello, world!"
    assert [message["role"] for message in shown.events("new_message")] == ["user", "assistant"]
    assert shown.messages[posted["message_id"]]["source"] == "web"
    assert {turn["turn_id"] for turn in shown.events("turn_changed")} == {posted["turn_id"]}
    assert [status["status"] for status in shown.events("agent_status")][-1] == "idle"
    assert len(shown.events("snapshot")) == 1


async def test_the_reply_to_join_is_the_whole_state(site: Site) -> None:
    gate = Gate()
    site.world.model.will("So far", gate)
    task = await site.world.task("Buy milk")
    async with site.world.working(), talking(site) as page:
        await site.world.post(task.conversation_id, "Hello")
        await gate.reached()
        state = await page.ask("join", "task:ot-1")

    assert set(state) == {"task", "conversation", "messages", "turns"}
    assert (state["task"]["ref"], state["conversation"]["message_count"]) == ("OT-1", 2)
    assert [(message["role"], message["status"]) for message in state["messages"]] == [("user", "processing"), ("assistant", "processing")]
    assert state["messages"][1]["stream_no"] == 1
    assert state["turns"][0]["status"] == "running"


async def test_two_clients_see_the_same(site: Site) -> None:
    gate = Gate()
    site.world.model.will("Making it.", Call("create_task", {"title": "Buy milk"})).will("Done", gate, "!")
    topic = await topic_of(site)
    async with site.world.working(), talking(site) as one, talking(site) as other:
        first, second = await one.join(topic), await other.join(topic)
        posted = await one.say(topic, "Create a task")
        for page, shown in ((one, first), (other, second)):
            await page.shows(shown, posted["reply_id"], "Making it.\n\nDone")
        gate.open()
        await one.until(lambda: first.events("agent_status")[-1]["status"] == "idle")
        await other.until(lambda: second.events("agent_status")[-1]["status"] == "idle")

    def told(shown: Shown) -> list[JSON]:
        return [frame for frame in shown.frames if frame["event"] not in ("snapshot", "llm_delta")]

    assert told(first) == told(second)
    assert first.texts == second.texts
    assert [call["state"] for call in first.events("tool_call")][-1] == "done"


async def test_surrogate_pairs_survive_being_told_in_pieces(site: Site) -> None:
    gates = [Gate() for _ in range(3)]
    site.world.model.will("🥛", gates[0], "é🧀", gates[1], "a", "🧀", gates[2], "!")
    topic = await topic_of(site)
    async with site.world.working(), talking(site) as page:
        shown = await page.join(topic)
        posted = await page.say(topic, "Shopping 🧺")
        for gate, text in zip(gates, ("🥛", "🥛é🧀", "🥛é🧀a🧀"), strict=True):
            await page.shows(shown, posted["reply_id"], text)
            gate.open()
        await page.until(lambda: shown.ended(posted["reply_id"]))

    assert shown.texts[posted["reply_id"]] == "🥛é🧀a🧀!"
    assert [delta["offset"] for delta in shown.events("llm_delta")][:3] == [0, 2, 5]


async def test_a_second_attempt_and_a_failure_are_told(site: Site) -> None:
    site.world.model.will("Half of", ModelFaltered("It broke.", reason="CUT")).will("All", ModelRefused("Set a key.", reason="NO_KEY"))
    topic = await topic_of(site)
    async with site.world.working(), talking(site) as page:
        shown = await page.join(topic)
        posted = await page.say(topic, "Hello")
        await page.until(lambda: shown.events("llm_error"))

    assert shown.events("llm_error") == [{"message_id": posted["reply_id"], "error": "Set a key.", "error_code": "NO_KEY"}]
    assert (shown.texts[posted["reply_id"]], shown.messages[posted["reply_id"]]["status"]) == ("All", "failed")


# --- what people do --------------------------------------------------------------------------------------------------


async def test_the_same_client_id_makes_nothing_new_also_over_another_connection(site: Site) -> None:
    topic = await topic_of(site)
    asked = {"content": "Once", "client_id": "one"}
    async with talking(site) as page:
        await page.join(topic)
        first = await page.ask("send_message", topic, asked)
        assert await page.ask("send_message", topic, asked) == first
    async with talking(site) as page:
        shown = await page.join(topic)
        assert await page.ask("send_message", topic, asked) == first
        with pytest.raises(Refused) as refused:
            await page.ask("send_message", topic, {**asked, "content": "Twice"})
    assert refused.value.code == "CONFLICT"
    assert len(shown.messages) == 2


async def test_messages_are_stored_in_the_order_in_which_they_were_sent(site: Site) -> None:
    topic = await topic_of(site)
    async with site.socket() as socket:
        await socket.send(json.dumps({"topic": topic, "event": "join"}))
        for number in range(10):
            payload = {"content": str(number), "client_id": str(number)}
            await socket.send(json.dumps({"topic": topic, "event": "send_message", "payload": payload}))
        stored: list[str] = []
        async with asyncio.timeout(10):
            while len(stored) < 10:
                frame = json.loads(await socket.recv())
                stored += [frame["payload"]["content"]] if frame["event"] == "new_message" and frame["payload"]["role"] == "user" else []
    assert stored == [str(number) for number in range(10)]


async def test_a_message_may_name_its_model_and_a_blank_one_is_refused(site: Site) -> None:
    topic = await topic_of(site)
    async with talking(site) as page:
        shown = await page.join(topic)
        posted = await page.say(topic, "Hello", model="openai/other")
        await page.until(lambda: posted["reply_id"] in shown.messages)
        assert shown.messages[posted["reply_id"]]["metadata"]["model"] == "openai/other"
        for content, sentence in {" ": "empty", "x" * 10_001: "10,000"}.items():
            with pytest.raises(Refused, match=sentence):
                await page.say(topic, content)


async def test_too_many_messages_are_refused_with_the_time_to_wait(site: Site) -> None:
    topic = await topic_of(site)
    async with talking(site) as page:
        await page.join(topic)
        for _ in range(20):
            await page.say(topic, "More")
        with pytest.raises(Refused) as refused:
            await page.say(topic, "Too much")
    assert refused.value.code == "RATE_LIMITED"


async def test_earlier_messages_are_read_in_pages(site: Site) -> None:
    chat = await site.world.chat()
    for number in range(5):
        await site.world.note(chat.id, str(number))
    topic = f"conversation:{chat.id}"
    async with talking(site) as page:
        await page.join(topic)
        last = await page.ask("get_history", topic, {"limit": 2})
        before = await page.ask("get_history", topic, {"limit": 3, "before": last["messages"][0]["seq"]})

    assert ([message["content"] for message in last["messages"]], last["has_more"]) == (["3", "4"], True)
    assert ([message["content"] for message in before["messages"]], before["has_more"]) == (["0", "1", "2"], False)


async def test_a_reply_is_stopped_and_retried(site: Site) -> None:
    gate = Gate()
    site.world.model.will("So far", gate).will("All of it.")
    topic = await topic_of(site)
    async with site.world.working(), talking(site) as page:
        shown = await page.join(topic)
        posted = await page.say(topic, "Hello")
        await page.until(lambda: shown.texts.get(posted["reply_id"]) == "So far")
        stopped = await page.ask("cancel", topic, {"turn_id": posted["turn_id"]})
        await page.until(lambda: shown.events("llm_complete"))
        assert (stopped["status"], shown.messages[posted["reply_id"]]["status"]) == ("cancelled", "cancelled")
        assert await page.ask("retry", topic, {"turn_id": posted["turn_id"]}) == posted
        await page.until(lambda: shown.texts[posted["reply_id"]] == "All of it." and shown.ended(posted["reply_id"]))


async def test_an_approval_is_decided_and_the_first_decision_counts(site: Site) -> None:
    await site.world.task("Buy milk")
    site.world.model.will(Call("delete_task", {"ref": "OT-1"})).will("Gone.")
    topic = await topic_of(site)
    async with site.world.working(), talking(site) as page:
        shown = await page.join(topic)
        await page.say(topic, "Delete it")
        await page.until(lambda: any(call["state"] == "awaiting_approval" for call in shown.events("tool_call")))
        approval = {"approval_id": shown.events("tool_call")[-1]["approval_id"]}
        decided = await page.ask("decide", topic, {**approval, "decision": "approve"})
        with pytest.raises(Refused) as refused:
            await page.ask("decide", topic, {**approval, "decision": "deny"})
        await page.until(lambda: shown.events("llm_complete"))
        (joined,) = (await page.join(topic)).messages[shown.events("llm_complete")[-1]["message_id"]]["tool_calls"]

    assert decided == {**approval, "approval": "approved"}
    assert [shown.events("tool_call")[-1]["decided_by"], joined["decided_by"]] == ["admin", "admin"]
    assert refused.value.code == "CONFLICT"


async def test_a_question_is_answered_by_its_option(site: Site) -> None:
    site.world.model.will(Call("ask_user", {"question": "Which?", "options": ["red", "blue"]})).will("Red it is.")
    topic = await topic_of(site)
    async with site.world.working(), talking(site) as page:
        shown = await page.join(topic)
        asked = await page.say(topic, "Paint it")
        await page.until(lambda: shown.ended(asked["reply_id"]))
        answered = await page.ask("answer", topic, {"message_id": asked["reply_id"], "option": "red"})
        await page.until(lambda: shown.ended(answered["reply_id"]))
    assert shown.messages[answered["message_id"]]["content"] == "red"


async def test_a_message_is_edited_and_deleted(site: Site) -> None:
    topic = await topic_of(site)
    async with talking(site) as page:
        shown = await page.join(topic)
        posted = await page.say(topic, "Helo")
        message = {"message_id": posted["message_id"]}
        assert (await page.ask("edit_message", topic, {**message, "content": "Hello"}))["content"] == "Hello"
        await page.until(lambda: shown.messages.get(posted["message_id"], {}).get("content") == "Hello")
        assert (await page.ask("delete_message", topic, message))["deleted_at"]
        await page.until(lambda: shown.messages[posted["message_id"]]["deleted_at"])


# --- topics ----------------------------------------------------------------------------------------------------------


async def test_after_leave_nothing_more_of_the_topic_comes(site: Site) -> None:
    left, stays = await site.world.chat(), await site.world.chat()
    async with talking(site) as page:
        shown = await page.join(f"conversation:{left.id}")
        other = await page.join(f"conversation:{stays.id}")
        await page.ask("leave", f"conversation:{left.id}")
        before = len(shown.frames)
        await site.world.note(left.id, "Unheard")
        await site.world.note(stays.id, "Heard")
        await page.until(lambda: other.events("new_message"))
        assert len(shown.frames) == before
        assert site.world.app.live.followed == {stays.id}


async def test_a_closed_connection_leaves_nothing_behind(site: Site) -> None:
    chat = await site.world.chat()
    async with talking(site) as page:
        await page.join(f"conversation:{chat.id}")
        await page.join("tasks")
        assert site.world.app.live.followed == {chat.id}

    async def gone() -> bool:
        return not site.world.app.live.followed

    await site.world.until(gone)


async def test_joining_again_gives_the_state_anew(site: Site) -> None:
    topic = await topic_of(site)
    async with talking(site) as page:
        shown = await page.join(topic)
        await page.join(topic)
        await page.say(topic, "Hello")
        await page.until(lambda: len(shown.events("new_message")) == 2)
    assert len(shown.events("snapshot")) == 2


async def test_a_deleted_task_ends_its_topic(site: Site) -> None:
    await site.world.task("Buy milk")
    async with talking(site) as page:
        shown = await page.join("task:OT-1")
        await site.world.write(lambda uow: tasks.delete(uow, site.world.admin, "OT-1"))
        await page.until(lambda: shown.events("conversation_deleted"))
        assert [task["ref"] for task in shown.events("task_deleted")] == ["OT-1"]
        with pytest.raises(Refused, match="not joined"):
            await page.ask("get_history", "task:OT-1")


async def test_a_changed_conversation_and_task_are_told_whole(site: Site) -> None:
    chat = await site.world.chat()
    task: Task = await site.world.task("Buy milk")
    async with talking(site) as page:
        talk, work = await page.join(f"conversation:{chat.id}"), await page.join(f"task:{task.id}")
        await site.world.write(lambda uow: conversations.rename(uow, site.world.admin, chat.id, "Shopping"))
        await site.world.write(lambda uow: tasks.update(uow, site.world.admin, "OT-1", {"status": "done"}))
        await page.until(lambda: talk.events("conversation_changed") and work.events("task_changed"))
    assert (talk.events("conversation_changed")[0]["title"], work.events("task_changed")[0]["status"]) == ("Shopping", "done")


# --- what goes wrong on the way --------------------------------------------------------------------------------------


async def test_a_client_that_comes_back_in_the_middle_of_a_reply_ends_with_the_right_text(site: Site) -> None:
    gates = [Gate() for _ in range(3)]
    site.world.model.will("One ", gates[0], "two ", gates[1], "three ", gates[2], "four 🥛")
    topic = await topic_of(site)
    async with site.world.working(), talking(site) as page:
        shown = await page.join(topic)
        posted = await page.say(topic, "Count")
        await page.until(lambda: shown.texts.get(posted["reply_id"]) == "One ")
        await page.drop()
        gates[0].open()
        await page.until(lambda: shown.texts.get(posted["reply_id"]) == "One two ")
        await page.drop()
        gates[1].open()
        gates[2].open()
        await page.until(lambda: shown.ended(posted["reply_id"]))

    assert shown.texts[posted["reply_id"]] == "One two three four 🥛"
    assert page.connections == 3


async def test_a_client_that_missed_events_gets_the_state_again(site: Site) -> None:
    topic = await topic_of(site)
    async with talking(site) as page:
        shown = await page.join(topic)
        site.world.app.live.publish(Lagged())
        await page.until(lambda: len(shown.events("snapshot")) == 2)


async def test_a_client_that_does_not_read_holds_up_nobody_and_costs_little_and_ends_with_the_right_text(site: Site) -> None:
    gate = Gate()
    site.world.model.will("Half", gate, " and whole.")
    chat = await site.world.chat()
    topic = f"conversation:{chat.id}"
    long = await site.world.note(chat.id, "🥛" * 10_000)
    changed = MessageChanged(conversation_id=chat.id, message_id=long.message_id)
    async with site.world.working(), slow_reader(site, topic) as slow, talking(site) as page:
        shown = await page.join(topic)
        posted = await page.say(topic, "Go")
        await page.until(lambda: shown.texts.get(posted["reply_id"]) == "Half")
        for _ in range(4):  # 6 MB, more than the kernel buffers
            shown.frames.clear()
            site.world.app.live.publish(*[changed] * 40)
            await page.until(lambda: len(shown.events("message_changed")) == 40)
        site.world.app.live.publish(*[changed] * (QUEUE_SIZE + 500))
        assert largest_outbox() <= MAX_CHARACTERS + 50_000
        assert largest_queue(site, chat.id) <= QUEUE_SIZE
        gate.open()
        await page.until(lambda: shown.ended(posted["reply_id"]), seconds=20)

        behind = Shown()
        async with asyncio.timeout(30):
            while not behind.ended(posted["reply_id"]):
                frame = json.loads(await slow.recv())
                response = frame["payload"].get("response")
                behind.take("snapshot" if response else frame["event"], response or frame["payload"])

    assert behind.texts[posted["reply_id"]] == shown.texts[posted["reply_id"]] == "Half and whole."
    assert behind.events("snapshot")


async def test_who_reads_nothing_for_too_long_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.socket.STALLED_SECONDS", 0.1)
    chat = await world.chat()
    long = await world.note(chat.id, "🥛" * 10_000)

    async def let_go() -> bool:
        return not world.app.live.followed

    async with site_of(world, recheck_seconds=0.05) as site, slow_reader(site, f"conversation:{chat.id}"):
        assert not await let_go()
        world.app.live.publish(*[MessageChanged(conversation_id=chat.id, message_id=long.message_id)] * 400)
        await world.until(let_go, seconds=10)


@asynccontextmanager
async def slow_reader(site: Site, topic: str) -> AsyncIterator[ClientConnection]:
    """It joined and read the snapshot; what it does not read stays with the server as soon as can be."""
    plain = sockets.socket()
    plain.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
    host, _, port = site.url.removeprefix("http://").partition(":")
    plain.connect((host, int(port)))
    plain.setblocking(False)
    headers = {"Authorization": f"Bearer {await site.token(site.world.admin)}"}
    async with connect(
        f"ws://{host}:{port}/ws", sock=plain, additional_headers=headers, max_queue=1, max_size=None, close_timeout=0.1
    ) as found:
        await found.send(json.dumps({"topic": topic, "event": "join"}))
        await found.recv()
        yield found


def largest_outbox() -> int:
    return max(each._size for each in gc.get_objects() if type(each) is Outbox)


def largest_queue(site: Site, conversation_id: UUID) -> int:
    return max(len(each._events) for each in site.world.app.live._subscriptions[conversation_id])
