"""What the agent asks reaches the person at the client where that is possible, and is text with the next call where it is not."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, ElicitResult, ErrorData, InputRequiredResult

from core import conversations
from core.models import JSON, Approval, ApprovalStatus, Decision, Message, Turn, TurnStatus
from core.ports import UnitOfWork
from mcp_server.offer import Selection
from onethread.serve import server_of
from tests.fakes import Call
from tests.integration.conftest import World
from tests.integration.mcp.conftest import ERAS, Heard, Office, Person, answer, refusal

DELETE = Call("delete_task", {"ref": "OT-1"})
ASK = Call("ask_user", {"question": "Which kind?", "options": ["Oat", "Soy"]})
ASK_FREELY = Call("ask_user", {"question": "How much?"})


@asynccontextmanager
async def wanting_to_delete(office: Office, *, then: str = "As you wish.") -> AsyncIterator[World]:
    """There is OT-1, and the agent will want to delete it."""
    await office.world.task("Buy milk")
    office.world.model.will("May I?", DELETE).will(then)
    async with office.world.working():
        yield office.world


async def said(world: World, conversation_id: str) -> list[tuple[str, str]]:
    messages: list[Message] = await world.read(lambda uow: uow.messages.page(UUID(conversation_id), limit=100))
    return [(message.role.value, message.content) for message in messages]


async def test_an_approval_is_asked_of_the_person_and_the_reply_goes_on(office: Office, era: str) -> None:
    person = Person().will("accept")
    async with wanting_to_delete(office) as world, office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Delete it"}))
    (asked,) = person.asked
    assert asked.message == 'Onethread\'s agent wants to run delete_task with {"ref": "OT-1"}. Allow it?'
    assert asked.requested_schema == {"type": "object", "properties": {}}
    assert len(office.wanted) == 2  # for the message, and for the turn that goes on
    assert (reply["state"], reply["text"]) == ("completed", "May I?\n\nAs you wish.")
    assert await world.titles() == []
    assert await said(world, reply["conversation_id"]) == [("user", "Delete it"), ("assistant", "May I?\n\nAs you wish.")]


async def test_an_approval_that_is_declined_is_denied(office: Office, era: str) -> None:
    person = Person().will("decline")
    async with wanting_to_delete(office) as world, office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Delete it"}))
    assert reply["state"] == "completed"
    assert reply["tool_calls"] == [{"name": "delete_task", "state": "failed", "decided": "denied by admin"}]
    assert await world.titles() == ["Buy milk"]


async def test_an_approval_that_is_dismissed_stays_open_and_is_told_with_the_call_that_decides_it(office: Office, era: str) -> None:
    person = Person().will("cancel").will("accept")
    async with wanting_to_delete(office) as world, office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Delete it"}))
        assert reply["state"] == "waiting_for_approval"
        (waiting,) = reply["approvals"]
        assert (waiting["tool"], waiting["arguments"]) == ("delete_task", {"ref": "OT-1"})
        assert "decide" in reply["next"]
        assert len(person.asked) == 1
        assert await world.titles() == ["Buy milk"]

        answer(await client.call_tool("decide", {"approval_id": waiting["approval_id"], "decision": "approve"}))
        ended = answer(await client.call_tool("get_reply", {"turn_id": reply["turn_id"]}))
    assert ended["text"] == "May I?\n\nAs you wish."
    assert await world.titles() == []


async def test_a_client_that_cannot_ask_is_told_in_text(office: Office, era: str) -> None:
    async with wanting_to_delete(office) as world, office.client(era) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Delete it"}))
    assert reply["state"] == "waiting_for_approval"
    assert "decide" in reply["next"]
    assert await world.titles() == ["Buy milk"]


async def test_approvals_are_asked_one_after_the_other(office: Office, era: str) -> None:
    world, person = office.world, Person().will("accept").will("decline")
    await world.task("Buy milk")
    await world.task("Buy cheese")
    world.model.will(DELETE, Call("delete_task", {"ref": "OT-2"})).will("Done.")
    async with world.working(), office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Delete both"}))
    assert ["OT-1" in asked.message for asked in person.asked] == [True, False]
    assert reply["state"] == "completed"
    assert await world.titles() == ["Buy cheese"]


async def test_a_question_is_asked_with_its_options_and_the_answer_is_the_next_message(office: Office, era: str) -> None:
    world, person = office.world, Person().will("accept", answer="Oat")
    world.model.will(ASK).will("Oat it is.")
    async with world.working(), office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Buy milk"}))
    (asked,) = person.asked
    assert asked.message == "Which kind?"
    assert asked.requested_schema == {
        "type": "object",
        "properties": {"answer": {"type": "string", "title": "Answer", "enum": ["Oat", "Soy"]}},
        "required": ["answer"],
    }
    assert (reply["state"], reply["text"]) == ("completed", "Oat it is.")
    assert reply["next"] == "The question “Which kind?” was answered with “Oat”."
    assert "next" in reply["untrusted"]
    assert [text for role, text in await said(world, reply["conversation_id"]) if role == "user"] == ["Buy milk", "Oat"]


async def test_a_question_without_options_takes_any_text(office: Office, era: str) -> None:
    world, person = office.world, Person().will("accept", answer="Two litres")
    world.model.will(ASK_FREELY).will("Two litres it is.")
    async with world.working(), office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Buy milk"}))
    (asked,) = person.asked
    assert asked.requested_schema["properties"] == {"answer": {"type": "string", "title": "Answer", "minLength": 1, "maxLength": 10_000}}
    assert reply["text"] == "Two litres it is."


async def test_the_reply_to_an_answer_is_given_from_its_beginning(office: Office, era: str) -> None:
    world, person = office.world, Person().will("accept", answer="Oat")
    world.model.will("One moment.", ASK).will("Oat it is.")
    async with world.working(), office.client(era, person=person) as client:
        posted = await world.post((await world.chat()).id, "Buy milk")
        reply = answer(await client.call_tool("get_reply", {"turn_id": str(posted.turn_id), "after": 4}))
    assert reply["text"] == "Oat it is."
    assert "text_from" not in reply


@pytest.mark.parametrize(("action", "given"), [("decline", ""), ("cancel", ""), ("accept", "Cow"), ("accept", "  ")])
async def test_a_question_that_gets_no_fitting_answer_stays_a_question(office: Office, era: str, action: str, given: str) -> None:
    world, person = office.world, Person().will(action, answer=given)
    world.model.will(ASK)
    async with world.working(), office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Buy milk"}))
    assert reply["state"] == "completed"
    assert reply["question"] == {"text": "Which kind?", "options": ["Oat", "Soy"]}
    assert "send_message" in reply["next"]
    assert len(person.asked) == 1
    assert [text for role, text in await said(world, reply["conversation_id"]) if role == "user"] == ["Buy milk"]


async def test_a_blank_answer_is_none(office: Office, era: str) -> None:
    world, person = office.world, Person().will("accept", answer="  ")
    world.model.will(ASK_FREELY)
    async with world.working(), office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Buy milk"}))
    assert reply["question"]["text"] == "How much?"
    assert reply["next"] == "The answer to the question is the next send_message here."


async def test_a_question_that_was_answered_is_not_asked_again(office: Office, era: str) -> None:
    world, person = office.world, Person()
    world.model.will(ASK).will("Soy it is.")
    chat = await world.chat()
    async with world.working(), office.client(era, person=person) as client:
        posted = await world.post(chat.id, "Buy milk")
        question = await world.ended(posted)
        await world.ended(await world.answer(question, "Soy"))
        reply = answer(await client.call_tool("get_reply", {"turn_id": str(posted.turn_id)}))
    assert reply["question"]["text"] == "Which kind?"
    assert person.asked == []


async def test_the_first_answer_wins_and_the_other_is_told(office: Office, era: str) -> None:
    world = office.world
    kim = await world.user("kim")
    task = await world.task("Buy milk")
    world.model.will(ASK).will("Soy it is.")

    async def too_late() -> ElicitResult:
        turn = await world.read(lambda uow: uow.turns.last(task.conversation_id))
        assert turn
        await world.ended(await world.answer(await world.message(turn.reply_id), "Soy", kim))
        return ElicitResult(action="accept", content={"answer": "Oat"})

    person = Person([too_late])
    async with world.working(), office.client(era, person=person) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Buy it", "ref": "OT-1"}))
    assert reply["question"]["text"] == "Which kind?"
    assert reply["next"] == "kim answered this question already."
    assert [text for role, text in await said(world, str(task.conversation_id)) if role == "user"] == ["Buy it", "Soy"]


async def test_what_somebody_else_decides_meanwhile_counts_and_the_reply_goes_on(office: Office, era: str) -> None:
    async with wanting_to_delete(office) as world:

        async def decided_elsewhere() -> ElicitResult:
            (approval,) = await _open_approvals(world)
            await world.decide(approval, Decision.DENY)
            if era == ERAS[0]:
                await asyncio.Event().wait()  # the question is withdrawn
            return ElicitResult(action="accept", content={})

        async with office.client(era, person=Person([decided_elsewhere])) as client:
            reply = answer(await client.call_tool("send_message", {"text": "Delete it"}))
    assert reply["state"] == "completed"
    assert await world.titles() == ["Buy milk"]
    if era == ERAS[1]:
        assert "This was denied by" in reply["next"]


async def test_who_may_not_decide_is_told_so(office: Office, era: str) -> None:
    async with wanting_to_delete(office) as world:
        kim = await world.user("kim")
        here = await world.task("Tidy up")
        posted = await world.post(here.conversation_id, "Delete OT-1")
        person = Person().will("accept")
        async with office.client(era, kim, person=person) as client:
            reply = answer(await client.call_tool("get_reply", {"turn_id": str(posted.turn_id)}))
    assert reply["state"] == "waiting_for_approval"
    assert "Only the person who asked, the task's assignee or an admin may decide this." in reply["next"]
    assert len(person.asked) == 1
    assert len(await world.titles()) == 2


async def test_who_answers_the_question_elsewhere_gets_the_reply_to_that(office: Office, era: str) -> None:
    task = await office.world.task("Buy milk")
    office.world.model.will(ASK).will("Soy it is.")

    async def elsewhere() -> ElicitResult:
        turn = await office.world.read(lambda uow: uow.turns.last(task.conversation_id))
        assert turn
        await office.world.answer(await office.world.message(turn.reply_id), "Soy")
        return ElicitResult(action="cancel") if era == ERAS[1] else await _never()  # the question is withdrawn

    async with office.world.working(), office.client(era, person=Person([elsewhere])) as client:
        reply = answer(await client.call_tool("send_message", {"text": "Buy it", "ref": "OT-1"}))
    assert reply["text"] == "Soy it is."
    assert reply["next"] == "The question “Which kind?” was answered with “Soy”."


# --- how long a call lasts ---


async def test_a_person_has_as_long_as_a_call_may_last_and_then_it_is_told_in_text(office: Office) -> None:
    async with waiting(office) as turn_id, office.under(max_wait_seconds=0.3).client(ERAS[0], person=Person([_never])) as client:
        async with asyncio.timeout(30):
            reply = answer(await client.call_tool("get_reply", {"turn_id": turn_id, "wait_s": 0}))
    assert (reply["state"], reply["text"]) == ("waiting_for_approval", "May I?")
    assert reply["approvals"][0]["tool"] == "delete_task"
    assert "decide" in reply["next"]


async def test_nobody_is_asked_when_the_time_is_over(office: Office) -> None:
    person = Person()
    async with waiting(office) as turn_id, office.under(max_wait_seconds=0.0).client(ERAS[0], person=person) as client:
        reply = answer(await client.call_tool("get_reply", {"turn_id": turn_id}))
    assert reply["state"] == "waiting_for_approval"
    assert person.asked == []


async def test_several_questions_share_the_time_of_one_call(office: Office) -> None:
    async def thinks() -> ElicitResult:
        await asyncio.sleep(2.5)  # most of the time
        return ElicitResult(action="accept", content={})

    world, person = office.world, Person([thinks, _never])
    await world.task("Buy milk")
    await world.task("Buy cheese")
    world.model.will(DELETE, Call("delete_task", {"ref": "OT-2"})).will("Done.")
    async with world.working():
        posted = await world.post((await world.chat()).id, "Delete both")
        await world.comes_to(posted, TurnStatus.WAITING)
        async with office.under(max_wait_seconds=3.0).client(ERAS[0], person=person) as client, asyncio.timeout(5.2):
            reply = answer(await client.call_tool("get_reply", {"turn_id": str(posted.turn_id)}))
    assert reply["state"] == "waiting_for_approval"
    assert len(person.asked) == 2


@pytest.mark.parametrize("name", ["delete_task", "decide"])
async def test_what_is_not_confirmed_in_time_is_not_done(office: Office, name: str) -> None:
    async with waiting(office), office.under(max_wait_seconds=0.3).client(ERAS[0], person=Person([_never])) as client:
        (approval,) = await _open_approvals(office.world)
        arguments = {"delete_task": {"ref": "OT-1"}, "decide": {"approval_id": str(approval.id), "decision": "approve"}}
        async with asyncio.timeout(30):
            refused = await client.call_tool(name, arguments[name])
    assert refusal(refused).startswith("DECLINED: ")
    assert await office.world.titles() == ["Buy milk"]


@asynccontextmanager
async def waiting(office: Office) -> AsyncIterator[str]:
    """A turn that waits to delete OT-1."""
    async with wanting_to_delete(office) as world:
        posted = await world.post((await world.chat()).id, "Delete it")
        await world.comes_to(posted, TurnStatus.WAITING)
        yield str(posted.turn_id)


async def test_a_process_that_is_about_to_end_does_not_wait_for_a_person(office: Office) -> None:
    async def ends() -> ElicitResult:
        office.services.stopping.set()
        return await _never()

    async with wanting_to_delete(office), office.client(ERAS[0], person=Person([ends])) as client:
        async with asyncio.timeout(30):
            reply = answer(await client.call_tool("send_message", {"text": "Delete it"}))
    assert reply["state"] == "waiting_for_approval"


async def test_while_a_person_thinks_the_client_hears_so_and_nothing_is_locked(office: Office) -> None:
    async with wanting_to_delete(office) as world:

        async def thinks() -> ElicitResult:
            async with asyncio.timeout(30):
                await world.task("Made meanwhile")
            return ElicitResult(action="accept", content={})

        heard = Heard()
        async with office.client(ERAS[0], person=Person([thinks])) as client:
            answer(await client.call_tool("send_message", {"text": "Delete it"}, progress_callback=heard))
    assert "Waiting for your answer" in heard.lines
    assert await world.titles() == ["Made meanwhile"]


async def test_who_hangs_up_while_a_person_thinks_leaves_it_open(office: Office) -> None:
    asked = asyncio.Event()

    async def thinks() -> ElicitResult:
        asked.set()
        return await _never()

    async with wanting_to_delete(office) as world, office.client(ERAS[0], person=Person([thinks])) as client:
        call = asyncio.create_task(client.call_tool("send_message", {"text": "Delete it"}))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        (approval,) = await _open_approvals(world)

        async def nobody_watches() -> bool:
            return approval.conversation_id not in world.app.live.followed

        await world.until(nobody_watches)
        assert len(await _open_approvals(world)) == 1


async def test_a_client_that_says_it_can_ask_and_fails_is_told_in_text(office: Office) -> None:
    async def fails(*_: Any) -> ErrorData:
        return ErrorData(code=INTERNAL_ERROR, message="no window")

    async with wanting_to_delete(office), office.client(ERAS[0], person=fails) as client:  # type: ignore[arg-type]
        reply = answer(await client.call_tool("send_message", {"text": "Delete it"}))
    assert reply["state"] == "waiting_for_approval"
    assert "decide" in reply["next"]


async def test_a_client_that_no_question_can_reach_is_told_in_text(office: Office) -> None:
    person = Person()
    async with (
        wanting_to_delete(office) as world,
        without_a_way_back(office) as url,
        Client(url, mode="legacy", elicitation_callback=person) as client,
    ):
        reply = answer(await client.call_tool("send_message", {"text": "Delete it"}))
        deleted = answer(await client.call_tool("delete_task", {"ref": "OT-1"}))
    assert reply["state"] == "waiting_for_approval"
    assert "decide" in reply["next"]
    assert deleted == {"deleted": "OT-1"}
    assert person.asked == []
    assert await world.titles() == []


@asynccontextmanager
async def without_a_way_back(office: Office) -> AsyncIterator[str]:
    """The server over HTTP where a response is one JSON document, so that nothing can be asked meanwhile."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    server = server_of(office.server().streamable_http_app(json_response=True), office.world.app.settings)
    serving = asyncio.create_task(server.serve([listening]), name="uvicorn")
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        await serving


