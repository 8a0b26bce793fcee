"""Discord's JSON objects. In the variant "other server" fields that Discord documents as optional are left out."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.emulators.discord.objects import (
    EPHEMERAL,
    HAS_THREAD,
    SYSTEM,
    Attachment,
    Channel,
    Kind,
    Member,
    Message,
    Overwrite,
    Role,
    Said,
    User,
)
from tests.emulators.discord.state import World

if TYPE_CHECKING:
    from tests.emulators.discord.guilds import Guild

JSON = dict[str, Any]


def moment(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _shape(world: World, required: JSON, optional: JSON) -> JSON:
    return required if world.other_server else {**required, **optional}


def user(world: World, one: User) -> JSON:
    shape = {"id": one.id, "username": one.name, "discriminator": "0", "avatar": None, "global_name": one.name.title()}
    bot = {"bot": True} if one.bot else {}
    optional = {"public_flags": 0, "avatar_decoration_data": None, "collectibles": None, "primary_guild": None, "clan": None}
    if one.bot:
        shape["global_name"] = None
    return {**_shape(world, shape, optional), **bot}


def own_user(world: World) -> JSON:
    """users/@me."""
    mine = {"verified": True, "email": None, "mfa_enabled": True, "flags": 0, "banner": None, "accent_color": None, "bio": ""}
    return _shape(world, user(world, world.bot), {**mine, "locale": "en-US"})


def member(world: World, one: Member, *, whole: bool = True) -> JSON:
    """Without its user in a message's event."""
    shape = {"roles": list(one.roles), "joined_at": moment(one.joined_at), "deaf": False, "mute": False, "flags": 0}
    optional = {"nick": None, "avatar": None, "banner": None, "premium_since": None, "pending": False}
    shape = _shape(world, shape, {**optional, "communication_disabled_until": None})
    return {**shape, "user": user(world, one.user)} if whole else shape


def role(world: World, one: Role) -> JSON:
    shape = {
        "id": one.id,
        "name": one.name,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "position": one.position,
        "permissions": str(one.permissions),
        "managed": bool(one.bot_id),
        "mentionable": False,
        "flags": 0,
    }
    tags = {"tags": {"bot_id": one.bot_id}} if one.bot_id else {}
    return _shape(world, shape, {"icon": None, "unicode_emoji": None, **tags})


def overwrite(one: Overwrite) -> JSON:
    return {"id": one.id, "type": int(one.member), "allow": str(one.allow), "deny": str(one.deny)}


def channel(world: World, one: Channel) -> JSON:
    """A channel of any kind, as REST gives it."""
    if one.is_thread:
        return thread(world, one)
    if one.recipient:
        shape = {"id": one.id, "type": int(one.kind), "recipients": [user(world, one.recipient)]}
        return _shape(world, shape, {"last_message_id": one.last_message_id, "flags": 0})
    shape = {
        "id": one.id,
        "type": int(one.kind),
        "guild_id": one.guild_id,
        "name": one.name,
        "position": one.position,
        "permission_overwrites": [overwrite(each) for each in one.overwrites.values()],
        "parent_id": None,
        "last_message_id": one.last_message_id,
    }
    optional: JSON = {"topic": None, "nsfw": False, "rate_limit_per_user": 0, "flags": 0}
    if one.kind is Kind.VOICE:
        shape |= {"bitrate": 64000, "user_limit": 0}
        optional["rtc_region"] = None
    elif one.kind is Kind.FORUM:
        shape |= {"available_tags": []}
        optional |= {"default_reaction_emoji": None, "default_sort_order": None, "default_forum_layout": 0, "template": ""}
        optional["default_thread_rate_limit_per_user"] = 0
    else:
        optional["last_pin_timestamp"] = None
    return _shape(world, shape, optional)


