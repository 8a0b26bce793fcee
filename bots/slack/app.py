"""Where Slack talks to us: the listeners, which are the same over HTTP and in Socket Mode, and the two ways in.

A listener stores what came and asks nobody: Slack is answered after the commit. Commands and buttons are obeyed at once; where that takes
longer than Slack waits, the person is told in the end.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import structlog
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncBoltRequest
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.response import BoltResponse
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient

from bots import controls
from bots.commands import Command, Commands
from bots.intake import Intake
from bots.markdown import plain
from bots.people import NO_PLATFORM, People, Stranger
from bots.policy import Policy
from bots.reminders import Reminders
from bots.services import Services
from bots.slack import events
from bots.slack.access import SignedIn
from bots.slack.blocks import ACTION_PREFIX
from bots.slack.text import fallback, from_markdown
from bots.surface import Action, ChatSurface, SurfaceError
from core.errors import StorageUnavailable
from core.ids import new_id
from core.logs import place_of
from core.models import JSON, InboundEvent, Place

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_ACTION = re.compile(re.escape(ACTION_PREFIX) + "([a-z]+)")
_ANYTHING = re.compile(".*", re.DOTALL)
_MAX_BODY = 1024 * 1024
"""Bytes."""
_SECONDS = 2.5
"""Slack waits three for an answer."""
_WATCH_SECONDS = 30.0
_WARNED = timedelta(minutes=1)
"""So long the log does not repeat that the database is away: Slack comes again with everything."""
_MISSED = 2
"""So often in a row Socket Mode may be found without a connection."""
_LINK = "/link"
"""Any other command is the one for tasks, whatever an operator has called it."""
_LATE = "This takes longer than Slack waits. I tell you here how it ended."
_LINE_CHARACTERS = 500
_BROKEN = "Something went wrong here. Try again; if that fails too, tell an admin of Onethread."
_GONE = {"tokens_revoked": "its token was revoked", "app_uninstalled": "the app was removed from the workspace"}
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """What the listeners work with."""

    services: Services
    surface: ChatSurface
    who: SignedIn
    policy: Policy
    people: People
    commands: Commands
    intake: Intake
    tasks: asyncio.TaskGroup
    """Owns what goes on after Slack was answered."""


def slack_app(listening: Listening) -> AsyncApp:
    """Answers Slack's requests, whichever way they come; those of other workspaces with nothing."""
    who, reminders = listening.who, Reminders(listening.services.clock)

    async def authorize() -> AuthorizeResult:
        # Without the token: no listener calls Slack, so bolt has no use for it.
        return AuthorizeResult(enterprise_id=None, team_id=who.team_id, bot_user_id=who.bot_user_id)

    async def only_ours(context: AsyncBoltContext, ack: AsyncAck, next: Callable[[], Awaitable[None]]) -> BoltResponse | None:
        if context.team_id == who.team_id:
            await next()
            return None
        return await ack()

    async def failed(error: Exception) -> BoltResponse:
        if not isinstance(error, StorageUnavailable):
            _log.error("slack.listener_failed", **place_of(error))
            return BoltResponse(status=500)
        if reminders.may_tell("storage", _WARNED):
            _log.warning("slack.storage_unavailable", reason=str(error))
        return BoltResponse(status=503)

    app = AsyncApp(
        name="slack_bolt.listeners",
        client=AsyncWebClient(),
        authorize=authorize,
        process_before_response=True,
        request_verification_enabled=False,  # `Endpoint` has done it, before it parsed anything
        attaching_conversation_kwargs_enabled=False,
    )
    app.middleware(only_ours)
    app.error(failed)
    _listen(app, listening)
    return app


