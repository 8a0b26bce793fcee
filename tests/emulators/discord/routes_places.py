"""Calls about the application, guilds, channels, threads and DMs."""

from datetime import datetime
from typing import Any

from tests.emulators.discord import forms, shapes, talk
from tests.emulators.discord.errors import Limited, refusal, whole
from tests.emulators.discord.guilds import Guild
from tests.emulators.discord.objects import SYSTEM, Channel, Kind
from tests.emulators.discord.rest import Ask, Route
from tests.emulators.discord.routes_messages import demand_speech, post
from tests.emulators.discord.state import World

JSON = dict[str, Any]


def routes() -> list[Route]:
    channel, guild = "/channels/{channel}", "/guilds/{guild}"
    return [
        Route("GET", "/users/@me", "me", lambda ask: shapes.own_user(ask.world)),
        Route("GET", "/users/@me/guilds", "me.guilds", my_guilds),
        Route("POST", "/users/@me/channels", "dm.create", direct),
        Route("GET", "/users/{user}", "user", user),
        Route("GET", "/applications/@me", "application", lambda ask: shapes.application(ask.world)),
        Route("GET", "/oauth2/applications/@me", "application", lambda ask: shapes.application(ask.world)),
        Route("GET", "/gateway", "gateway", gateway),
        Route("GET", "/gateway/bot", "gateway.bot", gateway_bot),
        Route("GET", guild, "guild", lambda ask: shapes.guild(ask.world, _guild(ask))),
        Route("GET", f"{guild}/channels", "guild.channels", lambda ask: [shapes.channel(ask.world, one) for one in _guild(ask).channels]),
        Route("GET", f"{guild}/roles", "guild.roles", lambda ask: [shapes.role(ask.world, one) for one in _guild(ask).roles.values()]),
        Route("GET", f"{guild}/members/{{user}}", "guild.member", member),
        Route("GET", f"{guild}/threads/active", "threads.active", active_threads),
        Route("GET", channel, "channel", get),
        Route("PATCH", channel, "channel.edit", change),
        Route("DELETE", channel, "channel.delete", delete),
        Route("POST", f"{channel}/messages/{{message}}/threads", "thread.create", thread_on_message),
        Route("POST", f"{channel}/threads", "thread.create", thread),
        Route("GET", f"{channel}/threads/archived/public", "threads.archived", archived_public),
        Route("GET", f"{channel}/threads/archived/private", "threads.archived", archived_private),
        Route("GET", f"{channel}/users/@me/threads/archived/private", "threads.archived", archived_joined),
        Route("PUT", f"{channel}/thread-members/@me", "thread.join", join),
        Route("DELETE", f"{channel}/thread-members/@me", "thread.leave", leave),
        Route("GET", f"{channel}/thread-members/{{user}}", "thread.member", thread_member),
    ]


def my_guilds(ask: Ask) -> list[JSON]:
    world = ask.world
    found = [one for one in world.guilds.values() if world.bot.id in one.members]
    common: JSON = {"icon": None, "banner": None, "owner": False, "permissions": "0", "features": []}
    return [{"id": one.id, "name": one.name, **common} for one in found]


def direct(ask: Ask) -> JSON:
    found = ask.world.users.get(str(ask.body.get("recipient_id")))
    if found is None:
        raise refusal(10013)
    if found.bot:
        raise refusal(50007)
    return shapes.channel(ask.world, ask.world.direct(found))


def user(ask: Ask) -> JSON:
    found = ask.world.users.get(ask["user"])
    if found is None:
        raise refusal(10013)
    return shapes.user(ask.world, found)


def gateway(ask: Ask) -> JSON:
    return {"url": ask.world.root.replace("http", "ws", 1) + "/gateway"}


def gateway_bot(ask: Ask) -> JSON:
    limit = {"total": 1000, "remaining": 999, "reset_after": 14400000, "max_concurrency": 1}
    return {**gateway(ask), "shards": 1, "session_start_limit": limit}


def member(ask: Ask) -> JSON:
    guild = _guild(ask)
    if ask["user"] not in ask.world.users:
        raise refusal(10013)
    if ask["user"] not in guild.members:
        raise refusal(10007)
    return shapes.member(ask.world, guild.members[ask["user"]])


def active_threads(ask: Ask) -> JSON:
    world = ask.world
    found = [one for one in _guild(ask).threads if not one.archived and world.may(one, world.bot, "VIEW_CHANNEL")]
    return _threads(world, sorted(found, key=lambda one: -int(one.id)))


def get(ask: Ask) -> JSON:
    channel = ask.world.channel_of(ask["channel"])
    ask.world.demand(channel)
    return shapes.channel(ask.world, channel)


def change(ask: Ask) -> JSON:
    """A thread's name, archive and lock; a channel's name."""
    world, channel, body = ask.world, ask.world.channel_of(ask["channel"]), ask.body
    world.demand(channel)
    forms.thread_change(body)
    if channel.is_thread:
        _demand_change(world, channel, body)
    else:
        world.demand(channel, "MANAGE_CHANNELS")
    if "name" in body and body["name"] != channel.name:
        wait = world.limits.spend("channel.rename", channel.id)
        if wait is not None:
            raise Limited("channel.rename", wait)
    if channel.is_thread:
        changes = {"name": body.get("name"), "archived": body.get("archived"), "locked": body.get("locked")}
        talk.change_thread(world, channel, by=world.bot, **changes, auto_archive=body.get("auto_archive_duration"))
        return shapes.thread(world, channel)
    channel.name = body.get("name", channel.name)
    world.tell_guild("CHANNEL_UPDATE", shapes.channel(world, channel), world.guilds[channel.guild_id])
    return shapes.channel(world, channel)


