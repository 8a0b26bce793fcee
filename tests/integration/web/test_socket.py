"""The WebSocket's door and its manners: who may connect, what a wrong frame is answered, what ends a connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from core import identity
from core.access import Principal
from core.follow import Follower
from core.frames import Frame
from core.ids import new_id
from core.models import User
from tests.integration.conftest import World
from tests.integration.web.conftest import Site, site_of
from tests.web_client import Client, Refused, client
from web import frames
from web.frames import FRAMES, MAX_FRAME_BYTES

JSON = dict[str, Any]


async def ask(socket: ClientConnection, frame: Any) -> JSON:
    """Sends a frame, or text as it is; the payload of the reply."""
    await socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
    return await reply(socket)


async def reply(socket: ClientConnection) -> JSON:
    async with asyncio.timeout(5):
        frame = json.loads(await socket.recv())
    assert frame["event"] == "reply"
    return dict(frame["payload"])


async def closed(socket: ClientConnection) -> int | None:
    """Reads on to the end; the close code."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(5):
            while True:
                await socket.recv()
    return socket.close_code


@asynccontextmanager
async def talking(site: Site, who: Principal | None = None, **fields: Any) -> AsyncIterator[Client]:
    async with client(site.url, await site.token(who or site.world.admin, **fields)) as found:
        yield found


async def user_of(site: Site, who: Principal) -> User:
    user = await site.world.read(lambda uow: uow.users.get(who.user_id))
    assert user
    return user


# --- the door --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://localhost:1", "", "file://"])
async def test_a_page_of_another_site_is_refused_before_anything_is_accepted(site: Site, origin: Origin) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with site.socket(origin=origin):
            raise AssertionError

    answer = refused.value.response
    assert answer.status_code == 403
    assert json.loads(answer.body or b"")["error_code"] == "FORBIDDEN"


async def test_our_own_page_and_the_public_address_may_connect(world: World) -> None:
    async with site_of(world, public_url="http://onethread.example.com") as site:
        for origin in (site.url, "http://onethread.example.com"):
            async with site.socket(origin=Origin(origin)) as socket:
                assert await ask(socket, {"event": "ping"}) == {"status": "ok", "response": {}}


async def test_where_people_come_by_https_no_page_without_it_may_connect(world: World) -> None:
    async with site_of(world, public_url="https://onethread.example.com") as site:
        async with site.socket(origin=Origin("https://onethread.example.com")) as socket:
            assert await ask(socket, {"event": "ping"}) == {"status": "ok", "response": {}}
        for origin in (site.url, "http://onethread.example.com", "http://["):
            with pytest.raises(InvalidStatus):
                async with site.socket(origin=Origin(origin)):
                    pass


async def test_who_pings_and_does_not_read_is_let_go(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    try:
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        token = await site.token(site.world.admin)
        writer.write(f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n{upgrade}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        ping = b"\x89\xfd" + bytes(4) + b"x" * 125
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionError):
                await _flood(writer, ping * 1_000)
    finally:
        writer.close()


async def _flood(writer: asyncio.StreamWriter, frames: bytes) -> None:
    while True:
        writer.write(frames)
        await writer.drain()


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer ot_wrong"}, {"Authorization": "Basic eDp5"}, {"Cookie": "onethread_sid=wrong"}]
)
async def test_who_is_not_signed_in_is_let_in_and_told_so_by_the_close_code(site: Site, headers: dict[str, str]) -> None:
    async with connect(f"{site.url.replace('http', 'ws', 1)}/ws", additional_headers=headers) as socket:
        assert await closed(socket) == 4401
        assert socket.close_reason


