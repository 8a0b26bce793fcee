"""What Discord's messages mean, read from objects as Discord documents them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.discord import events
from bots.discord.events import Spot
from bots.surface import Edited, Promoted, Removed, Said

BOT, ALICE, CAROL = "900000000000000001", "900000000000000002", "900000000000000003"
OWN_ROLE, TEAM = "910000000000000001", "910000000000000002"
ID = "1400000000000000000"
AT = datetime(2025, 7, 30, 6, 20, 10, 742000, tzinfo=UTC)
TOP = Spot(guild="7", channel="11")
THREAD = Spot(guild="7", channel="11", thread="12")
DIRECT = Spot(guild="", channel="13")
EDITED_AT = "2025-07-30T07:00:00.500000+00:00"
LATER = datetime(2025, 7, 30, 7, 0, 0, 500000, tzinfo=UTC)


def message(content: str = "hello", *mentions: str, **fields: Any) -> dict[str, Any]:
    """As the gateway and the history give it."""
    return {
        "id": ID,
        "channel_id": "11",
        "type": 0,
        "content": content,
        "author": {"id": ALICE, "username": "alice", "global_name": "Alice", "discriminator": "0"},
        "timestamp": "2025-07-30T06:20:10.742000+00:00",
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "mentions": [{"id": each, "username": each} for each in mentions],
        "mention_roles": [],
        "attachments": [],
        "embeds": [],
        "pinned": False,
        **fields,
    }


def reply(content: str, *, to: str | None, mentions: tuple[str, ...] = ()) -> dict[str, Any]:
    answered = {"referenced_message": message(author={"id": to})} if to else {}
    return message(content, *mentions, type=19, message_reference={"type": 0, "message_id": "77", "channel_id": "11"}, **answered)


def told(payload: dict[str, Any]) -> Any:
    """As it is read after it was stored."""
    return events.event(json.loads(json.dumps(payload)), BOT)


def said(*args: Any, spot: Spot = TOP, **fields: Any) -> Any:
    return told(events.said(message(*args, **fields), spot, [OWN_ROLE]))


def test_a_persons_message_is_said_with_its_place_and_time() -> None:
    assert said("good morning", spot=THREAD) == Said(
        remote_id=ID, channel="11", thread="12", author=ALICE, text="good morning", to_bot=False, to_others=False, at=AT
    )


@pytest.mark.parametrize("call", [f"<@{BOT}> ", f" <@!{BOT}>, ", f"<@{BOT}>: <@{BOT}> ", f"<@{BOT}>\n"])
def test_the_mention_that_a_message_begins_with_is_left_out(call: str) -> None:
    found = said(f"{call}plan my week", BOT)
    assert (found.text, found.to_bot, found.to_others) == ("plan my week", True, False)


def test_other_mentions_of_the_bot_stay() -> None:
    assert said(f"ask <@{BOT}> or <@{CAROL}>", BOT, CAROL).text == f"ask <@{BOT}> or <@{CAROL}>"


def test_the_bots_own_role_is_as_good_as_its_name() -> None:
    found = said(f"<@&{OWN_ROLE}> plan my week", mention_roles=[OWN_ROLE])
    assert (found.text, found.to_bot, found.to_others) == ("plan my week", True, False)


@pytest.mark.parametrize("fields", [{"mention_roles": [TEAM]}, {"mention_everyone": True}])
def test_a_role_and_everybody_are_others(fields: dict[str, Any]) -> None:
    assert (said(**fields).to_bot, said(**fields).to_others) == (False, True)


def test_a_person_who_is_mentioned_is_another_unless_it_is_the_author() -> None:
    assert (said("hi", CAROL).to_others, said("hi", ALICE).to_others) == (True, False)


def test_a_direct_message_is_for_the_bot() -> None:
    assert said("hello", spot=DIRECT).to_bot


@pytest.mark.parametrize(
    ("to", "mentions", "to_bot", "to_others"),
    [(BOT, (), True, False), (BOT, (BOT,), True, False), (CAROL, (), False, True), (ALICE, (), False, False), (None, (), False, False)],
)
def test_a_reply_is_to_whom_it_answers(to: str | None, mentions: tuple[str, ...], to_bot: bool, to_others: bool) -> None:
    found = told(events.said(reply("and then?", to=to, mentions=mentions), TOP))
    assert (found.answers, found.to_bot, found.to_others) == ("77", to_bot, to_others)


def test_a_reply_tells_what_it_replies_to() -> None:
    assert said("do this").answered is None
    answered = message("plan", author={"id": CAROL, "username": "carol", "global_name": "Carol"})
    reference: dict[str, Any] = {"type": 19, "message_reference": {"type": 0, "message_id": "77"}}
    assert said("do this", **reference, referenced_message=answered).answered == ("Carol", "plan")
    nick = [{"id": CAROL, "username": "carol", "member": {"nick": "Caro"}}]
    assert said("do this", **reference, referenced_message=answered, mentions=nick).answered == ("Caro", "plan")
    long = {**answered, "content": "x" * 5_000}
    assert said("do this", **reference, referenced_message=long).answered == ("Carol", "x" * 4_000)
    for nothing in (None, {**answered, "type": 7}, {**answered, "content": ""}):
        assert said("do this", **reference, referenced_message=nothing).answered is None


def test_the_names_of_those_who_are_mentioned_are_kept() -> None:
    named = [{"id": CAROL, "username": "carol", "global_name": "Carol"}, {"id": BOT, "username": "onethread"}]
    assert events.kept(message("hello", mentions=named))["names"] == {CAROL: "Carol", BOT: "onethread"}
    assert "names" not in events.kept(message("hello"))


def test_a_forwarded_message_answers_nothing_and_is_quoted() -> None:
    snapshot = {"message": {"content": "one\ntwo", "attachments": [file("a.txt")]}}
    found = said("", message_reference={"type": 1, "message_id": "77", "channel_id": "5"}, message_snapshots=[snapshot])
    assert (found.answers, found.text, [each.name for each in found.files]) == ("", "> one\n> two", ["a.txt"])


def test_stickers_and_polls_say_what_they_are() -> None:
    poll = {"question": {"text": "Lunch?"}, "answers": [{"poll_media": {"text": "Yes"}}, {"poll_media": {"text": "No"}}]}
    assert said("", sticker_items=[{"id": "1", "name": "Wave"}], poll=poll).text == "(a sticker: Wave)\n(a poll: Lunch? Yes / No)"


def file(name: str) -> dict[str, Any]:
    return {"id": "5", "filename": name, "content_type": "text/plain", "size": 3, "url": "https://cdn/x?ex=1", "proxy_url": "https://p"}


def test_files_come_along_with_where_they_hang() -> None:
    [found] = said(attachments=[file("a.txt")]).files
    source = {"id": "5", "filename": "a.txt", "content_type": "text/plain", "size": 3, "url": "https://cdn/x?ex=1"}
    assert (found.name, found.media_type, found.size) == ("a.txt", "text/plain", 3)
    assert found.source == {**source, "channel_id": "11", "message_id": ID}


@pytest.mark.parametrize(
    "fields",
    [
        {"author": {"id": CAROL, "bot": True}},
        {"author": {"id": BOT}},
        {"webhook_id": "5"},
        *({"type": system} for system in (6, 7, 18, 20, 21, 23, 46, 999)),
    ],
    ids=str,
)
def test_bots_webhooks_and_discord_itself_are_left_alone(fields: dict[str, Any]) -> None:
    assert said(**fields) is None
    assert told(events.edited(message(edited_timestamp=EDITED_AT, **fields), TOP)) is None


def test_an_edit_has_discords_time() -> None:
    edited = told(events.edited(message("plan my year", edited_timestamp=EDITED_AT), THREAD))
    assert edited == Edited(remote_id=ID, channel="11", thread="12", author=ALICE, text="plan my year", at=LATER)


def test_an_edit_to_the_bot_may_be_a_new_message_to_it() -> None:
    edited = told(events.edited(message(f"<@{BOT}> plan", BOT, edited_timestamp=EDITED_AT), TOP))
    assert (type(edited), edited.text, edited.at, edited.edited_at) == (
        Said,
        "plan",
        AT,
        LATER,
    )


def test_a_deletion_is_told() -> None:
    assert told(events.deleted(ID, THREAD)) == Removed(remote_id=ID, channel="11", thread="12")


def test_a_task_is_wished_for_whoever_wrote_the_message() -> None:
    payload = events.promoted(message("plan", author={"id": CAROL, "bot": True}), TOP, by=ALICE, interaction="5")
    found = told(payload)
    assert (type(found), found.by, found.said.text, found.said.author) == (Promoted, ALICE, "plan", CAROL)


def test_the_same_has_the_same_key_whichever_way_it_comes() -> None:
    live, history = events.said(message(), TOP), events.said({**message(), "guild_id": "7", "position": 3}, TOP)
    assert events.key(live) == events.key(history) == f"message:11:{ID}"
    assert events.key(events.edited(message(edited_timestamp=EDITED_AT), TOP)) == f"edit:{ID}:{EDITED_AT}"
    assert events.key(events.deleted(ID, TOP)) == f"delete:{ID}"
    assert events.key(events.promoted(message(), TOP, by=ALICE, interaction="5")) == "promoted:5"


@pytest.mark.parametrize(
    ("spot", "is_chat", "home", "lane"),
    [
        (TOP, False, "", f"11:{ID}"),
        (Spot(guild="7", channel="11", thread=ID), False, "", f"11:{ID}"),
        (TOP, True, "", "11"),
        (DIRECT, False, "", "13"),
        (TOP, False, "12", "11:12"),
    ],
    ids=["a root", "in its thread", "a chat channel", "a direct message", "an answer at the top"],
)
def test_a_thread_shares_its_roots_lane(spot: Spot, is_chat: bool, home: str, lane: str) -> None:
    payloads = [events.said(message(), spot), events.edited(message(edited_timestamp=EDITED_AT), spot), events.deleted(ID, spot)]
    assert {events.lane(payload, is_chat=is_chat, home=home) for payload in payloads} == {lane}


def test_a_thread_belongs_to_its_channel() -> None:
    assert events.spot_of({"id": "12", "type": 11, "parent_id": "11", "guild_id": "7"}) == THREAD
    assert events.spot_of({"id": "11", "type": 0}, "7") == TOP
    assert events.spot_of({"id": "13", "type": 1}) == DIRECT


def test_ids_tell_when_they_were_given() -> None:
    assert events.time_of(int(ID)) == AT
    assert events.id_at(AT) <= int(ID) < events.id_at(AT) + (1 << 22)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "type", "bot"]), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["said", "edited"]), st.sampled_from(sorted(message())), JUNK)
def test_whatever_stands_in_a_message_is_read_or_left(way: str, field: str, junk: Any) -> None:
    """Nothing is raised but what `Ingest` leaves the message out for."""
    describe = events.said if way == "said" else events.edited
    try:
        payload = describe({**message(edited_timestamp=EDITED_AT), field: junk}, TOP, [OWN_ROLE])
    except (KeyError, TypeError, ValueError, AttributeError):
        return
    events.event(payload, BOT)
