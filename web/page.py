"""The page: its shell at every address that it has, and the files that it is made of. What it shows it gets by API and WebSocket."""

import json
import re
from html import escape
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.routing import Match

from core import identity
from core.errors import NotAuthenticated, NotFound
from web import pages, preloads
from web.credentials import principal_of
from web.files import Files
from web.problems import Problem, problem_of_framework
from web.services import services_of

router = APIRouter(include_in_schema=False)
ADDRESSES = ("/", "/conversations/{id}", "/tasks/{ref}", "/board", "/settings", "/settings/{section}")
"""The page itself reads which it is: `route` in web/static/ui.js."""
_CONVERSATION = preloads.links("app.js", "components/chat.js", sheets=("chat",))
_LINKS = {
    "/": preloads.links("app.js", "components/composer.js"),
    "/conversations/{id}": _CONVERSATION,
    "/tasks/{ref}": _CONVERSATION,
}
_OTHER_LINKS = preloads.links("app.js")
SHELL = "index.html"
_USER = b"$user"
"""Stands in the shell for who is signed in."""
_PLACE_OF_LINKS = b"<!-- $links -->"
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
_FOR_PROGRAMS = ("/api/", "/static/", "/mcp/", "/slack/")
"""Below these nobody is shown a page."""
_files = Files()


@pages.telling_errors
async def shell(request: Request) -> Response:
    """For who is signed in, wherever the link stood that they followed: it holds nothing but their name, and cannot be framed."""
    services = services_of(request)
    try:
        async with services.storage.read() as uow:
            user = await identity.user_of(uow, await principal_of(uow, request, services))
    except NotAuthenticated:
        return RedirectResponse(sign_in_first(request), status_code=303, headers={"Cache-Control": "no-store"})
    file = await _files.get(SHELL)
    if file is None:
        raise NotFound("The page's files are missing. Install Onethread again.")
    about = json.dumps({"id": str(user.id), "name": user.name, "admin": user.admin})
    links = _LINKS.get(request.scope["route"].path, _OTHER_LINKS)
    text = file.data.replace(_PLACE_OF_LINKS, links.encode()).replace(_USER, escape(about).encode())
    return HTMLResponse(text, headers=_SHELL_HEADERS)


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
    if not _tags(request).isdisjoint({found.etag, "*"}):
        return Response(status_code=304, headers=headers)
    if found.gzipped and _GZIP.search(request.headers.get("accept-encoding", "")):
        return Response(found.gzipped, media_type=found.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(found.data, media_type=found.media_type, headers=headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(404, _nowhere)


async def _nowhere(request: Request, error: Exception) -> Response:
    """At an address that no route has: for people a page that says so, or the address without a slash at its end."""
    path: str = request.scope["path"]
    is_for_people = request.method in _METHODS and "text/html" in request.headers.get("accept", "")
    if not is_for_people or f"{path}/".startswith(_FOR_PROGRAMS):
        return await problem_of_framework(request, error)
    if _is_there(request, path.rstrip("/")):
        query = request.scope["query_string"].decode("latin-1")
        return RedirectResponse(quote(path.rstrip("/")) + (f"?{query}" if query else ""))
    return pages.failure(Problem("NOT_FOUND", "There is nothing at this address. Perhaps it was cut off, or mistyped."))


def _is_there(request: Request, path: str) -> bool:
    """Only then it is certain that the path does not lead to another site, as `//host` would."""
    asked = {**request.scope, "path": path, "method": "GET"}
    return any(route.matches(asked)[0] is Match.FULL for route in request.app.router.routes)


def sign_in_first(request: Request) -> str:
    """The address at which a browser signs in and comes back."""
    asked = [request.scope["raw_path"], request.scope["query_string"]]  # as they were sent: decoded they would be another address
    after = b"?".join(filter(None, asked)).decode("latin-1")
    return "/login" if after == "/" else f"/login?next={quote(after, safe='/')}"


def _tags(request: Request) -> set[str]:
    return {each.strip() for each in request.headers.get("if-none-match", "").split(",")}
