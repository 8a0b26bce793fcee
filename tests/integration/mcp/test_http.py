"""`/mcp` as it is reached over the network: who is let in, from where, and how streams and sessions end. A real server, real clients."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import httpx2
import pytest
import structlog
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.transport_security import TransportSecurityMiddleware

from core import identity
from core.access import Principal
from core.errors import StorageUnavailable
from mcp_server import http, sessions
from onethread.serve import mcp_endpoint
from tests.fakes import ManualClock
from tests.integration.conftest import Start, World
from tests.integration.web.conftest import SECRET_KEY, Site, site_of
from tests.mcp_client import LEGACY, MODERN, HttpWire, McpClient, RpcError
from web.app import mount
from web.credentials import JWT_LIFETIME, issue_jwt
from web.services import WebRules

ERAS = [LEGACY, MODERN]
ALL = {"tasks:read", "tasks:write", "chat"}
ELICIT: dict[str, Any] = {"elicitation": {"form": {}}}
ACCEPT = {"Accept": "application/json, text/event-stream"}
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A web surface with `/mcp`."""

    site: Site
    authenticated: list[str]
    """The credentials that were looked at."""

    @property
    def stopping(self) -> asyncio.Event:
        event: asyncio.Event = self.site.app.state.stopping
        return event

    async def looks_again(self, *, times: int) -> None:
        """Waits until a credential was looked at so often from now on."""
        seen = len(self.authenticated)

        async def did() -> bool:
            return len(self.authenticated) >= seen + times

        await self.site.world.until(did)

    @asynccontextmanager
    async def caller(self, credential: str | None = None, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        """A client with this token; with the admin's without one."""
        credential = credential or await self.site.token(self.site.world.admin)
        given = {"Authorization": f"Bearer {credential}", **ACCEPT, **headers}
        async with httpx.AsyncClient(base_url=self.site.url, headers=given, timeout=20) as client:
            yield client

    @asynccontextmanager
    async def client(self, era: str, credential: str | None = None, **fields: Any) -> AsyncIterator[McpClient]:
        async with self.caller(credential) as caller:
            yield await McpClient(HttpWire(caller), era=era, **fields).start()


@asynccontextmanager
async def place_of(world: World, **rules: Any) -> AsyncIterator[Place]:
    async with site_of(world, **rules) as site, AsyncExitStack() as stack:
        found: WebRules = site.app.state.services.rules
        endpoint = mcp_endpoint(world.app, found, site.app.state.stopping)
        authenticated: list[str] = []
        authenticate = endpoint._authenticate

        async def noted(credential: str) -> Principal:
            authenticated.append(credential)
            return await authenticate(credential)

        endpoint._authenticate = noted
        mount(site.app, http.PATH, endpoint)
        await stack.enter_async_context(endpoint.running())
        yield Place(site=site, authenticated=authenticated)


@pytest.fixture
async def place(world: World) -> AsyncIterator[Place]:
    async with place_of(world) as found:
        yield found


async def revoke(world: World, who: Principal) -> None:
    """All tokens of theirs."""

    async def work(uow: Any) -> None:
        user = await uow.users.get(who.user_id)
        for token in await uow.tokens.of_user(who.user_id):
            if token.revoked_at is None:
                await identity.revoke_token(uow, user, token.name)

    await world.write(work)


async def jwt_of(world: World, who: Principal, at: datetime | None = None) -> str:
    user = await world.read(lambda uow: uow.users.get(who.user_id))
    assert user
    rules = WebRules(public_url="http://127.0.0.1", hosts=frozenset(), secret_key=SECRET_KEY)
    return issue_jwt(user, rules, at or datetime.now(UTC))


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    told = answer.json()
    return answer.status_code, told["error_code"], told["detail"]


# --- who is let in ---


@pytest.mark.parametrize("era", [LEGACY, MODERN])
async def test_sdk_client_with_a_token_lists_and_calls_tools_in_both_eras(place: Place, era: str) -> None:
    await place.site.world.task("Buy milk")
    headers = {"Authorization": f"Bearer {await place.site.token(place.site.world.admin)}"}
    async with httpx2.AsyncClient(headers=headers, timeout=20) as web:
        transport = streamable_http_client(f"{place.site.url}/mcp", http_client=web)
        async with Client(transport, mode="legacy" if era == LEGACY else era) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            found = await client.call_tool("list_tasks", {})

    assert "send_message" in tools
    assert found.structured_content
    assert [task["title"] for task in found.structured_content["tasks"]] == ["Buy milk"]


async def test_jwt_of_the_api_is_a_token_here_too(place: Place) -> None:
    kim = await place.site.world.user("kim")
    async with place.client(MODERN, await jwt_of(place.site.world, kim)) as client:
        made = await client.call("create_task", title="By a JWT")

    task = await place.site.world.read(lambda uow: uow.tasks.by_ref(made["structuredContent"]["ref"], kim))
    assert task
    assert task.creator_id == kim.user_id


async def test_only_what_the_token_is_good_for_is_offered(place: Place) -> None:
    world = place.site.world
    async with place.client(MODERN, await place.site.token(world.admin, scopes=frozenset({"tasks:read"}))) as client:
        listed = await client.request("tools/list")
        refused = await client.call("create_task", title="Not allowed")

    assert [tool["name"] for tool in listed["tools"]] == ["get_task", "list_tasks"]
    assert refused["isError"]
    assert await world.titles() == []


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_without_a_token_nobody_comes_in_and_is_told_how_to_get_one(place: Place, method: str) -> None:
    async with httpx.AsyncClient(base_url=place.site.url, headers=ACCEPT) as stranger:
        answer = await stranger.request(method, "/mcp", json=INITIALIZE)
        elsewhere = await stranger.get("/.well-known/oauth-protected-resource/mcp")

    assert problem(answer) == (
        401,
        "UNAUTHORIZED",
        "Create a token with `onethread token create NAME`, and send it as: Authorization: Bearer ot_...",
    )
    assert answer.headers["www-authenticate"] == "Bearer"
    assert elsewhere.status_code == 404


async def test_token_that_is_wrong_expired_revoked_or_of_somebody_disabled_is_refused(place: Place) -> None:
    world = place.site.world
    kim, lee = await world.user("kim"), await world.user("lee")
    revoked, disabled = await place.site.token(kim), await place.site.token(lee)
    await revoke(world, kim)
    await world.write(lambda uow: _disable(uow, lee))
    old = await jwt_of(world, world.admin, datetime.now(UTC) - JWT_LIFETIME - timedelta(minutes=1))
    forged = await jwt_of(world, kim)

    for bad in ("ot_wrong", "nonsense", revoked, disabled, old, f"{forged}x"):
        async with place.caller(bad) as caller:
            assert problem(await caller.post("/mcp", json=INITIALIZE))[:2] == (401, "UNAUTHORIZED")


async def _disable(uow: Any, who: Principal) -> None:
    await identity.disable(uow, await uow.users.get(who.user_id))


async def test_other_schemes_and_several_tokens_at_once_are_refused(place: Place) -> None:
    token = await place.site.token(place.site.world.admin)
    async with httpx.AsyncClient(base_url=place.site.url, headers=ACCEPT) as client:
        for given in ([f"Basic {token}"], [token], ["Bearer"], [f"Bearer {token}", f"Bearer {token}"]):
            answer = await client.post("/mcp", json=INITIALIZE, headers=[("Authorization", each) for each in given])
            assert answer.status_code == 401


async def test_session_cookie_is_no_token_here(place: Place) -> None:
    world = place.site.world
    user = await world.read(lambda uow: uow.users.get(world.admin.user_id))
    assert user
    cookie = {"Cookie": f"onethread_sid={await world.write(lambda uow: identity.open_session(uow, user))}"}
    async with httpx.AsyncClient(base_url=place.site.url, headers={**ACCEPT, **cookie}) as browser:
        assert (await browser.get("/api/me")).status_code == 200

        assert (await browser.post("/mcp", json=INITIALIZE)).status_code == 401
    assert place.authenticated == []


@pytest.mark.parametrize("trouble", [StorageUnavailable("The disk is full."), RuntimeError("SELECT secret FROM tokens")])
async def test_token_that_cannot_be_checked_is_not_called_wrong(place: Place, trouble: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_uow: Any, _secret: str) -> Principal:
        raise trouble

    async with place.caller() as caller:
        monkeypatch.setattr(identity, "authenticate", broken)
        with structlog.testing.capture_logs() as log:
            answer = await caller.post("/mcp", json=INITIALIZE)

    is_known = isinstance(trouble, StorageUnavailable)
    said = "The disk is full." if is_known else "Your token cannot be checked just now. Try again in a moment."
    assert problem(answer) == (503, "SERVICE_UNAVAILABLE", said)
    assert answer.headers["retry-after"] == "1"
    assert "SELECT" not in f"{log}"
    assert [entry["error"] for entry in log if entry["event"] == "mcp.token_not_checked"] == ([] if is_known else ["RuntimeError"])


# --- from where ---


@pytest.mark.parametrize("era", ERAS)
async def test_unknown_host_name_is_misdirected(place: Place, era: str) -> None:
    async with place.caller(Host="rebound.example.com", **{"MCP-Protocol-Version": era}) as caller:
        assert problem(await caller.post("/mcp", json=INITIALIZE))[:2] == (421, "MISDIRECTED")
    assert place.authenticated == []


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example.com", 403),
        ("http://127.0.0.1.evil.example.com", 403),
        ("null", 403),
        ("http://127.0.0.1:{port}", 200),
        ("http://localhost:3000", 403),
        (None, 200),
    ],
)
async def test_browsers_of_other_sites_are_refused(place: Place, origin: str | None, status: int) -> None:
    port = place.site.url.rpartition(":")[2]
    headers = {"Origin": origin.format(port=port)} if origin else {}
    async with place.caller(**headers) as caller:
        assert (await caller.post("/mcp", json=INITIALIZE)).status_code == status


