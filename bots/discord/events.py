"""What Discord tells, as a surface's events. Pure: everything is in the payload, which `kept` makes small enough to be stored.

A message is read as Discord's API gives it, which is the same from the gateway, from a channel's history and from an interaction.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bots.surface import Edited, Event, Promoted, RemoteFile, Removed, Said
from core.models import JSON
from core.text import utf16_cut

_DEFAULT, _REPLY = 0, 19
_SAID = frozenset({_DEFAULT, _REPLY})
"""The types of what people say. The others are Discord's own: who joined, what was pinned, the first line of a thread."""
_FORWARD = 1
"""The type of a reference."""
_THREADS = frozenset({10, 11, 12})
"""The types of channels that are threads."""
_KEPT = ("id", "type", "content", "edited_timestamp", "webhook_id", "mention_everyone")
_KEPT_OF_FILES = ("id", "filename", "content_type", "size", "url")
_QUOTED_UNITS = 4_000
"""Of the message that another one replies to, so much is stored with it."""
_EPOCH = 1_420_070_400_000
"""Milliseconds: ids count from here."""
_ID = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where something stands. A thread is a channel by itself in Discord; here it belongs to the one that it is in."""

    guild: str
    """Empty in a direct message."""
    channel: str
    thread: str = ""

    @property
    def id(self) -> str:
        """Of what Discord calls the channel."""
        return self.thread or self.channel


def spot_of(channel: JSON, guild: str = "") -> Spot:
    """Of a channel or a thread, as Discord describes it; `guild` where that is left out."""
    guild = str(channel.get("guild_id") or guild)
    if channel["type"] in _THREADS:
        return Spot(guild=guild, channel=_id(channel["parent_id"]), thread=_id(channel["id"]))
    return Spot(guild=guild, channel=_id(channel["id"]))


def event(payload: JSON, bot_user_id: str) -> Event | None:
    """None for what needs nothing done, and for what is not as Discord describes it."""
    try:
        return _event(payload, bot_user_id)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):  # the last two: of times
        return None


def said(message: JSON, spot: Spot, roles: Collection[str] = ()) -> JSON:
    """What is stored of a message. `roles` are those that are the bot's alone: people pick them where they mean the bot."""
    return {"type": "message", "message": kept(message, roles), **_where(spot)}


def edited(message: JSON, spot: Spot, roles: Collection[str] = ()) -> JSON:
    """What is stored of a message that reads otherwise now."""
    return {"type": "edit", "message": kept(message, roles), **_where(spot)}


def deleted(message_id: str, spot: Spot) -> JSON:
    return {"type": "delete", "id": message_id, **_where(spot)}


def promoted(message: JSON, spot: Spot, *, by: str, interaction: str) -> JSON:
    """What is stored of the wish to make a task of a message."""
    return {"type": "promoted", "by": by, "interaction": interaction, "message": kept(message), **_where(spot)}


def kept(message: JSON, roles: Collection[str] = ()) -> JSON:
    """What `event` reads of a message, and no more. Raises what a message does that is not as Discord describes it."""
    small = {name: message[name] for name in _KEPT if message.get(name) not in (None, "", False)}
    author, reference = message["author"], message.get("message_reference") or {}
    small["author"] = {"id": author["id"], **({"bot": True} if author.get("bot") else {})}
    if mentions := [each["id"] for each in message.get("mentions") or ()]:
        small["mentions"] = mentions
    if called := [role for role in message.get("mention_roles") or () if role not in roles]:
        small["mention_roles"] = called
    if own := [role for role in message.get("mention_roles") or () if role in roles]:
        small["own_roles"] = own
    if files := list(_files(message)):
        small["attachments"] = files
    if reference.get("type", 0) != _FORWARD and message.get("type") == _REPLY and reference.get("message_id"):
        small["answers"] = reference["message_id"]
        answered = message.get("referenced_message") or {}
        small["answered"] = (answered.get("author") or {}).get("id")
        if answered.get("type") in _SAID and (text := _shown(answered)):
            name = names_in(message).get(answered["author"]["id"]) or _name(answered["author"], {})
            small["quoted"] = [name, utf16_cut(text, _QUOTED_UNITS)]
    if names := {**names_in(message.get("referenced_message") or {}), **names_in(message)}:
        small["names"] = names
    if extra := "\n".join(_besides(message)):
        small["extra"] = extra
    return small


def names_in(message: JSON) -> dict[str, str]:
    """Of those whom a message mentions, by id."""
    return {str(each["id"]): _name(each, each.get("member") or {}) for each in message.get("mentions") or ()}


def key(payload: JSON) -> str:
    """Under which an event is stored once, however often and on whichever way it comes."""
    match payload["type"]:
        case "message":
            return f"message:{payload['channel']}:{payload['message']['id']}"
        case "edit":
            return f"edit:{payload['message']['id']}:{payload['message']['edited_timestamp']}"
        case "delete":
            return f"delete:{payload['id']}"
        case "promoted":
            return f"promoted:{payload['interaction']}"
    raise ValueError("Nothing of this type is stored.")


def lane(payload: JSON, *, is_chat: bool, home: str = "") -> str:
    """What must be taken in in order: a thread with its root, or a channel that is itself one conversation.

    `home` is the thread of the conversation that a message at the channel's top goes on with.
    """
    is_flat = is_chat or not payload["guild"]
    message_id = payload["id"] if payload["type"] == "delete" else payload["message"]["id"]
    root = payload["thread"] or home or ("" if is_flat else message_id)
    return f"{payload['channel']}:{root}" if root else str(payload["channel"])


