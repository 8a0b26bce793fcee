"""Slack for tests: the published emulator (npm emulate), started by launch.mjs with what it lacks, and people who use it.

    from tests.emulators.slack import SlackEmulator, slack, slack_process

    __all__ = ["slack", "slack_process"]  # fixtures, for a conftest.py or a module of tests

    async def test_a_mention_is_answered_in_its_thread(slack: SlackEmulator, app: App) -> None:
        await slack.connect(f"{app.url}/slack/events")  # the request URL; in Socket Mode: tests/emulators/slack/agents.py
        alice, channel = await slack.person("alice"), await slack.channel()
        await slack.fail("chat.update", status=429, retry_after=1)  # the next one
        await slack.disturb("repeat_with_new_id")  # the next message event comes twice
        ts = await alice.mention(channel, "plan my week")  # Slack sends a message and an app_mention
        thread = await alice.sees(channel, ts, lambda messages: messages[-1]["text"] == "Your week")
        await alice.press(channel, thread[-1]["ts"], "retry")
        await slack.delivered()  # no event and no retry is under way
        assert [state["text"] for state in await slack.edits(channel, thread[-1]["ts"])] == ["◐", "Your", "Your week"]

`slack` is fresh for each test: no request URL, no faults, Slack's budget of 50 `chat.update` a minute, an empty record. The process behind
it is shared, so a test makes channels of its own. People are alice, bob and carol. The app's client is
`AsyncWebClient(token=slack.bot_token, base_url=slack.url)`, and `slack.bot` is one. Methods of the Web API that this module does not name
are called on `slack.bot` or `person.client`.
"""

import asyncio
import hashlib
import hmac
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

JSON = dict[str, Any]
T = TypeVar("T")

WAIT_SECONDS = 20.0
SUBSCRIBED = ("message", "app_mention", "reaction_added")
RETRY_SECONDS = (0.0, 1.0, 2.0)  # Slack's are at once, 1 min, 5 min
_FOLDER = Path(__file__).parent
_MANIFEST = _FOLDER.parents[2] / "bots" / "slack" / "manifest.json"
_SEED: JSON = json.loads((_FOLDER / "seed.json").read_text(encoding="utf-8"))
_APP: JSON = _SEED["oauth_apps"][0]
_TOKENS: dict[str, str] = {entry.get("user", "bot"): entry["token"] for entry in _SEED["tokens"]}
_COMMANDS = {each["command"] for each in json.loads(_MANIFEST.read_text(encoding="utf-8"))["features"]["slash_commands"]}
_LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")

Disturbance = Literal["repeat", "repeat_with_new_id", "hold", "delay", "lose"]


@pytest.fixture(scope="session")
def slack_process() -> Iterator[str]:
    """The address of a running emulator, one for all tests of this process."""
    with slack_running() as url:
        yield url


@pytest.fixture
async def slack(slack_process: str) -> AsyncIterator["SlackEmulator"]:
    """The emulator, as if nobody had used it."""
    emulator = SlackEmulator(slack_process)
    await emulator.reset()
    yield emulator
    await emulator.reset()


@contextmanager
def slack_running() -> Iterator[str]:
    """The address of an emulator that runs within the `with`. Skips the test where it is not installed; in CI fails it."""
    from tests.conftest import ROOT, require  # here, because it may be what imports the fixtures

    require("slack-emulator")
    command = ["node", str(_FOLDER / "launch.mjs")]
    with Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, encoding="utf-8") as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = _LISTENING.match(line)
            assert found, f"the Slack emulator said {line!r}"
            yield found[1]
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the app said to a request of Slack's."""

    status: int
    text: str

    @property
    def json(self) -> JSON:
        """{} for an empty answer."""
        return dict(json.loads(self.text)) if self.text else {}