def _listen(app: AsyncApp, listening: Listening) -> None:
    @app.event(_ANYTHING)
    async def heard(body: JSON) -> None:
        await _heard(listening, body)

    @app.shortcut(_ANYTHING)
    async def promoted(ack: AsyncAck, body: JSON) -> None:
        if body["type"] == "message_action" and body["callback_id"] == events.MAKE_TASK:
            await _store(listening, events.pressed(body), f"{body['callback_id']}:{body['action_ts']}:{body['user']['id']}")
        await ack()

    @app.action(_ANYTHING)
    async def pressed(ack: AsyncAck, body: JSON) -> None:
        place, person = _place(listening, body["channel"]["id"], (body.get("message") or {}).get("thread_ts") or ""), body["user"]["id"]
        for action in body["actions"]:
            if refusal := await _in_time(listening, place, person, _pressed(listening, place, person, action)):
                listening.tasks.create_task(_tell(listening.surface, place, person, refusal), name="slack.tell")
        await ack()

    @app.command(_ANYTHING)
    async def commanded(ack: AsyncAck, body: JSON) -> None:
        place, person = _place(listening, body["channel_id"], body.get("thread_ts") or ""), body["user_id"]
        command = Command(text=body.get("text", ""), person=person, place=place, event_id=body["trigger_id"])
        obeyed = listening.commands.link(command) if body["command"] == _LINK else listening.commands.run(command)
        answer = await _in_time(listening, place, person, obeyed)
        text = from_markdown(_LATE if answer is None else answer, {})  # with nobody's name: it mentions nobody
        await ack(text=fallback(text), response_type="ephemeral")


async def _heard(listening: Listening, body: JSON) -> None:
    event = body["event"]
    if gone := _GONE.get(event["type"]):
        _log.error("slack.signed_out", reason=gone)
    await _store(listening, events.kept(event), body["event_id"])


async def _store(listening: Listening, payload: JSON, event_id: str) -> None:
    told = listening.surface.event(payload)
    if told is None:
        return
    account = listening.surface.account
    async with listening.services.storage.write() as uow:
        event = InboundEvent(
            id=new_id(),
            surface=account.surface,
            account=account.id,
            key=events.key(payload, event_id),
            lane=events.lane(told, lambda channel: listening.policy.rules(channel).mode == "chat"),
            payload=payload,
            attempts=0,
            run_after=uow.now,
            waits=False,
            received_at=uow.now,
        )
        if not await uow.inbound.add(event) and payload.get("files"):
            await uow.inbound.complete(event)  # of the two forms of a mention the one with the files may come second
    listening.intake.wake()


async def _pressed(listening: Listening, place: Place, person: str, action: JSON) -> str:
    """Why nothing was done; empty where it was."""
    found = _ACTION.match(action["action_id"])
    if found is None or found[1] not in list(Action):
        return ""
    try:
        principal = await listening.people.admit(person, place.channel)
        return await controls.press(listening.services, principal, place, Action(found[1]), str(action.get("value")))
    except Stranger as refusal:
        return str(refusal)
    except StorageUnavailable as error:
        return str(error)
    except SurfaceError:
        return NO_PLATFORM


async def _in_time(listening: Listening, place: Place, person: str, work: Awaitable[str]) -> str | None:
    """What `work` gives. None where it takes longer than Slack waits: then it goes on, and the person is told in the end."""
    answer = listening.tasks.create_task(_safely(work), name="slack.answer")
    await asyncio.wait({answer}, timeout=_SECONDS)
    if answer.done():
        return answer.result()
    listening.tasks.create_task(_tell_later(listening.surface, place, person, answer), name="slack.tell")
    return None


async def _safely(work: Awaitable[str]) -> str:
    try:
        return await work
    except Exception as error:  # noqa: BLE001  # the outermost of what one person asked for: it must not end the others
        _log.error("slack.answer_failed", **place_of(error))
        return _BROKEN


async def _tell_later(surface: ChatSurface, place: Place, person: str, answer: Awaitable[str]) -> None:
    lines = [plain(line, _LINE_CHARACTERS) for line in (await answer).splitlines()]  # this way there is no markup
    if any(lines):
        await _tell(surface, place, person, "\n".join(lines))