async def test_a_server_that_may_not_decide_does_not_ask(office: Office, era: str) -> None:
    person = Person()
    async with wanting_to_delete(office) as world:
        posted = await world.post((await world.chat()).id, "Delete OT-1")
        server = office.server(serves=Selection.of(read_only=True))
        async with office.client(era, person=person, server=server) as client:
            reply = answer(await client.call_tool("get_reply", {"turn_id": str(posted.turn_id)}))
    assert reply["state"] == "waiting_for_approval"
    assert person.asked == []


# --- deleting ---


async def test_deleting_asks_for_that_task_by_name(office: Office, era: str) -> None:
    await office.world.task("Buy milk")
    person = Person().will("accept")
    async with office.client(era, person=person) as client:
        deleted = answer(await client.call_tool("delete_task", {"ref": "ot-1"}))
    assert [asked.message for asked in person.asked] == ["Delete OT-1 “Buy milk” and its whole conversation for good?"]
    assert deleted == {"deleted": "OT-1"}
    assert await office.world.titles() == []


@pytest.mark.parametrize(("action", "how"), [("decline", "declined"), ("cancel", "did not confirm it")])
async def test_what_is_not_confirmed_is_not_deleted(office: Office, era: str, action: str, how: str) -> None:
    await office.world.task("Buy milk")
    async with office.client(era, person=Person().will(action)) as client:
        refused = await client.call_tool("delete_task", {"ref": "OT-1"})
    assert refusal(refused) == (
        f"DECLINED: OT-1 was not deleted: the person at this client {how}. Do not try again unless they ask for it."
    )
    assert await office.world.titles() == ["Buy milk"]