@pytest.mark.parametrize(
    ("public_url", "hosts", "allowed", "refused"),
    [
        (
            "https://onethread.example.com",
            {"onethread.example.com", "10.0.0.7"},
            ["https://onethread.example.com", "https://10.0.0.7"],
            ["http://onethread.example.com", "https://example.com", "https://10.0.0.7:8420"],
        ),
        ("http://[::1]:8420", {"::1"}, ["http://[::1]:8420", "http://[::1]"], ["http://[::1]:9", "http://[::2]:8420"]),
    ],
)
def test_hosts_and_origins_are_those_of_the_door(public_url: str, hosts: set[str], allowed: list[str], refused: list[str]) -> None:
    settings = http._security(http.HttpRules(public_url=public_url, hosts=hosts))
    guard = TransportSecurityMiddleware(settings)

    assert settings.enable_dns_rebinding_protection
    assert [origin for origin in (*allowed, *refused) if guard._validate_origin(origin)] == allowed
    assert all(guard._validate_host(host) for host in ("[::1]:8420" if "::1" in hosts else "10.0.0.7", public_url.split("//")[1]))
    assert not guard._validate_host("example.com")


async def test_any_host_name_is_served_where_all_are_allowed(world: World) -> None:
    async with place_of(world, hosts=frozenset({"*"})) as place, place.caller(Host="whatever.example.com") as caller:
        assert (await caller.post("/mcp", json=INITIALIZE)).status_code == 200