def time_of(message_id: int) -> datetime:
    """When Discord gave this id."""
    return datetime.fromtimestamp(((message_id >> 22) + _EPOCH) / 1000, UTC)


def id_at(moment: datetime) -> int:
    """What ids of this moment are greater than."""
    return max(int(moment.timestamp() * 1000) - _EPOCH, 0) << 22


# --- what is stored --------------------------------------------------------------------------------------------------


def _where(spot: Spot) -> JSON:
    return {"guild": spot.guild, "channel": spot.channel, "thread": spot.thread}


def _files(message: JSON) -> Iterator[JSON]:
    """Each with where it hangs: its address ends after a day, and can be asked for again there."""
    for holder in (message, *_forwarded(message)):
        for file in holder.get("attachments") or ():
            described = {name: file[name] for name in _KEPT_OF_FILES if file.get(name) is not None}
            yield {**described, "channel_id": message.get("channel_id"), "message_id": message["id"]}


def _name(user: JSON, member: JSON) -> str:
    return str(member.get("nick") or user.get("global_name") or user.get("username") or "somebody")


def _shown(message: JSON) -> str:
    """What another message says, its files by name alone."""
    files = (f"[file: {each.get('filename') or 'file'}]" for each in message.get("attachments") or ())
    return "\n".join(filter(None, (message.get("content"), *_besides(message), *files)))


def _forwarded(message: JSON) -> Iterator[JSON]:
    for snapshot in message.get("message_snapshots") or ():
        yield snapshot["message"]


def _besides(message: JSON) -> Iterator[str]:
    """What stands in a message that is no text of its author's."""
    for holder in _forwarded(message):
        yield from (f"> {line}" for line in str(holder.get("content") or "").splitlines())
    for sticker in message.get("sticker_items") or ():
        yield f"(a sticker: {sticker['name']})"
    if poll := message.get("poll"):
        answers = [str((each.get("poll_media") or {}).get("text") or "") for each in poll.get("answers") or ()]
        yield f"(a poll: {poll['question'].get('text', '')} {' / '.join(filter(None, answers))})"


# --- what it tells ---------------------------------------------------------------------------------------------------


def _event(payload: JSON, bot: str) -> Event | None:
    channel, thread = _id(payload["channel"]), _id(payload["thread"]) if payload["thread"] else ""
    match payload["type"]:
        case "delete":
            return Removed(remote_id=_id(payload["id"]), channel=channel, thread=thread)
        case "promoted":
            return Promoted(said=_said(payload, bot), by=_id(payload["by"]))
        case "message" if _is_a_persons(payload["message"], bot):
            return _said(payload, bot)
        case "edit" if _is_a_persons(payload["message"], bot):
            return _edited(payload, bot)
    return None


def _edited(payload: JSON, bot: str) -> Said | Edited:
    """What mentions the bot may do so since the edit."""
    told = _said(payload, bot)
    at = datetime.fromisoformat(payload["message"]["edited_timestamp"]).astimezone(UTC)
    if told.to_bot:
        return replace(told, edited_at=at)
    return Edited(remote_id=told.remote_id, channel=told.channel, thread=told.thread, author=told.author, text=told.text, at=at)


def _said(payload: JSON, bot: str) -> Said:
    message = payload["message"]
    author, answered = _id(message["author"]["id"]), message.get("answered")
    people, own_roles = set(message.get("mentions", ())), message.get("own_roles", [])
    is_direct = not payload["guild"]
    to_others = people - {bot, author} or message.get("mention_roles") or message.get("mention_everyone")
    text = _without_call(message.get("content", ""), bot, own_roles)
    return Said(
        remote_id=_id(message["id"]),
        channel=payload["channel"],
        thread=payload["thread"],
        author=author,
        text="\n".join(filter(None, (text, message.get("extra")))),
        to_bot=is_direct or bot in people or bool(own_roles) or answered == bot,
        to_others=bool(to_others) or answered not in (None, bot, author),
        files=tuple(map(_file, message.get("attachments", ()))),
        answers=_id(message["answers"]) if message.get("answers") else "",
        answered=_quoted(message),
        at=time_of(int(message["id"])),
    )


def _quoted(message: JSON) -> tuple[str, str] | None:
    if not message.get("quoted"):
        return None
    name, text = message["quoted"]
    return str(name), str(text)


def _file(file: JSON) -> RemoteFile:
    name = str(file.get("filename") or file["id"])
    return RemoteFile(name=name, media_type=str(file.get("content_type", "")), size=int(file.get("size", 0)), source=file)


def _without_call(text: str, bot: str, own_roles: Collection[str]) -> str:
    """Without the mention of the bot that it begins with."""
    calls = "|".join([f"<@!?{bot}>", *(f"<@&{_id(role)}>" for role in own_roles)])
    return re.sub(rf"\A\s*(?:(?:{calls})[\s,:]*)+", "", text)


def _is_a_persons(message: JSON, bot: str) -> bool:
    author = message["author"]
    return message.get("type", _DEFAULT) in _SAID and author["id"] != bot and not (author.get("bot") or message.get("webhook_id"))


def _id(value: str) -> str:
    if not (isinstance(value, str) and _ID.fullmatch(value)):
        raise ValueError("This is no id of Discord's.")
    return value