def delete(ask: Ask) -> JSON:
    channel = ask.world.channel_of(ask["channel"])
    ask.world.demand(channel, "MANAGE_THREADS" if channel.is_thread else "MANAGE_CHANNELS")
    shape = shapes.channel(ask.world, channel)
    talk.delete_channel(ask.world, channel)
    return shape


def thread_on_message(ask: Ask) -> JSON:
    world, channel, body = ask.world, ask.world.channel_of(ask["channel"]), ask.body
    world.demand(channel)
    if channel.kind not in (Kind.TEXT, Kind.ANNOUNCEMENT):
        raise refusal(50024)
    world.demand(channel, "CREATE_PUBLIC_THREADS")
    message = world.message_in(channel, ask["message"])
    forms.thread(body)
    if message.type in SYSTEM:
        raise refusal(50021)
    if message.thread_id:
        raise refusal(160004)
    made = talk.start_thread(world, channel, world.bot, body["name"], message=message, **_archiving(body))
    return shapes.thread(world, made)


def thread(ask: Ask) -> JSON:
    """On no message, or a forum's post with its first one."""
    world, channel, body = ask.world, ask.world.channel_of(ask["channel"]), ask.body
    world.demand(channel)
    if channel.kind is Kind.FORUM:
        return _forum_post(ask, channel)
    if channel.kind not in (Kind.TEXT, Kind.ANNOUNCEMENT):
        raise refusal(50024)
    private = body.get("type", Kind.PRIVATE_THREAD) == Kind.PRIVATE_THREAD
    world.demand(channel, "CREATE_PRIVATE_THREADS" if private else "CREATE_PUBLIC_THREADS")
    forms.thread(body, private=True)
    made = talk.start_thread(world, channel, world.bot, body["name"], private=private, **_archiving(body))
    return shapes.thread(world, made)


def archived_public(ask: Ask) -> JSON:
    return _archived(ask, private=False, joined=False)


def archived_private(ask: Ask) -> JSON:
    ask.world.demand(ask.world.channel_of(ask["channel"]), "MANAGE_THREADS")
    return _archived(ask, private=True, joined=False)


def archived_joined(ask: Ask) -> JSON:
    return _archived(ask, private=True, joined=True)


def join(ask: Ask) -> None:
    channel = _thread(ask)
    if channel.archived:
        raise refusal(50083)
    talk.join_thread(ask.world, channel, ask.world.bot)


def leave(ask: Ask) -> None:
    talk.leave_thread(ask.world, _thread(ask), ask.world.bot)


def thread_member(ask: Ask) -> JSON:
    channel = _thread(ask)
    if ask["user"] not in channel.members:
        raise refusal(10007)
    return shapes.thread_member(channel, ask["user"])


def _guild(ask: Ask) -> Guild:
    """One in which the bot is."""
    guild = ask.world.guilds.get(ask["guild"])
    if guild is None or ask.world.bot.id not in guild.members:
        raise refusal(10004)
    return guild


def _thread(ask: Ask) -> Channel:
    channel = ask.world.channel_of(ask["channel"])
    ask.world.demand(channel)
    if not channel.is_thread:
        raise refusal(50024)
    return channel


def _demand_change(world: World, thread: Channel, body: JSON) -> None:
    """An archived thread takes no change but its return. Its maker and moderators change it; a lock is the moderators'."""
    moderator = world.may(thread, world.bot, "MANAGE_THREADS")
    comes_back = body.get("archived") is False
    if thread.archived and not comes_back:
        raise refusal(50083)
    if not moderator and (thread.locked or "locked" in body):
        raise refusal(50013)
    only_back = set(body) <= {"archived"} and comes_back
    if only_back and not moderator:
        demand_speech(world, thread)
    elif not moderator and thread.owner_id != world.bot.id:
        raise refusal(50013)


def _forum_post(ask: Ask, forum: Channel) -> JSON:
    world, body = ask.world, ask.body
    world.demand(forum, "SEND_MESSAGES")
    forms.thread(body)
    forms.message(body.get("message") or {})
    if not (body.get("message") or {}).get("content") and not ask.files:
        raise refusal(50006)
    made = talk.start_thread(world, forum, world.bot, body["name"], **_archiving(body))
    message = post(world, made, body["message"], ask.files, id_=made.id)
    return {**shapes.thread(world, made), "message": shapes.message(world, message)}


def _archiving(body: JSON) -> JSON:
    return {"auto_archive": body.get("auto_archive_duration") or 4320, "invitable": body.get("invitable", True)}


def _archived(ask: Ask, *, private: bool, joined: bool) -> JSON:
    """The last archived first."""
    world, parent = ask.world, ask.world.channel_of(ask["channel"])
    world.demand(parent, "READ_MESSAGE_HISTORY")
    limit = whole(ask.query, "limit", default=50, least=2, most=100)
    found = [
        one
        for one in world.channels.values()
        if one.parent_id == parent.id and one.archived and (one.kind is Kind.PRIVATE_THREAD) is private
    ]
    if joined:
        found = [one for one in found if world.bot.id in one.members]
    if "before" in ask.query and joined:
        found = [one for one in found if int(one.id) < int(ask.query["before"])]
    elif "before" in ask.query:
        before = datetime.fromisoformat(ask.query["before"])
        found = [one for one in found if one.archive_timestamp and one.archive_timestamp < before]
    found.sort(key=lambda one: (one.archive_timestamp or world.now(), int(one.id)), reverse=True)
    return {**_threads(world, found[:limit]), "has_more": len(found) > limit}


def _threads(world: World, found: list[Channel]) -> JSON:
    members = [shapes.thread_member(one, world.bot.id) for one in found if world.bot.id in one.members]
    return {"threads": [shapes.thread(world, one) for one in found], "members": members}