@pytest.mark.parametrize("era", ERAS)
async def test_body_of_more_than_a_megabyte_is_too_much(place: Place, era: str) -> None:
    async with place.caller(**{"MCP-Protocol-Version": era, "Content-Type": "application/json"}) as caller:
        answer = await caller.post("/mcp", content=b'{"x": "' + b"x" * 1_000_000 + b'"}')

    assert problem(answer)[:2] == (413, "TOO_LARGE")


async def test_requests_are_logged_and_counted_by_their_route(place: Place) -> None:
    async with place.caller(**{"X-Request-ID": "from-the-client"}) as caller:
        with structlog.testing.capture_logs() as log:
            answer = await caller.post("/mcp", json=INITIALIZE)

            async def served() -> bool:
                return any(entry["event"] == "request.served" for entry in log)

            await place.site.world.until(served)
    async with place.site.calling(place.site.world.admin, scopes=frozenset({"admin"})) as admin:
        metrics = (await admin.get("/metrics")).text

    assert answer.headers["x-request-id"] == "from-the-client"
    assert answer.headers["x-content-type-options"] == "nosniff"
    (entry,) = [entry for entry in log if entry["event"] == "request.served"]
    assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/mcp", 200)
    assert 'route="/mcp"' in metrics


# --- sessions, of the older revisions ---


