"""What the tests of the Slack surface rely on: the emulator with its launcher, and our fake of what no emulator has.

The app under test is one of slack-bolt's, over HTTP and in Socket Mode.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond, AsyncSay
from slack_sdk.errors import SlackApiError

from tests.emulators.slack import Disturbance, SlackEmulator, slack, slack_process, slack_running
from tests.emulators.slack.agents import SlackAgents, slack_agents

__all__ = ["slack", "slack_process"]
JSON = dict[str, Any]
EVENTS = "/slack/events"


@dataclass(slots=True)
class Bot:
    """A slack-bolt app that remembers what it is told, answers mentions, and fails as often as it is bidden."""

    app: AsyncApp
    got: list[JSON] = field(default_factory=list)
    failures: int = 0

    def events(self, kind: str = "message") -> list[JSON]:
        return [body["event"] for body in self.got if body.get("event", {}).get("type") == kind]


@pytest.fixture
def bot(slack: SlackEmulator) -> Bot:
    app = AsyncApp(client=slack.bot, signing_secret=slack.signing_secret, process_before_response=True)
    bot = Bot(app)

    async def remember(body: JSON) -> None:
        if bot.failures:
            bot.failures -= 1
            raise RuntimeError("as bidden")
        bot.got.append(body)

    async def answer(event: JSON, say: AsyncSay, body: JSON) -> None:
        await remember(body)
        await say(text="at your service", thread_ts=event.get("thread_ts", event["ts"]))

    async def obey(ack: AsyncAck, respond: AsyncRespond, body: JSON) -> None:
        await remember(body)
        await ack("done" if "command" in body else "")
        await respond("heard")

    app.event("app_mention")(answer)
    app.event("message")(remember)
    app.command("/task")(obey)
    app.action("stop")(obey)
    app.shortcut("make_task")(obey)
    return bot


@asynccontextmanager
async def serving(app: web.Application, path: str) -> AsyncIterator[str]:
    """The app's request URL, over HTTP."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}".format(*runner.addresses[0]) + path
    finally:
        await runner.cleanup()


@asynccontextmanager
async def linked(app: AsyncApp, agents: SlackAgents, slack: SlackEmulator) -> AsyncIterator[AsyncSocketModeHandler]:
    """The app in Socket Mode."""
    handler = AsyncSocketModeHandler(app, slack.app_token)
    await slack.connect(agents.request_url)
    try:
        await handler.connect_async()  # type: ignore[no-untyped-call]
        await agents.connected()
        yield handler
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]


@pytest.fixture(params=["http", "socket mode"])
async def connected(request: pytest.FixtureRequest, bot: Bot, slack: SlackEmulator) -> AsyncIterator[None]:
    """The app hears of what happens, in one way or the other."""
    if request.param == "http":
        async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
            await slack.connect(url)
            yield
    else:
        async with slack_agents(slack, ack_seconds=0.5) as agents, linked(bot.app, agents, slack):
            yield


def test_emulator_is_there_within_two_seconds() -> None:
    started = time.monotonic()
    with slack_running() as url:
        assert url.startswith("http://127.0.0.1:")
    assert time.monotonic() - started < 2


