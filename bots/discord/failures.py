"""What goes wrong between us and Discord, sorted by who can mend it. Discord's own words go no further: of an answer the codes are kept."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Literal

import aiohttp
import discord

from bots.surface import (
    AccountClosed,
    Busy,
    MessageGone,
    NoThread,
    PlaceClosed,
    Refused,
    SurfaceError,
    TooLong,
    Unclear,
    Unreachable,
)

UNKNOWN_MEMBER, UNKNOWN_MESSAGE, UNKNOWN_USER = 10007, 10008, 10013
THREAD_EXISTS = 160004
"""A message has one thread, whose id is the message's."""
THREAD_ARCHIVED = 50083
"""Nothing in it can be changed before it is brought back."""
NO_DIRECT_MESSAGES = frozenset({50007, 50278})
"""This person takes no direct messages from the bot."""
NO_FILES = frozenset({40005, 50013, 50045})
"""The file is too large, or files are not allowed: without it the message may pass."""

_NO_REPLY = 160002
_BUSY: Mapping[int, float] = {
    20016: 5.0,  # slow mode
    20022: 20.0,  # edits in announcement channels
    20028: 5.0,  # writes to the channel
    20029: 5.0,  # writes to the server
    30046: 20.0,  # edits of old messages
    40003: 60.0,  # new direct messages
    40062: 5.0,
}
"""Codes that say so whatever the status, and for how many seconds nothing is tried again."""
_LATER = frozenset({40004, 40006, 40333, 130000})  # nothing was done, and it passes
_TOO_LONG = frozenset({40005, 50045})
_GONE = frozenset({UNKNOWN_MESSAGE, 50005, 50021})
_LENGTH = "BASE_TYPE_BAD_LENGTH", "BASE_TYPE_MAX_LENGTH"

_RIGHTS = (
    "Onethread lacks a permission here. It needs View Channel, Send Messages, Send Messages in Threads and Read Message History: an admin "
    "of the server can grant them to its role."
)
_KIND = "Discord does not let bots write in this kind of channel. Mention Onethread in a text channel."
_FILTER = "This server's automatic moderation blocks what Onethread wants to write here. An admin of the server can exempt its role."
_DIRECT = "This person takes no direct messages from Onethread: they can allow them in the server's privacy settings."
PLACES: Mapping[int, str] = {
    10003: "This channel or thread is not there any more, or Onethread cannot see it.",
    10004: "Onethread is not a member of this server any more.",
    40058: "In this channel everything must stand in a post. Mention Onethread in one.",
    50001: _RIGHTS,
    50007: _DIRECT,
    50008: _KIND,
    50009: "This server's verification level keeps Onethread from writing here.",
    50013: _RIGHTS,
    50024: _KIND,
    50083: "This thread is locked. Unlock it, or start a new one.",
    50278: _DIRECT,
    60003: "This server wants two-factor authentication of the account that owns Onethread's bot.",
    160002: _RIGHTS,
    160005: "This thread is locked. Unlock it, or start a new one.",
    200000: _FILTER,
    240000: "Discord blocks a link in what Onethread wants to write here.",
}
"""What is said where nothing can be written to a place until somebody changes something there, by Discord's code."""

_NO_RIGHT = (
    "Onethread may not make threads in this channel. It needs Create Public Threads, Send Messages in Threads and Read Message History."
)
_NO_KIND = "In this kind of channel there are no threads."
_NO_ROOT = "Discord takes no thread on a message of this kind."
_MANY = "This server has as many active threads as Discord allows. Archive some."
_TITLE = "This server does not allow the words in the thread's title."
_UNKNOWN = "Discord did not make a thread here."
_BECAUSE_OF: Mapping[str, Literal["root", "title"]] = {_NO_ROOT: "root", _UNKNOWN: "root", _TITLE: "title"}
THREADS: Mapping[int, str] = {
    **dict.fromkeys((50001, 50013, 160002), _NO_RIGHT),
    **dict.fromkeys((50003, 50008, 50024, 40058), _NO_KIND),
    **dict.fromkeys((50021, 50068), _NO_ROOT),
    **dict.fromkeys((160006, 160007), _MANY),
    **dict.fromkeys((20031, 200001), _TITLE),
}
"""Why no thread can be made, by Discord's code. The answer then stands in the channel."""

