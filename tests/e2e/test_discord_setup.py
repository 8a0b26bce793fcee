"""Setting Discord up: what the settings refuse with which sentence, and what `onethread doctor` finds, without ever showing the token."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bots.discord.access import PERMISSIONS, invite_link
from tests.e2e.conftest import Prompt, Ran
from tests.emulators.discord import DiscordEmulator, discord
from tests.emulators.discord.permissions import INVITED

__all__ = ["discord"]
TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.fake-secret.0123456789"
NOWHERE = "http://127.0.0.1:9/api/v10"
ID = "112233445566778899"


async def doctor(prompt: Prompt, discord: DiscordEmulator, *, table: str = "", **variables: Any) -> Ran:
    """In a thread: the double answers in this one."""
    _write(prompt.data_dir, table)
    given: Any = {"DISCORD_TOKEN": discord.token, "ONETHREAD_DISCORD_API_URL": discord.api_url, **variables}
    return await asyncio.to_thread(prompt.run, "doctor", **given)


def link(discord: DiscordEmulator) -> str:
    return invite_link(discord.application_id)


def test_without_a_token_doctor_says_where_to_begin(prompt: Prompt) -> None:
    seen = prompt.run("doctor")

    assert (seen.code, "! Discord: no token is set\n    docs/discord.md leads to the first answer there.\n" in seen.out) == (0, True)


async def test_doctor_signs_in_and_never_shows_the_token(prompt: Prompt, discord: DiscordEmulator) -> None:
    discord.application.bot_public = False
    seen = await doctor(prompt, discord)

    assert seen.code == 0
    assert f"✔ DISCORD_TOKEN={len(discord.token)} characters, not shown (from the environment)\n" in seen.out
    assert f"✔ Discord: signed in as 'onethread' ({discord.bot_id}), application {discord.application_id}\n" in seen.out
    assert "✔ Discord: the Message Content Intent is on\n" in seen.out
    assert f"✔ Discord: serves {discord.home.name!r} ({discord.home.id})\n" in seen.out
    assert f"✔ Discord: this link invites it: {link(discord)}\n" in seen.out
    assert "✔ Discord: the bot has every permission that it needs\n" in seen.out
    assert "✔ Discord: answers everybody in every channel that it may see, and in direct messages\n" in seen.out
    assert "! Discord" not in seen.out
    assert discord.token not in seen.out
    assert not discord.connections, "nothing listens: another process may"


async def test_a_bot_that_is_nowhere_gets_its_invitation(prompt: Prompt, discord: DiscordEmulator) -> None:
    discord.home.remove_bot()
    seen = await doctor(prompt, discord)

    assert (seen.code, f"! Discord: the bot is in no server yet\n    Invite it: {link(discord)}\n" in seen.out) == (0, True)
    assert "scope=bot+applications.commands" in link(discord)


async def test_doctor_tells_a_token_that_discord_does_not_accept(prompt: Prompt, discord: DiscordEmulator) -> None:
    seen = await doctor(prompt, discord, DISCORD_TOKEN=TOKEN)

    assert (seen.code, "✕ Discord: Discord does not accept DISCORD_TOKEN. Make a new token under Bot, Reset Token" in seen.out) == (1, True)
    assert "fake-secret" not in seen.out


async def test_doctor_tells_what_to_click_where_the_intent_is_off_and_what_works_without_it(
    prompt: Prompt, discord: DiscordEmulator
) -> None:
    discord.message_content = False
    seen = await doctor(prompt, discord)

    assert "! Discord: the Message Content Intent is off: only mentions and direct messages can be read\n" in seen.out
    assert "    Turn it on: Developer Portal, your application, Bot, Privileged Gateway Intents, Message Content Intent" in seen.out
    assert seen.code == 0


async def test_doctor_names_each_permission_that_no_role_gives(prompt: Prompt, discord: DiscordEmulator) -> None:
    discord.home.forbid_everyone(["SEND_MESSAGES", "ATTACH_FILES"])
    discord.home.allow_bot([name for name in INVITED if name not in ("SEND_MESSAGES", "ATTACH_FILES")])
    seen = await doctor(prompt, discord)

    for permission in ("Send Messages", "Attach Files"):
        lacking = (
            f"! Discord: in {discord.home.name!r} no role of the bot has {permission}: {PERMISSIONS[permission]}\n    Turn it on: Server"
        )
        assert lacking in seen.out
    assert "every permission" not in seen.out
    assert seen.code == 0, "a channel may give it"


async def test_doctor_names_what_the_bot_lacks_in_the_channels_where_it_shall_answer(prompt: Prompt, discord: DiscordEmulator) -> None:
    hidden = discord.home.channel("plans", deny=["VIEW_CHANNEL"])
    flat = discord.home.channel("talk", deny=["CREATE_PUBLIC_THREADS"])
    discord.home.channel("elsewhere", deny=["VIEW_CHANNEL"])
    seen = await doctor(prompt, discord, table=f'channels = ["{hidden}", "{flat}", "{ID}"]\nroles = ["{ID}"]')

    home = discord.home.name
    assert f"✕ Discord: in the channel 'plans' of {home!r} the bot lacks View Channels: {PERMISSIONS['View Channels']}\n" in seen.out
    assert f"'plans' of {home!r} the bot lacks Send" not in seen.out, "it follows from the first"
    assert f"! Discord: in the channel 'talk' of {home!r} the bot lacks Create Public Threads: answers stand in the channel" in seen.out
    assert "elsewhere" not in seen.out
    assert f"! Discord: no server that is served has the channel {ID}\n    Copy its id anew" in seen.out
    assert f"! Discord: no server that is served has the role {ID} of discord.roles\n" in seen.out
    assert "✔ Discord: answers everybody with one of 1 roles in 3 channels, and in direct messages\n" in seen.out
    assert seen.code == 1


async def test_of_a_public_bot_without_a_list_only_servers_of_its_owners_are_served(prompt: Prompt, discord: DiscordEmulator) -> None:
    discord.application.bot_public = True
    theirs = discord.guild("Theirs", owner=discord.stranger("mallory"))
    theirs.add_bot()
    seen = await doctor(prompt, discord)

    assert "! Discord: anybody may invite the bot, so only servers of the application's owners are served\n    Turn Public" in seen.out
    assert f"✔ Discord: serves {discord.home.name!r} ({discord.home.id})\n" in seen.out
    assert f"! Discord: does not serve 'Theirs' ({theirs.id}): its owner does not own the application\n    If it shall be" in seen.out
    assert f'"{theirs.id}", in guilds under [discord] in onethread.toml.\n' in seen.out


async def test_with_a_list_doctor_tells_the_servers_on_one_side_only(prompt: Prompt, discord: DiscordEmulator) -> None:
    discord.application.bot_public = True
    seen = await doctor(prompt, discord, table=f'guilds = ["{ID}"]')

    assert "anybody may invite" not in seen.out
    assert f"! Discord: does not serve {discord.home.name!r} ({discord.home.id}), which is not among discord.guilds\n" in seen.out
    assert f"✕ Discord: the bot is not in the server {ID} of discord.guilds\n    Invite it: {link(discord)}\n" in seen.out
    assert "✕ Discord: none of its servers is served, so nobody is answered\n" in seen.out
    assert seen.code == 1


async def test_doctor_tells_that_commands_are_sent_elsewhere(prompt: Prompt, discord: DiscordEmulator) -> None:
    discord.application.interactions_endpoint_url = "https://elsewhere.example.com"
    seen = await doctor(prompt, discord)

    assert (seen.code, "✕ Discord: commands and buttons are sent to an address, and never come here\n" in seen.out) == (1, True)


def test_offline_nothing_of_discord_is_called_broken(prompt: Prompt) -> None:
    seen = prompt.run("doctor", DISCORD_TOKEN=TOKEN, ONETHREAD_DISCORD_API_URL=NOWHERE)

    assert (seen.code, "! Discord: Discord cannot be reached.\n    Without a connection to Discord" in seen.out) == (0, True)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("112233445566778899", "DISCORD_TOKEN is an id, such as the application's."),
        ("0123456789abcdef" * 4, "DISCORD_TOKEN is the application's public key."),
        ("secret-secret-secret-secret-2345", "DISCORD_TOKEN is the application's client secret."),
        ("Bearer secret", "DISCORD_TOKEN is a token for a person, not for a bot."),
        ("secret.secret", "DISCORD_TOKEN is no bot's token: those have three parts with dots between them."),
        (f'"{TOKEN}"', "DISCORD_TOKEN holds what no token of Discord's does: blanks, quotes or the like."),
        (f"{TOKEN} x", "DISCORD_TOKEN holds what no token of Discord's does: blanks, quotes or the like."),
    ],
)
def test_what_is_no_token_is_told_and_hinders_nothing_else(prompt: Prompt, token: str, said: str) -> None:
    seen = prompt.run("doctor", DISCORD_TOKEN=token)
    users = prompt.run("user", "list", DISCORD_TOKEN=token)

    assert f"✕ Discord: {said}" in seen.out
    assert "See docs/discord.md." in seen.out
    assert (seen.code, users.code) == (1, 0)
    assert "secret-" not in seen.out
    assert token not in seen.out


@pytest.mark.parametrize("prefix", ["", "Bot "])
def test_a_token_is_taken_with_and_without_the_word_that_goes_before_it(prompt: Prompt, prefix: str) -> None:
    seen = prompt.run("doctor", DISCORD_TOKEN=f"{prefix}{TOKEN}", ONETHREAD_DISCORD_API_URL=NOWHERE)

    assert "Discord cannot be reached." in seen.out


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('channels = ["#general"]', "(channels, 0): Value error, '#general' is no channel's id: Discord's are 15 to 20 digits"),
        ('users = ["alice"]', "(users, 0): Value error, 'alice' is no user's id"),
        ('guilds = ["My server"]', "(guilds, 0): Value error, 'My server' is no server's id"),
        ('roles = ["@team"]', "(roles, 0): Value error, '@team' is no role's id"),
        (f"guilds = [{ID}]", f'(guilds, 0): Value error, {ID} must stand in quotes, "{ID}"'),
        ('[discord.channel.plans]\nmode = "chat"', "'plans' is no channel's id"),
        (f'[discord.channel.{ID}]\nmode = "silent"', f"(channel, {ID}, mode): Input should be 'threads' or 'chat'"),
        ("guild = []", "(guild): Extra inputs are not permitted"),
    ],
)
def test_a_wrong_list_is_told_with_its_place(prompt: Prompt, table: str, said: str) -> None:
    _write(prompt.data_dir, table)
    refused = prompt.run("user", "list").err

    assert "ONETHREAD_DISCORD (" in refused
    assert said in refused


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [
        ("ONETHREAD_DISCORD_API_URL", "discord.example.com", "it must look like https://discord.example.com/api/v10"),
        ("ONETHREAD_DISCORD_GATEWAY_URL", "https://gateway.example.com", "it must look like wss://gateway.example.com/"),
    ],
)
def test_a_wrong_address_is_told(prompt: Prompt, name: str, address: str, said: str) -> None:
    variables: Any = {name: address}

    assert f"{name}: Value error, {said}" in prompt.run("user", "list", **variables).err


def test_token_in_the_dotenv_file_is_read_and_reaches_no_clients_configuration(prompt: Prompt) -> None:
    lines = [f"DISCORD_TOKEN={TOKEN}", f"ONETHREAD_DISCORD_API_URL={NOWHERE}", "ONETHREAD_DISCORD_GATEWAY_URL=ws://127.0.0.1:9"]
    (prompt.folder / ".env").write_text("\n".join(lines), encoding="utf-8")
    seen = prompt.run("doctor")
    printed = prompt.run("mcp", "config", "cursor")

    assert "Discord cannot be reached." in seen.out
    assert printed.code == 0
    assert "DISCORD" not in printed.out + printed.err


def test_token_in_the_configuration_file_is_read(prompt: Prompt) -> None:
    prompt.data_dir.mkdir(parents=True, exist_ok=True)
    settings = f'discord_token = "{TOKEN}"\ndiscord_api_url = "{NOWHERE}"\n'
    (prompt.data_dir / "onethread.toml").write_text(settings, encoding="utf-8")

    assert "Discord cannot be reached." in prompt.run("doctor").out


def _write(data_dir: Path, table: str) -> None:
    if table:
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / "onethread.toml").write_text(f"[discord]\n{table}\n", encoding="utf-8")
