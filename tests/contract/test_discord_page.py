"""docs/discord.md says what the code does and needs.

After a change that is meant: `UPDATE_SNAPSHOTS=1 pytest tests/contract/test_discord_page.py`, then read the diff.
"""

import os
import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import discord

from bots.commands import SUBCOMMANDS
from bots.discord.access import FLAGS, PERMISSIONS, invite_link
from bots.discord.command_tree import MAKE_TASK
from bots.discord.config import CatchUpRules, DiscordRules
from bots.discord.failures import ACCOUNTS, NO_API, PLACES, THREADS
from bots.discord.inbound.catch_up import Pace
from core.attachments import MAX_BYTES
from onethread.platform_settings import DiscordSettings
from onethread.settings import Settings, variable
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "discord.md"
_TABLE = re.compile(r"(<!-- refusals: .*? -->\n)(.*?)(<!-- end of refusals -->)", re.DOTALL)
_NUMBERS = {5: "five"}


def test_the_invitation_asks_for_the_permissions_that_the_page_names_and_for_no_other() -> None:
    asked = parse_qs(urlsplit(invite_link("1234")).query)
    granted = {name for name, is_on in discord.Permissions(int(asked["permissions"][0])) if is_on}
    [sentence] = re.findall(r"The link asks for these permissions, and for no other: ([^.]*)\.", _page())

    assert granted == {_name(flag) for flag in FLAGS.values()}
    assert re.sub(r"\s+", " ", sentence).split(", ") == list(PERMISSIONS)
    assert asked["scope"] == ["bot applications.commands"]


def test_the_page_names_every_command_and_every_setting() -> None:
    page = _page()
    table = tomllib.loads(re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)[0])
    named = set(re.findall(r"\b(?:DISCORD|ONETHREAD)_[A-Z_]+", page))

    assert DiscordSettings.model_validate(table["discord"]).channel["223344556677889900"].answer == "mentions"
    assert set(table["discord"]) == set(DiscordSettings.model_fields)
    assert named <= set(map(variable, Settings.model_fields))
    assert all(f"`{name}`" in page or f"/task {name}" in page for name in SUBCOMMANDS)
    assert f"**{MAKE_TASK}**" in page


def test_the_page_tells_the_numbers_by_which_the_bot_works() -> None:
    page, caught_up, rules = _page(), CatchUpRules(), DiscordRules()

    assert f"{MAX_BYTES // 1024**2} MB" in page
    assert f"longer than {_NUMBERS[rules.parts]} messages" in page
    assert f"the newest {caught_up.messages} messages\nof the last {caught_up.hours:.0f} hours" in page
    assert f"in the {Pace().homes} conversations that\nwere used last" in page


def test_the_page_is_short() -> None:
    assert len(_page().splitlines()) <= 150


def test_the_page_tells_every_sentence_that_people_may_read() -> None:
    page = _page()
    written = _TABLE.sub(lambda found: f"{found[1]}{_tables()}{found[3]}", page)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PAGE.write_text(written, encoding="utf-8")
        page = written
    assert page == written


def _page() -> str:
    return PAGE.read_text(encoding="utf-8")


def _name(flag: str) -> str:
    """What discord.py calls it first, where it has two names for it."""
    [name] = [name for name, is_on in discord.Permissions(**{flag: True}) if is_on]
    return name


def _tables() -> str:
    said = _table("What Onethread says, and what helps", {**PLACES, **ACCOUNTS, 404: NO_API})
    return f"{said}\n{_table('Why an answer stands in the channel, without a thread of its own', THREADS)}"


def _table(title: str, sentences: Mapping[int, str]) -> str:
    codes = defaultdict(list)
    for code, sentence in sentences.items():
        codes[sentence].append(f"`{code}`")
    rows = [f"| {sentence} | {', '.join(names)} |" for sentence, names in codes.items()]
    return "\n".join([f"| {title} | Discord's code |", "|---|---|", *rows, ""])
