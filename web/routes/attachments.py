"""Files that came with messages."""

import re
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response

from core import attachments
from core.models import Attachment
from web.credentials import Caller
from web.parameters import no_repeats
from web.services import services_of

router = APIRouter(prefix="/api/attachments", tags=["messages"], dependencies=[Depends(no_repeats)])
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,63}", re.ASCII)
_UNKNOWN = "application/octet-stream"
_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"
"""For whoever opens a file in a browser: a page or picture in it runs nothing, and is no part of our site."""
_SENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file, byte by byte.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "You have it already: `If-None-Match` named its `ETag`."},
}


@router.get("/{attachment_id}", response_class=Response, responses=_SENT)
async def get_attachment(
    request: Request,
    caller: Caller,
    attachment_id: UUID,
    if_none_match: Annotated[str | None, Header(description="An `ETag` that you got before.")] = None,
) -> Response:
    """The bytes of a file, always as a download."""
    async with services_of(request).storage.read() as uow:
        attachment = await attachments.get(uow, caller, attachment_id)
        headers = _headers(attachment)
        if {headers["ETag"], "*"} & _tags(if_none_match):
            return Response(status_code=304, headers=headers)
        data = await uow.attachments.data(attachment.id)
    media_type = attachment.media_type if _MEDIA_TYPE.fullmatch(attachment.media_type) else _UNKNOWN
    return Response(data, headers={**headers, "Content-Type": media_type})


def _headers(attachment: Attachment) -> dict[str, str]:
    return {
        "ETag": f'"{attachment.sha256}"',
        "Cache-Control": "private, no-cache",  # kept, but asked for each time: who may see it can change
        "Content-Disposition": _disposition(attachment.name),
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
    }


def _disposition(name: str) -> str:
    """The name twice (RFC 6266): for old programs in ASCII, for all others as it is."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _tags(if_none_match: str | None) -> set[str]:
    return {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}
