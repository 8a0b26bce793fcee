"""What Slack's events mean, read from payloads as Slack documents them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bots.slack import events
from bots.surface import Edited, Promoted, Removed, Said, Stopped

BOT = "U0BOT"
ALICE = "U0ALICE"


def message(text: str = "hello", **fields: Any) -> dict[str, Any]:
    whole = {"type": "message", "channel": "C1", "user": ALICE, "text": text, "ts": "1795317004.000011", **fields}
    return {name: value for name, value in whole.items() if value is not None}


def changed(before: dict[str, Any], after: dict[str, Any], subtype: str = "message_changed") -> dict[str, Any]:
    return {
        "type": "message",
        "subtype": subtype,
        "hidden": True,
        "channel": "C1",
        "ts": "1795317009.000001",
        "message": after,
        "previous_message": before,
    }


def told(payload: dict[str, Any]) -> Any:
    """As it is read after it was stored."""
    return events.event(events.kept(payload), BOT)


def test_a_persons_message_is_said_with_its_place_and_time() -> None:
    assert told(message("good morning", thread_ts="1795317001.000001")) == Said(
        remote_id="1795317004.000011",
        channel="C1",
        thread="1795317001.000001",
        author=ALICE,
        text="good morning",
        to_bot=False,
        to_others=False,
        at=datetime(2026, 11, 22, 3, 10, 4, 11, tzinfo=UTC),
    )


def test_a_threads_root_stands_at_the_channels_top() -> None:
    assert told(message(thread_ts="1795317004.000011")).thread == ""


@pytest.mark.parametrize("subtype", [None, "file_share", "thread_broadcast", "me_message"])
def test_what_people_say_in_other_ways_is_said_too(subtype: str | None) -> None:
    assert isinstance(told(message(subtype=subtype)), Said)


def test_a_mention_of_the_bot_is_left_out_and_told_apart() -> None:
    said = told(message(f"<@{BOT}> plan my week with <@U0CAROL>"))
    assert (said.text, said.to_bot, said.to_others) == ("plan my week with <@U0CAROL>", True, True)
    assert told(message(f"<@{BOT}> plan my week", type="app_mention")).text == "plan my week"


def test_a_mention_is_stored_under_one_key_in_both_of_its_forms() -> None:
    forms = [message(f"<@{BOT}> hi"), message(f"<@{BOT}> hi", type="app_mention")]
    assert {events.key(form, f"Ev{number}") for number, form in enumerate(forms)} == {"message:C1:1795317004.000011"}


def test_a_mention_by_an_edit_has_a_key_of_its_own_and_the_time_of_the_edit() -> None:
    edited = message(f"<@{BOT}> hi", type="app_mention", edited={"user": ALICE, "ts": "1795317008.000000"})
    assert events.key(events.kept(edited), "Ev1") == "message:C1:1795317004.000011:1795317008.000000"
    assert told(edited).at == datetime(2026, 11, 22, 3, 10, 4, 11, tzinfo=UTC)
    assert told(edited).edited_at == datetime(2026, 11, 22, 3, 10, 8, tzinfo=UTC)


def test_other_events_are_stored_under_their_own_id() -> None:
    assert events.key(changed(message("a"), message("b")), "Ev7") == "event:Ev7"


@pytest.mark.parametrize(
    "fields",
    [
        {"bot_id": "B1"},
        {"bot_profile": {"id": "B1"}, "bot_id": "B1"},
        {"app_id": "A1"},
        {"subtype": "bot_message"},
        {"subtype": "channel_join"},
        {"user": BOT},
        {"user": "USLACKBOT"},
        {"user": None},
        {"hidden": True},
        {"ts": "soon"},
    ],
)
def test_bots_slackbot_and_hidden_messages_are_left_alone(fields: dict[str, Any]) -> None:
    assert told(message(**fields)) is None


def test_a_changed_text_is_an_edit() -> None:
    edited = told(changed(message("plan"), message(f"<@{BOT}> plan my year")))
    at = datetime(2026, 11, 22, 3, 10, 9, 1, tzinfo=UTC)
    assert edited == Edited(remote_id="1795317004.000011", channel="C1", thread="", author=ALICE, text="plan my year", at=at)


def test_an_edit_has_the_time_that_slack_gives_the_edited_message() -> None:
    edited = message("plan my year", edited={"user": ALICE, "ts": "1795317008.000000"})
    assert told(changed(message("plan"), edited)).at == datetime(2026, 11, 22, 3, 10, 8, tzinfo=UTC)


def test_a_direct_message_is_for_the_bot() -> None:
    assert (told(message(channel="D1")).to_bot, told(message(channel="C1")).to_bot) == (True, False)


def test_a_link_that_unfolds_is_no_edit() -> None:
    assert told(changed(message("see x.org"), message("see x.org", attachments=[{"title": "X"}]))) is None


def test_the_bots_own_edits_are_left_alone() -> None:
    assert told(changed(message("a", bot_id="B1", user=BOT), message("b", bot_id="B1", user=BOT))) is None


def test_a_deleted_message_is_removed_also_where_it_is_a_threads_root() -> None:
    alone = {**changed(message(), message(), "message_deleted"), "deleted_ts": "1795317004.000011"}
    root = changed(message(thread_ts="1795317004.000011"), message("This message was deleted.", subtype="tombstone", user="USLACKBOT"))
    removed = Removed(remote_id="1795317004.000011", channel="C1", thread="")
    assert (told(alone), told(root)) == (removed, removed)


def test_a_deleted_message_of_a_bot_is_left_alone() -> None:
    assert told(changed(message(bot_id="B1"), message(), "message_deleted")) is None


def test_files_are_named_with_what_is_needed_to_fetch_them() -> None:
    file = {
        "id": "F1",
        "name": "notes.txt",
        "mimetype": "text/plain",
        "size": 12,
        "url_private": "https://files.slack.com/F1",
        "preview": "x",
    }
    (found,) = told(message(subtype="file_share", files=[file, {"id": "F2", "mode": "tombstone"}])).files
    assert (found.name, found.media_type, found.size) == ("notes.txt", "text/plain", 12)
    assert found.source["url_private"] == "https://files.slack.com/F1"


def test_what_is_stored_holds_nothing_that_is_not_read() -> None:
    body = message("hi", blocks=[{"type": "rich_text"}], token="secret", client_msg_id="x", team="T1")
    assert events.kept(body) == message("hi")


def test_slacks_stop_button_stops() -> None:
    event = {"type": "agent_session_stopped", "channel": "D1", "thread_ts": "1.2", "user": ALICE, "streaming_message_ts": []}
    assert told(event) == Stopped(channel="D1", thread="1.2", by=ALICE)


def test_the_shortcut_promotes_anybodys_message_for_who_chose_it() -> None:
    body = {
        "type": "message_action",
        "callback_id": events.MAKE_TASK,
        "user": {"id": ALICE},
        "channel": {"id": "C1", "name": "general"},
        "message": message("the printer is broken", user="U0BOB", channel=None),
        "response_url": "https://hooks.slack.com/secret",
    }
    stored = events.pressed(body)
    promoted = events.event(stored, BOT)
    assert isinstance(promoted, Promoted)
    assert (promoted.by, promoted.said.author, promoted.said.text) == (ALICE, "U0BOB", "the printer is broken")
    assert "secret" not in str(stored)


def test_a_thread_with_its_root_is_one_lane() -> None:
    root, reply = told(message()), told(message(ts="1795317009.000001", thread_ts="1795317004.000011"))
    edit = told(changed(message("a"), message("b")))
    lanes = {events.lane(each, lambda _: False) for each in (root, reply, edit)}
    assert lanes == {"C1:1795317004.000011"}


def test_direct_messages_and_chat_channels_are_one_lane_each() -> None:
    assert events.lane(told(message(channel="D1")), lambda _: False) == "D1"
    assert events.lane(told(message()), lambda channel: channel == "C1") == "C1"


_VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1795317004.000011", "inf", "1e20", BOT, ALICE])
)
_TYPES = st.sampled_from(["message", "app_mention", "agent_session_stopped", "message_action"])
_SUBTYPES = st.sampled_from(["message_changed", "message_deleted", "file_share", "tombstone"])
_FIELDS = {
    "subtype": _SUBTYPES | _VALUES,
    **dict.fromkeys(("channel", "user", "text", "ts", "thread_ts", "hidden", "bot_id"), _VALUES),
    "files": st.lists(st.dictionaries(st.sampled_from(["id", "name", "size", "mode"]), _VALUES)) | _VALUES,
}
_MESSAGES = st.fixed_dictionaries({}, optional=_FIELDS)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine that never ran it, hypothesis sorts all of Unicode first
@given(
    st.fixed_dictionaries({"type": _TYPES}, optional={**_FIELDS, "message": _MESSAGES | _VALUES, "previous_message": _MESSAGES | _VALUES})
)
def test_no_payload_is_ever_a_defect(payload: dict[str, Any]) -> None:
    event = events.event(payload, BOT)
    assert event is None or isinstance(event, (Said, Edited, Removed, Promoted, Stopped))


@given(st.fixed_dictionaries({"type": _TYPES | st.just("event_callback")}, optional={**_FIELDS, "event": _MESSAGES | _VALUES}))
def test_no_body_is_ever_a_defect(body: dict[str, Any]) -> None:
    assert events.is_described(body) in (True, False)


def test_what_is_not_as_slack_describes_it_means_nothing() -> None:
    for broken in (
        {"type": "message", "subtype": "message_changed"},
        {"type": "message"},
        {"type": "agent_session_stopped"},
        {"type": "x"},
    ):
        assert events.event(broken, BOT) is None