async def _tell(surface: ChatSurface, place: Place, person: str, sentence: str) -> None:
    try:
        await surface.tell(place, person, sentence)
    except SurfaceError as error:
        _log.warning("slack.not_told", error=type(error).__name__)
    except Exception as error:  # noqa: BLE001  # nobody waits for it, and it must not end what else is served
        _log.error("slack.not_told", **place_of(error))


def _place(listening: Listening, channel: str, thread: str) -> Place:
    return Place(account=listening.surface.account, channel=channel, thread=thread)


# --- over HTTP -------------------------------------------------------------------------------------------------------


class Endpoint:
    """The Request URL, an ASGI application. Until it is `ready` it asks Slack to come again."""

    def __init__(self, signing_secret: str) -> None:
        self._verifier = SignatureVerifier(signing_secret)
        self._app: AsyncApp | None = None
        self.ready = asyncio.Event()

    def serve(self, app: AsyncApp) -> None:
        """Has `app` answer from now on."""
        self._app = app
        self.ready.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._response(scope, receive)
        headers = [(name.encode(), value.encode()) for name, values in response.headers.items() for value in values]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body.encode()})

    async def _response(self, scope: Scope, receive: Receive) -> BoltResponse:
        if scope["method"] != "POST":
            return BoltResponse(status=405)
        body = await _body(receive)
        if body is None:
            return BoltResponse(status=413)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_slacks(body, headers):
            return BoltResponse(status=401)
        payload = _parsed(body, headers.get("content-type", ""))
        if payload is None:
            return BoltResponse(status=400)
        if not events.is_described(payload):
            _log.info("slack.ignored")
            return BoltResponse(status=200)
        if self._app is None:
            return BoltResponse(status=503)
        # As in Socket Mode: bolt's own parser takes a command for nothing that has the word "payload" in it.
        return await self._app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=payload, headers=dict(headers)))

    def _is_slacks(self, body: bytes, headers: dict[str, str]) -> bool:
        try:
            return self._verifier.is_valid_request(body, headers)
        except (TypeError, ValueError):  # by which the verifier meets a time that is no number, and letters that no signature has
            return False


async def _body(receive: Receive) -> bytes | None:
    """None for one that is too large, or was cut short."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > _MAX_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _parsed(body: bytes, content_type: str) -> JSON | None:
    try:
        if content_type.startswith("application/x-www-form-urlencoded"):
            form = dict(parse_qsl(body.decode(), keep_blank_values=True))
            found = json.loads(form["payload"]) if "payload" in form else form
        else:
            found = json.loads(body)
    except (ValueError, RecursionError):  # the latter: of what is nested too deep
        return None
    return found if isinstance(found, dict) else None


# --- in Socket Mode --------------------------------------------------------------------------------------------------


async def listen_by_socket(app: AsyncApp, client: AsyncWebClient, app_token: str) -> None:
    """Until cancelled. The SDK connects again by itself; where that does not help, this raises ConnectionError."""
    handler = AsyncSocketModeHandler(app, app_token, web_client=client, logger=logging.getLogger("slack_sdk.socket_mode"))
    missed = 0
    try:
        await handler.connect_async()  # type: ignore[no-untyped-call]
        _log.info("slack.connected")
        while missed < _MISSED:
            await asyncio.sleep(_WATCH_SECONDS)
            missed = 0 if await handler.client.is_connected() else missed + 1
        raise ConnectionError("Socket Mode did not come back by itself.")
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]


# --- logs ------------------------------------------------------------------------------------------------------------


class _WithoutTexts(logging.Handler):
    """The libraries' entries quote messages, tokens and addresses with tickets: only where they come from is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        where = {"logger": record.name, "function": record.funcName, "line": record.lineno}
        _log.warning("slack.library", **where, **(place_of(error) if error else {}))


def quieten() -> None:
    """Lets nothing that people wrote, and no secret, reach the log by way of Slack's libraries."""
    for name in ("slack_bolt", "slack_sdk"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [_WithoutTexts(logging.WARNING)]
        logger.propagate = False