async def test_a_browsers_session_is_enough(site: Site) -> None:
    user = await user_of(site, site.world.admin)
    secret = await site.world.write(lambda uow: identity.open_session(uow, user))
    address, cookie, origin = f"{site.url.replace('http', 'ws', 1)}/ws", {"Cookie": f"onethread_sid={secret}"}, Origin(site.url)
    for whose in ("", f"?user={user.id}"):
        async with connect(address + whose, additional_headers=cookie, origin=origin) as socket:
            assert (await ask(socket, {"event": "ping"}))["status"] == "ok"
    async with connect(
        f"{address}?user={new_id()}", additional_headers=cookie, origin=origin
    ) as socket:  # a page that another one left open
        assert await closed(socket) == 4401


async def revoke(site: Site, who: Principal) -> None:
    user = await user_of(site, who)
    (token,) = await site.world.read(lambda uow: uow.tokens.of_user(who.user_id))
    await site.world.write(lambda uow: identity.revoke_token(uow, user, token.name))


async def disable(site: Site, who: Principal) -> None:
    user = await user_of(site, who)
    await site.world.write(lambda uow: identity.disable(uow, user))


@pytest.mark.parametrize("shut_out", [revoke, disable])
async def test_who_is_shut_out_loses_the_living_connection(world: World, shut_out: Callable[[Site, Principal], Awaitable[None]]) -> None:
    async with site_of(world, recheck_seconds=0.02) as site:
        kim = await world.user("kim")
        async with site.socket(kim) as socket:
            assert (await ask(socket, {"event": "ping"}))["status"] == "ok"
            await shut_out(site, kim)
            assert await closed(socket) == 4401


async def test_who_signs_out_loses_the_living_connection(world: World) -> None:
    async with site_of(world, recheck_seconds=0.02) as site:
        user = await user_of(site, world.admin)
        secret = await world.write(lambda uow: identity.open_session(uow, user))
        async with connect(f"{site.url.replace('http', 'ws', 1)}/ws", additional_headers={"Cookie": f"onethread_sid={secret}"}) as socket:
            assert (await ask(socket, {"event": "ping"}))["status"] == "ok"
            await world.write(lambda uow: identity.close_session(uow, secret))
            assert await closed(socket) == 4401


async def test_who_is_shut_out_does_nothing_more_even_before_that_is_noticed(site: Site) -> None:
    kim = await site.world.user("kim")
    chat = await site.world.chat(kim)
    async with site.socket(kim) as socket:
        await ask(socket, {"topic": f"conversation:{chat.id}", "event": "join"})
        await revoke(site, kim)
        await socket.send(
            json.dumps({"topic": f"conversation:{chat.id}", "event": "send_message", "payload": {"content": "Hi", "client_id": "1"}})
        )
        assert await closed(socket) == 4401
    assert await site.world.read(lambda uow: uow.messages.since(chat.id, 1)) == []


async def test_a_server_that_stops_says_that_it_comes_back(world: World) -> None:
    async with site_of(world) as site:
        socket = await connect(
            f"{site.url.replace('http', 'ws', 1)}/ws", additional_headers={"Authorization": f"Bearer {await site.token(world.admin)}"}
        )
        assert (await ask(socket, {"event": "ping"}))["status"] == "ok"
    assert await closed(socket) in (1001, 1012)


# --- frames ----------------------------------------------------------------------------------------------------------


async def test_a_reply_carries_topic_and_ref_of_its_request(site: Site) -> None:
    chat = await site.world.chat()
    async with site.socket() as socket:
        for ref in ("a", 7, None):
            await socket.send(json.dumps({"topic": f"conversation:{chat.id}", "event": "join", "ref": ref}))
            frame = json.loads(await socket.recv())
            assert (frame["topic"], frame["event"], frame["ref"]) == (f"conversation:{chat.id}", "reply", ref)
            assert frame["payload"]["status"] == "ok"


