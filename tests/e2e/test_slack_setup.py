"""Setting Slack up: what the settings refuse with which sentence, and what `onethread doctor` finds, without ever showing a token."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from bots.slack.access import SCOPES
from tests.e2e.conftest import Prompt

BOT, APP, SECRET = "xoxb-1-secret", "xapp-1-secret", "0123secret"


@dataclass
class Workspace:
    """Slack's API as far as doctor asks it: a stand-in of our own, because the emulator does not tell scopes."""

    scopes: set[str] = field(default_factory=lambda: set(SCOPES))
    bot: dict[str, Any] = field(
        default_factory=lambda: {"ok": True, "team": "Tests", "team_id": "T0123ABCD", "user": "onethread", "user_id": "U0BOT"}
    )
    app: dict[str, Any] = field(default_factory=lambda: {"ok": True, "url": "wss://127.0.0.1/"})

    def answer(self, method: str, token: str) -> dict[str, Any]:
        known = {"auth.test": (BOT, self.bot), "apps.connections.open": (APP, self.app)}
        expected, answer = known[method]
        return answer if token == f"Bearer {expected}" else {"ok": False, "error": "invalid_auth"}


@pytest.fixture
def workspace() -> Workspace:
    return Workspace()


@contextmanager
def _served(workspace: Workspace) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps(workspace.answer(self.path.rsplit("/", 1)[1], self.headers["Authorization"])).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-OAuth-Scopes", ",".join(sorted(workspace.scopes)))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            thread.join(5)


@pytest.fixture
def api(workspace: Workspace) -> Iterator[str]:
    with _served(workspace) as address:
        yield address


def test_doctor_names_accounts_of_other_workspaces_in_the_map_of_people(prompt: Prompt, api: str) -> None:
    people = '{"admin": ["slack:T0123ABCD:U0456EFGH", "slack:T0999ZZZZ:U0456EFGH"]}'

    seen = prompt.run("doctor", SLACK_BOT_TOKEN=BOT, SLACK_APP_TOKEN=APP, ONETHREAD_SLACK_API_URL=api, ONETHREAD_PEOPLE=people)

    assert re.findall("people: .*", seen.out) == [
        "people: all are known whose accounts are named: admin",
        "people: slack:T0999ZZZZ:U0456EFGH is not of T0123ABCD, which is served here",
    ]


def test_without_a_token_doctor_says_where_to_begin(prompt: Prompt) -> None:
    seen = prompt.run("doctor")

    assert (seen.code, "! Slack: no token is set\n    docs/slack.md leads to the first answer there.\n" in seen.out) == (0, True)


def test_doctor_signs_in_and_never_shows_a_token(prompt: Prompt, api: str) -> None:
    seen = prompt.run("doctor", SLACK_BOT_TOKEN=BOT, SLACK_APP_TOKEN=APP, ONETHREAD_SLACK_API_URL=api)

    assert seen.code == 0
    assert "✔ SLACK_BOT_TOKEN=13 characters, not shown (from the environment)\n" in seen.out
    assert "✔ Slack: signed in to 'Tests' (T0123ABCD) as 'onethread'\n" in seen.out
    assert "✔ Slack: the app has every scope that it needs\n" in seen.out
    assert "✔ Slack: Socket Mode would run\n" in seen.out
    assert "✔ Slack: answers every full member in every channel that it is invited to\n" in seen.out
    assert "-secret" not in seen.out


@pytest.mark.parametrize(("scope", "mark", "code"), [("chat:write", "✕", 1), ("files:read", "!", 0)])
def test_doctor_names_each_missing_scope_and_what_breaks_without_it(
    prompt: Prompt, workspace: Workspace, api: str, *, scope: str, mark: str, code: int
) -> None:
    workspace.scopes.remove(scope)
    seen = prompt.run("doctor", SLACK_BOT_TOKEN=BOT, SLACK_APP_TOKEN=APP, ONETHREAD_SLACK_API_URL=api)

    assert f"{mark} Slack: the scope {scope} is missing: {SCOPES[scope]}\n    Add it under OAuth & Permissions" in seen.out
    assert seen.code == code


def test_doctor_tells_a_revoked_token(prompt: Prompt, workspace: Workspace, api: str) -> None:
    workspace.bot = {"ok": False, "error": "token_revoked"}
    seen = prompt.run("doctor", SLACK_BOT_TOKEN=BOT, SLACK_APP_TOKEN=APP, ONETHREAD_SLACK_API_URL=api)

    assert (seen.code, "✕ Slack: Slack does not accept SLACK_BOT_TOKEN any more." in seen.out) == (1, True)


def test_doctor_tells_that_socket_mode_is_off(prompt: Prompt, workspace: Workspace, api: str) -> None:
    workspace.app = {"ok": False, "error": "forbidden_team"}
    seen = prompt.run("doctor", SLACK_BOT_TOKEN=BOT, SLACK_APP_TOKEN=APP, ONETHREAD_SLACK_API_URL=api)

    assert (seen.code, "✕ Slack: Slack does not open Socket Mode for SLACK_APP_TOKEN." in seen.out) == (1, True)


def test_doctor_tells_the_request_url(prompt: Prompt, api: str) -> None:
    tokens: Any = {"SLACK_BOT_TOKEN": BOT, "SLACK_SIGNING_SECRET": SECRET, "ONETHREAD_SLACK_API_URL": api}
    at_home = prompt.run("doctor", **tokens)
    outside = prompt.run("doctor", ONETHREAD_PUBLIC_URL="https://onethread.example.com", **tokens)

    assert "! Slack: HTTP; the request URL is http://127.0.0.1:8420/slack/events\n    Slack sends to public https" in at_home.out
    assert "✔ Slack: HTTP; the request URL is https://onethread.example.com/slack/events\n" in outside.out


