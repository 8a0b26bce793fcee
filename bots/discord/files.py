"""Files that people attach in Discord, fetched from where it keeps them, without the bot's token. Their addresses end after a day."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from discord.http import Route

from bots.discord.client import Client
from bots.discord.failures import translated
from bots.surface import MessageGone, PlaceClosed, Refused, RemoteFile, Unclear, Unreachable
from core.attachments import MAX_BYTES, Upload, too_large
from core.errors import InvalidInput
from core.models import JSON

_HOSTS = frozenset({"cdn.discordapp.com", "media.discordapp.net"})
_CHUNK = 64 * 1024


class _NotThere(Exception):
    """Nothing is at the address, or not any more."""


async def fetched(client: Client, file: RemoteFile) -> Upload:
    """Raises InvalidInput with a sentence for people where it cannot be had, and a SurfaceError where it may be had later."""
    if file.size > MAX_BYTES:
        raise InvalidInput(too_large(file.name, file.size))
    try:
        data = await _downloaded(client, str(file.source.get("url") or ""), file.name)
    except _NotThere:
        data = await _downloaded_anew(client, file)
    return Upload(name=file.name, data=data, media_type=file.media_type)


async def _downloaded_anew(client: Client, file: RemoteFile) -> bytes:
    try:
        return await _downloaded(client, await _new_address(client, file.source), file.name)
    except (_NotThere, MessageGone, PlaceClosed, Refused):
        raise InvalidInput(f"Discord does not give the file {file.name!r} to Onethread. It may have been deleted.") from None


async def _new_address(client: Client, source: JSON) -> str:
    channel_id, message_id = source.get("channel_id"), source.get("message_id")
    if not (channel_id and message_id):
        raise _NotThere
    with translated():
        message = await client.http.get_message(int(channel_id), int(message_id))
    found = next((file for file in _attached({**message}) if str(file.get("id")) == str(source.get("id"))), None)
    if found is None:
        raise _NotThere
    return str(found.get("url") or "")


def _attached(message: JSON) -> Iterator[JSON]:
    yield from message.get("attachments") or ()
    for snapshot in message.get("message_snapshots") or ():
        yield from snapshot["message"].get("attachments") or ()


async def _downloaded(client: Client, url: str, name: str) -> bytes:
    if not _is_discords(url):
        raise InvalidInput(f"The file {name!r} is not kept by Discord, so Onethread does not fetch it. Attach the file itself.")
    try:
        with translated():
            return await _read(client, url, name)
    except Unclear:
        raise Unreachable("Discord did not send the whole file.") from None


async def _read(client: Client, url: str, name: str) -> bytes:
    async with client.http.opened(url) as response:
        if response.status == 429 or response.status >= 500:
            raise Unreachable("Discord does not give files just now.")
        if response.status != 200:
            raise _NotThere
        data = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            data += chunk
            if len(data) > MAX_BYTES:
                raise InvalidInput(too_large(name, max(len(data), response.content_length or 0)))
        return bytes(data)


def _is_discords(url: str) -> bool:
    try:
        address, api = urlsplit(url), urlsplit(Route.BASE)
        if (address.scheme, address.netloc) == (api.scheme, api.netloc):
            return True
        return address.scheme == "https" and address.netloc in _HOSTS
    except ValueError:
        return False
