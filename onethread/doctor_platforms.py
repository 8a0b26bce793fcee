"""What `onethread doctor` finds out about the chat platforms: whether they let the bot in, and what somebody has to click there."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bots.discord.config import DiscordConfig
from bots.slack.config import SlackConfig
from bots.surface import AccountClosed, PlaceClosed, SurfaceError
from core import wording
from core.errors import InvalidInput
from onethread.finding import Finding, Level
from onethread.settings import CONFIG_FILE, LOCAL_NAMES, Settings, discord_config, people_map, slack_config

if TYPE_CHECKING:
    from bots.discord.access import SignedIn
    from bots.discord.installation import Guild

_ESSENTIAL = frozenset({"View Channels", "Send Messages"})
_INTENT = (
    "Turn it on: Developer Portal, your application, Bot, Privileged Gateway Intents, Message Content Intent; then start `serve` anew.\n"
    "Until then commands and buttons work, but in a task's thread and in chat channels the bot must be mentioned each time."
)
_PUBLIC = (
    "Turn Public Bot off: Developer Portal, your application, Installation, Install Link: None; then Bot, Public Bot.\n"
    f"Or name your servers in guilds under [discord] in {CONFIG_FILE}."
)
_ROLE = "Turn it on: Server Settings, Roles, the bot's role, Permissions. Channels that grant it themselves are not looked at. Or"
_CHANNEL = "Turn it on: Edit Channel, Permissions, Advanced Permissions, the bot's role."
_ABSENT = (
    "Copy its id anew, with Developer Mode on (User Settings, Advanced). A thread's does not count, its channel's does: docs/discord.md."
)


async def slack(settings: Settings) -> list[Finding]:
    """What `onethread serve` would find in Slack."""
    try:
        config = slack_config(settings)
    except InvalidInput as error:
        return [Finding("broken", f"Slack: {error}")]
    if config is None:
        return [Finding("note", "Slack: no token is set", "docs/slack.md leads to the first answer there."), *_people_of(settings, "slack")]

    from bots.slack import access  # brings Slack's SDK along

    async with access.web_client(config) as client:
        try:
            who = await access.signed_in(client)
        except SurfaceError as error:
            return [_unanswered("Slack", error)]
        findings = [Finding("fine", f"Slack: signed in to {who.team!r} ({who.team_id}) as {who.bot!r}"), *_scopes(who.scopes)]
        if config.app_token:
            try:
                await access.check_app_token(client, config.app_token)
                findings.append(Finding("fine", "Slack: Socket Mode would run"))
            except SurfaceError as error:
                findings.append(_unanswered("Slack", error))
        else:
            findings.append(_request_url(settings))
    return [*findings, *_let_in(config, who.team_id), *_people_elsewhere(settings, "slack", who.team_id)]


def _unanswered(platform: str, error: SurfaceError) -> Finding:
    if isinstance(error, AccountClosed | PlaceClosed):
        return Finding("broken", f"{platform}: {error}")
    return Finding("note", f"{platform}: {error}", f"Without a connection to {platform} nothing of it can be checked. Try again later.")


def _people_of(settings: Settings, surface: str) -> Iterator[Finding]:
    """Those whom the map names on a platform that is not set up."""
    if names := sorted({name for (known_on, *_), name in people_map(settings).items() if known_on == surface}):
        text = f"people: accounts on {wording.surface(surface)} are named, which is not set up: {wording.listed(names, at_most=5)}"
        yield Finding("note", text, f"Set its token: docs/{surface}.md. Or remove them under [people] in {CONFIG_FILE}.")


def _people_elsewhere(settings: Settings, surface: str, account: str) -> Iterator[Finding]:
    """Accounts in the map that nobody will ever come with."""
    for known_on, on, external_id in people_map(settings):
        if known_on == surface and on != account:
            advice = f"Write {surface}:{account}:{external_id}, or remove it, under [people] in {CONFIG_FILE}."
            yield Finding("note", f"people: {surface}:{on}:{external_id} is not of {account}, which is served here", advice)


def _scopes(granted: frozenset[str] | None) -> Iterator[Finding]:
    from bots.slack.access import ESSENTIAL, SCOPES

    if granted is None:
        yield Finding("note", "Slack: it does not tell which scopes the app has")
        return
    missing = {scope: loss for scope, loss in SCOPES.items() if scope not in granted}
    for scope, loss in missing.items():
        advice = "Add it under OAuth & Permissions, Bot Token Scopes; then Install App, Reinstall."
        yield Finding("broken" if scope in ESSENTIAL else "note", f"Slack: the scope {scope} is missing: {loss}", advice)
    if not missing:
        yield Finding("fine", "Slack: the app has every scope that it needs")


def _request_url(settings: Settings) -> Finding:
    text = f"Slack: HTTP; the request URL is {settings.url}/slack/events"
    if settings.url.startswith("https://") and urlsplit(settings.url).hostname not in LOCAL_NAMES:
        return Finding("fine", text)
    return Finding(
        "note", text, "Slack sends to public https addresses only: set ONETHREAD_PUBLIC_URL, or SLACK_APP_TOKEN for Socket Mode."
    )


def _let_in(config: SlackConfig, team_id: str) -> Iterator[Finding]:
    if config.workspaces and team_id not in config.workspaces:
        yield Finding(
            "broken", f"Slack: workspace {team_id} is not among slack.workspaces, so nobody is answered", f"Add it in {CONFIG_FILE}."
        )
    people = f"{len(config.users)} users" if config.users else "everybody, guests too" if config.guests else "every full member"
    places = f"{len(config.channels)} channels, and in direct messages" if config.channels else "every channel that it is invited to"
    yield Finding("fine", f"Slack: answers {people} in {places}")


async def discord(settings: Settings) -> list[Finding]:
    """What `onethread serve` would find in Discord."""
    try:
        config = discord_config(settings)
    except InvalidInput as error:
        return [Finding("broken", f"Discord: {error}")]
    if config is None:
        none = Finding("note", "Discord: no token is set", "docs/discord.md leads to the first answer there.")
        return [none, *_people_of(settings, "discord")]

    from bots.discord import access, client, installation  # brings discord.py along

    client.quieten()
    client.set_endpoints(config)
    findings: list[Finding] = []
    async with client.Client(config) as caller:
        try:
            who = await access.signed_in(caller)
            findings += _application(who)
            guilds = await installation.guilds(caller, config, who)
        except SurfaceError as error:
            return [*findings, _unanswered("Discord", error)]
    link = access.invite_link(who.application_id)
    findings += [*_guilds(config, who, guilds, link), *_permissions(config, guilds, link), *_answered(config, guilds)]
    return [*findings, *_people_elsewhere(settings, "discord", who.application_id)]


def _application(who: "SignedIn") -> Iterator[Finding]:
    yield Finding("fine", f"Discord: signed in as {who.bot!r} ({who.bot_user_id}), application {who.application_id}")
    if who.is_sent_elsewhere:
        advice = "Empty it: Developer Portal, your application, General Information, Interactions Endpoint URL."
        yield Finding("broken", "Discord: commands and buttons are sent to an address, and never come here", advice)
    if who.message_content:
        yield Finding("fine", "Discord: the Message Content Intent is on")
    else:
        yield Finding("note", "Discord: the Message Content Intent is off: only mentions and direct messages can be read", _INTENT)


def _guilds(config: DiscordConfig, who: "SignedIn", guilds: "Sequence[Guild]", link: str) -> Iterator[Finding]:
    """Which servers the bot is in, and which of them are served."""
    if who.public and not config.guilds:
        yield Finding("note", "Discord: anybody may invite the bot, so only servers of the application's owners are served", _PUBLIC)
    for guild in guilds:
        if guild.served:
            yield Finding("fine", f"Discord: serves {guild.name!r} ({guild.id})")
        elif config.guilds:
            advice = f'Add "{guild.id}" to guilds under [discord] in {CONFIG_FILE}, or remove the bot from the server.'
            yield Finding("note", f"Discord: does not serve {guild.name!r} ({guild.id}), which is not among discord.guilds", advice)
        else:
            advice = f'If it shall be, name every server that shall, this one as "{guild.id}", in guilds under [discord] in {CONFIG_FILE}.'
            yield Finding("note", f"Discord: does not serve {guild.name!r} ({guild.id}): its owner does not own the application", advice)
    for absent in sorted(config.guilds - {guild.id for guild in guilds}):
        yield Finding("broken", f"Discord: the bot is not in the server {absent} of discord.guilds", f"Invite it: {link}")
    if not guilds:
        yield Finding("note", "Discord: the bot is in no server yet", f"Invite it: {link}")
    elif not any(guild.served for guild in guilds):
        yield Finding("broken", "Discord: none of its servers is served, so nobody is answered", f"This link invites it: {link}")
    else:
        yield Finding("fine", f"Discord: this link invites it: {link}")


def _permissions(config: DiscordConfig, guilds: "Sequence[Guild]", link: str) -> Iterator[Finding]:
    """What the bot lacks: in the channels where it shall answer; without a list of them, in each server."""
    served = [guild for guild in guilds if guild.served]
    named = {channel.id: (channel, guild) for guild in served for channel in guild.channels}
    if not config.channels:
        for guild in served:
            yield from _lacking(guild.missing, f"in {guild.name!r} no role of the bot has", "note", f"{_ROLE} open {link}")
    for channel_id in sorted(config.channels & named.keys()):
        channel, guild = named[channel_id]
        where = f"in the channel {channel.name!r} of {guild.name!r} the bot lacks"
        yield from _lacking(channel.missing, where, "broken", _CHANNEL)
    for absent in sorted((config.channels | config.channel_rules.keys()) - named.keys()) if served else ():
        yield Finding("note", f"Discord: no server that is served has the channel {absent}", _ABSENT)
    for absent in sorted(config.roles - {role for guild in served for role in guild.roles}) if served else ():
        yield Finding("note", f"Discord: no server that is served has the role {absent} of discord.roles", _ABSENT)
    if served and not any(guild.missing for guild in served) and not any(channel.missing for channel, _ in named.values()):
        yield Finding("fine", "Discord: the bot has every permission that it needs")


def _lacking(missing: Sequence[str], where: str, worst: Level, advice: str) -> Iterator[Finding]:
    from bots.discord.access import PERMISSIONS

    for permission in missing[:1] if missing[:1] == ("View Channels",) else missing:  # without that one it has no other
        level = worst if permission in _ESSENTIAL else "note"
        yield Finding(level, f"Discord: {where} {permission}: {PERMISSIONS[permission]}", advice)


def _answered(config: DiscordConfig, guilds: "Sequence[Guild]") -> Iterator[Finding]:
    people = f"{len(config.users)} users" if config.users else "everybody"
    roles = f" with one of {len(config.roles)} roles" if config.roles else ""
    places = f"{len(config.channels)} channels" if config.channels else "every channel that it may see"
    if any(guild.served for guild in guilds):
        yield Finding("fine", f"Discord: answers {people}{roles} in {places}, and in direct messages")
