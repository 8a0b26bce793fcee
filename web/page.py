"""The page: its shell at every address that it has, and the files that it is made of. What it shows it gets by API and WebSocket."""

import json
import re
from html import escape
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from core import identity
from core.errors import NotAuthenticated, NotFound
from web import pages
from web.credentials import principal_of
from web.files import Files
from web.services import services_of

router = APIRouter(include_in_schema=False)
ADDRESSES = ("/", "/conversations/{id}", "/tasks/{ref}", "/board", "/settings", "/settings/{section}")
"""The page itself reads which it is: web/static/router.js."""
SHELL = "index.html"
_USER = b"$user"
"""Stands in the shell for who is signed in."""
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",  # which covers ws:// and wss:// of this host, too
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
_SHELL_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Not `no-referrer`: with that a browser hides from our own server, too, where a form comes from.
    "Referrer-Policy": "same-origin",
    # Not `no-cache`: going back after signing out must not bring back what the page showed.
    "Cache-Control": "no-store",
}
_FILE_HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
"""Asked for each time, and mostly answered by a 304: after an upgrade no browser mixes old files with new ones."""
_GZIP = re.compile(r"(?:^|,)\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[\d.]+\s*)?(?:,|$)", re.IGNORECASE)
"""Whether a browser takes it, which all do; `gzip;q=0` refuses it."""
_METHODS = ["GET", "HEAD"]
_files = Files()


@pages.telling_errors
async def shell(request: Request) -> Response:
    """For who is signed in, wherever the link stood that they followed: it holds nothing but their name, and cannot be framed."""
    services = services_of(request)
    try:
        async with services.storage.read() as uow:
            user = await identity.user_of(uow, await principal_of(uow, request, services))
    except NotAuthenticated:
        return RedirectResponse(_sign_in(request), status_code=303, headers={"Cache-Control": "no-store"})
    file = await _files.get(SHELL)
    if file is None:
        raise NotFound("The page's files are missing. Install Onethread again.")
    about = json.dumps({"id": str(user.id), "name": user.name, "admin": user.admin})
    return HTMLResponse(file.data.replace(_USER, escape(about).encode()), headers=_SHELL_HEADERS)


for address in ADDRESSES:
    router.add_api_route(address, shell, methods=_METHODS)


@router.api_route("/static/{path:path}", methods=_METHODS)
async def file(request: Request) -> Response:
    """For everybody: it is the same in every Onethread of this version."""
    path = request.path_params["path"]
    found = await _files.get(path) if path != SHELL else None
    if found is None:
        raise NotFound("There is no such file.")
    headers = {**_FILE_HEADERS, "ETag": found.etag}
    if found.etag in _tags(request):
        return Response(status_code=304, headers=headers)
    if found.gzipped and _GZIP.search(request.headers.get("accept-encoding", "")):
        return Response(found.gzipped, media_type=found.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(found.data, media_type=found.media_type, headers=headers)


def _sign_in(request: Request) -> str:
    asked = [request.scope["raw_path"], request.scope["query_string"]]  # as they were sent: decoded they would be another address
    after = b"?".join(filter(None, asked)).decode("latin-1")
    return "/login" if after == "/" else f"/login?next={quote(after, safe='/')}"


def _tags(request: Request) -> set[str]:
    return {each.strip() for each in request.headers.get("if-none-match", "").split(",")}