async def test_a_join_that_a_later_one_or_a_leave_overtakes_is_answered_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = await site.world.chat()
    read = asyncio.Event()
    frames_of = Follower.frames

    async def late(self: Follower) -> AsyncIterator[Frame]:
        await read.wait()
        async for frame in frames_of(self):
            yield frame

    monkeypatch.setattr(Follower, "frames", late)
    async with site.socket() as socket:
        for ref, event in enumerate(["join", "join", "leave", "join", "ping"]):
            await socket.send(json.dumps({"topic": f"conversation:{chat.id}", "event": event, "ref": ref}))
        found = []
        async with asyncio.timeout(5):
            for _ in range(5):
                frame = json.loads(await socket.recv())
                found.append((frame["ref"], frame["payload"]["response"].get("error_code", frame["payload"]["status"])))
                if len(found) == 4:
                    read.set()
    assert found == [(0, "CONFLICT"), (1, "CONFLICT"), (2, "ok"), (4, "ok"), (3, "ok")]


WRONG = {
    "no JSON": ("{", "not a JSON object"),
    "no text": (b"{}", "binary"),
    "no object": ("[1]", "not a JSON object"),
    "too deep": ("[" * 20_000, "not a JSON object"),
    "a surrogate": ('{"event": "\\ud800"}', "There is no event"),
    "no event": ({"topic": "tasks"}, "'event'"),
    "another member": ({"event": "ping", "extra": 1}, "has no member 'extra'"),
    "an unknown event": ({"event": "shout"}, "There is no event 'shout'. Events: join"),
    "an event of another type": ({"event": 3}, "'event'"),
    "a ref of another type": ({"event": "ping", "ref": {}}, "'ref"),
    "a payload of another type": ({"event": "ping", "payload": "x"}, "'payload'"),
    "a payload with another member": ({"event": "ping", "payload": {"x": 1}}, "ping has no member 'x'"),
    "a payload without a member": ({"event": "send_message", "topic": "tasks", "payload": {"client_id": "1"}}, "'content'"),
    "no id": ({"event": "cancel", "topic": "tasks", "payload": {"turn_id": "x"}}, "'turn_id'"),
    "no number": ({"event": "get_history", "topic": "tasks", "payload": {"before": "5"}}, "'before'"),
    "no topic": ({"event": "join"}, "Say which topic"),
    "an unknown topic": ({"event": "join", "topic": "everything"}, "There is no such topic"),
    "a topic without an id": ({"event": "join", "topic": "conversation:x"}, "conversation:<id>"),
    "a topic that was not joined": ({"event": "get_history", "topic": "task:OT-1"}, "not joined"),
    "leaving what was not joined": ({"event": "leave", "topic": "tasks"}, "not joined"),
}


async def test_a_wrong_frame_is_explained_and_the_connection_goes_on(site: Site) -> None:
    async with site.socket() as socket:
        for name, (frame, sentence) in WRONG.items():
            answer = await ask(socket, frame)
            assert (name, answer["status"]) == (name, "error")
            code = "NOT_FOUND" if sentence == "not joined" else "VALIDATION_ERROR"
            assert (name, answer["response"]["error_code"]) == (name, code)
            assert sentence in answer["response"]["detail"], name
            assert await ask(socket, {"event": "ping"}) == {"status": "ok", "response": {}}, name


async def test_what_was_sent_is_not_repeated_in_the_error(site: Site) -> None:
    async with site.socket() as socket:
        answer = await ask(socket, {"event": "cancel", "topic": "tasks", "payload": {"turn_id": ["strawberry"]}})
        assert "strawberry" not in json.dumps(answer)


async def test_a_wrong_frame_is_answered_under_its_ref(site: Site) -> None:
    async with site.socket() as socket:
        await socket.send(json.dumps({"topic": "tasks", "event": "ping", "ref": "mine", "payload": {"x": 1}}))
        frame = json.loads(await socket.recv())
        assert (frame["topic"], frame["ref"], frame["payload"]["status"]) == ("tasks", "mine", "error")


async def test_a_conversations_event_on_a_list_is_refused(site: Site) -> None:
    async with talking(site) as page:
        await page.join("tasks")
        with pytest.raises(Refused, match="conversation or of a task"):
            await page.ask("get_history", "tasks")


