"""`onethread serve`: how it starts and for whom, how it ends, and what a client of a killed one sees."""

import asyncio
import os
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Prompt
from tests.serving import FROM_OUR_PAGE, Served, served
from tests.web_client import Client, Shown, client

Frame = dict[str, Any]
KEY = "a secret key of more than thirty-two characters"


@asynccontextmanager
async def following(site: Served, asked: Frame) -> AsyncIterator[tuple[Client, Shown]]:
    """Whoever has the session's cookie, following the conversation over every loss of the connection."""
    async with client(site.url, additional_headers=site.cookie) as page:
        yield page, await page.join(f"conversation:{asked['conversation_id']}")


def counted_to(number: int) -> str:
    return " ".join(map(str, range(1, number + 1)))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where nothing was before."""
    return tmp_path / "data"


# --- on this machine ---


async def test_first_start_needs_nothing_and_its_link_signs_in_once(data_dir: Path) -> None:
    async with served(data_dir, installed=True) as site:
        again = await site.browser.get(site.link)
        me = (await site.browser.get("/api/me")).json()
        at_once = {"Prefer": "respond-async", **FROM_OUR_PAGE}  # the model's library is loaded meanwhile
        chat = await site.browser.post("/api/chat", json={"message": "count to 3"}, headers=at_once)
        reply = chat.json()["message"]["id"]
        async with following(site, chat.json()) as (page, shown):
            await page.until(lambda: shown.ended(reply), seconds=90)
        answered = (await site.browser.get(f"/api/turns/{chat.json()['turn_id']}")).json()["message"]
        async with httpx.AsyncClient(base_url=site.url) as stranger:
            refused = await stranger.get("/api/me")
        code = await site.end()

    assert (again.status_code, refused.status_code) == (401, 401)
    assert (me["name"], me["admin"]) == ("admin", True)
    assert answered["content"].endswith("1 2 3")
    assert shown.texts[reply] == answered["content"]
    assert code == 0
    assert {entry.stat().st_mode & 0o077 for entry in os.scandir(data_dir)} == {0}
    log = site.log.read_text(encoding="utf-8")
    secrets = [
        site.link.partition("code=")[2],
        site.browser.cookies["onethread_sid"],
        (data_dir / "secret_key").read_text(encoding="ascii"),
    ]
    assert not [secret for secret in (*secrets, "count to 3", "1 2 3") if secret in log]
    (message,), (claimed,) = site.entries("message.posted"), site.entries("turn.claimed")
    assert message["turn_id"] == claimed["turn_id"] == chat.json()["turn_id"]
    assert message["request_id"] == chat.headers["x-request-id"]
    assert "serve.stopping" in log


async def test_client_of_a_killed_server_ends_with_the_whole_text_after_the_next_start(data_dir: Path) -> None:
    async with served(data_dir) as site:
        asked = await site.ask("count to 120")
        reply = asked["message"]["id"]
        async with following(site, asked) as (page, shown):
            await page.until(lambda: len(shown.texts.get(reply, "")) >= 100, seconds=40)
            assert not shown.ended(reply)
            site.process.kill()
            await site.process.wait()
            async with served(data_dir, port=site.port) as anew:
                await page.until(lambda: shown.ended(reply), seconds=40)
                messages = (await anew.browser.get(f"/api/conversations/{asked['conversation_id']}/messages")).json()["messages"]

    assert (page.connections, page.closed[0]) == (2, 1006)
    assert shown.texts[reply].endswith(counted_to(120))
    assert shown.texts[reply].count("120") == 1
    assert [(message["role"], message["status"]) for message in messages] == [("user", "completed"), ("assistant", "completed")]
    assert messages[1]["content"] == shown.texts[reply]


async def test_stopped_server_hands_its_turn_to_another_on_the_same_file(data_dir: Path) -> None:
    async with served(data_dir) as one, served(data_dir, name="two") as two:
        asked = await one.ask("count to 200")
        reply = asked["message"]["id"]
        async with following(one, asked) as (at_one, on_one), following(two, asked) as (at_two, on_two):
            await at_two.until(lambda: len(on_two.texts.get(reply, "")) >= 50, seconds=40)
            answering, other, page, shown = (one, two, at_two, on_two) if one.entries("turn.claimed") else (two, one, at_one, on_one)
            code = await answering.end()
            await page.until(lambda: shown.ended(reply), seconds=40)
        taken_over = other.entries("turn.claimed")

    assert code == 0
    assert (one.browser.cookies["onethread_sid"] == two.browser.cookies["onethread_sid"]) is False
    assert [entry["turn_id"] for entry in taken_over] == [asked["turn_id"]]
    assert shown.texts[reply].endswith(counted_to(200))
    database = sqlite3.connect(data_dir / "onethread.db")
    assert database.execute("SELECT status, failures, rescues FROM turns").fetchall() == [("succeeded", 0, 0)]
    database.close()


async def test_event_streams_end_at_the_first_signal_and_all_the_rest_at_the_second(data_dir: Path) -> None:
    async with served(data_dir, "--no-worker") as site:
        asked = await site.ask("Hello")
        waiting = asyncio.create_task(site.browser.post("/api/chat", json={"message": "Hello again"}, headers=FROM_OUR_PAGE))
        async with asyncio.timeout(40), site.browser.stream("GET", f"/api/turns/{asked['turn_id']}/events") as stream:
            await site.has_logged("message.posted", times=2)
            site.process.send_signal(signal.SIGTERM)
            events = await stream.aread()
            await site.refuses()
            code = await site.end()
        with pytest.raises(httpx.RemoteProtocolError):
            await waiting

    assert b"llm_complete" not in events
    assert code == -signal.SIGTERM


# --- refusals ---

_SOON = pytest.mark.timeout(30)
"""A refusal that does not come leaves a server running in the test's process."""


