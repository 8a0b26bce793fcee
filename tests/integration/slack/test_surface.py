"""What the surface makes Slack show, and what it makes of Slack's failures: over the wire, against the emulator.

Native streams and agents' statuses are shown against tests/emulators/slack/agents.py, a small fake of our own: no emulator has them.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from bots.pacing import Budget
from bots.slack.access import SignedIn, signed_in, web_client
from bots.slack.config import SlackConfig, SlackRules
from bots.slack.surface import SlackSurface
from bots.surface import (
    AccountClosed,
    Action,
    Busy,
    Button,
    Call,
    MessageGone,
    Part,
    PlaceClosed,
    Profile,
    Refused,
    RemoteFile,
    SurfaceError,
    TooLong,
    Unclear,
    Unreachable,
)
from core.attachments import MAX_BYTES
from core.errors import InvalidInput
from core.ids import new_id
from core.models import Account, AgentStatus, ChannelKind, Identity, Place
from tests.emulators.slack import SlackEmulator, slack, slack_process
from tests.emulators.slack.agents import SlackAgents, slack_agents

__all__ = ["slack", "slack_process"]
pytestmark = pytest.mark.requires("slack-emulator")

NONCE = UUID("00000000-0000-4000-8000-000000000001")
WHO = SignedIn(team_id="T000000001", team="Onethread tests", bot_user_id="U0ONETHREAD", bot="onethread", scopes=None)
STOP = Button(action=Action.STOP, label="Stop", value="turn-1")
Make = Callable[[SlackConfig], Awaitable[SlackSurface]]


@pytest.fixture
async def made() -> AsyncIterator[Make]:
    """Makes a surface from a configuration; its connections end with the test."""
    async with AsyncExitStack() as stack:

        async def make(config: SlackConfig) -> SlackSurface:
            return SlackSurface(config, await stack.enter_async_context(web_client(config)), WHO)

        yield make


@pytest.fixture
def config(slack: SlackEmulator) -> SlackConfig:
    return SlackConfig(bot_token=slack.bot_token, api_url=slack.url, rules=SlackRules())


@pytest.fixture
async def surface(made: Make, config: SlackConfig) -> SlackSurface:
    return await made(config)


@pytest.fixture
async def streaming(made: Make, config: SlackConfig) -> SlackSurface:
    return await made(replace(config, native_streams=True))


@pytest.fixture
async def agents(slack: SlackEmulator) -> AsyncIterator[SlackAgents]:
    async with slack_agents(slack) as agents:
        yield agents


@pytest.fixture
async def place(slack: SlackEmulator) -> Place:
    """A thread that alice began in a channel."""
    channel = await slack.channel()
    alice = await slack.person("alice")
    return _place(channel, await alice.say(channel, "plan my week"))


@pytest.fixture
async def dm(slack: SlackEmulator) -> Place:
    """A thread that alice began in the direct messages with the bot."""
    alice = await slack.person("alice")
    return _place(await alice.dm_channel(), await alice.dm("plan my week"))


# --- messages ---


async def test_a_part_becomes_a_message_in_the_thread(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    ts = await surface.post(place, Part(text="**Monday**: rest", notes=("demo/offline",), buttons=(STOP,)), NONCE)

    root, answer = await (await slack.person("alice")).replies(place.channel, place.thread)
    assert root["text"] == "plan my week"
    assert (answer["ts"], answer["thread_ts"]) == (ts, place.thread)
    assert [block["type"] for block in answer["blocks"]] == ["markdown", "context", "actions"]
    assert answer["blocks"][0]["text"] == "**Monday**: rest"
    assert "Monday" in answer["text"]
    assert (await slack.calls("chat.postMessage"))[0]["args"]["unfurl_links"] is False


async def test_at_a_place_without_a_thread_it_stands_in_the_channel(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    ts = await surface.post(replace(place, thread=""), Part(text="OT-1 Buy milk", is_card=True), NONCE)

    newest = (await (await slack.person("alice")).history(place.channel))[0]
    assert (newest["ts"], newest["blocks"][0]["type"]) == (ts, "section")
    assert await surface.open(replace(place, thread=""), ts, "A title") == ts


async def test_an_edit_replaces_what_the_message_shows(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    ts = await surface.post(place, Part(text="", notes=("◐ Thinking",), buttons=(STOP,), live=True), NONCE)
    await surface.edit(place, ts, Part(text="Monday: rest"), NONCE)

    answer = (await (await slack.person("alice")).replies(place.channel, place.thread))[1]
    assert [block["type"] for block in answer["blocks"]] == ["markdown"]
    assert answer["blocks"][0]["text"] == "Monday: rest"
    assert await surface.find(place, NONCE, _now(), ()) == [ts], "an edit keeps what the message is found by"


async def test_a_part_that_shows_nothing_is_a_message_all_the_same(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    ts = await surface.post(place, Part(text=""), NONCE)

    assert (await (await slack.person("alice")).replies(place.channel, place.thread))[1]["ts"] == ts


async def test_deleting_what_is_gone_already_is_no_failure(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    ts = await surface.post(place, Part(text="x"), NONCE)
    await surface.delete(place, ts)
    await surface.delete(place, ts)

    assert len(await (await slack.person("alice")).replies(place.channel, place.thread)) == 1


async def test_the_agent_mentions_whom_it_knows_and_nobody_of_an_ambiguous_name(
    slack: SlackEmulator, surface: SlackSurface, place: Place
) -> None:
    surface.meet(_identity("Alice", "U1"), _identity("Sam", "U2"), _identity("sam", "U3"))
    ts = await surface.post(place, Part(text="@alice and @sam and @nobody"), NONCE)

    assert (await slack.edits(place.channel, ts))[0]["blocks"][0]["text"] == "<@U1> and @sam and @nobody"


async def test_blocks_that_slack_does_not_understand_are_sent_as_text(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    await slack.fail("chat.postMessage", error="invalid_blocks")
    ts = await surface.post(place, Part(text="Monday: rest", notes=("a note",)), NONCE)

    state = (await slack.edits(place.channel, ts))[0]
    assert (state["text"], state["blocks"]) == ("Monday: rest\na note", [])


async def test_a_long_text_in_such_blocks_must_be_cut_first(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    await slack.fail("chat.postMessage", error="invalid_blocks")
    with pytest.raises(TooLong):
        await surface.post(place, Part(text="x" * 3_000), NONCE)


# --- posts whose outcome is unknown ---


async def test_a_post_is_found_by_its_nonce(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    before = _now()
    twice = [await surface.post(place, Part(text="x"), NONCE) for _ in range(2)]
    await surface.post(place, Part(text="another"), new_id())

    assert await surface.find(place, NONCE, before, ()) == twice
    assert await surface.find(place, new_id(), before, ()) == []


async def test_a_card_is_found_among_a_channels_messages(surface: SlackSurface, place: Place) -> None:
    channel = replace(place, thread="")
    ts = await surface.post(channel, Part(text="card", is_card=True), NONCE)

    assert await surface.find(channel, NONCE, _now(), ()) == [ts]


async def test_a_post_that_happened_unheard_is_unclear_and_found(
    slack: SlackEmulator, made: Make, config: SlackConfig, place: Place
) -> None:
    hasty = await made(replace(config, rules=SlackRules(call_seconds=0.3)))
    await slack.fail("chat.postMessage", late=0.6)
    before = _now()
    with pytest.raises(Unclear):
        await hasty.post(place, Part(text="x"), NONCE)

    alice = await slack.person("alice")
    thread = await alice.sees(place.channel, place.thread, lambda messages: len(messages) == 2)
    assert await hasty.find(place, NONCE, before, ()) == [thread[1]["ts"]]


@pytest.mark.parametrize(("cut", "there"), [("before", 1), ("after", 2)])
async def test_a_lost_connection_is_unclear_and_no_call_is_repeated_by_itself(
    slack: SlackEmulator, surface: SlackSurface, place: Place, cut: Any, there: int
) -> None:
    await slack.fail("chat.postMessage", cut=cut)
    with pytest.raises(Unclear):
        await surface.post(place, Part(text="x"), NONCE)

    assert len(await (await slack.person("alice")).replies(place.channel, place.thread)) == there
    assert len(await slack.calls("chat.postMessage")) == 1


# --- what Slack refuses ---


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        ("is_archived", PlaceClosed, "archived"),
        ("not_in_channel", PlaceClosed, "/invite"),
        ("restricted_action_thread_locked", PlaceClosed, "locked"),
        ("a_code_of_tomorrow", Refused, "a_code_of_tomorrow"),
        ("Something <secret> happened", Refused, "an unknown error"),
        ("token_revoked", AccountClosed, "SLACK_BOT_TOKEN"),
        ("missing_scope", AccountClosed, "scope"),
        ("msg_too_long", TooLong, "long"),
        ("internal_error", Unclear, "failed"),
        ("ratelimited", Busy, "wait"),
    ],
)
async def test_a_refusal_says_what_to_do_and_nothing_of_slacks_own_words(
    slack: SlackEmulator, surface: SlackSurface, place: Place, *, error: str, kind: type[SurfaceError], sentence: str
) -> None:
    await slack.fail("chat.postMessage", error=error)
    with pytest.raises(kind) as raised:
        await surface.post(place, Part(text="the text"), NONCE)

    assert sentence in str(raised.value)
    assert not any(secret in str(raised.value) for secret in ("<secret>", "the text", slack.bot_token))
    if isinstance(raised.value, PlaceClosed | AccountClosed | Refused):
        assert raised.value.reason == (error if "<" not in error else "an unknown error")


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message", "edit_window_closed"])
async def test_a_message_that_cannot_be_changed_is_gone(slack: SlackEmulator, surface: SlackSurface, place: Place, error: str) -> None:
    ts = await surface.post(place, Part(text="x"), NONCE)
    await slack.fail("chat.update", error=error)
    with pytest.raises(MessageGone):
        await surface.edit(place, ts, Part(text="y"), NONCE)


async def test_a_limit_says_how_long_to_wait_and_nobody_waits_here(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    await slack.fail("chat.postMessage", status=429, retry_after=17)
    began = time.monotonic()
    with pytest.raises(Busy) as raised:
        await surface.post(place, Part(text="x"), NONCE)

    assert raised.value.retry_after == 17
    assert time.monotonic() - began < 1.5
    assert len(await slack.calls("chat.postMessage")) == 1


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_error_is_unclear(slack: SlackEmulator, surface: SlackSurface, place: Place, status: int) -> None:
    await slack.fail("chat.postMessage", status=status)
    with pytest.raises(Unclear):
        await surface.post(place, Part(text="x"), NONCE)


@pytest.mark.parametrize("api_url", ["http://127.0.0.1:9/api/", "http://nowhere.invalid/api/"])
async def test_a_slack_that_is_not_there_was_asked_for_nothing(made: Make, config: SlackConfig, place: Place, api_url: str) -> None:
    away = await made(replace(config, api_url=api_url))
    with pytest.raises(Unreachable):
        await away.post(place, Part(text="x"), NONCE)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<html>sign in</html>", "text/html"),
        ("{", "application/json"),
        ("[1]", "application/json"),
        ('"ok"', "application/json"),
        ("", "text/plain"),
        ("ok", "text/plain"),
        ("ok", "application/gzip"),
    ],
)
async def test_an_answer_that_is_not_slacks_tells_nothing(
    made: Make, config: SlackConfig, place: Place, body: str, content_type: str
) -> None:
    async with _Served(web.Response(text=body, content_type=content_type)) as address:
        portal = await made(replace(config, api_url=f"{address}/api/"))
        with pytest.raises(Unclear):
            await portal.post(place, Part(text="x"), NONCE)


# --- limits ---


async def test_calls_are_counted_for_the_workspace_by_method_and_posts_for_a_channel(made: Make, config: SlackConfig, place: Place) -> None:
    edits, posts, statuses, deletes, looks = (Budget(calls=number, seconds=1) for number in range(1, 6))
    rules = SlackRules(edits=edits, posts=posts, statuses=statuses, deletes=deletes, looks=looks)
    surface = await made(replace(config, rules=rules))

    assert {call: dict(surface.budgets(call, place)) for call in Call} == {
        Call.POST: {f"chat.postMessage:{place.channel}": posts},
        Call.EDIT: {"chat.update": edits},
        Call.AMEND: {"chat.update": edits},
        Call.DELETE: {"chat.delete": deletes},
        Call.LOOK: {"conversations.replies": looks},
        Call.OPEN: {},
        Call.ARRANGE: {},
        Call.STATUS: {"status": statuses},
    }
    assert surface.budgets(Call.LOOK, replace(place, thread="")) == {"conversations.history": looks}


# --- one person ---


async def test_a_sentence_is_told_to_one_person_alone(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    bob = await slack.person("bob")
    await surface.tell(place, bob.id, "You may not & cannot <do> that.")

    (told,) = await slack.calls("chat.postEphemeral")
    assert (told["args"]["user"], told["args"]["thread_ts"]) == (bob.id, place.thread)
    assert told["args"]["text"] == "You may not &amp; cannot &lt;do&gt; that."


@pytest.mark.parametrize("error", ["is_archived", "user_not_in_channel"])
async def test_where_that_cannot_be_the_person_gets_a_direct_message(
    slack: SlackEmulator, surface: SlackSurface, place: Place, error: str
) -> None:
    bob = await slack.person("bob")
    await slack.fail("chat.postEphemeral", error=error)
    await surface.tell(place, bob.id, "This channel is archived.")

    messages = await bob.history(await bob.dm_channel())
    assert messages[0]["text"] == "This channel is archived."


# --- people and channels ---


async def test_a_member_has_the_name_that_slack_shows(slack: SlackEmulator, surface: SlackSurface) -> None:
    alice = await slack.person("alice")

    assert await surface.profile(alice.id) == Profile(external_id=alice.id, name="alice", member=True)


@pytest.mark.parametrize(
    "traits",
    [
        {"is_restricted": True},
        {"is_ultra_restricted": True},
        {"is_stranger": True},
        {"is_bot": True},
        {"deleted": True},
        {"team_id": "T0OTHER"},
    ],
    ids=lambda traits: next(iter(traits)),
)
async def test_guests_strangers_and_bots_are_no_members(slack: SlackEmulator, surface: SlackSurface, traits: dict[str, Any]) -> None:
    bob = await slack.person("bob")
    await bob.becomes(**traits)

    assert (await surface.profile(bob.id)).member is False


async def test_a_colleague_of_another_workspace_of_the_same_grid_is_a_member_where_they_belong_to_ours(
    slack: SlackEmulator, surface: SlackSurface
) -> None:
    bob = await slack.person("bob")
    await bob.becomes(team_id="T0OTHER", enterprise_user={"teams": ["T0OTHER", slack.team_id]})

    assert (await surface.profile(bob.id)).member is True


async def test_nobody_is_no_member(surface: SlackSurface) -> None:
    assert await surface.profile("U0NOBODY") == Profile(external_id="U0NOBODY", name="U0NOBODY", member=False)


async def test_who_is_mentioned_has_a_name(slack: SlackEmulator, surface: SlackSurface) -> None:
    alice = await slack.person("alice")

    assert await surface.markdown(f"ask <@{alice.id}> or <@U0NOBODY>") == "ask @alice or @U0NOBODY"
    await surface.markdown(f"<@{alice.id}> again")
    assert [call["args"]["user"] for call in await slack.calls("users.info")].count(alice.id) == 1


async def test_a_name_that_slack_does_not_tell_delays_no_message(slack: SlackEmulator, surface: SlackSurface) -> None:
    alice = await slack.person("alice")
    await slack.fail("users.info", status=500)

    assert await surface.markdown(f"ask <@{alice.id}>") == f"ask @{alice.id}"


async def test_channels_are_open_private_or_direct(slack: SlackEmulator, surface: SlackSurface, place: Place, dm: Place) -> None:
    private = await slack.channel(private=True)

    assert [await surface.kind(each) for each in (place.channel, private, dm.channel)] == [
        ChannelKind.OPEN,
        ChannelKind.PRIVATE,
        ChannelKind.DIRECT,
    ]
    await surface.kind(private)
    assert len(await slack.calls("conversations.info")) == 2, "what is known is not asked for again, nor what the id tells"


async def test_a_link_is_looked_up_by_what_it_leads_to_and_who_reads_there(
    slack: SlackEmulator, surface: SlackSurface, place: Place, dm: Place
) -> None:
    alice, bob = await slack.person("alice"), await slack.person("bob")
    reply = await alice.say(place.channel, "a reply", thread=place.thread)
    spot = await surface.look_up(replace(place, thread=reply), bob.id)
    assert (spot.channel, spot.thread, spot.reads) == (place.channel, place.thread, True)
    private = await slack.channel(private=True)
    await bob.client.conversations_leave(channel=private)
    found = [await surface.look_up(replace(place, channel=private, thread=""), each.id) for each in (alice, bob)]
    assert [(each.kind, each.label, each.reads) for each in found] == [(ChannelKind.PRIVATE, "", True), (ChannelKind.PRIVATE, "", False)]
    assert [(await surface.look_up(replace(dm, thread=""), each.id)).reads for each in (alice, bob)] == [True, False]
    await bob.becomes(is_restricted=True)
    await bob.client.conversations_leave(channel=place.channel)
    assert not (await surface.look_up(place, bob.id)).reads, "a guest reads where they were let in"
    for nowhere in (replace(place, thread="1700000000.000001"), replace(place, channel=await slack.channel(private=True, bot=False))):
        with pytest.raises(PlaceClosed):
            await surface.look_up(nowhere)


async def test_a_channel_that_was_made_private_is_known_to_be_so_a_minute_later(slack: SlackEmulator, config: SlackConfig) -> None:
    now = 0.0
    channel = await slack.channel()
    async with web_client(config) as client:
        surface = SlackSurface(config, client, WHO, now=lambda: now)
        assert await surface.kind(channel) is ChannelKind.OPEN
        async with _Served(web.json_response({"ok": True, "channel": {"id": channel, "is_private": True}})) as converted:
            client.base_url = f"{converted}/api/"
            now = 59.0
            assert await surface.kind(channel) is ChannelKind.OPEN
            now = 61.0
            assert await surface.kind(channel) is ChannelKind.PRIVATE


async def test_what_was_said_before_is_told_with_names_the_newest_last(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    alice, bob = await slack.person("alice"), await slack.person("bob")
    await bob.say(place.channel, "without *meetings*", thread=place.thread)
    await surface.post(place, Part(text="Noted"), NONCE)
    last = await alice.say(place.channel, "what now?", thread=place.thread)

    told = await surface.earlier(place, last, limit=200)
    assert [name for name, _ in told] == ["alice", "bob", "onethread"]
    assert [text for _, text in told] == ["plan my week", "without **meetings**", "Noted"]
    assert [text for _, text in await surface.earlier(place, last, limit=1)] == ["Noted"]


async def test_of_a_very_long_thread_the_newest_is_read_and_the_root_stands_there_once(made: Make, config: SlackConfig) -> None:
    async with _LongThread(messages=20_000, seconds_between=600) as thread:
        surface = await made(replace(config, api_url=thread.api_url))
        told = await surface.earlier(_place("C1", thread.root), thread.ts(19_999), limit=200)

    assert [text for _, text in told] == [f"message {number}" for number in range(19_799, 19_999)]
    assert len(thread.pages) <= 6


async def test_a_very_long_thread_that_is_asked_for_whole_is_read_whole(made: Make, config: SlackConfig) -> None:
    async with _LongThread(messages=2_500, seconds_between=60) as thread:
        surface = await made(replace(config, api_url=thread.api_url))
        told = await surface.earlier(_place("C1", thread.root), thread.ts(2_400), limit=5_000)

    assert [text for _, text in told] == [f"message {number}" for number in range(2_400)]


async def test_who_cannot_be_named_is_asked_for_once_for_a_whole_thread(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    alice = await slack.person("alice")
    last = [await alice.say(place.channel, f"and <@{alice.id}>", thread=place.thread) for _ in range(3)][-1]
    await slack.fail("users.info", status=500, times=9)

    assert await surface.earlier(place, last, limit=9) == [
        (alice.id, "plan my week"),
        (alice.id, f"and @{alice.id}"),
        (alice.id, f"and @{alice.id}"),
    ]
    assert len(await slack.calls("users.info")) == 1


async def test_a_link_leads_to_the_thread(surface: SlackSurface) -> None:
    assert surface.link(_place("C1", "17.01")) == "https://app.slack.com/client/T000000001/C1/thread/C1-17.01"
    assert surface.link(_place("C1", "")) == "https://app.slack.com/client/T000000001/C1"


# --- files ---


async def test_a_file_is_fetched_with_the_bots_token(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    file = await _attached(slack, place, b"1,2,3\n")

    upload = await surface.fetch(file)
    assert (upload.name, upload.data) == ("week.csv", b"1,2,3\n")


async def test_a_file_of_which_only_the_id_is_told_is_looked_up(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    whole = await _attached(slack, place, b"1,2,3\n")
    shared = RemoteFile(name="F1", media_type="", size=0, source={"id": whole.source["id"], "file_access": "check_file_info"})

    upload = await surface.fetch(shared)
    assert (upload.name, upload.data) == ("week.csv", b"1,2,3\n")


@pytest.mark.parametrize("error", ["file_not_found", "not_visible", "access_denied"])
async def test_a_file_that_slack_does_not_give_is_named(slack: SlackEmulator, surface: SlackSurface, error: str) -> None:
    await slack.fail("files.info", error=error)
    with pytest.raises(InvalidInput, match=r"does not give the file 'plan\.pdf'"):
        await surface.fetch(RemoteFile(name="plan.pdf", media_type="", size=0, source={"id": "F1", "file_access": "check_file_info"}))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x",
        "http://files.slack.com/x",
        "https://files.slack.com.evil.example/x",
        "https://evilslack.com/x",
        "https://files.slack.com:8443/x",
        "https://files.slack.com@evil.example/x",
        "https://user@files.slack.com:443@127.0.0.1/x",
        "file:///etc/passwd",
        "http://[::1",
        "",
    ],
)
async def test_the_token_goes_to_slack_alone(surface: SlackSurface, url: str) -> None:
    with pytest.raises(InvalidInput, match="is not kept by Slack"):
        await surface.fetch(_file(url))


async def test_a_redirect_to_elsewhere_is_not_followed(made: Make, config: SlackConfig) -> None:
    async with _Served(web.Response(text="stolen")) as evil, _Served(_Redirect(f"{evil}/x")) as address:
        surface = await made(replace(config, api_url=f"{address}/api/"))
        with pytest.raises(InvalidInput, match="is not kept by Slack"):
            await surface.fetch(_file(f"{address}/file"))


async def test_a_page_to_sign_in_means_that_a_scope_is_missing(made: Make, config: SlackConfig) -> None:
    async with _Served(web.Response(text="<html>Sign in</html>", content_type="text/html")) as address:
        surface = await made(replace(config, api_url=f"{address}/api/"))
        with pytest.raises(InvalidInput, match="files:read"):
            await surface.fetch(_file(f"{address}/file"))
        page = RemoteFile(name="a.html", media_type="text/html", size=20, source={"url_private": f"{address}/file"})
        assert (await surface.fetch(page)).data == b"<html>Sign in</html>"


async def test_more_than_the_limit_is_not_read(made: Make, config: SlackConfig) -> None:
    async with _Served(web.Response(body=b"x" * (MAX_BYTES + 1))) as address:
        surface = await made(replace(config, api_url=f"{address}/api/"))
        for size in (0, MAX_BYTES + 1):
            with pytest.raises(InvalidInput, match=r"is the most"):
                await surface.fetch(replace(_file(f"{address}/file"), size=size))


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_file_that_does_not_come_now_may_come_later(made: Make, config: SlackConfig, status: int) -> None:
    async with _Served(web.Response(status=status)) as address:
        surface = await made(replace(config, api_url=f"{address}/api/"))
        with pytest.raises(Unreachable):
            await surface.fetch(_file(f"{address}/file"))


# --- status ---


async def test_an_agents_session_shows_what_it_does(agents: SlackAgents, surface: SlackSurface, place: Place) -> None:
    for status in (AgentStatus.THINKING, AgentStatus.WAITING_FOR_USER, AgentStatus.IDLE):
        await surface.show_status(place, status, "Asking demo/offline …")

    assert [(each["method"], each["status"]) for each in agents.statuses] == [
        ("agents.sessions.setStatus", "processing"),
        ("agents.sessions.setStatus", "suspended"),
        ("agents.sessions.setStatus", "active"),
    ]
    assert {each["thread_ts"] for each in agents.statuses} == {place.thread}


async def test_an_app_that_is_no_agent_shows_an_assistants_status(
    slack: SlackEmulator, agents: SlackAgents, surface: SlackSurface, place: Place
) -> None:
    await slack.fail("agents.sessions.setStatus", error="not_authorized")
    await surface.show_status(place, AgentStatus.THINKING, "is thinking…")
    await surface.show_status(place, AgentStatus.IDLE, "")

    assert [(each["method"], each["status"]) for each in agents.statuses] == [
        ("assistant.threads.setStatus", "is thinking…"),
        ("assistant.threads.setStatus", ""),
    ]
    assert len(await slack.calls("agents.sessions.setStatus")) == 1


async def test_a_workspace_without_statuses_is_not_asked_again(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    for _ in range(3):
        await surface.show_status(place, AgentStatus.THINKING, "is thinking…")

    calls = [call["method"] for call in await slack.calls() if "setStatus" in call["method"]]
    assert calls == ["agents.sessions.setStatus", "assistant.threads.setStatus"]


async def test_a_channels_top_has_no_status(slack: SlackEmulator, surface: SlackSurface, place: Place) -> None:
    await surface.show_status(replace(place, thread=""), AgentStatus.THINKING, "is thinking…")

    assert [call for call in await slack.calls() if "setStatus" in call["method"]] == []


# --- native streams ---


async def test_in_direct_messages_a_reply_grows_by_what_is_new(
    slack: SlackEmulator, agents: SlackAgents, streaming: SlackSurface, dm: Place
) -> None:
    ts = await streaming.post(dm, Part(text="Monday", buttons=(STOP,), live=True), NONCE)
    await streaming.edit(dm, ts, Part(text="Monday: rest", buttons=(STOP,), live=True), NONCE)
    assert "chat.appendStream" in streaming.budgets(Call.EDIT, dm)
    await streaming.edit(dm, ts, Part(text="Monday: rest.", notes=("demo/offline",)), NONCE)

    assert [call["method"] for call in await slack.calls() if call["method"].startswith("chat.")] == [
        "chat.startStream",
        "chat.appendStream",
        "chat.stopStream",
        "chat.update",
    ]
    assert agents.streams[ts].text == "Monday: rest"
    final = (await slack.edits(dm.channel, ts))[-1]
    assert [block["type"] for block in final["blocks"]] == ["markdown", "context"]
    assert await streaming.find(dm, NONCE, _now(), ()) == [ts]
    assert streaming.budgets(Call.EDIT, dm) == {"chat.update": SlackRules().edits}


async def test_in_channels_and_unless_it_is_wanted_nothing_is_streamed(
    slack: SlackEmulator, agents: SlackAgents, streaming: SlackSurface, surface: SlackSurface, *, place: Place, dm: Place
) -> None:
    await streaming.post(place, Part(text="x", live=True), NONCE)
    await surface.post(dm, Part(text="x", live=True), new_id())
    await streaming.post(dm, Part(text="what somebody said", speaker="bob, on the web", live=True), new_id())

    assert agents.streams == {}


async def test_a_stream_is_left_before_slack_ends_it_and_what_is_none_for_as_long_as_anybody_wants(
    agents: SlackAgents, streaming: SlackSurface, dm: Place
) -> None:
    """What waits for a person has buttons that a stream cannot show, and may wait for days."""
    approve = Part(text="Shall I?", buttons=(Button(action=Action.APPROVE, label="Approve", value="1"),), live=True)
    grows = await streaming.post(dm, Part(text="Monday", live=True), NONCE)
    posted = await streaming.post(dm, approve, new_id())
    assert [streaming.live_seconds(dm, each) for each in (grows, posted, "1.0")] == [240, None, None]

    await streaming.edit(dm, grows, approve, NONCE)
    assert streaming.live_seconds(dm, grows) is None


async def test_a_text_that_does_not_go_on_is_edited_from_then_on(
    slack: SlackEmulator, agents: SlackAgents, streaming: SlackSurface, dm: Place
) -> None:
    ts = await streaming.post(dm, Part(text="Monday", live=True), NONCE)
    await streaming.edit(dm, ts, Part(text="Tuesday", live=True), NONCE)
    await streaming.edit(dm, ts, Part(text="Tuesday: rest", live=True), NONCE)

    assert [call["method"] for call in await slack.calls() if call["ts"] == ts][1:] == [
        "chat.stopStream",
        "chat.update",
        "chat.update",
    ]


async def test_what_may_become_a_mention_is_held_back(agents: SlackAgents, streaming: SlackSurface, dm: Place) -> None:
    streaming.meet(_identity("Alice", "U1"))
    ts = await streaming.post(dm, Part(text="Ask @ali", live=True), NONCE)
    assert agents.streams[ts].text == "Ask "
    await streaming.edit(dm, ts, Part(text="Ask @alice now", live=True), NONCE)

    assert agents.streams[ts].text == "Ask <@U1> now"


async def test_buttons_that_a_stream_cannot_show_end_it(
    slack: SlackEmulator, agents: SlackAgents, streaming: SlackSurface, dm: Place
) -> None:
    ts = await streaming.post(dm, Part(text="Shall I?", live=True), NONCE)
    approve = Button(action=Action.APPROVE, label="Approve", value="approval-1", style="primary")
    await streaming.edit(dm, ts, Part(text="Shall I?", buttons=(approve,), live=True), NONCE)

    assert (await slack.edits(dm.channel, ts))[-1]["blocks"][1]["elements"][0]["style"] == "primary"


async def test_a_stream_that_a_person_stopped_is_edited_on(
    slack: SlackEmulator, agents: SlackAgents, streaming: SlackSurface, dm: Place
) -> None:
    ts = await streaming.post(dm, Part(text="Monday", live=True), NONCE)
    agents.stopped_by_user(ts)
    await streaming.edit(dm, ts, Part(text="Monday: rest", live=True), NONCE)

    assert (await slack.edits(dm.channel, ts))[-1]["blocks"][0]["text"] == "Monday: rest"


async def test_an_append_of_which_nobody_knows_whether_it_happened_is_not_repeated(
    slack: SlackEmulator, agents: SlackAgents, streaming: SlackSurface, dm: Place
) -> None:
    ts = await streaming.post(dm, Part(text="Monday", live=True), NONCE)
    await slack.fail("chat.appendStream", cut="after")
    part = Part(text="Monday: rest", live=True)
    with pytest.raises(Unclear):
        await streaming.edit(dm, ts, part, NONCE)
    assert streaming.live_seconds(dm, ts) is None, "it is edited from now on"
    await streaming.edit(dm, ts, part, NONCE)

    assert len(await slack.calls("chat.appendStream")) == 1
    assert (await slack.edits(dm.channel, ts))[-1]["blocks"][0]["text"] == "Monday: rest"


async def test_an_append_that_slack_had_no_room_for_is_tried_again(
    slack: SlackEmulator, agents: SlackAgents, streaming: SlackSurface, dm: Place
) -> None:
    ts = await streaming.post(dm, Part(text="Monday", live=True), NONCE)
    await slack.fail("chat.appendStream", status=429, retry_after=1)
    part = Part(text="Monday: rest", live=True)
    with pytest.raises(Busy):
        await streaming.edit(dm, ts, part, NONCE)
    await streaming.edit(dm, ts, part, NONCE)

    assert agents.streams[ts].text == "Monday: rest"


async def test_edits_at_the_same_time_append_nothing_twice(agents: SlackAgents, streaming: SlackSurface, dm: Place) -> None:
    ts = await streaming.post(dm, Part(text="a", live=True), NONCE)
    await asyncio.gather(*(streaming.edit(dm, ts, Part(text="a b c", live=True), NONCE) for _ in range(5)))

    assert agents.streams[ts].text == "a b c"


async def test_after_a_crash_a_stream_that_nobody_knows_is_ended_and_edited(
    slack: SlackEmulator, agents: SlackAgents, made: Make, config: SlackConfig, *, streaming: SlackSurface, dm: Place
) -> None:
    ts = await streaming.post(dm, Part(text="Monday", live=True), NONCE)
    successor = await made(config)
    await successor.edit(dm, ts, Part(text="Monday: rest"), NONCE)

    assert (await slack.edits(dm.channel, ts))[-1]["blocks"][0]["text"] == "Monday: rest"
    assert await successor.find(dm, NONCE, _now(), ()) == [ts], "it is found from now on, and taken for no other"
    again = await made(replace(config, native_streams=True))
    assert await again.find(dm, new_id(), _now(), ()) == []


async def test_of_several_streams_that_nobody_knows_only_the_first_is_taken_for_the_lost_one(
    slack: SlackEmulator, agents: SlackAgents, made: Make, config: SlackConfig, *, streaming: SlackSurface, dm: Place
) -> None:
    """Whoever looks for a post deletes what is found beyond the first: it may be somebody else's."""
    before = _now()
    first, _ = [await streaming.post(dm, Part(text="Monday", live=True), new_id()) for _ in range(2)]
    successor = await made(replace(config, native_streams=True))

    assert await successor.find(dm, new_id(), before, ()) == [first]


