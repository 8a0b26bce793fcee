"""What Slack tells becomes what the core has: over signed HTTP, against the emulator."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from bots.policy import ChannelRules
from bots.slack.serving import running
from core.attachments import MAX_BYTES
from core.models import MessageStatus, Visibility
from tests.emulators.slack import SlackEmulator
from tests.integration.conftest import World
from tests.integration.office import Interruptible
from tests.integration.slack.conftest import (
    Office,
    Open,
    Speaker,
    config_of,
    held_elsewhere,
    served,
    services_of,
    until_ready,
)

pytestmark = pytest.mark.requires("slack-emulator")
People = tuple[Speaker, Speaker, Speaker]


async def test_a_mention_makes_a_task_with_a_thread_of_its_own(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week\nand the next")
    await office.says(channel, thread.ts, "alice: plan my week\nand the next")
    (task,) = await office.tasks()
    assert task.title == "plan my week"
    assert task.conversation_id == (await office.conversation(channel, thread.ts)).id
    reply = (await office.messages(channel, thread.ts))[1]
    assert reply.turn_id


async def test_message_and_app_mention_of_one_mention_make_one_turn(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread hello")
    await office.settled()
    assert {each["event"] for each in await office.slack.deliveries()} == {"message", "app_mention"}
    assert await office.said(channel, thread.ts) == ["alice: hello"]
    assert len(await office.tasks()) == 1


# --- told twice, late, or in another order ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["repeat", "repeat_with_new_id", "lose"])
async def test_a_message_that_is_delivered_again_is_taken_in_once(office: Office, people: People, channel: str, kind: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread hello")
    await office.settled()
    await office.slack.disturb(kind, times=1)  # type: ignore[arg-type]
    await alice.says("how are you?", thread)
    await office.says(channel, thread.ts, "alice: hello", "alice: how are you?")
    await office.settled()
    assert await office.said(channel, thread.ts) == ["alice: hello", "alice: how are you?"]


async def test_a_reply_that_overtakes_the_mention_waits_for_it(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    await office.slack.disturb("delay", late=0.6)
    await office.slack.disturb("delay", event="app_mention", late=0.6)
    thread = await alice.says("@onethread plan the party")
    await bob.says("with cake", thread)
    await office.says(channel, thread.ts, "alice: plan the party", "bob: with cake")


async def test_an_edit_that_overtakes_its_message_waits_for_it(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread hello")
    await office.settled()
    await office.slack.disturb("delay", late=0.6)
    ts = await alice.says_ts("and the wether?", thread)
    await alice.person.edit(channel, ts, "and the weather?")
    await office.says(channel, thread.ts, "alice: hello", "alice: and the weather?")


async def test_what_was_said_before_the_app_was_called_comes_in_once(office: Office, people: People, channel: str) -> None:
    """The reply waits, as it may have overtaken a mention; then the mention comes, with an import that has the reply."""
    alice, bob, carol = people
    thread = await bob.says("the printer is broken")
    await carol.says("again?", thread)
    await office.slack.delivered()
    assert await office.bound(channel, thread.ts) is None
    await alice.says("@onethread what can we do?", thread)
    imported = "Said in this thread before:\n\n**bob**:\n> the printer is broken\n\n**carol**:\n> again?"
    await office.says(channel, thread.ts, f"alice: {imported}", "alice: what can we do?")
    await office.world.until(lambda: _nothing_waits(office))
    assert await office.said(channel, thread.ts) == [f"alice: {imported}", "alice: what can we do?"]


async def _nothing_waits(office: Office) -> bool:
    return not await office.waiting()


async def test_a_message_that_was_stored_before_a_crash_is_taken_in_after_it(
    open_office: Open, channel: str, slack: SlackEmulator, world: World
) -> None:
    async with held_elsewhere(world, slack), open_office() as first:
        alice, _, _ = await first.speakers(channel)
        thread = await alice.says("@onethread hello")
        await first.slack.delivered()
        assert {each["status"] for each in await slack.deliveries()} == {200}
        assert await first.tasks() == []
    async with open_office() as second:
        await second.says(channel, thread.ts, "alice: hello")


async def test_what_cannot_be_stored_is_not_acknowledged_and_comes_again(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    office.storage.is_away = True
    thread = await alice.says("@onethread hello")
    await office.slack.until(office.slack.deliveries, lambda seen: any(each["status"] == 503 for each in seen))
    office.storage.is_away = False
    await office.says(channel, thread.ts, "alice: hello")


# --- where it answers ------------------------------------------------------------------------------------------------


async def test_in_a_bound_thread_everybody_is_answered_without_a_mention(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan the party")
    await bob.says("with cake", thread)
    await office.says(channel, thread.ts, "alice: plan the party", "bob: with cake")
    assert all(each.turn_id for each in await office.messages(channel, thread.ts))


async def test_a_message_to_somebody_else_is_read_along(office: Office, people: People, channel: str) -> None:
    alice, bob, carol = people
    thread = await alice.says("@onethread plan the party")
    await bob.says(f"<@{carol.id}> can you bake?", thread)
    await bob.says(f"@onethread and <@{carol.id}> bakes", thread)
    await office.says(channel, thread.ts, "alice: plan the party", "bob: @carol can you bake?", "bob: and @carol bakes")
    answered = [bool(each.turn_id) for each in await office.messages(channel, thread.ts) if each.author_id]
    assert answered == [True, False, True]


async def test_messages_elsewhere_are_left_alone(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    await alice.says("good morning")
    await bob.person.say(channel, "me too")
    await office.settled()
    assert (await office.tasks(), await office.users(), await office.waiting()) == ([], ["admin"], [])


async def test_what_bots_say_is_left_alone(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread hello")
    await office.says(channel, thread.ts, "alice: hello")
    event = {"type": "message", "channel": channel, "thread_ts": thread.ts, "ts": "1795317004.000011", "text": "beep", "user": "U0OTHER"}
    await office.slack.send({**event, "bot_id": "B0OTHER"})
    await office.slack.bot.chat_postMessage(channel=channel, thread_ts=thread.ts, text="an answer")
    await office.settled()
    assert await office.said(channel, thread.ts) == ["alice: hello"]


async def test_a_mention_in_a_private_channel_makes_a_private_task(office: Office, slack: SlackEmulator) -> None:
    private = await slack.channel(private=True)
    alice, bob, _ = await office.speakers(private)
    thread = await alice.says("@onethread plan a surprise")
    await office.says(private, thread.ts, "alice: plan a surprise")
    assert (await office.conversation(private, thread.ts)).visibility is Visibility.PRIVATE
    assert await office.tasks() == []  # which the admin, who is not among them, does not see
    await bob.says("for carol", thread)
    await office.says(private, thread.ts, "alice: plan a surprise", "bob: for carol")
    conversation = await office.conversation(private, thread.ts)
    members = await office.world.read(lambda uow: uow.conversations.members(conversation.id))
    assert len(members - {conversation.owner_id}) == 1


async def test_direct_messages_are_one_private_conversation_without_a_task(office: Office, people: People) -> None:
    alice, _, _ = people
    await alice.person.dm("hello")
    await alice.person.dm("are you there?")
    direct = await alice.person.dm_channel()
    await office.says(direct, "", "alice: hello", "alice: are you there?")
    conversation = await office.conversation(direct)
    assert (conversation.visibility, conversation.task_id, conversation.title) == (Visibility.PRIVATE, None, "hello")


async def test_a_thread_in_direct_messages_is_a_conversation_of_its_own(office: Office, people: People) -> None:
    alice, _, _ = people
    ts = await alice.person.dm("hello")
    await alice.person.dm("something else", thread=ts)
    direct = await alice.person.dm_channel()
    await office.says(direct, "", "alice: hello")
    await office.says(direct, ts, "alice: something else")


async def test_a_chat_channel_is_itself_one_conversation(open_office: Open, channel: str) -> None:
    async with open_office(channel_rules={channel: ChannelRules(mode="chat", answer="mentions")}) as office:
        alice, bob, _ = await office.speakers(channel)
        await alice.says("good morning")
        await bob.says("@onethread what is the time?")
        await office.says(channel, "", "alice: good morning", "bob: what is the time?")
        answered = [bool(each.turn_id) for each in await office.messages(channel) if each.author_id]
        assert answered == [False, True]
        assert (await office.conversation(channel)).visibility is Visibility.SHARED
        assert await office.tasks() == []


async def test_a_mention_without_a_word_is_told_how_to_go_on(office: Office, people: People) -> None:
    alice, _, _ = people
    await alice.says("@onethread")
    await office.tells(alice, "Write what is to be done behind my name")
    assert await office.tasks() == []


async def test_too_many_messages_are_kept_and_the_person_is_told(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread hello")
    await office.says(channel, thread.ts, "alice: hello")
    long = "x" * 11_000
    await alice.says(long, thread)
    await office.says(channel, thread.ts, "alice: hello", f"alice: {long}")
    await office.tells(alice, "A message has at most 10,000 characters")
    assert (await office.messages(channel, thread.ts))[-1].turn_id is None


# --- what is changed afterwards --------------------------------------------------------------------------------------


async def test_an_edit_changes_the_message(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.ts, "alice: plan my week")
    await alice.person.edit(channel, thread.ts, f"<@{office.slack.bot_user_id}> plan my year")
    await office.says(channel, thread.ts, "alice: plan my year")


async def test_a_deleted_message_is_deleted_and_its_answer_stopped(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    ts = await bob.says_ts("and mine", thread)
    await office.says(channel, thread.ts, "alice: plan my week", "bob: and mine")
    await bob.person.delete(channel, ts)
    await office.says(channel, thread.ts, "alice: plan my week")
    (_, _, _, reply) = await office.messages(channel, thread.ts)
    assert reply.status is MessageStatus.CANCELLED


async def test_stop_stops_what_runs_and_is_not_stored(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.ts, "alice: plan my week")
    await bob.says(" !STOP ", thread)
    await office.settled()
    question, reply = await office.messages(channel, thread.ts)
    assert (question.content, reply.status) == ("plan my week", MessageStatus.CANCELLED)


async def test_slacks_own_stop_button_stops(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread plan my week")
    await office.says(channel, thread.ts, "alice: plan my week")
    await alice.person.stop(channel, thread.ts)
    await office.settled()
    assert (await office.messages(channel, thread.ts))[1].status is MessageStatus.CANCELLED


# --- files -----------------------------------------------------------------------------------------------------------


async def test_files_come_with_their_message(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread read this", files=[("notes.txt", b"buy milk")])
    await office.says(channel, thread.ts, "alice: read this")
    message = (await office.messages(channel, thread.ts))[0]
    (file,) = await office.world.read(lambda uow: uow.attachments.of_messages([message.id]))
    assert (file.name, await office.world.read(lambda uow: uow.attachments.data(file.id))) == ("notes.txt", b"buy milk")


async def test_files_come_with_a_mention_also_where_its_form_without_them_came_first(
    open_office: Open, channel: str, slack: SlackEmulator, world: World
) -> None:
    file = {"id": "F1", "name": "film.mp4", "mimetype": "video/mp4", "size": MAX_BYTES + 1, "url_private": f"{slack.root}/film"}
    async with held_elsewhere(world, slack), open_office() as office:
        alice, _, _ = await office.speakers(channel)
        said = {"channel": channel, "user": alice.id, "ts": "1795317004.000011", "text": f"<@{slack.bot_user_id}> watch this"}
        await slack.send({**said, "type": "app_mention"})
        await slack.send({**said, "type": "message", "subtype": "file_share", "files": [file]})
        await slack.send({**said, "type": "app_mention"})
    async with open_office() as office:
        await office.speakers(channel)
        await office.says(channel, said["ts"], "alice: watch this\n\n(The file 'film.mp4' has 10.5 MB; 10.5 MB is the most.)")


async def test_a_file_that_cannot_be_had_is_named_and_the_message_comes_all_the_same(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    file = {"id": "F1", "name": "film.mp4", "mimetype": "video/mp4", "size": MAX_BYTES + 1, "url_private": f"{office.slack.root}/film"}
    said = {"type": "message", "subtype": "file_share", "channel": channel, "user": alice.id, "ts": "1795317004.000011", "files": [file]}
    await office.slack.send({**said, "text": f"<@{office.slack.bot_user_id}> watch this"})
    missing = "(The file 'film.mp4' has 10.5 MB; 10.5 MB is the most.)"
    await office.says(channel, "1795317004.000011", f"alice: watch this\n\n{missing}")


# --- the way in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Slack-Signature": "v0=" + "0" * 64},
        {"X-Slack-Signature": ""},
        {"X-Slack-Signature": "é"},
        {"X-Slack-Request-Timestamp": "1"},
        {"X-Slack-Request-Timestamp": "soon"},
        {"X-Slack-Request-Timestamp": "-1"},
        {"X-Slack-Request-Timestamp": ""},
        {"X-Slack-Request-Timestamp": "9" * 5000},
    ],
)
async def test_what_slack_did_not_sign_is_refused(office: Office, headers: dict[str, str]) -> None:
    answer = await office.slack.post_to_app("{}", "application/json", headers)
    assert answer.status == 401


async def test_a_request_without_signature_is_refused(office: Office) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.post(office.slack.request_url, data=b"{}") as answer:
            assert answer.status == 401
        async with session.get(office.slack.request_url) as answer:
            assert answer.status == 405


@pytest.mark.parametrize("body", ["", "no json", "[]", "payload=no+json"])
async def test_a_signed_body_that_says_nothing_is_a_bad_request(office: Office, body: str) -> None:
    kind = "application/x-www-form-urlencoded" if body.startswith("payload") else "application/json"
    assert (await office.slack.post_to_app(body, kind)).status == 400


def _action(**fields: Any) -> dict[str, Any]:
    usual = {"user": {"id": "U1"}, "channel": {"id": "C1"}, "actions": [{"type": "button", "action_id": "onethread:stop", "value": "x"}]}
    return {"type": "block_actions", **usual, **fields}


_NONSENSE: list[Any] = [
    {"type": "event_callback", "event": None},
    {"type": "event_callback", "event": "x", "event_id": "Ev1"},
    {"type": "event_callback", "event": {"type": "message"}, "event_id": 5},
    {"type": "event_callback", "event": {"type": "message"}, "event_id": "E" * 5_000},
    {"type": "event_callback", "event": {"type": "message"}, "event_id": "E", "authorizations": "x"},
    {"type": "event_callback", "event": {"type": "message"}, "event_id": "E", "team": [1]},
    {"type": "event_callback", "event": {"type": "message"}, "event_id": "E", "team_id": float("nan")},
    {"type": "url_verification"},
    {"type": "view_submission", "user": {"id": "U1"}, "view": {"callback_id": "x"}},
    {"type": "block_suggestion", "user": {"id": "U1"}, "action_id": "x", "block_id": "b", "value": "v"},
    {"type": "shortcut", "callback_id": "onethread_make_task", "user": {"id": "U1"}, "action_ts": "1"},
    {"type": "message_action", "callback_id": "onethread_make_task", "user": {"id": "U1"}, "action_ts": "1"},
    _action(channel=None),
    _action(channel={"id": [1]}),
    _action(actions=[1]),
    _action(actions="x"),
    _action(message="x"),
    {},
]


@pytest.mark.parametrize("body", _NONSENSE, ids=range(len(_NONSENSE)))
async def test_signed_nonsense_is_ignored(office: Office, body: Any, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.dumps({"team_id": office.slack.team_id, "team": {"id": office.slack.team_id}, **body})
    answer = await office.slack.post_to_app(whole, "application/json")
    logged = "".join(capsys.readouterr())
    assert (answer.status, "error" in logged, "slack.library" in logged) == (200, False, False)


@pytest.mark.parametrize(
    "fields",
    [
        {"channel": [1]},
        {"channel": "C" * 5_000},
        {"channel": "C\x00"},
        {"channel": "C\ud800"},
        {"files": "x"},
        {"files": 5},
        {"files": [1, {}]},
        {"thread_ts": "1.\x00"},
        {"thread_ts": 5},
        {"ts": "1" * 400},
        {"user": "../../x?y=1"},
        {"text": None},
        {"text": "sur \ud800 end \x00 nul"},
        {"edited": "x"},
        {"edited": {"ts": [1]}},
    ],
)
async def test_a_signed_message_of_nonsense_is_acknowledged(
    office: Office, people: People, channel: str, fields: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    usual = {"type": "app_mention", "channel": channel, "user": people[0].id, "ts": "1795317004.000011", "text": "hi"}
    assert (await office.slack.send({**usual, **fields})).status == 200
    await office.settled()
    assert "failed" not in "".join(capsys.readouterr())


async def test_a_command_without_what_names_it_is_ignored(office: Office, people: People, channel: str) -> None:
    form = {"team_id": office.slack.team_id, "user_id": people[0].id, "channel_id": channel, "command": "/task", "text": "new Buy milk"}
    answer = await office.slack.post_to_app(urlencode(form), "application/x-www-form-urlencoded")
    assert (answer.status, await office.tasks()) == (200, [])


async def test_a_body_that_is_nested_too_deep_is_a_bad_request(office: Office) -> None:
    deep = '{"type":"event_callback","event":' + '{"a":' * 20_000 + "1" + "}" * 20_001
    assert (await office.slack.post_to_app(deep, "application/json")).status == 400


async def test_the_log_tells_once_a_minute_that_nothing_can_be_stored(
    office: Office, people: People, capsys: pytest.CaptureFixture[str]
) -> None:
    alice, _, _ = people
    await alice.says("good morning")
    await office.settled()
    office.storage.is_away = True
    event = {"type": "message", "channel": alice.channel, "user": alice.id, "text": "hi"}
    answers = [await office.slack.send({**event, "ts": f"1795317004.00001{number}"}) for number in range(5)]
    office.storage.is_away = False
    await office.settled()
    logged = "".join(capsys.readouterr())
    assert {each.status for each in answers} == {503}
    assert (logged.count("slack.storage_unavailable"), "slack.listener_failed" in logged) == (1, False)


async def test_a_message_that_mentions_the_app_since_an_edit_is_answered(office: Office, people: People, channel: str) -> None:
    """Slack tells it as another app_mention, with the ts of the message and when it was edited."""
    alice, _, _ = people
    thread = await alice.says("plan my week")
    text = f"<@{office.slack.bot_user_id}> plan my week"
    await office.settled()
    said = {"type": "app_mention", "channel": channel, "user": alice.id, "ts": thread.ts, "text": text}
    edited = str(float(thread.ts.partition(".")[0]) + 1)
    for _ in range(2):
        await office.slack.send({**said, "edited": {"user": alice.id, "ts": edited}})
    await office.says(channel, thread.ts, "alice: plan my week")
    await office.settled()
    assert len(await office.messages(channel, thread.ts)) == 2


async def test_a_body_that_is_too_large_is_refused(office: Office) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1025):
            yield b"x" * 1024

    async with aiohttp.ClientSession() as session, session.post(office.slack.request_url, data=pieces()) as answer:
        assert answer.status == 413


async def test_the_request_url_is_verified(office: Office) -> None:
    answer = await office.slack.post_to_app(json.dumps({"type": "url_verification", "challenge": "c"}), "application/json")
    assert (answer.status, answer.json) == (200, {"challenge": "c"})


@pytest.mark.parametrize("type", ["reaction_added", "app_home_opened", "tokens_revoked", "app_uninstalled", "something_new"])
async def test_events_that_mean_nothing_here_are_acknowledged(office: Office, type: str) -> None:
    answer = await office.slack.send({"type": type, "user": "U0", "item": {}, "tokens": {}})
    assert answer.status == 200


async def test_events_of_another_workspace_are_acknowledged_and_dropped(office: Office, people: People, channel: str) -> None:
    event = {"type": "message", "channel": channel, "ts": "1795317004.000011", "text": "<@U0ONETHREAD> hi", "user": people[0].id}
    other: dict[str, Any] = {"team_id": "T0OTHER", "authorizations": [{"team_id": "T0OTHER", "user_id": "U0ONETHREAD"}]}
    answer = await office.slack.send(event, **other)
    await office.settled()
    assert (answer.status, await office.tasks(), await office.users()) == (200, [], ["admin"])


async def test_it_starts_while_slack_is_away_and_serves_once_it_is_back(world: World, slack: SlackEmulator, channel: str) -> None:
    await slack.fail("auth.test", status=503)
    async with running(services_of(world, Interruptible(world.app.storage)), config_of(slack)) as endpoint:
        assert endpoint
        async with served(endpoint) as url:
            await slack.connect(f"{url}/slack/events")
            assert (await slack.send({"type": "something"})).status == 503
            await until_ready(endpoint)
            assert (await slack.send({"type": "something"})).status == 200


async def test_a_person_whom_slack_cannot_describe_just_now_is_taken_in_later(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    await office.slack.fail("users.info", status=503)
    thread = await alice.says("@onethread hello")
    await office.says(channel, thread.ts, "alice: hello")


@pytest.fixture
def root_log() -> Iterator[io.StringIO]:
    """What gets to the root logger, where the product writes from; pytest's caplog listens to loggers that do not get there, too."""
    written, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(written), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


async def test_nothing_that_people_write_gets_into_the_log(
    office: Office, people: People, root_log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    alice, _, _ = people
    await alice.says("@onethread canary7f3a91")
    await office.slack.post_to_app('{"text": "canary7f3a91"}', "application/json", {"X-Slack-Signature": "v0=00"})
    await office.slack.send({"type": "message", "text": "canary7f3a91", "ts": "canary7f3a91"})
    for library in ("slack_bolt.AsyncApp", "slack_sdk.socket_mode"):
        logging.getLogger(library).error("canary7f3a91")  # whatever they may find to say
    office.storage.is_away = True
    await alice.says("@onethread canary7f3a91 again")
    await office.slack.until(office.slack.deliveries, lambda seen: any(each["status"] == 503 for each in seen))
    office.storage.is_away = False
    await office.settled()
    logged = root_log.getvalue() + "".join(capsys.readouterr())
    assert "slack.library" in logged
    assert "canary7f3a91" not in logged
    assert office.slack.bot_token not in logged