@pytest.mark.usefixtures("connected")
async def test_mention_reaches_the_app_as_two_events_and_the_answer_stands_in_its_thread(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    ts = await alice.mention(channel, "plan my week")

    thread = await alice.sees(channel, ts, lambda messages: len(messages) == 2)
    await slack.delivered()

    assert [message["text"] for message in thread] == [f"<@{slack.bot_user_id}> plan my week", "at your service"]
    assert (thread[0]["thread_ts"], thread[1]["thread_ts"], thread[1]["bot_id"]) == (ts, ts, slack.bot_id)
    told = [body for body in bot.got if body["event"]["ts"] == ts]
    assert {body["event"]["type"] for body in told} == {"message", "app_mention"}
    assert len({body["event_id"] for body in told}) == 2
    assert {(body["api_app_id"], body["team_id"], body["authorizations"][0]["user_id"]) for body in told} == {
        (slack.app_id, slack.team_id, slack.bot_user_id)
    }
    (message,) = bot.events("message")
    assert (message["channel_type"], message["user"], bool(message["client_msg_id"])) == ("channel", alice.id, True)


@pytest.mark.usefixtures("connected")
async def test_direct_messages_come_without_a_mention_and_private_channels_as_groups(slack: SlackEmulator, bot: Bot) -> None:
    bob = await slack.person("bob")
    await bob.dm(f"<@{slack.bot_user_id}> psst")
    await bob.say(await slack.channel(private=True), "in private")
    await slack.delivered()

    assert [event["channel_type"] for event in bot.events("message")] == ["im", "group"]
    assert bot.events("app_mention") == []


@pytest.mark.usefixtures("connected")
async def test_edits_deletions_and_files_reach_the_app(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    ts = await alice.say(channel, "one")
    await alice.edit(channel, ts, "two")
    await alice.delete(channel, ts)
    shared = await alice.say(channel, "see here", thread=ts, files=[("notes.txt", b"call the plumber")])
    await slack.delivered()

    _, changed, deleted, file_share = bot.events("message")
    assert (changed["subtype"], changed["message"]["text"], changed["previous_message"]["text"]) == ("message_changed", "two", "one")
    assert (deleted["subtype"], deleted["deleted_ts"]) == ("message_deleted", ts)
    assert (file_share["subtype"], file_share["text"], file_share["ts"], file_share["thread_ts"]) == ("file_share", "see here", shared, ts)
    headers = {"Authorization": f"Bearer {slack.bot_token}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(file_share["files"][0]["url_private"]) as answer:
        assert await answer.read() == b"call the plumber"


@pytest.mark.usefixtures("connected")
async def test_command_button_and_shortcut_reach_the_app_and_its_answers_are_kept(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    root = await alice.say(channel, "Buy milk")
    button = {"type": "button", "action_id": "stop", "value": "turn 7", "text": {"type": "plain_text", "text": "Stop"}}
    blocks = [{"type": "actions", "block_id": "controls", "elements": [button]}]
    posted = await slack.bot.chat_postMessage(channel=channel, thread_ts=root, text="working", blocks=blocks)

    typed = await alice.slash("/task", "list", channel)
    pressed = await alice.press(channel, posted["ts"], "stop")
    chosen = await alice.shortcut("make_task", channel, root)

    assert (typed.status, pressed.status, chosen.status) == (200, 200, 200)
    assert "done" in typed.text
    _, command, action, shortcut = bot.got
    assert (command["text"], command["user_id"], command["channel_id"]) == ("list", alice.id, channel)
    assert (action["actions"][0]["value"], action["actions"][0]["block_id"]) == ("turn 7", "controls")
    assert (action["container"]["thread_ts"], action["message"]["text"], action["user"]["id"]) == (root, "working", alice.id)
    assert (shortcut["message"]["text"], shortcut["channel"]["id"]) == ("Buy milk", channel)
    assert [response["text"] for response in await slack.responses()] == ["heard", "heard", "heard"]
    with pytest.raises(AssertionError, match="no button 'retry'"):
        await alice.press(channel, posted["ts"], "retry")


@pytest.mark.usefixtures("connected")
async def test_event_that_the_app_fails_on_is_sent_again_under_the_same_id(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    bot.failures = 1

    await alice.say(channel, "hello?")
    await slack.delivered()

    tries = await slack.deliveries("message")
    assert [(one["retry"], one["status"] == 200) for one in tries] == [(0, False), (1, True)]
    assert len({one["event_id"] for one in tries}) == 1


async def test_event_reaches_an_app_that_has_moved_while_it_was_down(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
        await slack.connect(url)
    await alice.say(channel, "anybody there?")
    await slack.until(slack.deliveries, lambda tries: len(tries) == 2)
    async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
        await slack.connect(url)
        await slack.delivered()

    assert [(one["retry"], one["status"]) for one in await slack.deliveries()] == [(0, None), (1, None), (2, 200)]
    assert [event["text"] for event in bot.events()] == ["anybody there?"]


async def test_event_that_is_never_answered_well_is_sent_four_times_in_all(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    bot.failures = 9
    async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
        await slack.connect(url, retry_seconds=(0, 0.01, 0.02))
        await alice.say(channel, "hello?")
        await slack.delivered()

    assert [(one["retry"], one["status"]) for one in await slack.deliveries("message")] == [(0, 500), (1, 500), (2, 500), (3, 500)]


@pytest.mark.parametrize(
    ("kind", "arrivals", "ids"),
    [
        ("repeat", [("one", 0), ("one", 1), ("two", 0)], 2),
        ("repeat_with_new_id", [("one", 0), ("one", 0), ("two", 0)], 3),
        ("hold", [("two", 0), ("one", 0)], 2),
        ("delay", [("two", 0), ("one", 0)], 2),
        ("lose", [("one", 1), ("two", 0)], 2),
    ],
)
async def test_events_go_crooked_ways_on_order(
    slack: SlackEmulator, bot: Bot, kind: Disturbance, arrivals: list[tuple[str, int]], ids: int
) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
        await slack.connect(url)
        await slack.disturb(kind, late=0.2)
        await alice.say(channel, "one")
        await alice.say(channel, "two")
        await slack.delivered()

    assert [(one["envelope"]["event"]["text"], one["retry"]) for one in await slack.deliveries()] == arrivals
    assert [event["text"] for event in bot.events()] == [text for text, _ in arrivals]
    assert len({body["event_id"] for body in bot.got}) == ids


class SlowApp:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.may_answer = asyncio.Event()
        self.at_once = 0
        self.most_at_once = 0
        self.web = web.Application()
        self.web.add_routes([web.post("/", self._event)])

    async def _event(self, request: web.Request) -> web.Response:
        self.texts.append((await request.json())["event"]["text"])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.may_answer.wait()
        await asyncio.sleep(0.05)  # so long that the next event would be here, did it not wait
        self.at_once -= 1
        return web.Response()


async def test_app_that_hangs_holds_up_the_events_behind_but_nobody_who_speaks(slack: SlackEmulator) -> None:
    alice, channel, slow = await slack.person("alice"), await slack.channel(), SlowApp()
    async with serving(slow.web, "/") as url:
        await slack.connect(url)
        async with asyncio.timeout(30):
            for text in ("one", "two", "three"):
                await alice.say(channel, text)
        slow.may_answer.set()
        await slack.delivered()

    assert (slow.texts, slow.most_at_once) == (["one", "two", "three"], 1)


async def test_reset_drops_the_events_that_stood_behind_a_hanging_app(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel, slow = await slack.person("alice"), await slack.channel(), SlowApp()
    async with serving(slow.web, "/") as url, serving(bot.app.web_app(EVENTS), EVENTS) as next_url:
        await slack.connect(url)
        await alice.say(channel, "one")
        await alice.say(channel, "two")
        await slack.reset()
        await slack.connect(next_url)
        slow.may_answer.set()
        await slack.disturb("delay", late=0.2)
        await alice.say(channel, "three")
        await slack.delivered()

    assert [event["text"] for event in bot.events()] == ["three"]


async def test_who_waits_for_a_call_is_woken_by_it(slack: SlackEmulator) -> None:
    channel = await slack.channel()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(slack.until(slack.calls, lambda calls: len(calls) == 2))
        for text in ("one", "two"):
            await slack.bot.chat_postMessage(channel=channel, text=text)

    assert [call["args"]["text"] for call in waiting.result()] == ["one", "two"]


async def test_events_stop_when_the_request_url_is_taken_away_and_where_the_app_is_no_member(slack: SlackEmulator, bot: Bot) -> None:
    alice, foreign, channel = await slack.person("alice"), await slack.channel(bot=False), await slack.channel()
    async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
        await slack.connect(url)
        await alice.say(foreign, f"<@{slack.bot_user_id}> are you here?")
        await slack.disconnect()
        await alice.say(channel, "hello")
        await slack.delivered()

    assert bot.got == []
    assert await slack.deliveries() == []


async def test_forged_request_is_turned_away(slack: SlackEmulator, bot: Bot) -> None:
    async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
        await slack.connect(url)
        forged = await slack.post_to_app("{}", "application/json", {"X-Slack-Signature": "v0=0"})
        genuine = await slack.send({"type": "message", "channel": "C1", "ts": "1.0", "user": "U1", "text": "hi"}, event_id="Ev1")

    assert (forged.status, genuine.status) == (401, 200)
    assert [body["event_id"] for body in bot.got] == ["Ev1"]


async def refusal(call: Any) -> SlackApiError:
    with pytest.raises(SlackApiError) as caught:
        await call
    return caught.value


async def test_fifty_first_edit_within_a_minute_is_refused_and_not_done(slack: SlackEmulator) -> None:
    channel = await slack.channel()
    ts = (await slack.bot.chat_postMessage(channel=channel, text="0"))["ts"]
    for number in range(1, 51):
        await slack.bot.chat_update(channel=channel, ts=ts, text=str(number))

    error = await refusal(slack.bot.chat_update(channel=channel, ts=ts, text="51"))

    assert (error.response.status_code, error.response["error"]) == (429, "ratelimited")
    assert 50 <= int(error.response.headers["Retry-After"]) <= 60
    assert await slack.refused() == 1
    assert [edit["text"] for edit in await slack.edits(channel, ts)] == [str(number) for number in range(51)]


async def test_budget_is_scaled_and_lifted_and_does_not_bind_people(slack: SlackEmulator) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    ts = (await slack.bot.chat_postMessage(channel=channel, text="0"))["ts"]
    hers = await alice.say(channel, "mine")
    await slack.budgets({"chat.update": (1, 20)})
    await slack.bot.chat_update(channel=channel, ts=ts, text="1")

    error = await refusal(slack.bot.chat_update(channel=channel, ts=ts, text="2"))
    for text in "ab":
        await alice.edit(channel, hers, text)
    await slack.budgets({})
    await slack.bot.chat_update(channel=channel, ts=ts, text="3")

    assert 19 < float(error.response.headers["Retry-After"]) <= 20
    assert [edit["text"] for edit in await slack.edits(channel, ts)] == ["0", "1", "3"]


async def test_calls_fail_on_order_without_being_done(slack: SlackEmulator) -> None:
    alice, channel, other = await slack.person("alice"), await slack.channel(), await slack.channel()
    await slack.fail("chat.postMessage", error="is_archived", channel=channel)
    await slack.fail("chat.postMessage", status=503, channel=channel)
    await alice.say(channel, "people's calls never fail")
    await slack.fail("chat.postMessage", status=429, retry_after=7, channel=channel)

    await slack.bot.chat_postMessage(channel=other, text="elsewhere")
    errors = [await refusal(slack.bot.chat_postMessage(channel=channel, text="never")) for _ in range(3)]
    await slack.bot.chat_postMessage(channel=channel, text="at last")

    assert [(error.response.status_code, error.response["error"]) for error in errors] == [
        (200, "is_archived"), (503, "internal_error"), (429, "ratelimited"),
    ]  # fmt: skip
    assert errors[2].response.headers["Retry-After"] == "7"
    assert [message["text"] for message in await alice.history(channel) if not message.get("subtype")] == [
        "at last", "people's calls never fail",
    ]  # fmt: skip
    assert [(call["status"], call["error"]) for call in await slack.calls("chat.postMessage") if call["channel"] == channel] == [
        (200, "is_archived"), (503, "internal_error"), (429, "ratelimited"), (200, None),
    ]  # fmt: skip


@pytest.mark.parametrize(("cut", "there"), [("before", []), ("after", ["hello"])])
async def test_connection_is_cut_before_or_after_the_post_was_done(slack: SlackEmulator, cut: Any, there: list[str]) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    await slack.fail("chat.postMessage", cut=cut, times=9)
    client = slack.bot
    client.retry_handlers.clear()

    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.chat_postMessage(channel=channel, text="hello")

    assert [message["text"] for message in await alice.history(channel)] == there
    assert [call["cut"] for call in await slack.calls("chat.postMessage")] == [True]


@pytest.mark.parametrize(("fault", "there"), [({"delay": 5}, []), ({"late": 5}, ["hello"])])
async def test_answer_comes_too_late_before_or_after_the_post_was_done(slack: SlackEmulator, fault: JSON, there: list[str]) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    await slack.fail("chat.postMessage", **fault)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await slack.bot.chat_postMessage(channel=channel, text="hello")

    assert [message["text"] for message in await alice.history(channel)] == there


async def test_metadata_is_given_back_to_those_who_ask_for_it(slack: SlackEmulator) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    root = await alice.say(channel, "go")
    metadata = {"event_type": "delivery", "event_payload": {"delivery_id": "d1"}}
    await slack.bot.chat_postMessage(channel=channel, thread_ts=root, text="gone", metadata=metadata)

    asked = await slack.bot.conversations_replies(channel=channel, ts=root, include_all_metadata=True)
    unasked = await slack.bot.conversations_replies(channel=channel, ts=root)

    assert asked["messages"][1]["metadata"] == metadata
    assert "metadata" not in unasked["messages"][1]


async def test_thread_comes_in_pages_and_each_begins_with_the_root(slack: SlackEmulator) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    root = await alice.say(channel, "root")
    for number in range(5):
        await alice.say(channel, str(number), thread=root)

    pages = [page["messages"] async for page in await slack.bot.conversations_replies(channel=channel, ts=root, limit=3)]

    assert [[message["text"] for message in page] for page in pages] == [["root", "0", "1"], ["root", "2", "3"], ["root", "4"]]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"text": "x" * 4001}, "msg_too_long"),
        ({"text": "x", "blocks": [{"type": "divider"}] * 51}, "invalid_blocks"),
        ({"text": "x", "blocks": [{"type": "markdown", "text": "x" * 6001}] * 2}, "invalid_blocks"),
    ],
)
async def test_what_slack_would_find_too_long_is_refused(slack: SlackEmulator, content: JSON, error: str) -> None:
    channel = await slack.channel()
    ts = (await slack.bot.chat_postMessage(channel=channel, text="x" * 4000))["ts"]

    assert (await refusal(slack.bot.chat_update(channel=channel, ts=ts, **content))).response["error"] == error
    assert (await refusal(slack.bot.chat_postMessage(channel=channel, **content))).response["error"] == error


async def test_app_cannot_write_where_it_is_no_member(slack: SlackEmulator) -> None:
    channel = await slack.channel(bot=False)

    assert (await refusal(slack.bot.chat_postMessage(channel=channel, text="hello"))).response["error"] == "not_in_channel"


async def test_person_can_be_a_guest_or_from_elsewhere(slack: SlackEmulator, bot: Bot) -> None:
    carol, channel = await slack.person("carol"), await slack.channel()
    await carol.becomes(is_restricted=True, is_stranger=True, team_id="T0OTHER")
    async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
        await slack.connect(url)
        await carol.say(channel, "hello from afar")
        await slack.delivered()

    user = (await slack.bot.users_info(user=carol.id))["user"]
    assert (user["name"], user["is_restricted"], user["is_stranger"], user["team_id"]) == ("carol", True, True, "T0OTHER")
    assert (bot.got[0]["is_ext_shared_channel"], bot.got[0]["event"]["user_team"]) == (True, "T0OTHER")


async def test_reset_forgets_what_a_test_ordered(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    async with serving(bot.app.web_app(EVENTS), EVENTS) as url:
        await slack.connect(url, retry_seconds=[0.1])
        bot.failures = 1
        await alice.say(channel, "to be sent again in a moment")
        await slack.until(slack.deliveries, lambda tries: len(tries) == 1)
        await slack.fail("chat.postMessage", status=500)
        await slack.disturb("delay", late=0.1)
        await alice.say(channel, "to come in a moment")
        await slack.disturb("repeat", times=2)
        await alice.becomes(is_restricted=True)

        await slack.reset()
        await slack.connect(url)
        await slack.bot.chat_postMessage(channel=channel, text="hello")
        await slack.disturb("delay", late=0.2)
        await alice.say(channel, "once")
        await slack.delivered()

    assert [event["text"] for event in bot.events()] == ["once"]
    assert "is_restricted" not in (await slack.bot.users_info(user=alice.id))["user"]
    assert [call["method"] for call in await slack.calls()] == ["chat.postMessage", "users.info"]


async def test_socket_mode_connection_is_renewed_when_slack_asks_for_it(slack: SlackEmulator, bot: Bot) -> None:
    alice, channel = await slack.person("alice"), await slack.channel()
    async with slack_agents(slack) as agents, linked(bot.app, agents, slack):
        await agents.disconnect("refresh_requested")
        await agents.connected()
        await alice.say(channel, "still there?")
        await slack.delivered()

    assert [event["text"] for event in bot.events()] == ["still there?"]
    assert [(envelope.type, envelope.acked) for envelope in agents.envelopes] == [("events_api", True)]


async def test_socket_mode_needs_the_app_token(slack: SlackEmulator) -> None:
    async with slack_agents(slack):
        error = await refusal(slack.bot.apps_connections_open(app_token="xapp-wrong"))

    assert error.response["error"] == "invalid_auth"


@dataclass(slots=True)
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


async def test_stream_grows_and_ends_with_its_blocks(slack: SlackEmulator) -> None:
    alice, bot = await slack.person("alice"), slack.bot
    root, channel = await alice.dm("count"), await alice.dm_channel()
    async with slack_agents(slack) as agents:
        ts = (await bot.chat_startStream(channel=channel, thread_ts=root, markdown_text="one"))["ts"]
        await bot.chat_appendStream(channel=channel, ts=ts, markdown_text=" two")
        conflict = await refusal(bot.chat_update(channel=channel, ts=ts, text="three"))
        await alice.edit(channel, root, "count on")
        await bot.chat_stopStream(channel=channel, ts=ts, markdown_text=" three", blocks=[{"type": "divider"}])
        over = await refusal(bot.chat_appendStream(channel=channel, ts=ts, markdown_text=" four"))
        await bot.chat_update(channel=channel, ts=ts, text="all counted")

    assert (conflict.response["error"], over.response["error"]) == ("streaming_state_conflict", "message_not_in_streaming_state")
    assert [edit["text"] for edit in await slack.edits(channel, ts)] == ["one", "one two", "one two three", "all counted"]
    assert agents.streams[ts].ended == "message_not_in_streaming_state"
    assert [message["text"] for message in await alice.replies(channel, root)] == ["count on", "all counted"]
    assert [call["method"] for call in await slack.calls()] == [
        "chat.startStream", "chat.appendStream", "chat.update", "chat.stopStream", "chat.appendStream", "chat.update",
    ]  # fmt: skip


async def test_stream_dies_after_five_minutes_and_can_be_edited_then(slack: SlackEmulator) -> None:
    alice, bot, clock = await slack.person("alice"), slack.bot, Clock()
    root, channel = await alice.dm("count"), await alice.dm_channel()
    async with slack_agents(slack, now=clock):
        ts = (await bot.chat_startStream(channel=channel, thread_ts=root, markdown_text="one"))["ts"]
        clock.now = 299.0
        await bot.chat_appendStream(channel=channel, ts=ts, markdown_text=" two")
        clock.now = 300.0
        dead = [
            await refusal(call(channel=channel, ts=ts, markdown_text=" three")) for call in (bot.chat_appendStream, bot.chat_stopStream)
        ]
        await bot.chat_update(channel=channel, ts=ts, text="one two three")

    assert [error.response["error"] for error in dead] == ["message_not_in_streaming_state"] * 2
    assert [edit["text"] for edit in await slack.edits(channel, ts)] == ["one", "one two", "one two three"]


async def test_stream_in_a_channel_needs_its_recipient_and_obeys_the_user(slack: SlackEmulator) -> None:
    alice, bot, channel = await slack.person("alice"), slack.bot, await slack.channel()
    root = await alice.say(channel, "count")
    start: Callable[..., Any] = bot.chat_startStream
    async with slack_agents(slack) as agents:
        missing = await refusal(start(channel=channel, thread_ts=root, markdown_text="one", recipient_team_id=slack.team_id))
        recipient = {"recipient_team_id": slack.team_id, "recipient_user_id": alice.id}
        long = await refusal(start(channel=channel, thread_ts=root, markdown_text="x" * 12_001, **recipient))
        ts = (await start(channel=channel, thread_ts=root, markdown_text="one", **recipient))["ts"]
        agents.stopped_by_user(ts)
        stopped = await refusal(bot.chat_appendStream(channel=channel, ts=ts, markdown_text=" two"))

    errors = [error.response["error"] for error in (missing, long, stopped)]
    assert errors == ["missing_recipient_user_id", "msg_too_long", "stopped_by_user"]


async def test_statuses_are_kept_and_can_be_refused(slack: SlackEmulator) -> None:
    async with slack_agents(slack) as agents:
        await slack.bot.agents_sessions_setStatus(channel_id="C1", thread_ts="1.0", status="processing", title="Buy milk")
        await slack.bot.assistant_threads_setStatus(channel_id="C1", thread_ts="1.0", status="is thinking")
        await slack.fail("agents.sessions.setStatus", error="not_authorized")
        error = await refusal(slack.bot.agents_sessions_setStatus(channel_id="C1", thread_ts="1.0", status="closed"))

    assert [(status["method"], status["status"]) for status in agents.statuses] == [
        ("agents.sessions.setStatus", "processing"), ("assistant.threads.setStatus", "is thinking"),
    ]  # fmt: skip
    assert error.response["error"] == "not_authorized"
