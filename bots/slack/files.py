"""Files that people attach in Slack, fetched with the bot's token, which is shown to nobody but Slack."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urljoin, urlsplit

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.failures import translated
from bots.surface import AccountClosed, PlaceClosed, Refused, RemoteFile, Unclear, Unreachable
from core.attachments import MAX_BYTES, Upload, too_large
from core.errors import InvalidInput

_SLACK = "slack.com"
_REDIRECTS = 3
_CHUNK = 64 * 1024


async def fetched(client: AsyncWebClient, file: RemoteFile) -> Upload:
    """Raises InvalidInput with a sentence for people where it cannot be had, and a SurfaceError where it may be had later."""
    if file.source.get("file_access") == "check_file_info":  # in Slack Connect an event has no more of it than its id
        file = await _looked_up(client, file)
    if file.size > MAX_BYTES:
        raise InvalidInput(too_large(file.name, file.size))
    try:
        with translated():
            data = await _downloaded(client, file)
    except Unclear:
        raise Unreachable("Slack did not send the whole file.") from None
    return Upload(name=file.name, data=data, media_type=file.media_type)


async def _looked_up(client: AsyncWebClient, file: RemoteFile) -> RemoteFile:
    try:
        with translated():
            found = (await client.files_info(file=str(file.source.get("id"))))["file"]
    except (PlaceClosed, Refused):
        raise InvalidInput(_refused(file.name)) from None
    except AccountClosed as error:
        if error.reason in ("access_denied", "missing_scope"):
            raise InvalidInput(_unscoped(file.name) if error.reason == "missing_scope" else _refused(file.name)) from None
        raise
    source = {"url_private": found.get("url_private")}
    name, media_type, size = found.get("name") or file.name, found.get("mimetype") or "", found.get("size") or 0
    return RemoteFile(name=str(name), media_type=str(media_type), size=int(size), source=source)


async def _downloaded(client: AsyncWebClient, file: RemoteFile) -> bytes:
    async with _opened(client, file) as response:
        if response.status == 429 or response.status >= 500:
            raise Unreachable("Slack does not give files just now.")
        if response.status != 200:
            raise InvalidInput(_refused(file.name))
        data = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            data += chunk
            if len(data) > MAX_BYTES:
                raise InvalidInput(too_large(file.name, max(len(data), response.content_length or 0)))
        if response.content_type == "text/html" and (file.media_type != "text/html" or len(data) != file.size):
            raise InvalidInput(_unscoped(file.name))  # what came is the page where people sign in
        return bytes(data)


@asynccontextmanager
async def _opened(client: AsyncWebClient, file: RemoteFile) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer at the file's address, or where that leads; asked with the token, and so of Slack alone."""
    assert client.session
    url = str(file.source.get("url_private") or "")
    for _ in range(_REDIRECTS):
        if not _is_slacks(url, client.base_url):
            raise InvalidInput(f"The file {file.name!r} is not kept by Slack, so Onethread does not fetch it. Attach the file itself.")
        headers = {"Authorization": f"Bearer {client.token}"}
        async with client.session.get(url, headers=headers, allow_redirects=False, raise_for_status=False) as response:
            if not 300 <= response.status < 400:
                yield response
                return
            url = _joined(url, response.headers.get("Location", ""))
    raise InvalidInput(_refused(file.name))


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _is_slacks(url: str, api_url: str) -> bool:
    try:
        address, api = urlsplit(url), urlsplit(api_url)
        if "@" in address.netloc:  # Slack's have none, and not everybody reads them alike
            return False
        host = address.hostname or ""
        if (address.scheme, host, address.port) == (api.scheme, api.hostname, api.port):
            return True
        known = (_SLACK, api.hostname or _SLACK)
        return address.scheme == "https" and address.port in (None, 443) and f".{host}".endswith(tuple(f".{each}" for each in known))
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def _refused(name: str) -> str:
    return f"Slack does not give the file {name!r} to Onethread. It may have been deleted."


def _unscoped(name: str) -> str:
    return f"Slack does not give the file {name!r} to Onethread: the app lacks the scope files:read."
