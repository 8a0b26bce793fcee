"""What the bot must be allowed, and which guilds it serves."""

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import discord

from bots.discord.access import FLAGS, PERMISSIONS, SignedIn, invite_link, missing_permissions, served_guilds
from bots.discord.config import DiscordConfig


@dataclass(frozen=True)
class Guild:
    id: int
    owner_id: int | None


MINE, THEIRS = Guild(1, 10), Guild(2, 20)


def who(*, public: bool) -> SignedIn:
    return SignedIn(
        bot_user_id="5", bot="onethread", application_id="6", public=public, message_content=True, owner_ids=frozenset({"10", "11"})
    )


def test_the_link_asks_for_what_is_needed_and_no_more() -> None:
    asked = parse_qs(urlsplit(invite_link("6")).query)
    assert (asked["client_id"], asked["scope"]) == (["6"], ["bot applications.commands"])
    permissions = discord.Permissions(int(asked["permissions"][0]))
    assert {name for name, allowed in permissions if allowed} == {
        "read_messages",  # View Channels
        "send_messages",
        "send_messages_in_threads",
        "create_public_threads",
        "read_message_history",
        "attach_files",
    }
    assert FLAGS.keys() == PERMISSIONS.keys()


def test_what_is_missing_is_named() -> None:
    assert missing_permissions(discord.Permissions(administrator=True)) == []
    granted = discord.Permissions(view_channel=True, send_messages=True, read_message_history=True, attach_files=True)
    assert missing_permissions(granted) == ["Send Messages in Threads", "Create Public Threads"]


def test_named_guilds_are_served_where_the_bot_is_in_them() -> None:
    config = DiscordConfig(token="", guilds=frozenset({"2", "3"}))
    assert served_guilds(config, who(public=True), [MINE, THEIRS]) == {"2"}


def test_without_a_list_a_public_bot_serves_only_its_owners_guilds() -> None:
    config = DiscordConfig(token="")
    assert served_guilds(config, who(public=True), [MINE, THEIRS, Guild(3, None)]) == {"1"}
    assert served_guilds(config, who(public=False), [MINE, THEIRS]) == {"1", "2"}


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(DiscordConfig(token="secret"))
