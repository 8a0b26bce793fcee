"""What can be done with messages and threads, by whomever, with the events that follow. Nobody's permissions are looked at here."""

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from tests.emulators.discord import shapes
from tests.emulators.discord.objects import HAS_THREAD, Attachment, Channel, Kind, Message, Said, User
from tests.emulators.discord.state import Intents, World

if TYPE_CHECKING:
    from tests.emulators.discord.guilds import Guild

JSON = dict[str, Any]
_USER = re.compile(r"<@!?(\d+)>")
_ROLE = re.compile(r"<@&(\d+)>")
_EVERYONE = re.compile(r"@(everyone|here)\b")
_LISTS = ("users", "roles")


def post(
    world: World,
    channel: Channel,
    author: User,
    content: str,
    *,
    kind: int = Said.DEFAULT,
    id_: str = "",
    attachments: Sequence[Attachment] = (),
    embeds: Sequence[JSON] = (),
    components: Sequence[JSON] = (),
    flags: int = 0,
    reference: JSON | None = None,
    allowed: JSON | None = None,
    nonce: str | int | None = None,
    interaction: JSON | None = None,
    webhook_id: str = "",
) -> Message:
    """A new message, without white space around it; an archived thread comes back by it. `allowed` is `allowed_mentions`."""
    if channel.archived:
        change_thread(world, channel, archived=False)
    message = Message(
        id=id_ or world.snowflake(),
        channel_id=channel.id,
        author=author,
        content=content.strip(),
        at=world.now(),
        type=kind,
        attachments=list(attachments),
        embeds=list(embeds),
        components=list(components),
        flags=flags,
        reference=reference,
        nonce=nonce,
        interaction=interaction,
        webhook_id=webhook_id,
    )
    _mention(world, message, allowed)
    world.attachments |= {one.id: one for one in attachments}
    channel.messages[message.id] = message
    channel.last_message_id = message.id
    if channel.is_thread:
        _count(world, channel, message)
    world.note(message)
    tell_message(world, "MESSAGE_CREATE", message)
    return message


def edit(world: World, message: Message, *, allowed: JSON | None = None, **changes: Any) -> None:
    """`changes` are attributes of the message. A new content makes it an edited one."""
    for name, value in changes.items():
        setattr(message, name, value)
    if "content" in changes:
        message.content = message.content.strip()
        message.edited_at = world.now()
        _mention(world, message, allowed)
    world.attachments |= {one.id: one for one in message.attachments}
    world.note(message)
    tell_message(world, "MESSAGE_UPDATE", message)


def delete(world: World, message: Message) -> None:
    channel = world.channels[message.channel_id]
    _forget(world, channel, message)
    data = {"id": message.id, "channel_id": channel.id, **_guild_id(channel)}
    world.tell("MESSAGE_DELETE", data, channel=channel, intents=_intents(channel))


def purge(world: World, channel: Channel, message_ids: Collection[str]) -> None:
    """Many at once."""
    for message_id in message_ids:
        _forget(world, channel, channel.messages[message_id])
    data = {"ids": list(message_ids), "channel_id": channel.id, **_guild_id(channel)}
    world.tell("MESSAGE_DELETE_BULK", data, channel=channel, intents=_intents(channel))


def tell_message(world: World, event: str, message: Message) -> None:
    channel = world.channels[message.channel_id]
    data = shapes.message(world, message, event=True, nonce=True)
    stripped = shapes.message(world, message, event=True, nonce=True, stripped=True) if shapes.withheld(world, message) else None
    world.tell(event, data, channel=channel, intents=_intents(channel), stripped=stripped)