async def test_who_may_not_delete_is_not_asked_either(office: Office, era: str) -> None:
    await office.world.task("Buy milk")
    person, reader = Person(), replace(office.world.admin, scopes=frozenset({"tasks:read"}))
    async with office.client(era, reader, person=person) as client:
        refused = await client.call_tool("delete_task", {"ref": "OT-1"})
    assert refusal(refused).startswith("UNAUTHORIZED: This token lacks the scope 'tasks:write'.")
    assert person.asked == []


async def test_what_is_not_there_is_not_asked_about(office: Office, era: str) -> None:
    person = Person()
    async with office.client(era, person=person) as client:
        refused = await client.call_tool("delete_task", {"ref": "OT-9"})
    assert refusal(refused).startswith("NOT_FOUND: ")
    assert person.asked == []


# --- deciding ---


async def test_an_assistant_that_wants_to_approve_asks_its_person(office: Office, era: str) -> None:
    person = Person().will("accept")
    async with waiting(office) as turn_id, office.client(era, person=person) as client:
        (approval,) = await _open_approvals(office.world)
        decided = answer(await client.call_tool("decide", {"approval_id": str(approval.id), "decision": "approve"}))
        reply = answer(await client.call_tool("get_reply", {"turn_id": turn_id}))
    assert [asked.message for asked in person.asked] == ['Onethread\'s agent wants to run delete_task with {"ref": "OT-1"}. Allow it?']
    assert decided["turn_id"] == turn_id
    assert reply["text"] == "May I?\n\nAs you wish."
    assert await office.world.titles() == []