async def opened(caller: httpx.AsyncClient) -> dict[str, str]:
    """A session's headers."""
    answer = await caller.post("/mcp", json=INITIALIZE)
    assert answer.status_code == 200, answer.text
    return {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": LEGACY}


async def status_of(caller: httpx.AsyncClient, session: dict[str, str]) -> int:
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    return (await caller.post("/mcp", json=ping, headers=session)).status_code


async def test_session_is_there_only_for_the_token_that_began_it(place: Place) -> None:
    world = place.site.world
    kim = await world.user("kim")
    async with place.caller() as one, place.caller() as another, place.caller(await place.site.token(kim)) as stranger:
        session = await opened(one)

        assert [await status_of(caller, session) for caller in (one, another, stranger)] == [200, 404, 404]


async def test_session_outlives_a_jwt_that_was_renewed_but_is_nobody_elses(place: Place) -> None:
    world = place.site.world
    kim = await world.user("kim")
    first = await jwt_of(world, world.admin, datetime.now(UTC) - timedelta(minutes=5))
    renewed, strangers = await jwt_of(world, world.admin), await jwt_of(world, kim)
    async with place.caller(first) as one, place.caller(renewed) as same, place.caller(strangers) as stranger:
        session = await opened(one)

        assert [await status_of(caller, session) for caller in (same, stranger)] == [200, 404]


async def test_revoked_token_ends_its_session(place: Place) -> None:
    world = place.site.world
    kim = await world.user("kim")
    async with place.caller(await place.site.token(kim)) as caller:
        session = await opened(caller)
        await revoke(world, kim)

        assert await status_of(caller, session) == 401


async def test_sessions_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_SESSIONS", 1)
    async with place_of(world) as place, place.caller() as caller:
        session = await opened(caller)

        assert (await caller.post("/mcp", json=INITIALIZE)).status_code == 503
        assert (await caller.delete("/mcp", headers=session)).status_code == 200
        assert (await caller.post("/mcp", json=INITIALIZE)).status_code == 200


async def test_one_person_cannot_take_the_sessions_of_others(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_EACH", 2)
    world = place.site.world
    kim = await world.user("kim")
    async with place.caller() as one, place.caller() as another, place.caller(await place.site.token(kim)) as stranger:
        first, _ = await opened(one), await opened(another)

        refused = await another.post("/mcp", json=INITIALIZE)
        sentence = "You hold 2 MCP sessions here, the most there may be. End one, or wait: one that is idle ends in 30 min."
        assert problem(refused) == (429, "RATE_LIMITED", sentence)
        assert 1_790 <= int(refused.headers["retry-after"]) <= 1_800
        assert await status_of(one, first) == 200
        assert await status_of(another, first) == 404  # which is no reason to forget it
        assert await status_of(stranger, await opened(stranger)) == 200
        assert (await another.post("/mcp", json=INITIALIZE)).status_code == 429
        assert (await one.delete("/mcp", headers=first)).status_code == 200
        assert await status_of(another, await opened(another)) == 200


async def test_request_that_begins_no_session_counts_for_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_EACH", 1)
    async with place.caller() as caller:
        for _ in range(2):
            assert (await caller.post("/mcp", content=b"nonsense", headers={"Content-Type": "application/json"})).status_code == 400
            assert (await caller.get("/mcp", headers={"Accept": "text/event-stream"})).status_code == 400
        session = await opened(caller)
        async with place.client(MODERN) as client:
            await client.request("tools/list")
        assert await status_of(caller, session) == 200


async def test_session_that_was_idle_for_too_long_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_EACH", 1)
    monkeypatch.setattr(http, "IDLE_SECONDS", 0.2)
    async with place_of(world) as place, place.caller() as caller:
        session = await opened(caller)
        assert (await caller.post("/mcp", json=INITIALIZE)).status_code == 429

        async def is_let_in() -> bool:
            return (await caller.post("/mcp", json=INITIALIZE)).status_code == 200

        await world.until(is_let_in)
        assert await status_of(caller, session) == 404


# --- streams ---


@asynccontextmanager
async def listening(caller: httpx.AsyncClient, era: str) -> AsyncIterator[httpx.Response]:
    """A stream that lasts, of either era, once it is open."""
    if era == LEGACY:
        async with caller.stream("GET", "/mcp", headers={**await opened(caller), "Accept": "text/event-stream"}) as stream:
            assert stream.status_code == 200
            yield stream
        return
    envelope = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    params = {"notifications": {"resourcesListChanged": True}, "_meta": envelope}
    body = {"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": params}
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
    async with caller.stream("POST", "/mcp", json=body, headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream"), await stream.aread()
        yield stream


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("ends", ["revoked", "disabled", "expired"])
async def test_open_stream_ends_soon_after_its_token_is_good_no_more(start: Start, era: str, ends: str) -> None:
    clock = ManualClock()
    async with start(clock=clock) as world, place_of(world, recheck_seconds=0.05) as place:
        kim = await world.user("kim")
        async with place.caller(await lasting(world, kim, timedelta(hours=1))) as caller:
            async with asyncio.timeout(30), listening(caller, era) as stream:
                await place.looks_again(times=2)
                match ends:
                    case "revoked":
                        await revoke(world, kim)
                    case "disabled":
                        await world.write(lambda uow: _disable(uow, kim))
                    case _:
                        clock.advance(3_601)
                await stream.aread()

            assert (await caller.post("/mcp", json=INITIALIZE)).status_code == 401


async def lasting(world: World, who: Principal, lifetime: timedelta) -> str:
    """A token that is good for so long."""
    user = await world.read(lambda uow: uow.users.get(who.user_id))
    assert user
    scopes = frozenset({"tasks:read"})
    _, secret = await world.write(lambda uow: identity.create_token(uow, user, "ide", scopes=scopes, lifetime=lifetime))
    return secret


@pytest.mark.parametrize("era", ERAS)
async def test_open_stream_outlives_a_database_that_is_away_for_a_while(world: World, era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_uow: Any, _secret: str) -> Principal:
        raise StorageUnavailable("Away.")

    async with place_of(world, recheck_seconds=0.05) as place, place.caller() as caller, listening(caller, era) as stream:
        authenticate = identity.authenticate
        monkeypatch.setattr(identity, "authenticate", away)
        await place.looks_again(times=2)
        monkeypatch.setattr(identity, "authenticate", authenticate)
        await place.looks_again(times=2)
        place.stopping.set()
        await stream.aread()


@pytest.mark.parametrize("era", ERAS)
async def test_open_streams_end_when_the_process_is_about_to_end(place: Place, era: str, caplog: pytest.LogCaptureFixture) -> None:
    async with place.caller() as caller, asyncio.timeout(30), listening(caller, era) as stream:
        place.stopping.set()
        await stream.aread()  # raises where the end is not told as HTTP has it

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("era", ERAS)
async def test_call_that_waits_answers_with_what_there_is_when_the_process_is_about_to_end(place: Place, era: str) -> None:
    async with asyncio.timeout(30), place.client(era) as client:
        waiting = asyncio.create_task(client.call("send_message", text="Hello", wait_s=55))
        await place.site.world.until(lambda: place.site.world.read(_has_turn))
        place.stopping.set()
        answer = await waiting

    assert not answer.get("isError"), answer
    assert answer["structuredContent"]["state"] == "queued"
    assert "get_reply" in answer["structuredContent"]["next"]


async def _has_turn(uow: Any) -> bool:
    return bool(await uow.turns.open_count())


@pytest.mark.parametrize("era", ERAS)
async def test_progress_comes_while_the_call_goes_on(place: Place, era: str) -> None:
    async with asyncio.timeout(30), place.client(era) as client:
        params = {"name": "send_message", "arguments": {"text": "Hello", "wait_s": 55}, "_meta": {"progressToken": "p"}}
        messages = client.messages("tools/call", params)
        first = await anext(messages)
        assert first["method"] == "notifications/progress"
        assert await place.site.world.read(_has_turn)
        place.stopping.set()
        rest = [message async for message in messages]

    assert "result" in rest[-1]


async def test_question_that_one_process_asked_is_answered_to_another(world: World) -> None:
    task = await world.task("Old")
    async with place_of(world) as one, place_of(world) as other:
        token = await one.site.token(world.admin)
        async with one.client(MODERN, token, capabilities=ELICIT) as asked, other.client(MODERN, token, capabilities=ELICIT) as answered:
            question = await asked.call("delete_task", ref=task.ref)
            (key,) = question["inputRequests"]
            properties = question["inputRequests"][key]["params"]["requestedSchema"]["properties"]
            answer = {"action": "accept", "content": {name: True for name, field in properties.items() if field["type"] == "boolean"}}
            retry = {"name": "delete_task", "arguments": {"ref": task.ref}, "inputResponses": {key: answer}}
            done = await answered.request("tools/call", {**retry, "requestState": question["requestState"]})

    assert not done.get("isError"), done
    assert await world.titles() == []


async def test_state_of_a_question_is_good_only_for_the_token_that_was_asked(place: Place) -> None:
    world = place.site.world
    task = await world.task("Kept")
    async with place.client(MODERN, capabilities=ELICIT) as asked, place.client(MODERN, capabilities=ELICIT) as stranger:
        question = await asked.call("delete_task", ref=task.ref)
        (key,) = question["inputRequests"]
        retry = {
            "name": "delete_task",
            "arguments": {"ref": task.ref},
            "inputResponses": {key: {"action": "accept", "content": {}}},
            "requestState": question["requestState"],
        }
        with pytest.raises(RpcError):
            await stranger.request("tools/call", retry)

    assert await world.titles() == ["Kept"]