def start_thread(
    world: World,
    parent: Channel,
    owner: User,
    name: str,
    *,
    message: Message | None = None,
    private: bool = False,
    auto_archive: int = 4320,
    invitable: bool = True,
) -> Channel:
    """On `message`, which gives it its id, or on none. A forum's post gets its first message by `post(..., id_=thread.id)`."""
    kind = Kind.ANNOUNCEMENT_THREAD if parent.kind is Kind.ANNOUNCEMENT else Kind.PUBLIC_THREAD
    thread = Channel(
        id=message.id if message else world.snowflake(),
        kind=Kind.PRIVATE_THREAD if private else kind,
        name=name,
        guild_id=parent.guild_id,
        parent_id=parent.id,
        owner_id=owner.id,
        auto_archive=auto_archive,
        invitable=invitable,
        archive_timestamp=world.now(),
        made_at=world.now(),
        members={owner.id: world.now()},
    )
    world.channels[thread.id] = thread
    world.tell("THREAD_CREATE", shapes.thread(world, thread, new=True), channel=thread)
    _tell_members(world, thread, [owner.id])
    if message:
        message.thread_id = thread.id
        message.flags |= HAS_THREAD
        tell_message(world, "MESSAGE_UPDATE", message)
        refers = {"type": 0, "channel_id": parent.id, "message_id": message.id, "guild_id": parent.guild_id}
        post(world, thread, message.author, "", kind=Said.THREAD_STARTER, reference=refers)
    elif parent.kind is not Kind.FORUM and not private:
        refers = {"type": 0, "channel_id": thread.id, "guild_id": parent.guild_id}
        post(world, parent, owner, name, kind=Said.THREAD_CREATED, reference=refers)
    return thread


def change_thread(
    world: World,
    thread: Channel,
    *,
    by: User | None = None,
    name: str | None = None,
    archived: bool | None = None,
    locked: bool | None = None,
    auto_archive: int | None = None,
) -> None:
    """A new name is said in the thread, by whoever gave it."""
    if archived is False and thread.archived:
        thread.archived, thread.archive_timestamp = False, world.now()
    renamed = name is not None and name != thread.name
    thread.name = name if name is not None else thread.name
    thread.locked = locked if locked is not None else thread.locked
    thread.auto_archive = auto_archive if auto_archive is not None else thread.auto_archive
    if renamed and by:
        post(world, thread, by, thread.name, kind=Said.RENAMED)
    if archived and not thread.archived:
        thread.archived, thread.archive_timestamp = True, world.now()
    world.tell("THREAD_UPDATE", shapes.thread(world, thread), channel=thread)


def join_thread(world: World, thread: Channel, user: User) -> None:
    """By itself, by a mention, or by saying something. To a bot that did not see it, a private thread is made by this."""
    if user.id in thread.members:
        return
    unseen = user is world.bot and not world.may(thread, user, "VIEW_CHANNEL")
    thread.members[user.id] = world.now()
    if unseen:
        world.tell("THREAD_CREATE", shapes.thread(world, thread), channel=thread)
    _tell_members(world, thread, [user.id])


def leave_thread(world: World, thread: Channel, user: User) -> None:
    if thread.members.pop(user.id, None):
        data = {"id": thread.id, "guild_id": thread.guild_id, "member_count": len(thread.members), "removed_member_ids": [user.id]}
        _tell_of_members(world, thread, data, [user.id])


def delete_channel(world: World, channel: Channel) -> None:
    """A channel with its threads, or one thread."""
    for thread in [one for one in world.channels.values() if one.parent_id == channel.id]:
        del world.channels[thread.id]
    if channel.is_thread:
        data: JSON = {"id": channel.id, "guild_id": channel.guild_id, "parent_id": channel.parent_id, "type": int(channel.kind)}
        world.tell("THREAD_DELETE", data, channel=channel)
    else:
        world.tell_guild("CHANNEL_DELETE", shapes.channel(world, channel), world.guilds[channel.guild_id])
    del world.channels[channel.id]
    world.touch()


