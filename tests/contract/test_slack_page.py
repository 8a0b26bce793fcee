"""docs/slack.md and the app's manifest say what the code does and needs.

After a change that is meant: `UPDATE_SNAPSHOTS=1 pytest tests/contract/test_slack_page.py`, then read the diff.
"""

import os
import re
import tomllib
from collections import defaultdict

from bots.commands import SUBCOMMANDS
from bots.slack import access, events
from bots.slack.failures import ACCOUNTS, PLACES
from core.attachments import MAX_BYTES
from onethread.platform_settings import SlackSettings
from onethread.settings import Settings, variable
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "slack.md"
_TABLE = re.compile(r"(<!-- refusals: .*? -->\n)(.*?)(<!-- end of refusals -->)", re.DOTALL)
_SCOPES = {
    "agents_sessions_setStatus": {"assistant:write"},
    "apps_connections_open": set(),
    "assistant_threads_setStatus": {"assistant:write"},
    "auth_test": set(),
    "chat_appendStream": {"chat:write"},
    "chat_delete": {"chat:write"},
    "chat_postEphemeral": {"chat:write"},
    "chat_postMessage": {"chat:write"},
    "chat_startStream": {"chat:write"},
    "chat_stopStream": {"chat:write"},
    "chat_update": {"chat:write"},
    "conversations_history": {"channels:history", "groups:history", "im:history", "mpim:history"},
    "conversations_info": {"channels:read", "groups:read", "im:read", "mpim:read"},
    "conversations_members": {"channels:read", "groups:read", "im:read", "mpim:read"},
    "conversations_open": {"im:write"},
    "conversations_replies": {"channels:history", "groups:history", "im:history", "mpim:history"},
    "files_info": {"files:read"},
    "users_info": {"users:read"},
}
"""What Slack's documentation asks for, by the method that calls it."""
_HEARD = {
    "app_mention": {"app_mentions:read"},
    "message.channels": {"channels:history"},
    "message.groups": {"groups:history"},
    "message.im": {"im:history"},
    "message.mpim": {"mpim:history"},
    "agent_session_stopped": {"assistant:write"},
    "app_uninstalled": set(),
    "tokens_revoked": set(),
}
"""The events, each with what Slack asks for."""


def test_the_app_asks_for_the_scopes_that_the_code_uses_and_for_no_other() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bots" / "slack").glob("*.py"))
    called = set(re.findall(r"_?client\.((?:agents|apps|assistant|auth|chat|conversations|files|users|views|reactions)_\w+)\(", sources))
    needed = {scope for method in called for scope in _SCOPES[method]} | {scope for scopes in _HEARD.values() for scope in scopes}

    assert called == _SCOPES.keys()
    assert set(access.SCOPES) == needed | {"commands"}
    assert access.manifest()["oauth_config"]["scopes"] == {"bot": sorted(access.SCOPES)}
    assert set(access.SCOPES) > access.ESSENTIAL


def test_the_app_is_sent_the_events_that_the_code_listens_to() -> None:
    settings = access.manifest()["settings"]

    assert set(settings["event_subscriptions"]["bot_events"]) == _HEARD.keys()
    assert settings["interactivity"] == {"is_enabled": True}
    assert (settings["socket_mode_enabled"], settings["org_deploy_enabled"], settings["token_rotation_enabled"]) == (True, False, False)


def test_the_app_offers_the_command_and_the_shortcut() -> None:
    features = access.manifest()["features"]

    assert [shortcut["callback_id"] for shortcut in features["shortcuts"]] == [events.MAKE_TASK]
    assert [(each["command"], each["should_escape"]) for each in features["slash_commands"]] == [("/task", True), ("/link", False)]
    assert set(re.findall(r"(?:^|\| )(\w+)", features["slash_commands"][0]["usage_hint"])) == set(SUBCOMMANDS)
    assert features["app_home"]["messages_tab_read_only_enabled"] is False
    assert "agent_view" in features


def test_the_page_names_every_command_and_every_setting() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = tomllib.loads(re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)[0])
    named = set(re.findall(r"\b(?:SLACK|ONETHREAD)_[A-Z_]+", page))

    assert SlackSettings.model_validate(table["slack"]).channel["C0123ABCD"].answer == "mentions"
    assert set(table["slack"]) == set(SlackSettings.model_fields)
    assert named <= set(map(variable, Settings.model_fields))
    assert all(f"`{name}`" in page or f"/task {name}" in page for name in SUBCOMMANDS)
    assert f"{MAX_BYTES // 1024**2} MB" in page


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_page_tells_every_sentence_that_people_may_read() -> None:
    page = PAGE.read_text(encoding="utf-8")
    written = _TABLE.sub(lambda found: f"{found[1]}{_table()}{found[3]}", page)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PAGE.write_text(written, encoding="utf-8")
        page = written
    assert page == written


def _table() -> str:
    codes = defaultdict(list)
    for code, sentence in {**PLACES, **ACCOUNTS}.items():
        codes[sentence].append(f"`{code}`")
    rows = [f"| {sentence} | {', '.join(names)} |" for sentence, names in codes.items()]
    return "\n".join(["| What Onethread says, and what helps | Slack's code |", "|---|---|", *rows, ""])
