"""The REST server: every call is recorded, disturbed as bidden, authorised, limited, and then done by a function of routes_*.py."""

import asyncio
import json
import math
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.emulators.discord.errors import ApiError, Limited, invalid, plain, refusal
from tests.emulators.discord.faults import Fault, Faults
from tests.emulators.discord.limits import Verdict
from tests.emulators.discord.objects import Attachment, Call
from tests.emulators.discord.state import World

JSON = dict[str, Any]
VIA = {"Via": "1.1 google", "Server": "cloudflare"}
_IDS = ("channel", "message", "guild", "user", "thread")


@dataclass(slots=True)
class Ask:
    """One call, for the function that does it."""

    world: World
    params: dict[str, str]
    query: dict[str, str]
    body: Any
    files: list[Attachment] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.params[name]


Handler = Callable[[Ask], Any]


@dataclass(slots=True, frozen=True)
class Route:
    """`name` is also that of its limit, where there is one. `open`: without the bot's token, and outside the global limit."""

    method: str
    path: str
    name: str
    handler: Handler
    open: bool = False


class _Cut(Exception):
    """The connection ends without an answer."""


class Rest:
    def __init__(self, world: World, routes: list[Route], faults: Faults) -> None:
        self.world = world
        self.routes = routes
        self.faults = faults

    def add_to(self, app: web.Application) -> None:
        for route in self.routes:
            app.router.add_route(route.method, f"/api/v10{route.path}", self._handler(route))
        app.router.add_get("/attachments/{channel}/{attachment}/{name}", self._attachment)
        app.router.add_route("*", "/api/{rest:.*}", self._unknown)

    def _handler(self, route: Route) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            path = request.path.removeprefix("/api/v10")
            channel = request.match_info.get("channel", "")
            call = Call(route.method, route.name, route.path, path, channel, _now(), dict(request.query))
            self.world.calls.append(call)
            self.world.touch()
            try:
                response = await self._done(request, route, call)
            except _Cut:
                response = web.Response(status=500)
                if request.transport:
                    request.transport.abort()
            else:
                call.status = response.status
            call.ended_at = _now()
            self.world.touch()
            return response

        return handle

    async def _done(self, request: web.Request, route: Route, call: Call) -> web.Response:
        body, files = await self._read(request)
        call.json = body if isinstance(body, dict) else {"_": body}
        call.files = [file.filename for file in files]
        broken = await self._disturbed(route, call, after=False)
        if broken is not None:
            return broken
        response = self._answered(request, route, call, body, files)
        broken = await self._disturbed(route, call, after=True)
        return broken if broken is not None else response

    def _answered(self, request: web.Request, route: Route, call: Call, body: Any, files: list[Attachment]) -> web.Response:
        headers = dict(VIA)
        try:
            if not route.open and request.headers.get("Authorization") != f"Bot {self.world.token}":
                raise plain(401, "Unauthorized")
            verdict = self._limited(route, request)
            headers |= verdict.headers
            if verdict.retry_after is not None:
                return _too_many(verdict.retry_after, headers, everywhere=verdict.everywhere)
            _check_ids(request.match_info)
            if body is ...:
                raise refusal(50109)
            if sum(len(file.content) for file in files) > self.world.max_upload:
                raise refusal(40005)
            done = route.handler(Ask(self.world, dict(request.match_info), dict(request.query), body, files))
        except ApiError as error:
            call.code = int(error.body.get("code", 0))
            return _json(error.status, error.body, headers)
        except Limited as limit:
            call.code = limit.code
            return _too_many(limit.retry_after, headers, code=limit.code)
        return web.Response(status=204, headers=headers) if done is None else _json(200, done, headers)

    def _limited(self, route: Route, request: web.Request) -> Verdict:
        limits = self.world.limits
        limits.clock_offset = self.world.clock_offset
        if not route.open:
            wait = limits.spend("global", "")
            if wait is not None:
                return Verdict({"X-RateLimit-Global": "true"}, wait, everywhere=True)
        found = request.match_info
        major = "/".join(found[key] for key in ("channel", "guild", "interaction", "webhook", "token") if key in found)
        own = route.name in set(limits)
        return limits.take(route.name if own else "other", major if own else f"{route.name} {major}")

    async def _disturbed(self, route: Route, call: Call, *, after: bool) -> web.Response | None:
        """The answer to give in place of the call's own."""
        for fault in self.faults.take(call.method, route.name, route.path, call.path, after=after):
            if fault.seconds is not None:
                await asyncio.sleep(fault.seconds)
                continue
            if fault.status is None:
                raise _Cut
            call.code = fault.code
            return _failure(fault)
        return None

    async def _read(self, request: web.Request) -> tuple[Any, list[Attachment]]:
        """The body (... where it is no JSON) and the files of a call."""
        if request.content_type == "multipart/form-data":
            return await self._read_form(request)
        text = await request.text()
        try:
            return (json.loads(text) if text else {}), []
        except ValueError:
            return ..., []

    async def _read_form(self, request: web.Request) -> tuple[Any, list[Attachment]]:
        form = await request.post()
        body, files = json.loads(str(form.get("payload_json", "{}"))), []
        for name, part in form.items():
            if isinstance(part, web.FileField) and name.startswith("files["):
                guessed = mimetypes.guess_type(part.filename)[0] or "application/octet-stream"
                media_type = guessed if part.content_type == "application/octet-stream" else part.content_type
                files.append(Attachment(self.world.snowflake(), part.filename, media_type, part.file.read()))
        return body, files

    async def _attachment(self, request: web.Request) -> web.StreamResponse:
        found = self.world.attachments.get(request.match_info["attachment"])
        if found is None or request.query.get("hm") is None:
            return web.Response(status=404, text="This content is no longer available.")
        return web.Response(body=found.content, headers={"Content-Type": found.media_type})

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, "", "", request.path, "", _now(), dict(request.query), status=404, ended_at=_now())
        self.world.calls.append(call)
        return _json(404, {"message": "404: Not Found", "code": 0}, dict(VIA))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _check_ids(params: Any) -> None:
    for name in _IDS:
        value = params.get(name)
        if value is not None and not value.isdecimal():
            raise invalid(f"{name}_id", "NUMBER_TYPE_COERCE", f'Value "{value}" is not snowflake.')