@pytest.mark.parametrize(("action", "how"), [("decline", "declined"), ("cancel", "did not confirm it")])
async def test_an_approval_that_is_not_confirmed_is_still_open(office: Office, era: str, action: str, how: str) -> None:
    async with waiting(office), office.client(era, person=Person().will(action)) as client:
        (approval,) = await _open_approvals(office.world)
        refused = await client.call_tool("decide", {"approval_id": str(approval.id), "decision": "approve"})
        assert len(await _open_approvals(office.world)) == 1
    assert refusal(refused) == (
        f"DECLINED: The approval is still open: the person at this client {how}. Do not try again unless they ask for it."
    )
    assert await office.world.titles() == ["Buy milk"]


async def test_to_deny_needs_nobodys_word(office: Office, era: str) -> None:
    person = Person()
    async with waiting(office) as turn_id, office.client(era, person=person) as client:
        (approval,) = await _open_approvals(office.world)
        answer(await client.call_tool("decide", {"approval_id": str(approval.id), "decision": "deny"}))
        reply = answer(await client.call_tool("get_reply", {"turn_id": turn_id}))
    assert reply["tool_calls"] == [{"name": "delete_task", "state": "failed", "decided": "denied by admin"}]
    assert person.asked == []


async def test_nobody_is_asked_about_what_was_decided_or_is_not_theirs_to_see(office: Office, era: str) -> None:
    world, person = office.world, Person()
    bob = await world.user("bob")
    async with waiting(office):
        (approval,) = await _open_approvals(world)
        arguments = {"approval_id": str(approval.id), "decision": "approve"}
        async with office.client(era, bob, person=person) as client:
            foreign = await client.call_tool("decide", arguments)
            unknown = await client.call_tool("decide", {**arguments, "approval_id": str(approval.turn_id)})
        await world.decide(approval, Decision.DENY)
        async with office.client(era, person=person) as client:
            late = await client.call_tool("decide", arguments)
    assert refusal(foreign).startswith("NOT_FOUND: ")
    assert refusal(unknown).startswith("NOT_FOUND: There is no approval")
    assert refusal(late).startswith("CONFLICT: This was denied by")
    assert person.asked == []