def test_offline_nothing_of_slack_is_called_broken(prompt: Prompt) -> None:
    seen = prompt.run("doctor", SLACK_BOT_TOKEN=BOT, SLACK_APP_TOKEN=APP, ONETHREAD_SLACK_API_URL="http://127.0.0.1:9/api/")

    assert (seen.code, "! Slack: Slack cannot be reached.\n    Without a connection" in seen.out) == (0, True)


def test_doctor_shows_who_is_let_in(prompt: Prompt, api: str) -> None:
    _write(prompt.data_dir, 'workspaces = ["T0OTHER"]\nchannels = ["C0123ABCD"]\nusers = ["U0123ABCD", "W0123ABCD"]')
    seen = prompt.run("doctor", SLACK_BOT_TOKEN=BOT, SLACK_APP_TOKEN=APP, ONETHREAD_SLACK_API_URL=api)

    assert "✕ Slack: workspace T0123ABCD is not among slack.workspaces, so nobody is answered\n" in seen.out
    assert "✔ Slack: answers 2 users in 1 channels, and in direct messages\n" in seen.out


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({"SLACK_APP_TOKEN": APP}, "SLACK_APP_TOKEN is set, but SLACK_BOT_TOKEN is not."),
        ({"SLACK_SIGNING_SECRET": SECRET}, "SLACK_SIGNING_SECRET is set, but SLACK_BOT_TOKEN is not."),
        ({"SLACK_BOT_TOKEN": BOT}, "SLACK_BOT_TOKEN is set, but neither SLACK_APP_TOKEN (Socket Mode) nor SLACK_SIGNING_SECRET (HTTP) is."),
        ({"SLACK_BOT_TOKEN": APP, "SLACK_APP_TOKEN": APP}, "SLACK_BOT_TOKEN is no bot's token: those begin with xoxb-."),
        ({"SLACK_BOT_TOKEN": "xoxe.xoxb-1-secret", "SLACK_APP_TOKEN": APP}, "SLACK_BOT_TOKEN ends after twelve hours"),
        ({"SLACK_BOT_TOKEN": BOT, "SLACK_APP_TOKEN": BOT}, "SLACK_APP_TOKEN is no app's token: those begin with xapp-."),
        ({"SLACK_BOT_TOKEN": BOT, "SLACK_SIGNING_SECRET": APP}, "SLACK_SIGNING_SECRET is a token"),
        ({"SLACK_BOT_TOKEN": f'"{BOT}"', "SLACK_APP_TOKEN": APP}, "SLACK_BOT_TOKEN holds what no token of Slack's does"),
        ({"SLACK_BOT_TOKEN": BOT, "SLACK_APP_TOKEN": f"{APP} x"}, "SLACK_APP_TOKEN holds what no token of Slack's does"),
    ],
)
def test_tokens_that_do_not_fit_are_told_and_hinder_nothing_else(prompt: Prompt, tokens: Any, said: str) -> None:
    seen = prompt.run("doctor", **tokens)
    users = prompt.run("user", "list", **tokens)

    assert f"✕ Slack: {said}" in seen.out
    assert (seen.code, users.code) == (1, 0)
    assert "-secret" not in seen.out


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('channels = ["#general"]', "(channels, 0): Value error, '#general' is no channel's id"),
        ('users = ["alice"]', "(users, 0): Value error, 'alice' is no user's id"),
        ('workspaces = ["C0123ABCD"]', "(workspaces, 0): Value error, 'C0123ABCD' is no workspace's id"),
        ('[slack.channel.C0123ABCD]\nmode = "silent"', "(channel, C0123ABCD, mode): Input should be 'threads' or 'chat'"),
        ("guest = true", "(guest): Extra inputs are not permitted"),
    ],
)
def test_a_wrong_list_is_told_with_its_place(prompt: Prompt, table: str, said: str) -> None:
    _write(prompt.data_dir, table)

    assert f"ONETHREAD_SLACK {said}" in prompt.run("user", "list").err


def test_a_wrong_address_of_the_api_is_told(prompt: Prompt) -> None:
    refused = prompt.run("user", "list", ONETHREAD_SLACK_API_URL="slack.example.com")

    assert "ONETHREAD_SLACK_API_URL: Value error, it must look like https://slack.example.com/api/" in refused.err


def test_tokens_in_the_dotenv_file_are_read_and_reach_no_clients_configuration(prompt: Prompt, api: str) -> None:
    lines = [f"SLACK_BOT_TOKEN={BOT}", f"SLACK_APP_TOKEN={APP}", f"SLACK_SIGNING_SECRET={SECRET}", f"ONETHREAD_SLACK_API_URL={api}"]
    (prompt.folder / ".env").write_text("\n".join(lines), encoding="utf-8")
    seen = prompt.run("doctor")
    printed = prompt.run("mcp", "config", "cursor")

    assert "✔ Slack: Socket Mode would run\n" in seen.out
    assert printed.code == 0
    assert "SLACK" not in printed.out + printed.err


def test_tokens_in_the_configuration_file_are_read(prompt: Prompt, api: str) -> None:
    path = prompt.data_dir / "onethread.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'slack_bot_token = "{BOT}"\nslack_app_token = "{APP}"\nslack_api_url = "{api}"\n', encoding="utf-8")

    assert "✔ Slack: Socket Mode would run\n" in prompt.run("doctor").out


def _write(data_dir: Path, table: str) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / "onethread.toml").write_text(f"[slack]\n{table}\n", encoding="utf-8")
