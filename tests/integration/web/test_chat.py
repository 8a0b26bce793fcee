"""POST /api/chat: a message in, its reply out, whatever happens in between."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from core import identity
from core.errors import ModelRefused
from core.events import Lagged
from core.models import MessageStatus, TurnStatus
from core.ports import UnitOfWork
from tests.fakes import Call, Gate
from tests.integration.conftest import Start, World
from tests.integration.web.conftest import Site, site_of

REFUSED = ModelRefused("The key is wrong. Set another one.", reason="NO_KEY")


@pytest.fixture
async def working(site: Site) -> AsyncIterator[Site]:
    """A site whose worker runs."""
    async with site.world.working():
        yield site


async def chat(site: Site, message: str = "Hello", **fields: Any) -> httpx.Response:
    return await site.client.post("/api/chat", json={"message": message, **fields})


async def test_a_message_is_answered_with_the_reply_and_where_it_stands(working: Site) -> None:
    working.world.model.will("Hi ", "there.")

    answer = await chat(working)

    assert answer.status_code == 200
    body = answer.json()
    assert body["message"]["content"] == "Hi there."
    assert body["message"]["status"] == "completed"
    assert body["message"]["turn_id"] == body["turn_id"]
    assert body["user_message"]["content"] == "Hello"
    assert body["user_message"]["author"] == "admin"
    assert body["user_message"]["source"] == "api"
    assert body["message"]["conversation_id"] == body["user_message"]["conversation_id"] == body["conversation_id"]


async def test_a_message_of_the_page_is_told_from_those_of_programs(working: Site) -> None:
    """The page has a session's cookie where a program sends a token."""
    world = working.world

    async def enter(uow: UnitOfWork) -> str:
        return await identity.open_session(uow, await identity.user_of(uow, world.admin))

    headers = {"Cookie": f"onethread_sid={await world.write(enter)}", "Sec-Fetch-Site": "same-origin"}
    async with httpx.AsyncClient(base_url=working.url, headers=headers, timeout=20) as page:
        answer = await page.post("/api/chat", json={"message": "Hello"})

    assert (answer.status_code, answer.json()["user_message"]["source"]) == (200, "web")


async def test_without_a_conversation_a_private_one_begins(working: Site) -> None:
    stranger = await working.world.user("stranger")

    first = (await chat(working, "Buy milk")).json()
    second = (await chat(working, "And eggs", conversation_id=first["conversation_id"])).json()

    assert second["conversation_id"] == first["conversation_id"]
    conversation = (await working.client.get(f"/api/conversations/{first['conversation_id']}")).json()
    assert conversation["title"] == "Buy milk"
    assert conversation["visibility"] == "private"
    async with working.calling(stranger) as client:
        answer = await client.post("/api/chat", json={"message": "Hi", "conversation_id": first["conversation_id"]})
    assert answer.status_code == 404
    assert answer.json()["error_code"] == "NOT_FOUND"


@pytest.mark.parametrize("by", ["id", "ref"])
async def test_a_task_is_named_by_id_or_ref(working: Site, by: str) -> None:
    task = await working.world.task("Paint the fence")

    body = (await chat(working, task_id=str(getattr(task, by)))).json()

    assert body["conversation_id"] == str(task.conversation_id)


async def test_a_task_and_a_conversation_that_is_not_its_own_are_a_conflict(working: Site) -> None:
    task, other = await working.world.task("Paint the fence"), await working.world.chat()

    refused = await chat(working, task_id=task.ref, conversation_id=str(other.id))
    taken = await chat(working, task_id=task.ref, conversation_id=str(task.conversation_id))

    assert refused.status_code == 409
    assert taken.json()["conversation_id"] == str(task.conversation_id)


async def test_the_message_chooses_its_model(working: Site) -> None:
    body = (await chat(working, model="two/model")).json()

    assert body["message"]["metadata"]["model"] == "two/model"
    assert working.world.model.requests[-1].model == "two/model"


async def test_a_reply_that_is_late_is_a_time_out_with_the_ids_and_goes_on(world: World) -> None:
    gate = Gate()
    world.model.will(gate, "Late.")
    async with site_of(world, reply_seconds=0.2) as site, world.working():
        answer = await chat(site)
        gate.open()
        problem = answer.json()

        assert answer.status_code == 504
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["location"] == f"/api/turns/{problem['turn_id']}"
        assert problem["error_code"] == "TIMEOUT"
        await world.until(lambda: _is_completed(world, problem["message_id"]))
        turn = (await site.client.get(answer.headers["location"])).json()
    assert turn["status"] == "succeeded"
    assert turn["conversation_id"] == problem["conversation_id"]
    assert turn["message"]["content"] == "Late."