# --- the call that comes back with the answer ---


async def first_round(client: Any, name: str, arguments: JSON) -> InputRequiredResult:
    found = await client.session.call_tool(name, arguments, allow_input_required=True)
    assert isinstance(found, InputRequiredResult)
    return found


def accepting(asked: InputRequiredResult, **content: str) -> dict[str, Any]:
    """What the client calls with again when the person agreed."""
    assert asked.input_requests is not None
    (key,) = asked.input_requests
    return {"input_responses": {key: ElicitResult(action="accept", content=dict(content))}, "request_state": asked.request_state}


async def test_the_call_that_comes_back_posts_nothing_again_however_often(office: Office) -> None:
    arguments = {"text": "Delete it"}
    async with wanting_to_delete(office) as world, office.client(ERAS[1], person=Person()) as client:
        asked = await first_round(client, "send_message", arguments)
        back = accepting(asked)
        reply = answer(await client.session.call_tool("send_message", arguments, **back))
        again = answer(await client.session.call_tool("send_message", arguments, **back))
        chats = await world.read(lambda uow: uow.conversations.count(world.admin, archived=False))
    assert reply["text"] == again["text"] == "May I?\n\nAs you wish."
    assert chats == 1
    assert len(await said(world, reply["conversation_id"])) == 2