@dataclass(slots=True)
class SlackEmulator:
    """A workspace of alice, bob, carol and the app."""

    root: str
    signing_secret: str = _SEED["signing_secret"]
    bot_token: str = _TOKENS["bot"]
    app_token: str = "xapp-test-app"
    app_id: str = _APP["app_id"]
    bot_id: str = _APP["bot_id"]
    bot_user_id: str = _APP["bot_user_id"]
    team_id: str = "T000000001"
    request_url: str = ""
    """Where the app listens; see `connect`."""

    @property
    def url(self) -> str:
        """The `base_url` for slack_sdk."""
        return f"{self.root}/api/"

    @property
    def bot(self) -> AsyncWebClient:
        """The app's own client."""
        return AsyncWebClient(token=self.bot_token, base_url=self.url)

    async def connect(
        self, request_url: str, *, events: Sequence[str] = SUBSCRIBED, retry_seconds: Sequence[float] = RETRY_SECONDS
    ) -> None:
        """From now on `events` go there, and what is under way as well.

        One that is not answered with 2xx within 3 s is sent again after each of `retry_seconds`.
        """
        retry_ms = [round(1000 * seconds) for seconds in retry_seconds]
        await self.post_test("request_url", {"url": request_url, "events": list(events), "retry_ms": retry_ms})
        self.request_url = request_url

    async def disconnect(self) -> None:
        """From now on events are lost."""
        await self.post_test("no_request_url", {})
        self.request_url = ""

    async def reset(self) -> None:
        """Forgets request URLs, faults, budgets, disturbances, guests and the record; keeps channels and messages."""
        await self.post_test("reset", {})
        self.request_url = ""

    async def person(self, name: str) -> "Person":
        """alice, bob or carol."""
        client = AsyncWebClient(token=_TOKENS[name], base_url=self.url)
        return Person(name=name, id=(await client.auth_test())["user_id"], client=client, slack=self)

    async def channel(self, name: str | None = None, *, private: bool = False, bot: bool = True) -> str:
        """The id of a new channel with all three people, and with the app unless `bot` is false."""
        alice, bob, carol = [await self.person(name) for name in ("alice", "bob", "carol")]
        made = await alice.client.conversations_create(name=name or f"c-{uuid.uuid4().hex[:12]}", is_private=private)
        channel = str(made["channel"]["id"])
        members = [bob.id, carol.id, *([self.bot_user_id] if bot else [])]
        await alice.client.conversations_invite(channel=channel, users=members)
        return channel

    async def fail(
        self,
        method: str,
        *,
        times: int = 1,
        error: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        delay: float = 0,
        late: float = 0,
        cut: Literal["before", "after"] | None = None,
        channel: str | None = None,
        ts: str | None = None,
    ) -> None:
        """The next `times` calls of `method` by the app (in `channel`, on the message or thread `ts`) go wrong.

        With `error` Slack refuses (`{"ok": false}`), with `status` it answers that and does nothing. `delay` seconds pass before the
        call is done; it is done and answered `late` seconds later; the connection is cut, `before` or `after` it was done.
        """
        answer = {"status": 200, "body": {"ok": False, "error": error}} if error else {"status": status}
        where = {"cut": cut, "retry_after": retry_after, "channel": channel, "ts": ts}
        await self.post_test(
            "faults", {"method": method, "times": times, "delay_ms": delay * 1000, "after_ms": late * 1000, **answer, **where}
        )

    async def budgets(self, budgets: Mapping[str, tuple[int, float]]) -> None:
        """The rate limits, in place of 50 chat.update in 60 s: {method: (calls, seconds)}. None for {}."""
        await self.post_test("budgets", {method: {"calls": calls, "seconds": seconds} for method, (calls, seconds) in budgets.items()})

    async def refused(self, method: str = "chat.update") -> int:
        """How many calls of `method` found the budget spent."""
        return int((await self.get_test("refused")).get(method, 0))

    async def disturb(self, kind: Disturbance, *, times: int = 1, event: str = "message", late: float = 0) -> None:
        """The next `times` events of that subtype or type, unless the app itself caused them, go a crooked way.

        `repeat`: sent twice, as Slack does when it missed the answer. `repeat_with_new_id`: the same under two event ids. `hold`: sent
        after the next event. `delay`: sent `late` seconds later. `lose`: the first attempt never arrives, the retry does.
        """
        await self.post_test("disturbances", {"kind": kind, "times": times, "event": event, "late_ms": round(1000 * late)})

    async def delivered(self) -> None:
        """Until no event and no retry is under way."""
        async with asyncio.timeout(2 * WAIT_SECONDS):
            await self.get_test("delivered")

    async def deliveries(self, event: str | None = None) -> list[JSON]:
        """Every attempt to hand over an event (of that subtype or type): url, event_id, event, channel, ts, retry, status, envelope."""
        return [one for one in await self.get_test("deliveries") if event in (None, one["event"])]

    async def calls(self, method: str | None = None, *, token: str | None = "bot") -> list[JSON]:
        """The calls with that kind of token (bot, user, app; None: any), oldest first.

        Each has method, token, channel, ts, at, ended_at (both in seconds of the epoch), status, ok, error, args; `cut` if it was.
        """
        calls: list[JSON] = await self.get_test("calls")
        return [call for call in calls if method in (None, call["method"]) and token in (None, call["token"])]

    async def edits(self, channel: str, ts: str) -> list[JSON]:
        """Every state that the message was in, oldest first: at (seconds of the epoch), method, text, blocks."""
        return list(await self.get_test("edits", channel=channel, ts=ts))

    async def until(self, look: Callable[[], Awaitable[T]], condition: Callable[[T], bool], *, seconds: float = WAIT_SECONDS) -> T:
        """What `look` gives, as soon as `condition` holds for it: it looks again after each call and event. TimeoutError after that."""
        async with asyncio.timeout(seconds):
            count = -1
            while True:
                count = (await self.get_test("changes", since=count))["count"]
                if condition(seen := await look()):
                    return seen

    async def responses(self) -> list[JSON]:
        """What the app posted to response URLs."""
        return list(await self.get_test("responses"))

    async def send(self, event: JSON, *, event_id: str | None = None, retry: int = 0, **envelope: Any) -> Answer:
        """Hands the app an event of the test's own making, or again one that was delivered (`delivery["envelope"]["event"]`)."""
        whole = {
            "type": "event_callback",
            "team_id": self.team_id,
            "api_app_id": self.app_id,
            "event_id": event_id or f"Ev{uuid.uuid4().hex}",
            "event_time": int(time.time()),
            "event": event,
            "authorizations": [{"enterprise_id": None, "team_id": self.team_id, "user_id": self.bot_user_id, "is_bot": True}],
            **envelope,
        }
        headers = {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": "http_timeout"} if retry else {}
        return await self.post_to_app(json.dumps(whole), "application/json", headers)

    async def post_to_app(self, body: str, content_type: str, headers: Mapping[str, str] | None = None) -> Answer:
        """A signed request to the request URL. Headers given here win, so that a test can forge them."""
        signed = {"Content-Type": content_type, **signature(self.signing_secret, body), **(headers or {})}
        async with aiohttp.ClientSession() as session, session.post(self.request_url, data=body.encode(), headers=signed) as answer:
            return Answer(answer.status, await answer.text())

    async def post_test(self, path: str, body: JSON) -> Any:
        """Orders something of the launcher."""
        async with aiohttp.ClientSession() as session, session.post(f"{self.root}/_test/{path}", json=body) as answer:
            return await answer.json()

    async def get_test(self, path: str, **query: str | int) -> Any:
        """Asks the launcher something."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.root}/_test/{path}", params=query) as answer:
            return await answer.json()

    def response_url(self) -> str:
        return f"{self.root}/_test/responses/{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Someone in the workspace. Messages are named by their ts, channels by their id."""

    name: str
    id: str
    client: AsyncWebClient
    slack: SlackEmulator

    async def say(self, channel: str, text: str, *, thread: str | None = None, files: Sequence[tuple[str, bytes]] = ()) -> str:
        """The ts of the new message, with `files` as (name, content)."""
        if files:
            return await self._upload(channel, text, thread, files)
        return str((await self.client.chat_postMessage(channel=channel, text=text, thread_ts=thread))["ts"])

    async def mention(self, channel: str, text: str, *, thread: str | None = None, files: Sequence[tuple[str, bytes]] = ()) -> str:
        """Says `text` to the app. As Slack does, the launcher sends an app_mention beside the message, with another event id."""
        return await self.say(channel, f"<@{self.slack.bot_user_id}> {text}", thread=thread, files=files)

    async def dm(self, text: str, *, thread: str | None = None, files: Sequence[tuple[str, bytes]] = ()) -> str:
        """Says `text` in the direct messages with the app."""
        return await self.say(await self.dm_channel(), text, thread=thread, files=files)

    async def dm_channel(self) -> str:
        """The id of the direct messages with the app."""
        return str((await self.client.conversations_open(users=self.slack.bot_user_id))["channel"]["id"])

    async def edit(self, channel: str, ts: str, text: str) -> None:
        await self.client.chat_update(channel=channel, ts=ts, text=text)

    async def delete(self, channel: str, ts: str) -> None:
        await self.client.chat_delete(channel=channel, ts=ts)

    async def becomes(self, **traits: Any) -> None:
        """From now on users.info says so: `is_restricted=True` of a guest, `is_stranger=True, team_id="T0OTHER"` of someone elsewhere."""
        await self.slack.post_test("people", {"user": self.id, **traits})

    async def history(self, channel: str) -> list[JSON]:
        """The channel's messages outside of threads, newest first, as Slack gives them."""
        return list((await self.client.conversations_history(channel=channel))["messages"])

    async def replies(self, channel: str, thread: str) -> list[JSON]:
        """The thread with its root, oldest first."""
        return list((await self.client.conversations_replies(channel=channel, ts=thread))["messages"])

    async def sees(
        self, channel: str, thread: str, condition: Callable[[list[JSON]], bool], *, seconds: float = WAIT_SECONDS
    ) -> list[JSON]:
        """The thread, as soon as `condition` holds for it. TimeoutError after `seconds`."""
        return await self.slack.until(lambda: self.replies(channel, thread), condition, seconds=seconds)

    async def slash(self, command: str, text: str, channel: str) -> Answer:
        """Types `command` (with its slash) into the channel; into a thread Slack's clients let nobody. It must be one of the app's."""
        assert command in _COMMANDS, f"{command} is no command here: Slack tells the person so, and not the app"
        form = {
            **self._sender_of_form(),
            "command": command,
            "text": text,
            "channel_id": channel,
            "channel_name": await self._channel_name(channel),
            "response_url": self.slack.response_url(),
            "trigger_id": await self._trigger_id(),
        }
        return await self._post_form(form)

    async def press(self, channel: str, ts: str, action_id: str, *, value: str | None = None) -> Answer:
        """Presses a button of a message: the first with `action_id`, or the one with `value` too. AssertionError if there is none."""
        message = await self._message(channel, ts)
        block_id, button = _button(message, action_id, value)
        action = {**button, "block_id": block_id, "action_ts": _now()}
        thread = {"thread_ts": message["thread_ts"]} if "thread_ts" in message else {}
        payload = {
            "type": "block_actions",
            "container": {"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": False, **thread},
            "message": message,
            "state": {"values": {}},
            "actions": [action],
            "response_url": self.slack.response_url(),
        }
        return await self._interact(channel, payload)

    async def shortcut(self, callback_id: str, channel: str, ts: str) -> Answer:
        """Chooses a message shortcut in the menu of a message."""
        message = await self._message(channel, ts)
        payload = {"type": "message_action", "callback_id": callback_id, "message_ts": ts, "action_ts": _now(), "message": message}
        return await self._interact(channel, {**payload, "response_url": self.slack.response_url()})

    async def stop(self, channel: str, thread: str, *, streaming: Sequence[str] = ()) -> Answer:
        """Presses Slack's own stop button of an agent's session."""
        event = {"type": "agent_session_stopped", "channel": channel, "thread_ts": thread, "user": self.id, "event_ts": _now()}
        return await self.slack.send({**event, "streaming_message_ts": list(streaming)})

    async def _upload(self, channel: str, text: str, thread: str | None, files: Sequence[tuple[str, bytes]]) -> str:
        uploads = [{"filename": name, "title": name, "content": content} for name, content in files]
        done = await self.client.files_upload_v2(channel=channel, initial_comment=text, thread_ts=thread, file_uploads=uploads)
        shares = (await self.client.files_info(file=done["files"][0]["id"]))["file"]["shares"]
        return str(next(iter(shares.values()))[channel][0]["ts"])

    async def _interact(self, channel: str, payload: JSON) -> Answer:
        common = {
            "user": {"id": self.id, "username": self.name, "name": self.name, "team_id": self.slack.team_id},
            "api_app_id": self.slack.app_id,
            "token": "test-verification-token",
            "team": {"id": self.slack.team_id, "domain": _SEED["team"]["domain"]},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": channel, "name": await self._channel_name(channel)},
            "trigger_id": await self._trigger_id(),
        }
        return await self._post_form({"payload": json.dumps({**common, **payload})})

    async def _post_form(self, form: Mapping[str, str]) -> Answer:
        return await self.slack.post_to_app(urlencode(form), "application/x-www-form-urlencoded")

    def _sender_of_form(self) -> dict[str, str]:
        team = {"team_id": self.slack.team_id, "team_domain": _SEED["team"]["domain"], "is_enterprise_install": "false"}
        return {"token": "test-verification-token", "api_app_id": self.slack.app_id, "user_id": self.id, "user_name": self.name, **team}

    async def _message(self, channel: str, ts: str) -> JSON:
        found = [message for message in await self.history(channel) if message["ts"] == ts]
        roots = [message["ts"] for message in await self.history(channel) if message.get("reply_count")]
        for root in () if found else roots:
            found += [message for message in await self.replies(channel, root) if message["ts"] == ts]
        assert found, f"{self.name} sees no message {ts} in {channel}"
        return found[0]

    async def _channel_name(self, channel: str) -> str:
        return str((await self.client.conversations_info(channel=channel))["channel"]["name"])

    async def _trigger_id(self) -> str:
        """One that the app may open a view with."""
        return str((await self.slack.bot.api_call("views.generateTriggerId", json={"user_id": self.id}))["trigger_id"])


def signature(secret: str, body: str) -> dict[str, str]:
    """The headers by which the app knows that Slack is asking."""
    now = str(int(time.time()))
    digest = hmac.new(secret.encode(), f"v0:{now}:{body}".encode(), hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": f"v0={digest}"}


def _button(message: JSON, action_id: str, value: str | None) -> tuple[str, JSON]:
    """Its block's id and itself."""
    for number, block in enumerate(message.get("blocks", [])):
        for element in [*block.get("elements", []), block.get("accessory", {})]:
            if element.get("action_id") == action_id and value in (None, element.get("value")):
                return block.get("block_id", f"block-{number}"), element
    raise AssertionError(f"the message {message['ts']} has no button {action_id!r}")


def _now() -> str:
    return f"{time.time():.6f}"