async def test_a_stream_whose_beginning_was_not_heard_of_is_found(
    slack: SlackEmulator, agents: SlackAgents, made: Make, config: SlackConfig, dm: Place
) -> None:
    streaming = await made(replace(config, native_streams=True))
    known = await streaming.post(dm, Part(text="Monday", live=True), new_id())
    await slack.fail("chat.startStream", cut="after")
    before = _now()
    with pytest.raises(Unclear):
        await streaming.post(dm, Part(text="Tuesday", live=True), NONCE)

    assert await streaming.find(dm, NONCE, before, ()) == [next(ts for ts in agents.streams if ts != known)]


async def test_a_workspace_without_streams_is_posted_to(slack: SlackEmulator, streaming: SlackSurface, dm: Place) -> None:
    for nonce in (NONCE, new_id()):
        await streaming.post(dm, Part(text="Monday", live=True), nonce)

    assert len(await slack.calls("chat.startStream")) == 1
    assert len(await slack.calls("chat.postMessage")) == 2


# --- signing in ---


async def test_signing_in_tells_which_workspace_it_is(slack: SlackEmulator, config: SlackConfig) -> None:
    async with web_client(config) as client:
        who = await signed_in(client)

    assert (who.team_id, who.bot_user_id, who.bot) == (slack.team_id, "U0ONETHREAD", "onethread")


