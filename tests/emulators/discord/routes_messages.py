"""Calls about messages: reading, posting, changing and deleting them, and typing."""

import asyncio
from typing import Any

from tests.emulators.discord import forms, shapes, talk
from tests.emulators.discord.errors import Limited, Problems, invalid, refusal, whole
from tests.emulators.discord.objects import (
    COMPONENTS_V2,
    SUPPRESS_EMBEDS,
    SUPPRESS_NOTIFICATIONS,
    SYSTEM,
    Attachment,
    Channel,
    Kind,
    Message,
    Said,
)
from tests.emulators.discord.rest import Ask, Route
from tests.emulators.discord.state import World

JSON = dict[str, Any]
OLD_SECONDS = 3600


def routes() -> list[Route]:
    messages = "/channels/{channel}/messages"
    return [
        Route("GET", messages, "message.list", list_),
        Route("POST", messages, "message.create", create),
        Route("GET", f"{messages}/{{message}}", "message", get),
        Route("PATCH", f"{messages}/{{message}}", "message.edit", edit),
        Route("DELETE", f"{messages}/{{message}}", "message.delete", delete),
        Route("POST", "/channels/{channel}/typing", "typing", type_),
    ]


def shown(world: World, message: Message) -> JSON:
    """As REST gives it to the bot."""
    return shapes.message(world, message, nonce=world.nonce_in_history, stripped=shapes.hidden(world, message))