async def test_a_time_out_without_any_worker_says_so(world: World) -> None:
    async with site_of(world, reply_seconds=0.05) as site:
        answer = await chat(site)

    assert answer.status_code == 504
    assert answer.json()["detail"].startswith("No worker runs that could answer.")


async def test_a_failed_answer_is_told_with_its_reason_and_the_ids(working: Site) -> None:
    working.world.model.will(REFUSED)

    answer = await chat(working)

    problem = answer.json()
    assert answer.status_code == 502
    assert problem["error_code"] == "AI_SERVICE_ERROR"
    assert problem["reason"] == "NO_KEY"
    assert problem["detail"] == "The key is wrong. Set another one."
    turn = (await working.client.get(f"/api/turns/{problem['turn_id']}")).json()
    assert (turn["status"], turn["error_code"], turn["message_id"]) == ("failed", "NO_KEY", problem["message_id"])


async def test_a_turn_that_waits_for_approval_is_accepted_as_soon_as_it_waits(working: Site) -> None:
    task = await working.world.task("Old")
    working.world.model.will(Call("delete_task", {"ref": task.ref}))

    answer = await chat(working, "Delete it")

    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/turns/{body['turn_id']}"
    assert [call["state"] for call in body["message"]["tool_calls"]] == ["awaiting_approval"]
    assert body["message"]["tool_calls"][0]["approval_id"]


async def test_respond_async_is_accepted_at_once(site: Site) -> None:
    answer = await site.client.post("/api/chat", json={"message": "Hello"}, headers={"Prefer": "handling=lenient, respond-async"})

    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["location"] == f"/api/turns/{body['turn_id']}"
    assert body["message"]["status"] == "pending"
    assert (await site.client.get(answer.headers["location"])).json()["status"] == "queued"


async def test_a_reply_that_somebody_stops_is_given_as_far_as_it_came(working: Site) -> None:
    gate = Gate()
    working.world.model.will("So far", gate, " and on")
    asking = asyncio.create_task(chat(working))
    await gate.reached()
    (conversation,) = (await working.client.get("/api/conversations")).json()["conversations"]
    (_, reply) = (await working.client.get(f"/api/conversations/{conversation['id']}")).json()["messages"]

    stopped = await working.client.post(f"/api/turns/{reply['turn_id']}/cancel")

    answer = await asking
    assert stopped.json()["status"] == "cancelled"
    assert answer.status_code == 200
    assert answer.json()["message"]["status"] == "cancelled"


async def test_a_caller_that_hangs_up_does_not_stop_the_answer(working: Site) -> None:
    gate = Gate()
    working.world.model.will(gate, "Nobody listens.")
    asking = asyncio.create_task(chat(working))
    await gate.reached()

    asking.cancel()
    await asyncio.wait({asking})
    gate.open()

    (conversation,) = (await working.client.get("/api/conversations")).json()["conversations"]
    await working.world.until(lambda: _is_answered(working, conversation["id"], "Nobody listens."))


async def test_a_conversation_that_is_deleted_meanwhile_is_not_found(working: Site) -> None:
    gate = Gate()
    working.world.model.will(gate, "Too late.")
    asking = asyncio.create_task(chat(working))
    await gate.reached()
    (conversation,) = (await working.client.get("/api/conversations")).json()["conversations"]

    gone = await working.client.delete(f"/api/conversations/{conversation['id']}")

    assert gone.status_code == 204
    assert (await asking).status_code == 404


async def test_a_reply_whose_end_was_not_told_is_found_after_lag(site: Site) -> None:
    asking = asyncio.create_task(chat(site))
    await site.world.until(lambda: _is_waited_for(site.world))
    (conversation,) = (await site.client.get("/api/conversations")).json()["conversations"]

    async with site.world.app.storage.write() as uow:  # no event tells of it
        (turn,) = await uow.turns.unfinished(UUID(conversation["id"]))
        await uow.turns.update(turn.id, status=TurnStatus.SUCCEEDED, finished_at=uow.now)
    site.world.app.live.publish(Lagged())

    async with asyncio.timeout(5):
        assert (await asking).status_code == 200


async def test_numbers_that_no_json_can_hold_are_refused_to_the_model_and_not_passed_on(working: Site) -> None:
    for arguments in ('{"query": NaN}', '{"query": -Infinity}', '{"query": 1e999}', '{"query": ' + "[" * 100_000 + "]" * 100_000 + "}"):
        working.world.model.will(Call("list_tasks", arguments)).will("Done.")

        answer = await chat(working)

        assert answer.status_code == 200
        (call,) = answer.json()["message"]["tool_calls"]
        assert (call["arguments"], call["state"]) == ({}, "failed")


# --- the same thing twice ---