async def test_what_is_not_there_and_what_may_not_be_seen_look_the_same(site: Site) -> None:
    kim = await site.world.user("kim")
    chat = await site.world.chat()
    async with talking(site, kim) as page:
        for topic in (f"conversation:{chat.id}", f"conversation:{kim.user_id}", "task:OT-9"):
            with pytest.raises(Refused) as refused:
                await page.join(topic)
            assert refused.value.code == "NOT_FOUND"


async def test_a_token_without_the_scope_is_told_so_and_may_stay(site: Site) -> None:
    async with talking(site, scopes=frozenset({"tasks:read"})) as page:
        await page.join("tasks")
        with pytest.raises(Refused, match="'chat'") as refused:
            await page.join("conversations")
        assert refused.value.code == "UNAUTHORIZED"
        await page.ask("ping")


async def test_what_belongs_to_another_conversation_is_not_found_in_this_one(site: Site) -> None:
    here, there = await site.world.chat(), await site.world.chat()
    posted = await site.world.post(there.id, "Hello")
    async with talking(site) as page:
        await page.join(f"conversation:{here.id}")
        for event, payload in {
            "cancel": {"turn_id": str(posted.turn_id)},
            "edit_message": {"message_id": str(posted.message_id), "content": "Other"},
            "delete_message": {"message_id": str(posted.message_id)},
        }.items():
            with pytest.raises(Refused) as refused:
                await page.ask(event, f"conversation:{here.id}", payload)
            assert refused.value.code == "NOT_FOUND"

    (question, _) = await site.world.read(lambda uow: uow.messages.since(there.id, 1))
    assert (question.content, question.status, question.deleted_at) == ("Hello", "pending", None)


async def test_an_unforeseen_error_shows_a_reference_and_nothing_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise ValueError("a secret")

    monkeypatch.setitem(vars(frames)["FRAMES"], "ping", replace(FRAMES["ping"], handle=broken))
    async with site.socket() as socket:
        answer = await ask(socket, {"event": "ping"})
        assert answer["response"]["error_code"] == "INTERNAL"
        assert "reference" in answer["response"]["detail"]
        assert "secret" not in json.dumps(answer)
        assert (await ask(socket, {"event": "leave", "topic": "tasks"}))["status"] == "error"


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_a_frame_that_is_too_large_ends_the_connection(site: Site) -> None:
    async with site.socket() as socket:
        await socket.send(json.dumps({"event": "ping", "payload": {"x": "ü" * (MAX_FRAME_BYTES // 6 - 20)}}))
        assert (await reply(socket))["status"] == "error"
        await socket.send(json.dumps({"event": "ping", "payload": {"x": "ü" * (MAX_FRAME_BYTES // 2)}}, ensure_ascii=False))
        assert await closed(socket) == 1009


async def test_a_connection_follows_at_most_a_hundred_topics(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.socket.MAX_TOPICS", 2)
    async with talking(site) as page:
        await page.join("tasks")
        await page.join("conversations")
        await page.join("tasks")
        await site.world.task("Buy milk")
        with pytest.raises(Refused, match="2 topics") as refused:
            await page.join("task:OT-1")
        assert refused.value.code == "CONFLICT"
        await page.ask("leave", "tasks")
        await page.join("task:OT-1")


async def test_who_sends_too_fast_is_told_when_to_go_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.socket.FRAMES_AT_ONCE", 3)
    async with site.socket() as socket:
        answers = [await ask(socket, {"event": "ping", "ref": 1}) for _ in range(20)]

    refused = [answer["response"] for answer in answers if answer["status"] == "error"]
    assert answers[0]["status"] == "ok"
    assert {each["error_code"] for each in refused} == {"RATE_LIMITED"}
    assert all(0 <= each["retry_after"] <= 1 for each in refused)


async def test_who_does_not_stop_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.socket.FRAMES_AT_ONCE", 3)
    monkeypatch.setattr("web.socket.FRAMES_REFUSED", 10)
    async with site.socket() as socket:
        for _ in range(100):
            await socket.send('{"event": "ping"}')
        assert await closed(socket) == 1008