async def test_an_answer_that_comes_back_again_gets_the_reply_that_the_first_one_made(office: Office) -> None:
    world, arguments = office.world, {"text": "Buy milk"}
    world.model.will(ASK).will("Oat it is.")
    async with world.working(), office.client(ERAS[1], person=Person()) as client:
        asked = await first_round(client, "send_message", arguments)
        back = accepting(asked, answer="Oat")
        reply = answer(await client.session.call_tool("send_message", arguments, **back))
        again = answer(await client.session.call_tool("send_message", arguments, **back))
    assert again == reply
    assert (reply["text"], reply["next"]) == ("Oat it is.", "The question “Which kind?” was answered with “Oat”.")
    assert [text for _, text in await said(world, reply["conversation_id"])] == ["Buy milk", "Which kind?", "Oat", "Oat it is."]


async def test_what_travels_along_cannot_be_read_nor_changed_nor_used_by_others(office: Office) -> None:
    arguments = {"text": "Delete it"}
    async with wanting_to_delete(office) as world:
        bob = await world.user("bob")
        async with office.client(ERAS[1], person=Person()) as client:
            asked = await first_round(client, "send_message", arguments)
            back, state = accepting(asked), asked.request_state or ""
            (approval,) = await _open_approvals(world)
            for hidden in (str(approval.id), str(approval.turn_id)):
                assert hidden not in base64.urlsafe_b64decode(state.removeprefix("v1.") + "==").decode("latin-1")
            with pytest.raises(MCPError) as tampered:
                await client.session.call_tool("send_message", arguments, **{**back, "request_state": state[:-2] + "AA"})
            with pytest.raises(MCPError) as other_text:
                await client.session.call_tool("send_message", {"text": "Another"}, **back)
        async with office.client(ERAS[1], bob, person=Person()) as client:
            stolen = await client.session.call_tool("send_message", arguments, **back)
        (approval,) = await _open_approvals(world)
    assert tampered.value.error.code == other_text.value.error.code == INVALID_PARAMS
    assert refusal(stolen).startswith("NOT_FOUND: ")
    assert approval.status is ApprovalStatus.OPEN


