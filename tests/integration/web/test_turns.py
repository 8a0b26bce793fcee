"""What becomes of a message: its turn, followed as server-sent events, stopped, retried, decided."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from core.errors import ModelFaltered, ModelRefused
from core.models import Posted, TurnStatus
from tests.fakes import Call, Gate
from tests.integration.conftest import World
from tests.integration.web.conftest import Site
from web import events as sse

BROKEN = ModelFaltered("It broke.", reason="STREAM_CUT")
REFUSED = ModelRefused("The key is wrong. Set another one.", reason="NO_KEY")


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: Any
    id: str = ""


class Reader:
    """An EventSource: puts the text together as the documentation says."""

    def __init__(self, response: httpx.Response, text: str = "") -> None:
        self.headers = response.headers
        self.text = text
        self.deltas = ""
        self.last_id = ""
        self.events: list[Event] = []
        self.comments = 0
        self._events = self._parsed(response)

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    async def until(self, holds: Callable[["Reader"], bool]) -> None:
        """Reads on until it holds; the end of the stream comes too early."""
        async with asyncio.timeout(5):
            while not holds(self):
                self._take(await anext(self._events))

    async def to_end(self) -> "Reader":
        async with asyncio.timeout(5):
            async for event in self._events:
                self._take(event)
        return self

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self.last_id = event.id or self.last_id
        if event.name == "llm_delta":
            units = self.text.encode("utf-16-le")[: event.data["offset"] * 2]
            self.text = units.decode("utf-16-le") + event.data["delta"]
            self.deltas += event.data["delta"]

    async def _parsed(self, response: httpx.Response) -> AsyncIterator[Event]:
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if not line and fields:
                yield Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                fields = {}
            elif line.startswith(":"):
                self.comments += 1
            elif line:
                fields[name] = value


def says(text: str) -> Callable[[Reader], bool]:
    return lambda reader: reader.text == text


@asynccontextmanager
async def following(site: Site, posted: Posted, last_id: str = "", text: str = "") -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with site.client.stream("GET", f"/api/turns/{posted.turn_id}/events", headers=headers) as response:
        assert response.status_code == 200
        yield Reader(response, text)


async def read(site: Site, posted: Posted, last_id: str = "", text: str = "") -> Reader:
    """All events of a turn that ends."""
    async with following(site, posted, last_id, text) as reader:
        return await reader.to_end()


@pytest.fixture
async def working(site: Site) -> AsyncIterator[Site]:
    """A site whose worker runs."""
    async with site.world.working():
        yield site


async def post(world: World, text: str = "Hello") -> Posted:
    return await world.post((await world.chat()).id, text)


async def test_a_turn_tells_where_it_stands(site: Site) -> None:
    posted = await post(site.world)
    await site.world.post(posted.conversation_id, "And then?")

    turn = (await site.client.get(f"/api/turns/{posted.turn_id}")).json()

    assert turn["turn_id"] == str(posted.turn_id)
    assert turn["message_id"] == turn["message"]["id"] == str(posted.reply_id)
    assert turn["user_message_id"] == str(posted.message_id)
    assert (turn["status"], turn["position"], turn["model"], turn["no_worker"]) == ("queued", 0, "one/model", True)
    assert "error" not in turn


# --- following ---


async def test_a_reply_is_followed_from_its_first_word_to_its_end(working: Site) -> None:
    gate, posted = Gate(), await post(working.world)
    working.world.model.will("Hi ", gate, "there.")

    async with following(working, posted) as reader:
        await reader.until(says("Hi "))
        gate.open()
        await reader.to_end()

    assert reader.headers["content-type"].startswith("text/event-stream")
    assert reader.text == "Hi there."
    ids = {"message_id": str(posted.reply_id)}
    (delta, *_) = [event for event in reader.events if event.name == "llm_delta"]
    assert delta == Event("llm_delta", {**ids, "stream_no": 1, "offset": 0, "delta": "Hi "}, "1.3")
    metadata, updated_at = (reader.events[-1].data[key] for key in ("metadata", "updated_at"))
    end = {**ids, "content": "Hi there.", "status": "completed", "metadata": metadata, "updated_at": updated_at}
    assert reader.events[-1] == Event("llm_complete", end, "1.9")
    assert updated_at == (await working.client.get(f"/api/turns/{posted.turn_id}")).json()["message"]["updated_at"]
    assert metadata["model"] == "one/model"


async def test_a_chat_is_streamed_where_events_are_accepted(working: Site) -> None:
    working.world.model.will("Hi ", "there.")

    headers = {"Accept": "text/event-stream"}
    async with working.client.stream("POST", "/api/chat", json={"message": "Hello"}, headers=headers) as response:
        reader = await Reader(response).to_end()

    asked, reply, *_ = reader.events
    assert (asked.name, asked.data["content"]) == ("new_message", "Hello")
    assert (reply.name, reply.data["role"]) == ("new_message", "assistant")
    assert reader.headers["location"] == f"/api/turns/{reply.data['turn_id']}"
    assert reader.text == "Hi there."
    assert reader.names()[-1] == "llm_complete"


async def test_who_comes_back_gets_exactly_what_is_missing(working: Site) -> None:
    gate, posted = Gate(), await post(working.world)
    working.world.model.will("Hé 😀 ", gate, "there.")
    async with following(working, posted) as first:
        await first.until(says("Hé 😀 "))

    async with following(working, posted, first.last_id, first.text) as again:
        gate.open()
        await again.to_end()

    assert first.last_id == "1.6"
    assert again.deltas == "there."
    assert again.text == "Hé 😀 there."


async def test_who_comes_back_after_the_end_gets_the_rest_and_the_end(working: Site) -> None:
    posted = await post(working.world)
    working.world.model.will("Hi there.")
    await working.world.ended(posted)

    rest = await read(working, posted, "1.3", "Hi ")
    nothing = await read(working, posted, "1.9", "Hi there.")

    assert (rest.deltas, rest.text, rest.last_id) == ("there.", "Hi there.", "1.9")
    assert nothing.names() == ["llm_complete"]


async def test_who_comes_back_after_another_attempt_has_its_text_replaced(working: Site) -> None:
    gate, again, posted = Gate(), Gate(), await post(working.world)
    working.world.model.will("Wrong ", gate, BROKEN).will("Right", again, " now.")
    async with following(working, posted) as first:
        await first.until(says("Wrong "))
    gate.open()
    await again.reached()

    async with following(working, posted, first.last_id, first.text) as reader:
        await reader.until(lambda reader: reader.text != "Wrong ")
        again.open()
        await reader.to_end()

    assert reader.text == "Right now."


async def test_who_stays_sees_another_attempt_replace_the_text(working: Site) -> None:
    gate, posted = Gate(), await post(working.world)
    working.world.model.will("Wrong ", gate, BROKEN).will("Right now.")

    async with following(working, posted) as reader:
        await reader.until(says("Wrong "))
        gate.open()
        await reader.to_end()

    assert reader.text == "Right now."


async def test_who_comes_back_after_another_round_has_the_text_of_both(working: Site) -> None:
    gate, posted = Gate(), await post(working.world)
    working.world.model.will("Looking. ", Call("list_tasks")).will("None.", gate)
    await gate.reached()

    async with following(working, posted, "1.4", "Look") as reader:
        gate.open()
        await reader.to_end()

    assert reader.text == reader.events[-1].data["content"] == "Looking. \n\nNone."
    assert [event.data["state"] for event in reader.events if event.name == "tool_call"] == ["done"]


async def test_an_event_id_that_is_none_of_ours_begins_anew(working: Site) -> None:
    posted = await post(working.world)
    working.world.model.will("Hi there.")
    await working.world.ended(posted)

    for last_id in ("nonsense", "9.1", "1.-4", "1.99999999999999999999", "٣.٤", "1.4.7"):
        answer = await working.client.get(f"/api/turns/{posted.turn_id}/events", headers=[(b"Last-Event-ID", last_id.encode())])

        assert '"offset":0,"delta":"Hi there."' in answer.text, last_id


async def test_a_failed_answer_ends_with_its_partial_text_and_the_error(working: Site) -> None:
    posted = await post(working.world)
    working.world.model.will(REFUSED)
    await working.world.ended(posted)

    late = await read(working, posted)

    assert late.names() == ["llm_complete", "llm_error"]
    assert late.events[-1].data == {"message_id": str(posted.reply_id), "error": str(REFUSED), "error_code": "NO_KEY"}


async def test_a_failure_while_one_follows_ends_the_stream(working: Site) -> None:
    gate, posted = Gate(), await post(working.world)
    working.world.model.will(gate, REFUSED)

    async with following(working, posted) as reader:
        await gate.reached()
        gate.open()
        await reader.to_end()

    assert reader.names()[-2:] == ["llm_complete", "llm_error"]
    assert reader.events[-2].data["status"] == "failed"


async def test_what_a_person_must_decide_is_told_and_the_stream_goes_on(working: Site) -> None:
    task = await working.world.task("Old")
    posted = await post(working.world)
    working.world.model.will(Call("delete_task", {"ref": task.ref})).will("Kept.")

    async with following(working, posted) as reader:
        await reader.until(_is_asked)
        approval_id = reader.events[-1].data["approval_id"]
        decided = await working.client.post(f"/api/approvals/{approval_id}", json={"decision": "deny"})
        await reader.to_end()

    assert decided.json()["status"] == "denied"
    assert decided.json()["decided_by"] == "admin"
    assert "waiting_for_user" in [event.data["status"] for event in reader.events if event.name == "agent_status"]
    assert reader.text == "Kept."


async def test_the_stream_ends_when_the_conversation_is_deleted(working: Site) -> None:
    gate, posted = Gate(), await post(working.world)
    working.world.model.will("Hi ", gate)

    async with following(working, posted) as reader:
        await reader.until(says("Hi "))
        await working.client.delete(f"/api/conversations/{posted.conversation_id}")
        await reader.to_end()

    assert reader.names()[-1] == "conversation_deleted"


async def test_other_turns_of_the_conversation_are_not_told(working: Site) -> None:
    gate, first = Gate(), await post(working.world)
    working.world.model.will("One.", gate).will("Two.")
    await gate.reached()
    second = await working.world.post(first.conversation_id, "Again")

    async with following(working, second) as reader:
        gate.open()
        await reader.to_end()

    assert reader.text == "Two."
    assert {event.data["turn_id"] for event in reader.events if event.name == "turn_changed"} == {str(second.turn_id)}
    assert {event.data["message_id"] for event in reader.events if event.name.startswith("llm_")} == {str(second.reply_id)}


async def test_a_pause_is_filled_with_comments(working: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.02)
    gate, next_gate, posted = Gate(), Gate(), await post(working.world)
    working.world.model.will("a", gate, "b", next_gate)

    async with following(working, posted) as reader:
        await reader.until(says("a"))
        before = reader.comments
        asyncio.get_running_loop().call_later(0.2, gate.open)
        await reader.until(says("ab"))
        next_gate.open()

    assert reader.comments - before >= 2


async def test_a_stream_has_an_end_and_leaves_nobody_listening(working: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_SECONDS", 0.2)
    posted = await post(working.world)
    gate = Gate()
    working.world.model.will(gate)

    reader = await read(working, posted)
    gate.open()

    assert "llm_complete" not in reader.names()
    assert working.world.app.live.followed == frozenset()


async def test_who_hangs_up_leaves_nobody_listening(working: Site) -> None:
    gate, posted = Gate(), await post(working.world)
    working.world.model.will("Hi ", gate, "there.")
    async with following(working, posted) as reader:
        await reader.until(says("Hi "))

    await working.world.until(lambda: _nobody_listens(working.world))
    gate.open()

    assert (await working.world.ended(posted)).content == "Hi there."


# --- stopping, retrying, deciding ---


async def test_a_stopped_turn_stays_stopped_however_often_one_asks(site: Site) -> None:
    posted = await post(site.world)

    first = await site.client.post(f"/api/turns/{posted.turn_id}/cancel")
    again = await site.client.post(f"/api/turns/{posted.turn_id}/cancel")

    assert first.status_code == again.status_code == 200
    assert first.json()["status"] == again.json()["status"] == "cancelled"
    assert first.json()["message"]["status"] == "cancelled"


async def test_a_failed_turn_is_retried_in_place_and_a_good_one_not(working: Site) -> None:
    posted = await post(working.world)
    working.world.model.will(REFUSED).will("Now.")
    await working.world.ended(posted)

    answer = await working.client.post(f"/api/turns/{posted.turn_id}/retry")
    await working.world.comes_to(posted, TurnStatus.SUCCEEDED)
    again = await working.client.post(f"/api/turns/{posted.turn_id}/retry")

    assert answer.status_code == 202
    assert answer.json()["turn_id"] == str(posted.turn_id)
    assert answer.headers["location"] == f"/api/turns/{posted.turn_id}"
    assert again.status_code == 409


async def test_the_first_decision_counts(working: Site) -> None:
    task = await working.world.task("Old")
    posted = await post(working.world)
    working.world.model.will(Call("delete_task", {"ref": task.ref})).will("Gone.")
    await working.world.comes_to(posted, TurnStatus.WAITING)
    approval = await working.world.approval(posted)

    approved = await working.client.post(f"/api/approvals/{approval.id}", json={"decision": "approve"})
    denied = await working.client.post(f"/api/approvals/{approval.id}", json={"decision": "deny"})

    assert approved.status_code == 200
    assert approved.json()["status"] == "approved"
    assert denied.status_code == 409
    assert (await working.world.ended(posted)).content == "Gone."
    assert (await working.client.get(f"/api/tasks/{task.ref}")).status_code == 404


_ABSENT = [str(uuid4()), "first", "%00", "1" * 500]


async def test_a_turn_that_is_not_there_is_not_found_whatever_its_id(site: Site) -> None:
    for turn_id in _ABSENT:
        for method, rest in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
            answer = await site.client.request(method, f"/api/turns/{turn_id}{rest}")

            assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")


def _is_asked(reader: Reader) -> bool:
    return bool(reader.events) and reader.events[-1].data.get("state") == "awaiting_approval"


async def _nobody_listens(world: World) -> bool:
    return not world.app.live.followed