async def test_the_same_key_again_gives_what_the_first_call_made(working: Site) -> None:
    headers = {"Idempotency-Key": "one key"}

    first = await working.client.post("/api/chat", json={"message": "Hello"}, headers=headers)
    again = await working.client.post("/api/chat", json={"message": "Hello"}, headers=headers)

    assert first.status_code == again.status_code == 200
    assert again.json() == first.json()
    assert (await working.client.get("/api/conversations")).json()["total"] == 1
    assert working.world.model.calls == 1


async def test_the_same_key_at_the_same_moment_posts_once(working: Site) -> None:
    headers = {"Idempotency-Key": "one key"}

    answers = await asyncio.gather(*(working.client.post("/api/chat", json={"message": "Hello"}, headers=headers) for _ in range(5)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["turn_id"] for answer in answers}) == 1
    assert (await working.client.get("/api/conversations")).json()["total"] == 1


async def test_the_same_key_after_a_restart_gives_what_the_first_call_made(start: Start) -> None:
    asked: dict[str, Any] = {"json": {"message": "Hello"}, "headers": {"Idempotency-Key": "one key", "Prefer": "respond-async"}}
    async with start() as world, site_of(world) as site:
        first = (await site.client.post("/api/chat", **asked)).json()
    async with start() as world, site_of(world) as site:
        again = (await site.client.post("/api/chat", **asked)).json()

    assert again["turn_id"] == first["turn_id"]
    assert again["conversation_id"] == first["conversation_id"]


@pytest.mark.parametrize("other", [{"message": "Bye"}, {"message": "Hello", "model": "two/model"}])
async def test_the_same_key_for_another_message_is_a_conflict(site: Site, other: dict[str, str]) -> None:
    headers = {"Idempotency-Key": "one key", "Prefer": "respond-async"}
    await site.client.post("/api/chat", json={"message": "Hello"}, headers=headers)

    answer = await site.client.post("/api/chat", json=other, headers=headers)

    assert answer.status_code == 409
    assert answer.json()["error_code"] == "CONFLICT"


async def test_equal_keys_of_two_people_never_meet(site: Site) -> None:
    headers = {"Idempotency-Key": "one key", "Prefer": "respond-async"}
    mine = (await site.client.post("/api/chat", json={"message": "Hello"}, headers=headers)).json()

    async with site.calling(await site.world.user("other")) as client:
        theirs = (await client.post("/api/chat", json={"message": "Hello"}, headers=headers)).json()

    assert theirs["turn_id"] != mine["turn_id"]


async def test_a_key_has_up_to_255_printable_characters(site: Site) -> None:
    for key in (b"", b"k" * 256, "k\u00e9y".encode("latin-1"), b"k\tey"):
        answer = await site.client.post("/api/chat", json={"message": "Hello"}, headers=[(b"Idempotency-Key", key)])

        assert answer.status_code == 400, key
        assert "Idempotency-Key" in answer.json()["detail"]


# --- files ---


async def test_files_come_as_a_form_and_can_be_fetched(working: Site) -> None:
    files = [("files", ("note.txt", b"Hi", "text/plain")), ("files", ("p\u00edcture.png", b"\x89PNG", "image/png"))]

    answer = await working.client.post("/api/chat", data={"message": "Look"}, files=files)

    assert answer.status_code == 200
    sent = answer.json()["user_message"]["attachments"]
    assert [(each["name"], each["media_type"], each["size"]) for each in sent] == [
        ("note.txt", "text/plain", 2),
        ("p\u00edcture.png", "image/png", 4),
    ]
    assert (await working.client.get(f"/api/attachments/{sent[1]['id']}")).content == b"\x89PNG"
    assert "Hi" in str(working.world.model.requests[-1].messages)


async def test_another_file_under_the_same_key_is_a_conflict(site: Site) -> None:
    headers = {"Idempotency-Key": "one key", "Prefer": "respond-async"}
    await site.client.post("/api/chat", data={"message": "Look"}, files=[("files", ("a.txt", b"Hi"))], headers=headers)

    answer = await site.client.post("/api/chat", data={"message": "Look"}, files=[("files", ("a.txt", b"Ho"))], headers=headers)

    assert answer.status_code == 409


_BAD_FORMS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"files": [("files", (f"{n}.txt", b"x")) for n in range(11)]}, "Too many files"),
    ({"files": [("files", ("empty.txt", b""))]}, "'empty.txt' is empty"),
    ({"files": [("picture", ("a.png", b"x"))]}, "in the field 'files'"),
    ({"files": [("message", ("a.txt", b"Again"))]}, "in the field 'files'"),
    ({"files": [("message", (None, "Again")), ("files", ("a.txt", b"x"))]}, "more than once"),
    ({"files": [("colour", (None, "red")), ("files", ("a.txt", b"x"))]}, "body.colour"),
)


