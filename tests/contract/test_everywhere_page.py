"""docs/everywhere.md says what the code does."""

import re
import tomllib

import click

from bots.commands import SUBCOMMANDS
from core import linking, wording
from core.agent import AgentRules
from onethread.cli import onethread
from onethread.settings import Settings, people_map, variable
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "everywhere.md").read_text(encoding="utf-8")


def test_the_page_names_commands_and_settings_that_there_are() -> None:
    typed = set(re.findall(r"/task (\w+)", PAGE))
    shell = set(re.findall(r"`onethread (\w+)(?: (list|remove))?", PAGE))
    named = set(re.findall(r"\bONETHREAD_[A-Z_]+", PAGE))

    assert typed == {"follow", "unfollow", "where"} <= SUBCOMMANDS.keys()
    assert shell == {("bind", ""), ("link", ""), ("link", "list"), ("link", "remove"), ("user", "list"), ("doctor", ""), ("serve", "")}
    assert all(_is_command(first, second) for first, second in shell)
    assert named <= set(map(variable, Settings.model_fields))


def _is_command(first: str, second: str) -> bool:
    command = onethread.commands.get(first)
    return command is not None and (not second or (isinstance(command, click.Group) and second in command.commands))


def test_the_map_of_people_on_the_page_is_one() -> None:
    [table] = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)

    people = people_map(Settings(people=tomllib.loads(table)["people"]))

    assert people[("discord", "112233445566778899", "223344556677889900")] == "mia"
    assert people[("slack", "T0123ABCD", "U0789JKLM")] == "kim"


def test_the_page_tells_the_times_and_the_sentences() -> None:
    minutes = linking.LIFETIME.total_seconds() / 60
    default = Settings.model_fields["approval_hours"].default

    assert f"good once and for {minutes:.0f} minutes" in PAGE
    assert default == AgentRules().approval_hours
    assert f"after `ONETHREAD_APPROVAL_HOURS`, {default:.0f} unless set" in " ".join(PAGE.split())
    assert f"`{wording.ended('not_a_reader')}`" in PAGE
    assert wording.also(
        [
            {"id": "1", "surface": "slack", "kind": "open", "label": "#ops", "mode": "two_way", "state": "live"},
            {"id": "2", "surface": "discord", "kind": "private", "label": "", "mode": "watch", "state": "live"},
        ]
    ) in " ".join(PAGE.split())