async def test_a_call_that_comes_back_without_an_answer_gets_the_text(office: Office) -> None:
    arguments = {"text": "Delete it"}
    async with wanting_to_delete(office) as world, office.client(ERAS[1], person=Person()) as client:
        asked = await first_round(client, "send_message", arguments)
        reply = answer(await client.session.call_tool("send_message", arguments, request_state=asked.request_state))
    assert reply["state"] == "waiting_for_approval"
    assert len(await said(world, reply["conversation_id"])) == 2


async def test_another_process_with_the_same_keys_takes_the_answer(office: Office) -> None:
    arguments = {"text": "Delete it"}
    async with wanting_to_delete(office), office.client(ERAS[1], person=Person()) as client:
        asked = await first_round(client, "send_message", arguments)
        back = accepting(asked)
        async with office.client(ERAS[1], person=Person()) as another:  # each client of ours has a server of its own
            reply = answer(await another.session.call_tool("send_message", arguments, **back))
    assert reply["text"] == "May I?\n\nAs you wish."


async def _never() -> ElicitResult:
    await asyncio.Event().wait()
    raise AssertionError


async def _open_approvals(world: World) -> list[Approval]:
    """In the admin's conversations."""
    chats = (await world.read(lambda uow: conversations.page(uow, world.admin))).conversations
    unfinished = [turn for chat in chats for turn in await world.read(partial(_unfinished, chat.id))]
    found = [await world.read(partial(_open_approval, turn.id)) for turn in unfinished]
    return [approval for approval in found if approval]


async def _unfinished(conversation_id: UUID, uow: UnitOfWork) -> list[Turn]:
    return await uow.turns.unfinished(conversation_id)


async def _open_approval(turn_id: UUID, uow: UnitOfWork) -> Approval | None:
    return await uow.approvals.open_of_turn(turn_id)