_TOKEN = (
    "Discord does not accept DISCORD_TOKEN. Make a new token under Bot, Reset Token, in the Developer Portal, and set it: docs/discord.md."  # noqa: S105
)
ACCOUNTS: Mapping[int, str] = {
    **dict.fromkeys((401, 40001, 50014, 50025), _TOKEN),
    40002: "Discord wants the account that owns the bot to be verified: sign in there, and do what it asks for.",
}
"""What is said, in the log and by `onethread doctor`, where the bot is not let in any more, by Discord's code or HTTP's."""
NO_API = "What is at ONETHREAD_DISCORD_API_URL is no API of Discord's."
"""Likewise where nobody there knows how to sign in."""


def is_of_reply(error: discord.HTTPException) -> bool:
    """Whether it is only that a message may not be a reply to the other one."""
    return error.code == _NO_REPLY or bool(_codes(error, "message_reference"))


@contextmanager
def translated() -> Iterator[None]:
    """Around calls of Discord: whatever goes wrong with them comes out as a SurfaceError."""
    try:
        yield
    except (discord.DiscordException, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise surface_error(error) from None


@asynccontextmanager
async def calling(seconds: float) -> AsyncIterator[None]:
    """Around the calls that one method makes: together they end in time, and fail as SurfaceErrors."""
    with translated():
        async with asyncio.timeout(seconds):
            yield


def thread_error(error: discord.HTTPException) -> SurfaceError:
    """What it means that a thread was not made: NoThread where only that cannot be."""
    failed = surface_error(error)
    if error.code in THREADS or isinstance(failed, Refused):
        sentence = THREADS.get(error.code, _UNKNOWN)
        return NoThread(sentence, because_of=_BECAUSE_OF.get(sentence, "channel"))
    return failed


def surface_error(error: Exception) -> SurfaceError:
    """What a failed call means for us."""
    match error:
        case discord.RateLimited():
            return Busy(error.retry_after)
        case discord.LoginFailure():
            return AccountClosed(_TOKEN, reason="401")
        case discord.HTTPException():
            return _refused(error)
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return Unreachable("Discord cannot be reached.")
        case aiohttp.InvalidURL():
            return Unreachable("Discord's address, ONETHREAD_DISCORD_API_URL, is none.")
        case _:
            return Unclear("Discord did not answer.")


def _refused(error: discord.HTTPException) -> SurfaceError:
    code, status = error.code, error.status
    if code in _BUSY or status == 429:
        return Busy(_BUSY.get(code, 5.0))
    if code in _LATER:
        return Unreachable("Discord cannot do this just now.")
    if status >= 500 or status < 400 or status == 408:
        return Unclear("Discord failed, and did not say whether it did what it was asked for.")
    if code in _TOO_LONG or status == 413 or _is_too_long(error):
        return TooLong("Discord does not take a message as long as this.")
    if code in _GONE:
        return MessageGone("Discord does not let this message be changed any more.")
    return _closed(code, status)


def _closed(code: int, status: int) -> SurfaceError:
    key = code or status
    if status == 401 or key in ACCOUNTS:
        return AccountClosed(ACCOUNTS.get(key, _TOKEN), reason=str(key))
    if code in PLACES:
        return PlaceClosed(PLACES[code], reason=str(code))
    return Refused(f"Discord did not take what Onethread wanted to write here ({key}).", reason=str(key))


def _is_too_long(error: discord.HTTPException) -> bool:
    """Of an invalid form: whether it is the content that is too long."""
    return any(code in _LENGTH for code in _codes(error, "content"))


def _codes(error: discord.HTTPException, field: str) -> list[str]:
    """What is wrong with a field of an invalid form, by Discord's names."""
    fields = getattr(error, "_errors", None) or {}  # where discord.py keeps it
    return [each["code"] for each in fields.get(field, {}).get("_errors", [])]