def thread(world: World, one: Channel, *, new: bool = False) -> JSON:
    metadata = {
        "archived": one.archived,
        "auto_archive_duration": one.auto_archive,
        "archive_timestamp": moment(one.archive_timestamp),
        "locked": one.locked,
    }
    if one.kind is Kind.PRIVATE_THREAD:
        metadata["invitable"] = one.invitable
    shape = {
        "id": one.id,
        "type": int(one.kind),
        "guild_id": one.guild_id,
        "parent_id": one.parent_id,
        "owner_id": one.owner_id,
        "name": one.name,
        "last_message_id": one.last_message_id,
        "message_count": min(one.message_count, 50) if world.other_server else one.message_count,
        "member_count": min(len(one.members), 50),
        "thread_metadata": _shape(world, metadata, {"create_timestamp": moment(one.made_at)}),
    }
    optional: JSON = {"rate_limit_per_user": 0, "flags": 0, "total_message_sent": one.total_message_sent, "bitrate": 64000, "user_limit": 0}
    optional |= {"rtc_region": None}
    if world.channels[one.parent_id].kind is Kind.FORUM:
        optional["applied_tags"] = []
    if world.bot.id in one.members:
        optional["member"] = thread_member(one, world.bot.id)
    if new:
        optional["newly_created"] = True
    return _shape(world, shape, optional)


def thread_member(one: Channel, user_id: str) -> JSON:
    joined = {"join_timestamp": moment(one.members[user_id]), "flags": 0, "muted": False, "mute_config": None}
    return {"id": one.id, "user_id": user_id, **joined}


def attachment(world: World, place: Channel, one: Attachment, *, ephemeral: bool = False) -> JSON:
    path = f"/attachments/{place.id}/{one.id}/{one.filename}?ex=1&is=1&hm=1"
    shape = {"id": one.id, "filename": one.filename, "size": len(one.content), "url": world.root + path, "proxy_url": world.root + path}
    optional: JSON = {"content_type": one.media_type, "content_scan_version": 0}
    if one.media_type.startswith("image/"):
        optional |= {"width": 64, "height": 64, "placeholder": "", "placeholder_version": 1}
    return _shape(world, shape, {**optional, **({"ephemeral": True} if ephemeral else {})})


def message(world: World, one: Message, *, event: bool = False, nonce: bool = False, stripped: bool = False, deep: bool = True) -> JSON:
    """`event`: with what the gateway adds. `stripped`: as those get it who may not have its content. `deep`: with what it refers to."""
    place = world.channels[one.channel_id]
    guild = world.guild_of(place)
    shape = {
        "id": one.id,
        "channel_id": one.channel_id,
        "type": int(one.type),
        "author": user(world, one.author),
        "content": one.content,
        "timestamp": moment(one.at),
        "edited_timestamp": moment(one.edited_at),
        "tts": False,
        "mention_everyone": one.mention_everyone,
        "mentions": [_mentioned(world, each, guild if event else None) for each in one.mentions],
        "mention_roles": list(one.mention_roles),
        "attachments": [attachment(world, place, each, ephemeral=bool(one.flags & EPHEMERAL)) for each in one.attachments],
        "embeds": list(one.embeds),
        "pinned": False,
        "components": [dict(each) for each in one.components],
    }
    if stripped:
        shape |= {"content": "", "attachments": [], "embeds": [], "components": []}
    shape |= _referred(world, one, deep=deep)
    if nonce and one.nonce is not None:
        shape["nonce"] = one.nonce
    if one.webhook_id:
        shape["webhook_id"] = one.webhook_id
    if event and guild:
        shape["guild_id"] = guild.id
        if one.author.id in guild.members:
            shape["member"] = member(world, guild.members[one.author.id], whole=False)
    return _shape(world, shape, _optional_of_message(world, one, place))


def _optional_of_message(world: World, one: Message, place: Channel) -> JSON:
    optional: JSON = {"flags": one.flags}
    if place.is_thread:
        optional["position"] = one.position
    if one.thread_id in world.channels and one.flags & HAS_THREAD:
        optional["thread"] = thread(world, world.channels[one.thread_id])
    if one.interaction:
        optional |= {"interaction_metadata": one.interaction, "application_id": world.application.id}
    return optional