def sync_threads(world: World, guild: "Guild", before: Collection[str]) -> None:
    """The bot is told of the active threads in channels that it sees now and did not see before."""
    seen = [one.id for one in guild.channels if one.id not in before and world.may(one, world.bot, "VIEW_CHANNEL")]
    if not seen:
        return
    threads = [one for one in guild.threads if one.parent_id in seen and not one.archived and world.may(one, world.bot, "VIEW_CHANNEL")]
    data = {
        "guild_id": guild.id,
        "channel_ids": seen,
        "threads": [shapes.thread(world, one) for one in threads],
        "members": [shapes.thread_member(one, world.bot.id) for one in threads if world.bot.id in one.members],
    }
    world.tell_guild("THREAD_LIST_SYNC", data, guild)


def _mention(world: World, message: Message, allowed: JSON | None) -> None:
    """Who is mentioned by the content and by the reply, as far as that is allowed."""
    parse = None if allowed is None else allowed.get("parse", [])
    permitted = (
        {kind: None if parse is None or kind in parse else set(allowed.get(kind, [])) for kind in _LISTS} if allowed is not None else {}
    )
    users = _permitted(_USER.findall(message.content), permitted.get("users"))
    message.mentions = [world.users[one] for one in dict.fromkeys(users) if one in world.users]
    message.mention_roles = list(dict.fromkeys(_permitted(_ROLE.findall(message.content), permitted.get("roles"))))
    everyone = parse is None or "everyone" in parse
    may = world.may(world.channels[message.channel_id], message.author, "MENTION_EVERYONE")
    message.mention_everyone = everyone and may and bool(_EVERYONE.search(message.content))
    answered = _answered(world, message)
    if answered and answered not in message.mentions and (allowed is None or allowed.get("replied_user", False)):
        message.mentions.append(answered)


def _permitted(found: Sequence[str], permitted: Collection[str] | None) -> list[str]:
    return [one for one in found if permitted is None or one in permitted]


def _answered(world: World, message: Message) -> User | None:
    if message.type != Said.REPLY or not message.reference:
        return None
    found = world.channels[message.channel_id].messages.get(message.reference["message_id"])
    return found.author if found else None


def _count(world: World, thread: Channel, message: Message) -> None:
    """A thread's messages, and those whom this one brings into it."""
    message.position = thread.message_count
    if message.id != thread.id and message.type != Said.THREAD_STARTER:
        thread.message_count += 1
        thread.total_message_sent += 1
    for user in (message.author, *message.mentions):
        if message.type in (Said.DEFAULT, Said.REPLY) and world.may(world.parent_of(thread), user, "VIEW_CHANNEL"):
            join_thread(world, thread, user)


def _forget(world: World, channel: Channel, message: Message) -> None:
    del channel.messages[message.id]
    world.deleted.append(message.id)
    if channel.is_thread and message.type != Said.THREAD_STARTER:
        channel.message_count = max(0, channel.message_count - 1)


def _tell_members(world: World, thread: Channel, added: Sequence[str]) -> None:
    guild = world.guilds[thread.guild_id]
    members = [
        {**shapes.thread_member(thread, one), "member": shapes.member(world, guild.members[one]), "presence": None}
        for one in added
        if one in guild.members
    ]
    data = {"id": thread.id, "guild_id": thread.guild_id, "member_count": len(thread.members), "added_members": members}
    _tell_of_members(world, thread, data, added)


def _tell_of_members(world: World, thread: Channel, data: JSON, changed: Sequence[str]) -> None:
    """Without the intent for members a bot hears of itself alone."""
    intents = Intents.GUILDS if world.bot.id in changed else Intents.GUILD_MEMBERS
    world.tell("THREAD_MEMBERS_UPDATE", data, channel=thread, intents=intents)


def _guild_id(channel: Channel) -> JSON:
    return {"guild_id": channel.guild_id} if channel.guild_id else {}


def _intents(channel: Channel) -> int:
    return Intents.GUILD_MESSAGES if channel.guild_id else Intents.DIRECT_MESSAGES
