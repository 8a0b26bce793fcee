"""Errors as `application/problem+json` (RFC 9457): `detail` is a sentence for people, `error_code` a stable word for programs."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import NotConfirmed, OnethreadError, RateLimited
from core.ids import new_id
from core.logs import place_of
from core.text import clip

MEDIA_TYPE: Final = "application/problem+json"
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error_code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What went wrong and what to do, for people."},
        "error_code": {"type": "string", "description": "The same for programs; stable."},
        "confirm": {"type": "boolean", "description": "True where the same request with `confirmed` does it: ask the person first."},
    },
    "additionalProperties": True,
}
STATUS: Final[Mapping[str, int]] = {
    "VALIDATION_ERROR": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "CONFLICT": 409,
    "TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "MISDIRECTED": 421,
    "RATE_LIMITED": 429,
    "INTERNAL": 500,
    "AI_SERVICE_ERROR": 502,
    "SERVICE_UNAVAILABLE": 503,
    "TIMEOUT": 504,
}
"""By `error_code`."""
_CODES: Final = {status: code for code, status in STATUS.items()}
_SENTENCES: Final = {
    404: "There is nothing at this address. The addresses are listed in /openapi.json.",
    405: "This address does not take this method. See the header Allow, or /openapi.json.",
    413: "That is too much for one request. Send less.",
    415: "Send JSON, with the header Content-Type: application/json; a message with files goes as multipart/form-data.",
}
_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_MAX_ERRORS: Final = 20
_MAX_PLACE: Final = 200
_log = structlog.get_logger()


class Problem(JSONResponse):
    """`extra` are further members, for example the ids of what was stored all the same."""

    media_type = MEDIA_TYPE

    def __init__(self, error_code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        status = STATUS[error_code]
        content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "error_code": error_code}
        self.detail = detail
        super().__init__({**content, **extra}, status_code=status, headers=headers)


def problem_of(error: OnethreadError) -> Problem:
    """What the caller is told of an error of the core. One that nobody outside can mend is shown as `INTERNAL`."""
    if error.code not in STATUS or error.code == "INTERNAL":
        return internal(error)
    match error:
        case RateLimited():
            return Problem(error.code, str(error), headers=retry_after(error.retry_after))
        case NotConfirmed():
            return Problem(error.code, str(error), confirm=True)
        case _ if error.code == "UNAUTHORIZED":
            return Problem(error.code, str(error), headers={"WWW-Authenticate": "Bearer"})
        case _ if error.code == "SERVICE_UNAVAILABLE":
            return Problem(error.code, str(error), headers=retry_after(1))
        case _:
            return Problem(error.code, str(error))


def internal(error: Exception) -> Problem:
    """Logs where it happened under a reference, and shows nothing but the reference."""
    reference = str(new_id())
    _log.error("request.broke", reference=reference, **place_of(error))
    return Problem("INTERNAL", f"That failed unexpectedly. The log says more under the reference {reference}.", reference=reference)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: it may answer with these Problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": f"{HTTPStatus(status).phrase} (`{_CODES[status]}`)", "content": content} for status in statuses}


def retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def install(app: FastAPI) -> None:
    app.add_exception_handler(OnethreadError, _of_core)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, problem_of_framework)


class OversizeTold:
    """The framework tells in plain text that a body is too large; here that becomes a Problem, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        replaced = False

        async def sending(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 413:
                replaced = True
                await Problem("TOO_LARGE", _SENTENCES[413])(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, sending)


async def _of_core(_request: Request, error: Exception) -> Problem:
    assert isinstance(error, OnethreadError)
    return problem_of(error)


async def _of_validation(_request: Request, error: Exception) -> Problem:
    """Says what is wrong where, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):  # FastAPI parses only what is called JSON
        return Problem("UNSUPPORTED_MEDIA_TYPE", _SENTENCES[415])
    if any(each["loc"][0] == "path" for each in error.errors()):  # what can be no id is the id of nothing
        return Problem("NOT_FOUND", _SENTENCES[404])
    errors = [{"at": clip(".".join(map(str, each["loc"])), _MAX_PLACE), "message": each["msg"]} for each in error.errors()[:_MAX_ERRORS]]
    detail = "; ".join(f"{each['at']}: {each['message']}" for each in errors[:5])
    return Problem("VALIDATION_ERROR", f"The request is not as it should be. {detail}", errors=errors)


async def problem_of_framework(request: Request, error: Exception) -> Problem:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "VALIDATION_ERROR" if error.status_code < 500 else "INTERNAL")
    headers = {"Allow": ", ".join(_methods_at(request))} if error.status_code == 405 else error.headers
    return Problem(code, _SENTENCES.get(error.status_code, str(error.detail)), headers=headers)


def _methods_at(request: Request) -> list[str]:
    """All methods that the address takes: the framework names those of one route only."""
    routes = request.app.router.routes
    return [method for method in _METHODS if any(each.matches({**request.scope, "method": method})[0] is Match.FULL for each in routes)]