def _referred(world: World, one: Message, *, deep: bool) -> JSON:
    if not one.reference:
        return {}
    shape: JSON = {"message_reference": one.reference}
    if not deep or world.other_server or one.type not in (Said.REPLY, Said.THREAD_STARTER):
        return shape
    place = world.channels.get(one.reference["channel_id"])
    found = place.messages.get(one.reference["message_id"]) if place else None
    return {**shape, "referenced_message": message(world, found, stripped=hidden(world, found), deep=False) if found else None}


def _mentioned(world: World, one: User, guild: "Guild | None") -> JSON:
    shape = user(world, one)
    if guild and one.id in guild.members:
        shape["member"] = member(world, guild.members[one.id], whole=False)
    return shape


def withheld(world: World, one: Message) -> bool:
    """Whether its content is for those alone who have the intent."""
    return not (
        one.author is world.bot
        or world.bot in one.mentions
        or world.channels[one.channel_id].kind is Kind.DIRECT
        or bool(one.interaction)
        or one.type in SYSTEM
    )


def hidden(world: World, one: Message) -> bool:
    """Whether the application may not have its content over REST."""
    return not world.message_content and withheld(world, one)


def guild(world: World, one: "Guild") -> JSON:
    """guilds/{guild}, and the base of GUILD_CREATE."""
    return {
        "id": one.id,
        "name": one.name,
        "icon": None,
        "splash": None,
        "discovery_splash": None,
        "owner_id": one.owner_id,
        "afk_channel_id": None,
        "afk_timeout": 300,
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "roles": [role(world, each) for each in one.roles.values()],
        "emojis": [],
        "features": [],
        "mfa_level": 0,
        "application_id": None,
        "system_channel_id": None,
        "system_channel_flags": 0,
        "rules_channel_id": None,
        "vanity_url_code": None,
        "description": None,
        "banner": None,
        "premium_tier": 0,
        "preferred_locale": "en-US",
        "public_updates_channel_id": None,
        "nsfw_level": 0,
        "premium_progress_bar_enabled": False,
        "safety_alerts_channel_id": None,
        **_shape(world, {}, {"max_members": 500000, "max_presences": None, "stickers": [], "premium_subscription_count": 0}),
    }


def guild_create(world: World, one: "Guild", *, joined: bool = False) -> JSON:
    """Members: the bot alone, as for those without the intent for more. `joined`: it was there all the time, the bot was not."""
    threads = [each for each in one.threads if not each.archived and world.may(each, world.bot, "VIEW_CHANNEL")]
    return {
        **guild(world, one),
        "joined_at": moment(one.members[world.bot.id].joined_at),
        "large": False,
        **({} if joined else {"unavailable": False}),
        "member_count": len(one.members),
        "voice_states": [],
        "members": [member(world, one.members[world.bot.id])],
        "channels": [_within(channel(world, each)) for each in one.channels],
        "threads": [thread(world, each) for each in threads],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
    }


def _within(shape: JSON) -> JSON:
    """A channel in its guild's object."""
    return {key: value for key, value in shape.items() if key != "guild_id"}


def application(world: World) -> JSON:
    own = world.application
    shape = {
        "id": own.id,
        "name": own.name,
        "icon": None,
        "description": "",
        "bot_public": own.bot_public,
        "bot_require_code_grant": False,
        "verify_key": "0" * 64,
        "summary": "",
        "team": None,
        "owner": user(world, world.users[own.owner_id]),
        "flags": own.flags,
    }
    optional = {
        "bot": user(world, world.bot),
        "hook": True,
        "type": None,
        "interactions_endpoint_url": own.interactions_endpoint_url,
        "redirect_uris": [],
    }
    optional |= {"role_connections_verification_url": None, "approximate_guild_count": len(world.guilds), "tags": []}
    optional |= {"integration_types_config": {"0": {}}, "approximate_user_install_count": 0}
    return _shape(world, shape, optional)


def permissions_of(world: World, place: Channel, one: User) -> str:
    return str(world.permissions(place, one))
