"""What surrounds every request: names under which it is answered, ids that find it in the log, headers, and errors that nobody foresaw."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from tests.fakes import Gate
from tests.integration.conftest import World
from tests.integration.web.conftest import Site, site_of
from web.middleware import UnknownErrors

Entry = MutableMapping[str, Any]
HOSTS = frozenset({"127.0.0.1", "localhost", "::1", "onethread.example.com"})


@pytest.fixture
async def named(world: World) -> AsyncIterator[Site]:
    """A site that knows some names."""
    async with site_of(world, hosts=HOSTS) as site:
        yield site


async def exchange(site: Site, *lines: str) -> str:
    """The first line of the answer to a request as it goes over the wire."""
    host, port = site.url.removeprefix("http://").split(":")
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
    return answer.decode("latin-1").rstrip()


@contextmanager
def logged() -> Iterator[list[Entry]]:
    """The log's entries, with what is bound to the context."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as entries:
        yield entries


def those(entries: list[Entry], event: str) -> list[Entry]:
    return [entry for entry in entries if entry["event"] == event]


# --- names ---


async def test_known_names_are_answered(named: Site) -> None:
    local = ["127.0.0.1", "127.0.0.1:8420", "localhost", "LocalHost:99", "[::1]", "[::1]:8420"]

    for host in (*local, "onethread.example.com", "ONETHREAD.example.com:443"):
        assert await exchange(named, "GET /api/me HTTP/1.1", f"Host: {host}") == "HTTP/1.1 401 Unauthorized", host


async def test_no_other_name_is(named: Site) -> None:
    others = ["evil.example.com", "onethread.example.com.evil.example.com", "127.0.0.1.nip.io", "127.1", "2130706433", "*", ""]
    almost = ["localhost:80:80", "localhost:", "localhost:port", "localhost.", "localhost/", "localhost, evil", "evil@localhost"]
    brackets = ["[::1", "::1", "[localhost]", "[::1]evil", "evil.example.com:127.0.0.1"]

    for host in (*others, *almost, *brackets):
        first_line = await exchange(named, "GET /api/me HTTP/1.1", f"Host: {host}")
        assert first_line in ("HTTP/1.1 421 Misdirected Request", "HTTP/1.1 400 Bad Request"), host


async def test_request_with_two_names_or_none_is_not_answered(named: Site) -> None:
    assert "400" in await exchange(named, "GET /api/me HTTP/1.1", "Host: localhost", "Host: evil")
    assert "400" in await exchange(named, "GET /api/me HTTP/1.1")
    assert "421" in await exchange(named, "GET /api/me HTTP/1.0")


async def test_name_that_a_proxy_claims_was_asked_for_counts_nothing(named: Site) -> None:
    assert "421" in await exchange(named, "GET /api/me HTTP/1.1", "Host: evil", "X-Forwarded-Host: localhost")
    assert "421" in await exchange(named, "GET http://localhost/api/me HTTP/1.1", "Host: evil")


async def test_of_the_pages_files_only_what_is_missing_is_logged(site: Site) -> None:
    with logged() as entries:
        await site.client.get("/static/app.js")
        await site.client.get("/static/nothing.js")

    assert [(entry["route"], entry["status"]) for entry in those(entries, "request.served")] == [("/static/{path:path}", 404)]


async def test_socket_under_another_name_is_refused(named: Site) -> None:
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    request = ["GET /ws HTTP/1.1", "Host: evil", *upgrade, "Connection: Upgrade"]

    assert await exchange(named, *request) == "HTTP/1.1 403 Forbidden"


async def test_any_name_is_answered_where_a_star_allows_it(world: World) -> None:
    async with site_of(world, hosts=frozenset({"*"})) as site:
        assert "401" in await exchange(site, "GET /api/me HTTP/1.1", "Host: whatever")


# --- ids and the log ---


async def test_request_has_an_id_in_its_answer_and_in_the_log(site: Site) -> None:
    with logged() as entries:
        answer = await site.client.get("/api/users")
        again = await site.client.get("/api/users")

    served = those(entries, "request.served")
    ids = [each.headers["x-request-id"] for each in (answer, again)]
    assert ids == [entry["request_id"] for entry in served]
    assert len(set(ids)) == 2
    assert {key: served[0][key] for key in ("method", "route", "status")} == {"method": "GET", "route": "/api/users", "status": 200}
    assert 0 < served[0]["ms"] < 5_000


async def test_id_that_comes_with_a_request_is_kept_if_it_is_harmless(site: Site) -> None:
    async def answered(given: str) -> str:
        with logged() as entries:
            answer = await site.client.get("/api/users", headers={"X-Request-ID": given})
        assert those(entries, "request.served")[0]["request_id"] == answer.headers["x-request-id"]
        return answer.headers["x-request-id"]

    for harmless in ("abc-DEF_1.2", "0" * 64):
        assert await answered(harmless) == harmless
    for other in ("0" * 65, "a b", "a\tb", 'a","level":"error', ""):
        assert await answered(other) != other


