"""How sessions of older clients are counted: until they end, whoever asks for them, and never more than one person may hold."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser

from core.access import ALL_SCOPES, Principal
from core.errors import RateLimited
from core.ids import new_id
from mcp_server import sessions
from mcp_server.callers import PersonalToken
from mcp_server.sessions import Bounded, Message, Receive, Scope, Send

ANA, KIM = "ana", "kim"
IDLE = 60.0


class Sdk:
    """Answers as the SDK does, which knows its sessions."""

    def __init__(self) -> None:
        self.there: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.breaks = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.gate.wait()
        named = dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        if named:
            status = 200 if named in self.there else 404
            session_id = named
        else:
            status, session_id = 200, f"session-{len(self.there)}"
            self.there.append(session_id)
        await send({"type": "http.response.start", "status": status, "headers": [(b"mcp-session-id", session_id.encode())]})
        if self.breaks:
            raise ConnectionError
        await send({"type": "http.response.body", "body": b""})


class Door:
    """The sessions, with a clock that a test moves."""

    def __init__(self) -> None:
        self.sdk = Sdk()
        self.now = 1_000.0
        self._app = Bounded(self.sdk, idle_seconds=IDLE, clock=lambda: self.now)

    async def ask(self, who: str, session_id: str = "", *, token: str = "one", method: str = "POST", version: str = "") -> str:
        """The session that the answer names, or the status where that is no good one."""
        answers: list[Message] = []

        async def send(message: Message) -> None:
            answers.append(message)

        given = [(b"mcp-session-id", session_id.encode())] if session_id else []
        given += [(b"mcp-protocol-version", version.encode())] if version else []
        await self._app(_scope(who, token, method, given), _receive, send)
        start = answers[0]
        return dict(start["headers"])[b"mcp-session-id"].decode() if start["status"] == 200 else str(start["status"])


async def _receive() -> Message:
    return {"type": "http.disconnect"}


def _scope(who: str, token: str, method: str, headers: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
    principal = Principal(user_id=new_id(), scopes=ALL_SCOPES)
    held = PersonalToken(token="", client_id=token, subject=who, scopes=[], principal=principal)
    return {"type": "http", "method": method, "headers": list(headers), "user": AuthenticatedUser(held)}


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr(sessions, "MAX_EACH", 2)
    return Door()


async def test_one_too_many_is_refused_until_one_was_idle_for_long(door: Door) -> None:
    first = await door.ask(ANA)
    door.now += 20
    await door.ask(ANA, token="another")
    with pytest.raises(RateLimited, match="You hold 2 MCP sessions here") as raised:
        await door.ask(ANA)
    assert raised.value.retry_after == IDLE - 20
    assert await door.ask(KIM)

    door.now += 30
    assert await door.ask(ANA, first) == first  # it was used: the other one ends first
    door.now += 29
    with pytest.raises(RateLimited):
        await door.ask(ANA)
    door.now += 1
    assert await door.ask(ANA)


async def test_session_with_a_request_under_way_is_not_idle(door: Door) -> None:
    first, _ = await door.ask(ANA), await door.ask(ANA)
    door.sdk.gate.clear()
    stream = asyncio.create_task(door.ask(ANA, first, method="GET"))
    await asyncio.sleep(0)
    door.now += 10 * IDLE
    door.sdk.gate.set()
    assert await door.ask(ANA)  # in the place of the second one
    with pytest.raises(RateLimited):
        await door.ask(ANA)
    assert await stream == first


async def test_sessions_that_begin_at_once_are_counted(door: Door) -> None:
    door.sdk.gate.clear()
    beginning = [asyncio.create_task(door.ask(ANA)) for _ in range(3)]
    await asyncio.wait(beginning, return_when=asyncio.FIRST_COMPLETED)
    door.sdk.gate.set()
    answers = await asyncio.gather(*beginning, return_exceptions=True)
    assert [type(answer) for answer in answers] == [str, str, RateLimited]


async def test_session_that_could_not_begin_counts_for_none(door: Door) -> None:
    door.sdk.breaks = True
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await door.ask(ANA)


@pytest.mark.parametrize("ends", ["deleted", "unknown to the SDK"])
async def test_session_that_is_gone_makes_room(door: Door, ends: str) -> None:
    first, _ = await door.ask(ANA), await door.ask(ANA)
    if ends == "deleted":
        assert await door.ask(ANA, first, method="DELETE") == first
    else:
        door.sdk.there.remove(first)
        assert await door.ask(ANA, first) == "404"
    assert await door.ask(ANA)


async def test_who_did_not_begin_a_session_cannot_make_it_be_forgotten(door: Door) -> None:
    held = [await door.ask(ANA), await door.ask(ANA)]
    door.sdk.there.clear()
    for session_id in held:
        assert await door.ask(ANA, session_id, token="another") == "404"
        assert await door.ask(KIM, session_id) == "404"
    with pytest.raises(RateLimited):
        await door.ask(ANA)


async def test_only_older_revisions_have_sessions(door: Door) -> None:
    for _ in range(3):
        assert await door.ask(ANA, version="2026-07-28")
    for _ in range(2):
        assert await door.ask(ANA, version="2025-11-25")
    with pytest.raises(RateLimited):
        await door.ask(ANA, version="2025-06-18")
