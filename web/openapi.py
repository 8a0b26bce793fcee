"""The API's description, /openapi.json: what FastAPI derives of the routes, made true in what it cannot know."""

from collections.abc import Iterator
from importlib.metadata import version as version_of
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from core.attachments import MAX_FILES
from core.frames import FrameEvent
from web import problems
from web.bodies import FILES
from web.problems import documented

JSON = dict[str, Any]
_METHODS = ("get", "put", "post", "delete", "patch")
_DESCRIPTION = """\
Messages are stored first and answered by a model afterwards: a reply that takes longer than a request is not lost, see
`GET /api/turns/{turn_id}`.

Send a personal token (`onethread token create NAME`) or one of `POST /api/auth/token` as `Authorization: Bearer ...`. The scopes of a
token say what it may do: `chat`, `tasks:read`, `tasks:write`, `admin`. What you may not see is answered like what does not exist, with 404.

Every error is an `application/problem+json` with a `detail` for people and an `error_code` for programs. The live WebSocket `/ws` is
described in docs/protocol.md.
"""


EVENT_NAMES: tuple[FrameEvent, ...] = (
    "new_message",
    "llm_delta",
    "tool_call",
    "turn_changed",
    "agent_status",
    "llm_complete",
    "llm_error",
    "conversation_deleted",
)
EVENTS: JSON = {
    "description": "The events, as long as there are some.",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "description": "One of the events.",
                "required": ["event", "data"],
                "properties": {
                    "event": {"enum": [*EVENT_NAMES]},
                    "data": {"type": "string", "contentMediaType": "application/json"},
                    "id": {"type": "string", "pattern": r"^[0-9]+\.[0-9]+$", "description": "`<stream_no>.<offset after it>`"},
                },
            }
        }
    },
}
"""For the `responses` of a route that streams."""


def form_or_json(kind: type[BaseModel]) -> JSON:
    """A body that is such an object, or a form with its fields and files."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_FILES, "description": "At most 10 MB each."}
    fields = {name: _of_text(each) for name, each in schema["properties"].items()}
    form = {**schema, "title": f"{schema['title']}Form", "properties": {**fields, FILES: files}}
    return {"required": True, "content": {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}}


def version() -> str:
    return version_of("onethread")


def operation_id(route: APIRoute) -> str:
    """What generated clients call it: as the function is called here."""
    return route.name


def install(app: FastAPI) -> None:
    """Replaces the app's own description, which is made once, when somebody asks for it."""

    def described() -> JSON:
        if app.openapi_schema is None:
            app.openapi_schema = _corrected(
                get_openapi(title=app.title, version=app.version, summary=app.summary, description=_DESCRIPTION, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way


def _corrected(description: JSON) -> JSON:
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = problems.SCHEMA
    for path, operation in _operations(description):
        _add_problems(path, operation)
    return description


def _of_text(schema: JSON) -> JSON:
    """Without null, which a form cannot tell from a text."""
    kinds = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    return {**{name: value for name, value in schema.items() if name not in ("anyOf", "default")}, **kinds[0]} if kinds else schema


def _operations(description: JSON) -> Iterator[tuple[str, JSON]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            if method in _METHODS:
                yield path, operation


def _add_problems(path: str, operation: JSON) -> None:
    """What any operation of its kind may answer; a route names only what is its own."""
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's; here it is a 400
    statuses = [421, 500, 503]
    if operation.get("parameters") or "requestBody" in operation:
        statuses.append(400)
    if "requestBody" in operation:
        statuses += [413, 415]
    if operation.get("security"):
        statuses += [401, 403]
    if "{" in path:
        statuses.append(404)
    for status, response in documented(*statuses).items():
        responses.setdefault(str(status), response)
    operation["responses"] = dict(sorted(responses.items()))