@_SOON
@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("ONETHREAD_SECRET_KEY", "- Set ONETHREAD_SECRET_KEY, the same for every process. This makes one: python3 -c "),
        ("ONETHREAD_PUBLIC_URL", "- Set ONETHREAD_PUBLIC_URL to what people type to get there, such as https://onethread.example.com\n"),
        ("admin", "- Let an admin set a password. This prints the link for it: onethread user link admin, or onethread user add "),
    ],
)
def test_others_are_not_served_before_all_is_safe(prompt: Prompt, missing: str, said: str) -> None:
    if missing != "admin":
        prompt.run("user", "link", "admin")
    variables: Any = {"ONETHREAD_SECRET_KEY": KEY, "ONETHREAD_PUBLIC_URL": "https://onethread.example.com"}
    variables.pop(missing, None)

    refused = prompt.run("serve", "--host", "0.0.0.0", "--port", "0", **variables)

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("Error: Others than this machine come to http")
    assert refused.err.count("\n- ") == 1
    assert said in refused.err


@_SOON
def test_public_address_needs_the_same_behind_a_proxy_on_this_machine(prompt: Prompt) -> None:
    refused = prompt.run("serve", "--port", "0", ONETHREAD_PUBLIC_URL="https://onethread.example.com")

    assert refused.code == 1
    assert refused.err.startswith("Error: Others than this machine come to https://onethread.example.com.")
    assert refused.err.count("\n- ") == 2


@_SOON
def test_short_secret_key_is_refused_here_too(prompt: Prompt) -> None:
    refused = prompt.run("serve", "--port", "0", ONETHREAD_SECRET_KEY="too-short")

    assert refused.code == 1
    assert "- ONETHREAD_SECRET_KEY has 9 characters and needs 32 or more." in refused.err
    assert "too-short" not in refused.err


@_SOON
def test_damaged_secret_key_file_is_refused(prompt: Prompt) -> None:
    prompt.data_dir.mkdir()
    (prompt.data_dir / "secret_key").write_text("cut", encoding="ascii")

    refused = prompt.run("serve", "--port", "0")

    assert (refused.code, refused.err.startswith(f"Error: {prompt.data_dir}/secret_key is damaged. Remove it")) == (1, True)


@_SOON
def test_port_that_is_taken_is_refused_in_a_sentence(prompt: Prompt) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        refused = prompt.run("serve", "--port", str(port))

    assert (refused.code, refused.out) == (1, "")
    assert refused.err == (
        f"Error: Port {port} of 127.0.0.1 is taken, perhaps by another `onethread serve`. Stop that one, or choose another with --port.\n"
    )


@_SOON
@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", ""])
def test_address_of_another_machine_is_refused_in_a_sentence(prompt: Prompt, host: str) -> None:
    refused = prompt.run("serve", "--host", host, "--port", "0")

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"Error: {host!r} is no address of this machine. Use --host 127.0.0.1, or --host 0.0.0.0")