def _json(status: int, body: Any, headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), headers={**headers, "Content-Type": "application/json"})


def _too_many(retry_after: float, headers: dict[str, str], *, code: int = 0, everywhere: bool = False) -> web.Response:
    message = refusal(code).body["message"] if code else "You are being rate limited."
    body = {
        "message": message,
        "retry_after": math.ceil(retry_after * 1000) / 1000,
        "global": everywhere,
        **({"code": code} if code else {}),
    }
    scope = {"Retry-After": str(math.ceil(retry_after)), "X-RateLimit-Scope": "global" if everywhere else "user"}
    return _json(429, body, {**headers, **scope})


def _failure(fault: Fault) -> web.Response:
    """What Discord, or Cloudflare before it, says to such a call."""
    status = fault.status or 500
    via = VIA if fault.via else {}
    if status == 429:
        wait = fault.retry_after if fault.retry_after is not None else 1.0
        if not fault.via:
            return web.Response(status=429, text="error code: 1015", headers={"Retry-After": str(math.ceil(wait))})
        return _too_many(wait, dict(via), code=fault.code, everywhere=fault.everywhere)
    if status in (502, 503, 504, 520, 524) and not fault.code:
        return web.Response(status=status, text=f"error code: {status}", headers=via)
    if fault.code and not fault.message:
        body = refusal(fault.code).body
    else:
        body = {"message": fault.message or f"{status}: {_REASONS.get(status, 'Error')}", "code": fault.code}
    return _json(status, body, dict(via))


_REASONS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error"}