def list_(ask: Ask) -> list[JSON]:
    """The newest first; `after` gives those right after, the newest of them first."""
    world, channel = ask.world, _text_channel(ask)
    world.demand(channel)
    limit = whole(ask.query, "limit", default=50, least=1, most=100)
    ids = {name: _snowflake(ask.query[name], name) for name in ("before", "after", "around") if name in ask.query}
    if len(ids) > 1:
        raise invalid("before", "MESSAGE_GET_EXCLUSIVE", "Only one of before, after and around can be given")
    if not world.may(channel, world.bot, "READ_MESSAGE_HISTORY"):
        return []
    found = sorted(channel.messages.values(), key=lambda one: int(one.id))
    if "after" in ids:
        found = [one for one in found if int(one.id) > ids["after"]][:limit]
    elif "around" in ids:
        older = [one for one in found if int(one.id) < ids["around"]][-(limit // 2) :]
        rest = [one for one in found if int(one.id) >= ids["around"]]
        found = older + rest[: limit - len(older)]
    elif "before" in ids:
        found = [one for one in found if int(one.id) < ids["before"]][-limit:]
    else:
        found = found[-limit:]
    oldest_first = world.other_server and "after" in ids
    return [shown(world, one) for one in (found if oldest_first else reversed(found))]


def get(ask: Ask) -> JSON:
    channel = ask.world.channel_of(ask["channel"])
    ask.world.demand(channel, "READ_MESSAGE_HISTORY")
    return shown(ask.world, ask.world.message_in(channel, ask["message"]))


def create(ask: Ask) -> JSON:
    world, channel, body = ask.world, _text_channel(ask), ask.body
    demand_speech(world, channel)
    if ask.files:
        world.demand(channel, "ATTACH_FILES")
    forms.message(body)
    if body.get("enforce_nonce") and (known := _repeated(world, body.get("nonce"))):
        return shapes.message(world, known, nonce=True)
    reference = _reference(world, channel, body.get("message_reference"))
    if _empty(body, ask.files):
        raise refusal(50006)
    if channel.recipient and not _takes_dms(world, channel):
        raise refusal(50007)
    if channel.locked and not world.may(channel, world.bot, "MANAGE_THREADS"):
        raise refusal(50083 if channel.archived else 160005)
    message = post(world, channel, body, ask.files, reference=reference)
    return shapes.message(world, message, nonce=True)


def post(world: World, channel: Channel, body: JSON, files: list[Attachment], *, reference: JSON | None = None, id_: str = "") -> Message:
    """The bot's message, of a form that was looked at."""
    return talk.post(
        world,
        channel,
        world.bot,
        str(body.get("content") or ""),
        kind=Said.REPLY if reference else Said.DEFAULT,
        id_=id_,
        attachments=files,
        embeds=body.get("embeds") or [],
        components=numbered(body.get("components") or []),
        flags=int(body.get("flags") or 0) & (SUPPRESS_EMBEDS | SUPPRESS_NOTIFICATIONS | COMPONENTS_V2),
        reference=reference,
        allowed=body.get("allowed_mentions"),
        nonce=body.get("nonce"),
    )


def edit(ask: Ask) -> JSON:
    """What the body leaves out stays as it is."""
    world, channel, body = ask.world, ask.world.channel_of(ask["channel"]), ask.body
    world.demand(channel)
    message = world.message_in(channel, ask["message"])
    if message.author is not world.bot:
        raise refusal(50005)
    if message.type in SYSTEM:
        raise refusal(50021)
    _not_archived(channel)
    forms.message(body)
    if ask.files:
        world.demand(channel, "ATTACH_FILES")
    _old(world, message)
    changes: JSON = {key: body[key] or [] for key in ("components", "embeds") if key in body}
    if "components" in changes:
        changes["components"] = numbered(changes["components"])
    if "content" in body:
        changes["content"] = str(body["content"] or "").strip()
    if "flags" in body:
        changes["flags"] = message.flags & ~SUPPRESS_EMBEDS | int(body["flags"] or 0) & SUPPRESS_EMBEDS
    if "attachments" in body or ask.files:
        changes["attachments"] = _kept(message, body) + ask.files
    after = {name: changes.get(name, getattr(message, name)) for name in ("content", "embeds", "attachments")}
    if not any(after.values()) and not message.flags & COMPONENTS_V2:
        raise refusal(50006)
    talk.edit(world, message, allowed=body.get("allowed_mentions"), **changes)
    return shown(world, message)


def delete(ask: Ask) -> None:
    world, channel = ask.world, ask.world.channel_of(ask["channel"])
    world.demand(channel)
    message = world.message_in(channel, ask["message"])
    if message.author is not world.bot:
        if channel.recipient:
            raise refusal(50003)
        world.demand(channel, "MANAGE_MESSAGES")
    if message.type == Said.THREAD_STARTER:
        raise refusal(50021)
    _not_archived(channel)
    talk.delete(world, message)


def type_(ask: Ask) -> None:
    channel = _text_channel(ask)
    demand_speech(ask.world, channel)
    ask.world.typing.append((asyncio.get_running_loop().time(), channel.id))


def demand_speech(world: World, channel: Channel) -> None:
    """That the bot may speak there."""
    world.demand(channel, *([] if channel.recipient else ["SEND_MESSAGES_IN_THREADS" if channel.is_thread else "SEND_MESSAGES"]))


def numbered(rows: list[JSON]) -> list[JSON]:
    """Components as Discord gives them back: each with its number."""
    number = 0
    given = []
    for row in rows:
        number += 1
        outer = {"id": number, **row}
        if "components" in row:
            outer["components"] = [{"id": number + place, **one} for place, one in enumerate(row["components"], 1)]
            number += len(row["components"])
        given.append(outer)
    return given


def _text_channel(ask: Ask) -> Channel:
    channel = ask.world.channel_of(ask["channel"])
    if channel.kind is Kind.FORUM:
        ask.world.demand(channel)
        raise refusal(50008)
    return channel


def _takes_dms(world: World, channel: Channel) -> bool:
    """Whether that person does, and shares a guild with the bot."""
    assert channel.recipient
    shared = any(channel.recipient.id in guild.members and world.bot.id in guild.members for guild in world.guilds.values())
    return shared and not channel.recipient.takes_no_dms


def _repeated(world: World, nonce: object) -> Message | None:
    """The bot's message of the last minutes with that nonce, in whatever channel."""
    if nonce is None or world.other_server:
        return None
    for one in [each for channel in world.channels.values() for each in channel.messages.values()]:
        if one.author is world.bot and one.nonce is not None and str(one.nonce) == str(nonce) and world.age_of(one) < world.nonce_seconds:
            return one
    return None


def _reference(world: World, channel: Channel, given: JSON | None) -> JSON | None:
    """Of a reply; None where its message is gone and that is no failure."""
    if not given:
        return None
    if not world.may(channel, world.bot, "READ_MESSAGE_HISTORY"):
        raise refusal(160002)
    found = channel.messages.get(str(given.get("message_id")))
    if found is None or str(given.get("channel_id", channel.id)) != channel.id:
        if given.get("fail_if_not_exists", True):
            raise invalid("message_reference", "MESSAGE_REFERENCE_UNKNOWN_MESSAGE", "Unknown message")
        return None
    if found.type in SYSTEM:
        raise invalid("message_reference", "REPLIES_CANNOT_REPLY_TO_SYSTEM_MESSAGE", "Cannot reply to a system message")
    guild = {"guild_id": channel.guild_id} if channel.guild_id else {}
    return {"type": 0, "channel_id": channel.id, "message_id": found.id, **guild}


def _empty(body: JSON, files: list[Attachment]) -> bool:
    layout = int(body.get("flags") or 0) & COMPONENTS_V2 and body.get("components")
    return not ((body.get("content") or "").strip() or body.get("embeds") or files or layout)


def _kept(message: Message, body: JSON) -> list[Attachment]:
    """Those that stay: all, unless the body lists them."""
    if "attachments" not in body:
        return message.attachments
    listed = {str(one.get("id")) for one in body["attachments"] or []}
    return [one for one in message.attachments if one.id in listed]


def _not_archived(channel: Channel) -> None:
    if channel.archived:
        raise refusal(50083)


def _old(world: World, message: Message) -> None:
    """Changes of messages that are more than an hour old are counted apart."""
    if world.age_of(message) <= OLD_SECONDS:
        return
    wait = world.limits.spend("edit.old", message.channel_id)
    if wait is not None:
        raise Limited("edit.old", wait, code=30046)


def _snowflake(text: str, name: str) -> int:
    problems = Problems()
    if not text.isdecimal():
        problems.add(name, "NUMBER_TYPE_COERCE", f'Value "{text}" is not snowflake.')
    problems.refuse()
    return int(text)