async def test_a_wrong_token_is_told_without_showing_it(slack: SlackEmulator, config: SlackConfig) -> None:
    await slack.fail("auth.test", error="invalid_auth")
    async with web_client(replace(config, bot_token="xoxb-wrong")) as client:
        with pytest.raises(AccountClosed) as raised:
            await signed_in(client)

    assert "xoxb" not in str(raised.value)
    assert "xoxb" not in repr(replace(config, bot_token="xoxb-wrong"))


# --- helpers ---


class _Redirect:
    def __init__(self, to: str) -> None:
        self.to = to


class _Served:
    """A server that gives one answer to everything; its address within the `async with`."""

    def __init__(self, answer: web.Response | _Redirect) -> None:
        self._answer = answer

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answered)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return "http://{}:{}".format(*self._runner.addresses[0])

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answered(self, request: web.Request) -> web.Response:
        if isinstance(self._answer, _Redirect):
            return web.Response(status=302, headers={"Location": self._answer.to})
        return web.Response(body=self._answer.body, status=self._answer.status, headers=self._answer.headers)


class _LongThread:
    """A thread of more messages than the emulator would take in reasonable time, given out as Slack gives them: from the root on, which
    comes on every page."""

    def __init__(self, *, messages: int, seconds_between: int) -> None:
        self._messages = messages
        self._between = seconds_between
        self.pages: list[dict[str, str]] = []
        self.api_url = ""

    @property
    def root(self) -> str:
        return self.ts(0)

    def ts(self, number: int) -> str:
        return f"{1_700_000_000 + number * self._between}.000100"

    async def __aenter__(self) -> "_LongThread":
        app = web.Application()
        app.router.add_route("*", "/api/conversations.replies", self._replies)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.api_url = "http://{}:{}/api/".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _replies(self, request: web.Request) -> web.Response:
        asked = {name: str(value) for name, value in {**request.query, **await request.post()}.items()}
        self.pages.append(asked)
        oldest, latest = float(asked.get("oldest", 0)), float(asked.get("latest", "inf"))
        numbers = [number for number in range(1, self._messages) if oldest < float(self.ts(number)) < latest]
        start, most = int(asked.get("cursor") or 0), int(asked["limit"])
        given = [0, *numbers[start : start + most]]
        cursor = str(start + most) if start + most < len(numbers) else ""
        told = [{"ts": self.ts(number), "username": "a bot", "text": f"message {number}"} for number in given]
        return web.json_response({"ok": True, "messages": told, "response_metadata": {"next_cursor": cursor}})


async def _attached(slack: SlackEmulator, place: Place, content: bytes) -> RemoteFile:
    alice = await slack.person("alice")
    ts = await alice.say(place.channel, "see here", thread=place.thread, files=[("week.csv", content)])
    message = next(each for each in await alice.replies(place.channel, place.thread) if each["ts"] == ts)
    file = message["files"][0]
    return RemoteFile(name=file["name"], media_type=file["mimetype"], size=file["size"], source=file)


def _file(url: str) -> RemoteFile:
    return RemoteFile(name="x", media_type="", size=0, source={"id": "F1", "url_private": url})


def _identity(name: str, external_id: str) -> Identity:
    return Identity(surface="slack", account="T000000001", external_id=external_id, user_id=new_id(), name=name, created_at=_now())


def _place(channel: str, thread: str) -> Place:
    return Place(account=Account(surface="slack", id="T000000001"), channel=channel, thread=thread)


def _now() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)