async def test_a_form_that_is_not_as_it_should_be_is_refused_with_a_reason(site: Site) -> None:
    for form, says in _BAD_FORMS:
        answer = await site.client.post("/api/chat", data={"message": "Look"}, **form)

        assert answer.status_code == 400, says
        assert answer.headers["content-type"] == "application/problem+json"
        assert says in answer.json()["detail"]
    assert (await site.client.get("/api/conversations")).json()["total"] == 0


async def test_a_file_of_the_largest_size_is_taken_and_a_larger_one_is_not(site: Site) -> None:
    size = 10 * 1024 * 1024
    headers = {"Prefer": "respond-async"}

    answer = await site.client.post("/api/chat", data={"message": "Look"}, files=[("files", ("a.bin", b"x" * size))], headers=headers)
    larger = await site.client.post("/api/chat", data={"message": "Look"}, files=[("files", ("a.bin", b"x" * (size + 1)))], headers=headers)

    assert answer.status_code == 202
    assert larger.status_code == 400
    assert "is the most" in larger.json()["detail"]


async def test_a_form_without_end_is_cut_off(site: Site) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(10**12)}

    answer = await _raw(site, b"POST /api/chat HTTP/1.1", headers, b"--x\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


# --- what else comes ---


_UNREADABLE = (
    (b"{", "application/json", 400),
    (b'{"message": "\xff"}', "application/json", 400),
    (b"[" * 100_000, "application/json", 400),
    (b'{"message": ' + b"9" * 5_000 + b"}", "application/json", 400),
    (b'"Hello"', "application/json", 400),
    (b"null", "application/json", 400),
    (b"", "application/json", 400),
    (b'{"message": "  \\n "}', "application/json", 400),
    (b'{"message": "Hi", "conversation_id": "first"}', "application/json", 400),
    (b'{"message": "Hi", "colour\\ud800": "red"}', "application/json", 400),
    (json.dumps({"message": "x" * 10_001}).encode(), "application/json", 400),
    (b'{"message": "Hi"}', "text/plain", 415),
    (b'{"message": "Hi"}', "", 415),
    (b"message=Hi", "application/x-www-form-urlencoded", 415),
    (b"--", "multipart/form-data", 400),
    (b"--", "multipart/form-data; boundary=x", 400),
    (b" " * 1_000_001, "application/json", 413),
)


async def test_a_body_that_cannot_be_read_is_refused_with_a_problem(site: Site) -> None:
    for body, content_type, status in _UNREADABLE:
        answer = await site.client.post("/api/chat", content=body, headers={"Content-Type": content_type} if content_type else {})

        assert answer.status_code == status, body[:50]
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert len(answer.json()["detail"]) < 1_000
    assert (await site.client.get("/api/conversations")).json()["total"] == 0


async def test_what_no_database_could_hold_is_replaced(working: Site) -> None:
    answer = await working.client.post(
        "/api/chat", content=b'{"message": "a\\u0000b\\ud800c"}', headers={"Content-Type": "application/json"}
    )

    assert answer.json()["user_message"]["content"] == "a\ufffdb\ufffdc"


async def test_who_is_not_signed_in_is_told_before_anything_is_read(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url) as client:
        answer = await client.post("/api/chat", content=b"{")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_without_the_scope_chat_may_not_write(site: Site) -> None:
    async with site.calling(site.world.admin, scopes=frozenset({"tasks:read", "tasks:write"})) as client:
        answer = await client.post("/api/chat", json={"message": "Hello"})

    assert answer.status_code == 401
    assert "'chat'" in answer.json()["detail"]


async def test_too_many_messages_in_a_minute_are_refused_with_the_time_to_wait(start: Start) -> None:
    async with start() as world, site_of(world) as site:
        conversation = await world.chat()
        for _ in range(60):
            await world.note(conversation.id, "x")

        answer = await chat(site)

    assert answer.status_code == 429
    assert answer.json()["error_code"] == "RATE_LIMITED"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def _is_completed(world: World, message_id: str) -> bool:
    return (await world.message(UUID(message_id))).status is MessageStatus.COMPLETED


async def _is_answered(site: Site, conversation_id: str, text: str) -> bool:
    found = (await site.client.get(f"/api/conversations/{conversation_id}/messages")).json()["messages"]
    return bool(found[-1]["content"] == text and found[-1]["status"] == "completed")


async def _is_waited_for(world: World) -> bool:
    return bool(world.app.live.followed)


async def _raw(site: Site, request: bytes, headers: dict[str, str], body: bytes) -> bytes:
    """What a client gets that sends whatever it likes."""
    url = httpx.URL(site.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    lines = [request, f"Host: {url.netloc.decode()}".encode(), f"Authorization: {site.client.headers['Authorization']}".encode()]
    writer.write(b"\r\n".join([*lines, *(f"{name}: {value}".encode() for name, value in headers.items()), b"", body]))
    async with asyncio.timeout(5):
        answer = await reader.read(10_000)
    writer.close()
    return answer
