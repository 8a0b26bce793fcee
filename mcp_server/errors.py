"""The surface's one edge: whatever is raised while a request is served becomes what the protocol has for it, once, and of a bounded size.

A tool's error is a result, for its assistant to read; that of any other request is an error of JSON-RPC.
"""

import traceback
from collections.abc import Awaitable
from typing import Any, TypeVar

import structlog
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, CallToolResult, TextContent
from pydantic import ValidationError

from core.errors import Conflict, InvalidInput, NotAuthenticated, NotFound, OnethreadError, RateLimited
from core.ids import new_id
from core.logs import place_of
from core.models import JSON

_MAX_CHARACTERS = 2_000
"""Of each text in an error."""
_OF_THE_CALLER = (InvalidInput, NotFound, NotAuthenticated, Conflict)
_SDK = ("mcp", "mcp_types")
_log = structlog.get_logger()

_T = TypeVar("_T")


# --- requests --------------------------------------------------------------------------------------------------------


async def edge(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware. What nobody foresaw is logged, and shown as one line with a reference."""
    try:
        return await call_next(ctx)
    except MCPError as error:
        raise MCPError(error.error.code, clipped(error.error.message), _bounded(error.error.data)) from None
    except Exception as error:
        if _is_of_the_params(error):
            raise
        if isinstance(error, OnethreadError) and error.code != "INTERNAL":
            raise refusal(error, **_about(ctx)) from None
        raise MCPError(INTERNAL_ERROR, _told(error, ctx.method), _about(ctx) or None) from None


def refusal(error: OnethreadError, **about: str) -> MCPError:
    """Invalid params where the caller can mend it, which is the protocol's error for a resource that is not there, too."""
    data: JSON = {**about, "error_code": error.code}
    if isinstance(error, RateLimited):
        data["retry_after"] = error.retry_after
    return MCPError(INVALID_PARAMS if isinstance(error, _OF_THE_CALLER) else INTERNAL_ERROR, clipped(str(error)), _bounded(data))


def clipped(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def _bounded(data: Any) -> Any:
    match data:
        case str():
            return clipped(data)
        case dict():
            return {name: _bounded(value) for name, value in data.items()}
        case list():
            return [_bounded(each) for each in data]
    return data


def _about(ctx: ServerRequestContext[Any, Any]) -> dict[str, str]:
    """What a client needs to know which of its requests this is about."""
    uri = (ctx.params or {}).get("uri")
    return {"uri": clipped(uri)} if isinstance(uri, str) else {}


def _is_of_the_params(error: Exception) -> bool:
    """Whether the SDK itself found that they do not fit, which it tells in its own way. Of anybody else that is a defect."""
    if not isinstance(error, ValidationError):
        return False
    packages = (frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__))
    return [each for each in packages if each != "pydantic"][-1] in _SDK


# --- tools -----------------------------------------------------------------------------------------------------------


async def shown(call: Awaitable[_T]) -> _T | CallToolResult:
    """What a call comes to, or the result that tells what was wrong."""
    try:
        return await call
    except MCPError:
        raise
    except OnethreadError as error:
        return failed(error)
    except Exception as error:  # noqa: BLE001  # the surface's edge
        return _internal(error)


def failed(error: OnethreadError) -> CallToolResult:
    """What an assistant is told. What nobody outside can mend is logged, and shown as one line with a reference."""
    if error.code == "INTERNAL":
        return _internal(error)
    if not isinstance(error, RateLimited):
        return problem(error.code, str(error))
    seconds = f"{error.retry_after:.0f} s"
    sentence = str(error) if seconds in str(error) else f"{error} Try again in {seconds}."
    return problem(error.code, sentence, {"onethread/retry_after": error.retry_after})


def problem(code: str, sentence: str, about: JSON | None = None) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=clipped(f"{code}: {sentence}"))],
        is_error=True,
        _meta={"onethread/error_code": code, **(about or {})},
    )


def _internal(error: Exception) -> CallToolResult:
    return problem("INTERNAL", _told(error, "tools/call"))


# --- what nobody foresaw ---------------------------------------------------------------------------------------------


def logged(error: Exception, method: str) -> str:
    """Logs where it happened, and gives the reference under which."""
    reference = str(new_id())
    _log.error("mcp.request_failed", method=method, reference=reference, **place_of(error))
    return reference


def _told(error: Exception, method: str) -> str:
    return f"That failed unexpectedly. The log says more under the reference {logged(error, method)}."