async def test_log_of_requests_tells_neither_paths_nor_queries_nor_credentials(site: Site) -> None:
    with logged() as entries:
        await site.client.get("/login?code=a-one-time-code")
        await site.client.get("/a-pasted-secret")
        await site.client.get("/api/users", headers={"Authorization": "Bearer ot_wrong-token", "Cookie": "onethread_sid=a-cookie"})

    told = json.dumps(entries, default=str)
    assert [entry["route"] for entry in those(entries, "request.served")] == ["/login", "(none)", "/api/users"]
    assert not [secret for secret in ("one-time", "pasted", "ot_wrong", "a-cookie") if secret in told]


async def test_probes_are_not_logged(site: Site) -> None:
    with logged() as entries:
        await site.client.get("/healthz")
        await site.client.get("/readyz")
        await site.client.get("/metrics")

    assert those(entries, "request.served") == []


async def test_socket_is_logged_when_it_opens_and_when_it_closes(site: Site) -> None:
    with logged() as entries:
        async with site.socket() as socket:
            request_id = socket.response.headers["x-request-id"] if socket.response else ""
            await socket.close(4321)

        async def closed() -> bool:
            return bool(those(entries, "socket.closed"))

        await site.world.until(closed)

    (opened,), (ended,) = those(entries, "socket.opened"), those(entries, "socket.closed")
    assert opened["request_id"] == ended["request_id"] == request_id
    assert (opened["route"], ended["route"], ended["code"]) == ("/ws", "/ws", 4321)


async def test_request_and_the_turn_that_it_caused_can_be_joined_in_the_log(site: Site) -> None:
    world = site.world
    gate = Gate()
    world.model.will("Hm", gate, RuntimeError("what somebody wrote"))
    with logged() as entries:
        posted = await site.client.post("/api/chat", json={"message": "Hello"}, headers={"Prefer": "respond-async"})
        assert posted.status_code == 202
        turn_id = posted.json()["turn_id"]
        async with world.working():
            await gate.reached()
            gate.open()

            async def broke() -> bool:
                return bool(those(entries, "turn.broke"))

            await world.until(broke)

    (message,), (claimed,), (broken,) = (those(entries, event) for event in ("message.posted", "turn.claimed", "turn.broke"))
    assert message["request_id"] == posted.headers["x-request-id"]
    assert message["turn_id"] == claimed["turn_id"] == broken["turn_id"] == turn_id
    assert message["conversation_id"] == broken["conversation_id"] == posted.json()["conversation_id"]
    assert "request_id" not in broken
    assert "somebody wrote" not in json.dumps(entries, default=str)


# --- headers ---


@pytest.mark.parametrize("path", ["/healthz", "/api/users", "/nowhere", "/login"])
async def test_answers_tell_browsers_to_trust_little(site: Site, path: str) -> None:
    headers = (await site.client.get(path)).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers.get("cache-control") == ("no-store" if path in ("/api/users", "/login") else None)
    assert headers.get_list("content-security-policy") == [headers["content-security-policy"]]


# --- errors that nobody foresaw ---


async def test_unknown_error_is_shown_as_a_reference_that_the_log_has_too(site: Site) -> None:
    database = sqlite3.connect(site.world.app.settings.data_dir / "onethread.db")
    database.execute("ALTER TABLE users RENAME TO lost")
    database.close()

    with logged() as entries:
        answer = await site.client.get("/api/users")

    problem = answer.json()
    (broken,) = those(entries, "request.broke")
    assert (answer.status_code, problem["error_code"]) == (500, "INTERNAL")
    assert problem["reference"] == broken["reference"]
    assert broken["request_id"] == answer.headers["x-request-id"]
    assert "lost" not in answer.text
    assert "sql" not in answer.text.lower()
    assert answer.headers["x-frame-options"] == "DENY"


async def sent_by(app: Any, kind: str) -> list[Message]:
    """What comes out of UnknownErrors around the app."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{kind}.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await UnknownErrors(app)({"type": kind, "method": "GET", "path": "/", "headers": []}, receive, send)
    return sent


@pytest.mark.parametrize("before", [[], [{"type": "websocket.accept"}]])
async def test_socket_whose_handler_breaks_is_closed_with_1011(before: list[Message]) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        for message in before:
            await send(message)
        raise RuntimeError("what somebody wrote")

    assert await sent_by(breaks, "websocket") == [*before, {"type": "websocket.close", "code": 1011}]


async def test_socket_that_was_closed_is_not_closed_again() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4401})
        raise RuntimeError

    assert await sent_by(breaks, "websocket") == [{"type": "websocket.close", "code": 4401}]


async def test_answer_that_has_begun_is_not_followed_by_another() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    assert [message["type"] for message in await sent_by(breaks, "http")] == ["http.response.start"]


@pytest.mark.parametrize(("kind", "error"), [("http", ClientDisconnect()), ("websocket", WebSocketDisconnect())])
async def test_handler_that_finds_nobody_there_is_no_error(kind: str, error: Exception) -> None:
    async def finds_nobody(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    with logged() as entries:
        assert await sent_by(finds_nobody, kind) == []
    assert entries == []


async def test_client_that_hangs_up_is_no_error(site: Site) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    with logged() as entries:
        _, writer = await asyncio.open_connection(host, int(port))
        lines = ["POST /login HTTP/1.1", "Host: localhost", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 100"]
        writer.write("\r\n".join([*lines, "", "name="]).encode())
        await writer.drain()
        writer.close()

        async def ended() -> bool:
            return bool(those(entries, "request.served"))

        await site.world.until(ended)

    assert those(entries, "request.broke") == []
