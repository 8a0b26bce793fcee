"""Bodies that a route reads by itself, after it knows who sends them: a message, as JSON or as a form with files."""

import json
from collections.abc import Iterable
from email.message import Message as Headers
from typing import Any, Final, NamedTuple, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from core.attachments import MAX_BYTES, MAX_FILES, Upload, too_large
from core.errors import InvalidInput

MAX_JSON_BYTES: Final = 1_000_000
"""Of a request's body. A message has 10,000 characters; only files are larger, and have a limit of their own."""
MAX_FORM_BYTES: Final = MAX_FILES * MAX_BYTES + MAX_JSON_BYTES
FILES: Final = "files"
_MAX_FIELDS = 20
_M = TypeVar("_M", bound=BaseModel)


class Body(NamedTuple):
    fields: Any
    files: tuple[Upload, ...] = ()


async def read(request: Request) -> Body:
    """The body as it came, its fields unchecked. Answers 400, 413 or 415 where it cannot be read."""
    content_type = Headers()
    content_type["Content-Type"] = request.headers.get("content-type", "")
    kind = content_type.get_content_type()
    if kind == "multipart/form-data":
        return await _form(request)
    if kind == "application/json" or kind.endswith("+json"):
        return Body(_json(await _limited(request)))
    raise HTTPException(415)


def checked(kind: type[_M], fields: Any) -> _M:
    """Raises what FastAPI raises for the bodies that it reads."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in errors], body=fields) from None


async def _limited(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise HTTPException(413)
    return bytes(body)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("The body is no JSON. Send an object in UTF-8.") from None


async def _form(request: Request) -> Body:
    async with request.form(max_files=MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=MAX_JSON_BYTES) as form:
        parts = form.multi_items()
        fields = [(name, value) for name, value in parts if isinstance(value, str)]
        uploads = [(name, value) for name, value in parts if isinstance(value, UploadFile)]
        _check_names(fields, uploads)
        return Body(dict(fields), tuple([await _upload(file) for _, file in uploads if file.filename or file.size]))


def _check_names(fields: Iterable[tuple[str, str]], uploads: Iterable[tuple[str, UploadFile]]) -> None:
    names = [name for name, _ in fields]
    if len(set(names)) < len(names):
        raise InvalidInput("A field of the form came more than once. Send each once; only files may come several times.")
    if FILES in names or any(name != FILES for name, _ in uploads):
        raise InvalidInput(f"Send each file as a file in the field {FILES!r}, and all else as text.")


async def _upload(file: UploadFile) -> Upload:
    if (file.size or 0) > MAX_BYTES:  # before it is held in memory
        raise InvalidInput(too_large(file.filename or "", file.size or 0))
    return Upload(name=file.filename or "", data=await file.read(), media_type=file.content_type or "")
