"""What the surface makes Discord show, and what it makes of Discord's failures: over the wire, with discord.py itself."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from bots.discord import events
from bots.discord.access import signed_in
from bots.discord.client import Client, set_endpoints
from bots.discord.config import DiscordConfig, DiscordRules
from bots.discord.surface import DiscordSurface
from bots.pacing import Budget
from bots.surface import (
    AccountClosed,
    Action,
    Busy,
    Button,
    Call,
    MessageGone,
    NoThread,
    Part,
    PlaceClosed,
    Refused,
    RemoteFile,
    SurfaceError,
    TextFile,
    Unclear,
    Unreachable,
)
from core.attachments import MAX_BYTES
from core.errors import InvalidInput
from core.ids import new_id
from core.models import Account, AgentStatus, ChannelKind, Identity, Place
from tests.emulators.discord import DiscordEmulator, Person, discord

__all__ = ["discord"]

NONCE = UUID("00000000-0000-4000-8000-000000000001")
SAME_NONCE = "AAAAAAAAQACAAAAAAAAAAQ"
STOP = Button(action=Action.STOP, label="Stop", value="turn-1")
QUICK = DiscordRules(call_seconds=2.0)
Make = Callable[..., Awaitable[DiscordSurface]]


@pytest.fixture
async def make(discord: DiscordEmulator) -> AsyncIterator[Make]:
    """Makes a surface; its connections end with the test."""
    async with AsyncExitStack() as stack:

        async def made(**changes: object) -> DiscordSurface:
            usual = DiscordConfig(
                token=discord.token,
                api_url=discord.api_url,
                gateway_url=discord.gateway_url,
                guilds=frozenset({discord.home.id}),
                rules=QUICK,
            )
            config = replace(usual, **changes)  # type: ignore[arg-type]
            set_endpoints(config)
            client = await stack.enter_async_context(Client(config))
            return DiscordSurface(config, client, await signed_in(client))

        yield made


@pytest.fixture
async def surface(make: Make) -> DiscordSurface:
    return await make()


def at(discord: DiscordEmulator, channel: str, thread: str = "") -> Place:
    return Place(account=Account(surface="discord", id=discord.bot_id), channel=channel, thread=thread)


async def thread_of(discord: DiscordEmulator, surface: DiscordSurface) -> Place:
    """One that the bot made on alice's message."""
    root = await discord.person("alice").say(discord.general, "plan my week")
    return at(discord, discord.general, await surface.open(at(discord, discord.general), root, "OT-1 Plan my week"))


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


# --- posts and edits -------------------------------------------------------------------------------------------------


async def test_a_part_is_shown_with_who_says_it_its_notes_and_its_buttons(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = await thread_of(discord, surface)
    part = Part(text="Some **text**", speaker="alice, on the web", notes=("◐ Thinking", "○ 1 more"), buttons=(STOP,), live=True)
    shown = discord.message(await surface.post(place, part, NONCE))
    assert shown["content"] == "**alice, on the web**\nSome **text**\n-# ◐ Thinking\n-# ○ 1 more"
    assert [(each["label"], each["custom_id"]) for each in shown["components"][0]["components"]] == [("Stop", "onethread:stop:turn-1")]
    assert shown["channel_id"] == place.thread


async def test_an_edit_takes_buttons_and_notes_away(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = await thread_of(discord, surface)
    remote_id = await surface.post(place, Part(text="Half", notes=("◐ Thinking",), buttons=(STOP,), live=True), NONCE)
    await surface.edit(place, remote_id, Part(text="Whole"), NONCE)
    shown = discord.message(remote_id)
    assert (shown["content"], shown["components"]) == ("Whole", [])


async def test_nobody_is_called_by_what_the_model_writes(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice = discord.person("alice")
    surface.meet(
        Identity(surface="discord", account=discord.bot_id, external_id=alice.id, user_id=new_id(), name="alice", created_at=ago(0))
    )
    remote_id = await surface.post(at(discord, discord.general), Part(text=f"@alice <@{discord.person('bob').id}> @everyone"), NONCE)
    shown = discord.message(remote_id)
    assert shown["content"] == f"<@{alice.id}> <\u2060@{discord.person('bob').id}> @\u2060everyone"
    assert (shown["mentions"], shown["mention_everyone"]) == ([], False)
    await surface.edit(at(discord, discord.general), remote_id, Part(text="@alice"), NONCE)
    assert discord.message(remote_id)["mentions"] == []


async def test_an_answer_in_a_channel_is_a_reply_that_pings_nobody(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    asked = await discord.person("alice").say(discord.general, "hello")
    shown = discord.message(await surface.post(at(discord, discord.general), Part(text="Hi"), NONCE, answers=asked))
    assert (shown["message_reference"]["message_id"], shown["mentions"]) == (asked, [])


async def test_an_answer_to_what_is_gone_or_may_not_be_answered_stands_alone(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice, place = discord.person("alice"), at(discord, discord.general)
    asked = await alice.say(discord.general, "hello")
    discord.fail("POST", "message.create", status=400, code=160002)
    assert "message_reference" not in discord.message(await surface.post(place, Part(text="One"), new_id(), answers=asked))
    await alice.delete(discord.general, asked)
    assert discord.message(await surface.post(place, Part(text="Two"), new_id(), answers=asked))["content"] == "Two"


async def test_a_long_text_comes_as_a_file_and_goes_with_an_edit(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = await thread_of(discord, surface)
    part = Part(text="The end", file=TextFile(name="answer.md", text="The whole text ✔"))
    remote_id = await surface.post(place, part, NONCE)
    assert [each["filename"] for each in discord.message(remote_id)["attachments"]] == ["answer.md"]
    await surface.edit(place, remote_id, part, NONCE)
    assert len(discord.message(remote_id)["attachments"]) == 1
    await surface.edit(place, remote_id, Part(text="Short"), NONCE)
    assert discord.message(remote_id)["attachments"] == []


async def test_where_files_are_not_allowed_the_text_comes_alone(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place, part = await thread_of(discord, surface), Part(text="The end", file=TextFile(name="answer.md", text="Whole"))
    discord.deny(discord.general, ["ATTACH_FILES"])
    shown = discord.message(await surface.post(place, part, NONCE))
    assert (shown["content"], shown["attachments"]) == ("The end", [])
    discord.deny(discord.general, [])
    discord.fail("PATCH", "message.edit", status=413, code=40005)
    await surface.edit(place, shown["id"], part, NONCE)
    assert discord.message(shown["id"])["attachments"] == []


@pytest.mark.parametrize("live", [True, False])
async def test_a_thread_that_was_put_away_is_brought_back_by_an_edit_and_put_away_again_unless_more_follow(
    discord: DiscordEmulator, surface: DiscordSurface, live: bool
) -> None:
    place = await thread_of(discord, surface)
    remote_id = await surface.post(place, Part(text="Half"), NONCE)
    await discord.person("alice").archive(place.thread)
    await surface.edit(place, remote_id, Part(text="Whole", live=live), NONCE)
    assert discord.message(remote_id)["content"] == "Whole"
    assert discord.thread(place.thread)["thread_metadata"]["archived"] is not live


async def test_a_deletion_in_a_thread_that_was_put_away_leaves_it_so(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = await thread_of(discord, surface)
    remote_id = await surface.post(place, Part(text="Half"), NONCE)
    await discord.person("alice").archive(place.thread)
    await surface.delete(place, remote_id)
    assert remote_id not in [message["id"] for message in discord.messages(place.thread)]
    assert discord.thread(place.thread)["thread_metadata"]["archived"] is True


async def test_a_locked_thread_is_closed(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice, place = discord.person("alice"), await thread_of(discord, surface)
    remote_id = await surface.post(place, Part(text="Half"), NONCE)
    await alice.lock(place.thread)
    await alice.archive(place.thread)
    with pytest.raises(PlaceClosed, match="This thread is locked"):
        await surface.edit(place, remote_id, Part(text="Whole"), NONCE)


# --- what was posted is found again ----------------------------------------------------------------------------------


async def test_posting_again_with_the_same_nonce_gives_the_same_message(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = at(discord, discord.general)
    discord.fail("POST", "message.create", status=None, after=True)
    with pytest.raises(Unclear):
        await surface.post(place, Part(text="Hello"), NONCE)
    assert await surface.find(place, NONCE, ago(1), None) == [], "without guessing"
    remote_id = await surface.post(place, Part(text="Hello"), NONCE)
    assert [message["id"] for message in discord.messages(discord.general)] == [remote_id]


async def test_a_post_is_found_by_what_the_gateway_told(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    surface.heard(SAME_NONCE, "20")
    surface.heard(SAME_NONCE, "100")
    surface.heard(SAME_NONCE, "20")
    assert await surface.find(at(discord, discord.general), NONCE, ago(1), ()) == ["20", "100"]
    await surface.post(at(discord, discord.general), Part(text="Hello"), NONCE)
    assert discord.called("message.create")[0].json["nonce"] == SAME_NONCE


async def test_what_nobody_heard_of_is_the_first_of_ours_that_nobody_knows(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice, place = discord.person("alice"), at(discord, discord.general)
    known = await surface.post(place, Part(text="Known"), new_id())
    await surface.notice(place, "No delivery", "no delivery")
    await alice.say(discord.general, "Somebody else's")
    lost = await surface.post(place, Part(text="Lost"), NONCE)
    await surface.post(place, Part(text="Later"), new_id())
    since, later = ago(0), _restarted(surface)
    assert await later.find(place, NONCE, since, {known}) == [lost]
    assert await later.find(place, NONCE, since + timedelta(minutes=5), {known}) == []
    later.heard("another nonce", lost)
    assert await later.find(place, NONCE, since, {known}) != [lost]


async def test_nonces_of_the_history_tell_posts_apart(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    discord.nonce_in_history = True
    place = at(discord, discord.general)
    await surface.post(place, Part(text="Other"), new_id())
    remote_id = await surface.post(place, Part(text="Hello"), NONCE)
    later = _restarted(surface)
    assert await later.find(place, NONCE, ago(1), ()) == [remote_id]
    assert await later.find(place, new_id(), ago(1), ()) == []


def _restarted(surface: DiscordSurface) -> DiscordSurface:
    """The same, in a process that heard nothing."""
    return DiscordSurface(surface._config, surface._client, surface._who)


async def test_a_message_that_is_gone_is_said_to_be(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = await thread_of(discord, surface)
    remote_id = await surface.post(place, Part(text="Hello"), NONCE)
    await surface.delete(place, remote_id)
    await surface.delete(place, remote_id)
    with pytest.raises(MessageGone):
        await surface.edit(place, remote_id, Part(text="Hello"), NONCE)


# --- threads ---------------------------------------------------------------------------------------------------------


async def test_a_thread_is_made_once_on_its_message(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    root, place = await discord.person("alice").say(discord.general, "hello"), at(discord, discord.general)
    assert await surface.open(place, root, "OT-1  Say\nhello " + "😀" * 80) == root
    assert await surface.open(place, root, "Another") == root
    name = discord.thread(root)["name"]
    assert name.startswith("OT-1 Say hello 😀")
    assert len(name.encode("utf-16-le")) // 2 <= 100


async def test_where_no_thread_can_be_made_that_is_said(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice, place = discord.person("alice"), at(discord, discord.general)
    root = await alice.say(discord.general, "hello")
    discord.deny(discord.general, ["CREATE_PUBLIC_THREADS"])
    with pytest.raises(NoThread, match="It needs Create Public Threads"):
        await surface.open(place, root, "OT-1")
    await alice.delete(discord.general, root)
    discord.deny(discord.general, [])
    with pytest.raises(MessageGone):
        await surface.open(place, root, "OT-1")


async def test_a_thread_limit_of_minutes_is_told_at_once(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    root = await discord.person("alice").say(discord.general, "hello")
    discord.fail("POST", "threads", status=429, retry_after=136.0)
    with pytest.raises(Busy) as raised:
        await surface.open(at(discord, discord.general), root, "OT-1")
    assert raised.value.retry_after == pytest.approx(136.0)


async def test_a_thread_is_renamed_and_put_away(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = await thread_of(discord, surface)
    await surface.arrange(place, "OT-1 Planned", archived=True)
    shown = discord.thread(place.thread)
    assert (shown["name"], shown["thread_metadata"]["archived"]) == ("OT-1 Planned", True)
    await surface.arrange(place, "OT-1 Done", archived=True)
    shown = discord.thread(place.thread)
    assert (shown["name"], shown["thread_metadata"]["archived"]) == ("OT-1 Done", True)


async def test_a_thread_that_people_made_stays_as_it_is(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice, place = discord.person("alice"), at(discord, discord.general)
    root = await alice.say(discord.general, "hello")
    await alice.thread(discord.general, root, "Our plans")
    assert await surface.open(place, root, "OT-1 Hello") == root
    await surface.arrange(replace(place, thread=root), "OT-1 Hello", archived=True)
    shown = discord.thread(root)
    assert (shown["name"], shown["thread_metadata"]["archived"]) == ("Our plans", False)


# --- what Discord refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, 10003, PlaceClosed),
        (403, 50001, PlaceClosed),
        (403, 50013, PlaceClosed),
        (400, 50083, PlaceClosed),
        (400, 200000, PlaceClosed),
        (400, 40058, PlaceClosed),
        (400, 50006, Refused),
        (403, 0, Refused),
        (401, 0, AccountClosed),
        (500, 0, Unclear),
        (503, 0, Unclear),
        (400, 20028, Busy),
    ],
)
async def test_failures_of_a_post_are_sorted_and_keep_nothing_of_discords_words(
    discord: DiscordEmulator, surface: DiscordSurface, status: int, code: int, error: type[SurfaceError]
) -> None:
    discord.fail("POST", "message.create", status=status, code=code, message="words of Discord's")
    with pytest.raises(error) as raised:
        await surface.post(at(discord, discord.general), Part(text="Hello"), NONCE)
    assert "words" not in str(raised.value)
    assert len(discord.called("message.create")) == 1


async def test_a_limit_is_told_at_once_and_the_call_is_not_repeated(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    discord.fail("PATCH", "message.edit", status=429, retry_after=7.5)
    place = at(discord, discord.general)
    remote_id = await surface.post(place, Part(text="Half"), NONCE)
    with pytest.raises(Busy) as raised:
        await surface.edit(place, remote_id, Part(text="Whole"), NONCE)
    assert raised.value.retry_after == pytest.approx(7.5)
    assert len(discord.called("message.edit")) == 1
    await surface.edit(place, remote_id, Part(text="Whole"), NONCE)


async def test_a_call_that_discord_would_turn_away_is_not_made(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    discord.limits["message.edit"] = (2, 60.0)
    place = at(discord, discord.general)
    remote_id = await surface.post(place, Part(text="0"), NONCE)
    for text in ("1", "2"):
        await asyncio.wait_for(surface.edit(place, remote_id, Part(text=text), NONCE), 1)
    with pytest.raises(Busy) as raised:
        await surface.edit(place, remote_id, Part(text="3"), NONCE)
    assert 50 < raised.value.retry_after <= 60
    assert len(discord.called("message.edit")) == 2


async def test_a_cancelled_edit_leaves_the_limiter_as_it_was(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    discord.limits["message.edit"] = (2, 0.3)
    place = at(discord, discord.general)
    remote_id = await surface.post(place, Part(text="0"), NONCE)
    await surface.edit(place, remote_id, Part(text="1"), NONCE)
    discord.slow("PATCH", "message.edit", 30.0, after=True)
    edit = asyncio.create_task(surface.edit(place, remote_id, Part(text="2"), NONCE))
    await discord.until(lambda: discord.message(remote_id)["content"], lambda content: content == "2")
    edit.cancel()
    await asyncio.wait({edit})
    with pytest.raises(Busy) as raised:
        await surface.edit(place, remote_id, Part(text="3"), NONCE)
    await asyncio.sleep(raised.value.retry_after)
    await surface.edit(place, remote_id, Part(text="3"), NONCE)
    assert discord.message(remote_id)["content"] == "3"


async def test_after_cloudflare_turned_us_away_nothing_is_called_for_a_while(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    discord.fail("", "", status=429, via=False)
    before = len(discord.calls)
    for _ in range(3):
        with pytest.raises(Busy) as raised:
            await surface.post(at(discord, discord.general), Part(text="Hello"), NONCE)
        assert raised.value.retry_after >= 59
    assert len(discord.calls) == before + 1


async def test_no_answer_in_time_is_unclear(discord: DiscordEmulator, make: Make) -> None:
    surface = await make(rules=replace(QUICK, call_seconds=0.2))
    discord.slow("POST", "message.create", 30.0)
    with pytest.raises(Unclear):
        await asyncio.wait_for(surface.post(at(discord, discord.general), Part(text="Hello"), NONCE), 1)


async def test_what_cannot_be_reached_did_nothing(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    set_endpoints(DiscordConfig(token="", api_url="http://127.0.0.1:1/api/v10"))
    with pytest.raises(Unreachable):
        await surface.post(at(discord, discord.general), Part(text="Hello"), NONCE)


async def test_a_token_that_discord_does_not_know_is_said_to_be_none(discord: DiscordEmulator, make: Make) -> None:
    for token in ("a wrong one", "ß", " "):
        with pytest.raises(AccountClosed, match="DISCORD_TOKEN"):
            await make(token=token)


async def test_signing_in_again_after_a_failure(discord: DiscordEmulator) -> None:
    config = DiscordConfig(token=discord.token, api_url=discord.api_url, gateway_url=discord.gateway_url, rules=QUICK)
    set_endpoints(config)
    discord.fail("GET", "/users/@me", status=500)
    async with Client(config) as client:
        with pytest.raises(Unclear):
            await signed_in(client)
        who = await signed_in(client)
    assert (who.bot_user_id, who.application_id, who.message_content) == (discord.bot_id, discord.application_id, True)
    assert who.owner_ids == {discord.application.owner_id}


# --- people, channels and what stands there --------------------------------------------------------------------------


async def test_members_are_known_and_others_are_told_why_not(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice, stranger = discord.person("alice"), discord.stranger("mallory")
    known, unknown = await surface.profile(alice.id), await surface.profile(stranger.id)
    assert (known.member, known.refusal, known.name) == (True, "", "Alice")
    assert (unknown.member, unknown.name) == (False, "Mallory")
    assert "members of the Discord servers" in unknown.refusal
    assert not (await surface.profile(discord.person("robot", bot=True).id)).member
    assert not (await surface.profile("99999999999999999")).member


async def test_people_are_looked_for_where_they_were_met(discord: DiscordEmulator, make: Make) -> None:
    alice = discord.person("alice")
    guilds = [discord.guild(f"Guild {number}", alice) for number in range(3)]
    surface = await make(guilds=frozenset({discord.home.id, *(each.id for each in guilds), "99999999999999999"}))
    surface.met(alice.id, guilds[2].id)
    assert (await surface.profile(alice.id)).member
    asked = [call.path.split("/")[2] for call in discord.calls if "/members/" in call.path]
    assert asked == [guilds[2].id]


async def test_guilds_that_the_bot_is_not_in_are_not_asked(discord: DiscordEmulator, make: Make) -> None:
    surface = await make(guilds=frozenset({discord.home.id, "99999999999999999"}))
    assert not (await surface.profile(discord.stranger("mallory").id)).member
    assert not [call for call in discord.calls if call.status == 403 or "99999999999999999" in call.path]


async def test_who_was_described_just_now_is_not_asked_for(discord: DiscordEmulator, make: Make) -> None:
    alice, bob = discord.person("alice"), discord.person("bob")
    surface = await make(roles=frozenset({"7"}))
    for person, roles in ((alice, ["7"]), (bob, [])):
        surface.met(person.id, discord.home.id, {"nick": "Al", "roles": roles, "user": {"id": person.id, "username": "al"}})
    assert ((await surface.profile(alice.id)).name, (await surface.profile(alice.id)).member) == ("Al", True)
    assert "certain roles" in (await surface.profile(bob.id)).refusal
    surface.met(alice.id, "99999999999999999", {"roles": ["7"]})  # which is not served
    assert not (await surface.profile(alice.id)).member
    assert len([call for call in discord.calls if "/members/" in call.path]) == 1


async def test_in_many_guilds_somebody_is_looked_for_bit_by_bit(discord: DiscordEmulator, make: Make) -> None:
    discord.limits.off()
    alice, mallory = discord.person("alice"), discord.stranger("mallory")
    for number in range(45):
        discord.guild(f"Guild {number}", alice)
    discord.guild("The last", alice).admit(discord.user("mallory"))
    surface = await make(guilds=frozenset(discord.guilds), rules=replace(QUICK, reads=1_000))
    for _ in range(2):
        with pytest.raises(Busy):
            await surface.profile(mallory.id)
    assert (await surface.profile(mallory.id)).member
    assert len([call for call in discord.calls if "/members/" in call.path]) == 47


async def test_with_a_list_of_roles_others_are_refused(discord: DiscordEmulator, make: Make) -> None:
    alice, bob = discord.person("alice"), discord.person("bob")
    role = discord.home.role("team", people=[alice])
    surface = await make(roles=frozenset({role}))
    assert (await surface.profile(alice.id)).member
    refused = await surface.profile(bob.id)
    assert (refused.member, "certain roles" in refused.refusal) == (False, True)


async def test_a_public_bot_lets_in_only_people_of_its_owners_guilds(discord: DiscordEmulator, make: Make) -> None:
    mallory = discord.stranger("mallory")
    discord.guild("Elsewhere", owner=mallory)
    surface = await make(guilds=frozenset())
    assert discord.application.bot_public
    assert discord.application.owner_id == discord.person("alice").id
    assert not (await surface.profile(mallory.id)).member
    assert (await surface.profile(discord.person("bob").id)).member


async def test_channels_are_open_only_where_everybody_may_look(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice = discord.person("alice")
    closed = discord.home.channel("board", private=True, people=[alice])
    thread = await alice.thread(discord.general, await alice.say(discord.general, "hello"), "A thread")
    secret = await alice.private_thread(discord.general, "A secret", bot=True)
    assert await surface.kind(discord.general) is ChannelKind.OPEN
    assert await surface.kind(closed) is ChannelKind.PRIVATE
    assert await surface.kind(discord.general, thread) is ChannelKind.OPEN
    assert await surface.kind(discord.general, secret) is ChannelKind.PRIVATE
    assert await surface.kind(await alice.direct()) is ChannelKind.DIRECT


async def test_a_link_is_looked_up_by_what_it_leads_to_and_who_reads_there(
    discord: DiscordEmulator, surface: DiscordSurface, make: Make
) -> None:
    alice, bob, carol = (discord.person(name) for name in ("alice", "bob", "carol"))  # alice owns the server
    thread = await bob.thread(discord.general, await bob.say(discord.general, "hello"), "A thread")
    secret = await bob.private_thread(discord.general, "A secret", bot=True)
    board = discord.home.channel("board", private=True, people=[bob])
    post = await alice.post(discord.home.channel("forum", "forum"), "A post", "hello")

    async def found(channel: str, person: Person) -> tuple[str, str, ChannelKind, str, bool]:
        spot = await surface.look_up(Place(account=surface.account, channel=channel, thread=""), person.id)
        return (spot.channel, spot.thread, spot.kind, spot.label, spot.reads)

    assert await found(thread, carol) == (discord.general, thread, ChannelKind.OPEN, "#general", True)
    assert (await found(post, carol))[1:] == (post, ChannelKind.OPEN, "#forum", True)
    assert await found(secret, bob) == (discord.general, secret, ChannelKind.PRIVATE, "", True)
    assert not (await found(secret, carol))[-1]
    assert [(await found(board, each))[2:] for each in (alice, bob, carol)] == [
        (ChannelKind.PRIVATE, "", True),
        (ChannelKind.PRIVATE, "", True),
        (ChannelKind.PRIVATE, "", False),
    ]
    discord.home.role("Moderators", allow=["MANAGE_THREADS"], people=[carol])
    assert (await found(secret, carol))[-1]
    direct = await bob.direct()
    assert [await found(direct, each) for each in (bob, carol)] == [
        (direct, "", ChannelKind.DIRECT, "", True),
        (direct, "", ChannelKind.DIRECT, "", False),
    ]
    elsewhere = discord.guild("Elsewhere", owner=alice).channel("general")
    served = await make(guilds=frozenset({discord.home.id}))
    for nowhere in (elsewhere, "1"):
        with pytest.raises(PlaceClosed):
            await served.look_up(Place(account=served.account, channel=nowhere))


async def test_names_stand_for_ids(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice, role = discord.person("alice"), discord.home.role("team")
    text = f"<@{alice.id}> <@&{role}> <#{discord.general}> <@99999999999999999>"
    assert await surface.markdown(text) == "@Alice @team #general @99999999999999999"


async def test_of_the_names_that_nobody_has_few_are_looked_up_and_once(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    surface._client.limiter._reads = deque(maxlen=1_000)  # which are in time, whatever the limit of reading is
    text = " ".join(f"<@{10**17 + number}>" for number in range(200))
    before = len(discord.calls)
    assert (await surface.markdown(text)).startswith("@100000000000000000 @")
    first = len(discord.calls) - before
    assert first <= 41  # in the guild, as a user; and which guilds there are
    await surface.markdown(" ".join(f"<@{10**17 + number}>" for number in range(20)))
    assert len(discord.calls) == before + first


async def test_names_that_came_with_a_message_are_not_looked_up(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    message = {"id": "5", "author": {"id": "6"}, "names": {"100000000000000001": "Al"}}
    surface.event({"type": "message", "message": message, "guild": discord.home.id, "channel": "8", "thread": ""})
    before = len(discord.calls)
    assert await surface.markdown("<@100000000000000001>") == "@Al"
    assert len(discord.calls) == before


async def test_names_that_do_not_come_in_time_hold_nothing_up(discord: DiscordEmulator, make: Make) -> None:
    surface = await make(rules=replace(QUICK, call_seconds=0.2))
    discord.slow("GET", "users/100000000000000001", 5.0)
    alice = discord.person("alice")
    assert (await surface.markdown(f"<@{alice.id}> <@100000000000000001>")).endswith(" @100000000000000001")


async def test_what_was_said_before_is_read_with_the_message_that_the_thread_is_on(
    discord: DiscordEmulator, surface: DiscordSurface
) -> None:
    alice, bob = discord.person("alice"), discord.person("bob")
    root = await alice.say(discord.general, "the question")
    thread = await alice.thread(discord.general, root, "A thread")
    await bob.say(thread, f"ask <@{alice.id}>", files=[("plan.txt", b"1", "text/plain")])
    before = await alice.say(thread, "hello", mention=[discord.bot_id])
    place = at(discord, discord.general, thread)
    assert await surface.earlier(place, before, limit=50) == [
        ("Alice", "the question"),
        ("Bob", "ask @Alice\n[file: plan.txt]"),
    ]
    assert await surface.earlier(place, before, limit=1) == [("Bob", "ask @Alice\n[file: plan.txt]")]
    assert await surface.earlier(place, thread, limit=50) == []


async def test_one_person_is_told_in_a_direct_message_or_where_they_are(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    alice, place = discord.person("alice"), at(discord, discord.general)
    await surface.tell(place, alice.id, "Not here.")
    assert [message["content"] for message in discord.messages(await alice.direct())] == ["Not here."]
    alice.takes_no_dms = True
    await surface.tell(place, alice.id, "Nor @everyone.")
    said = discord.messages(discord.general)[-1]
    assert said["content"] == f"<@{alice.id}> Nor @\u2060everyone."
    assert [each["id"] for each in said["mentions"]] == [alice.id]
    await surface.tell(place, alice.id, "A private title", otherwise="Allow direct messages.")
    assert discord.messages(discord.general)[-1]["content"] == f"<@{alice.id}> Allow direct messages."


async def test_a_notice_that_may_be_there_is_not_said_twice(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = at(discord, discord.general)
    discord.fail("POST", "message.create", status=502, after=True)
    with pytest.raises(Unclear):
        await surface.notice(place, "While I was away", "said:left-out:1")
    await surface.notice(place, "While I was away", "said:left-out:1")
    await surface.notice(place, "While I was away", "said:left-out:2")
    assert [each["content"] for each in discord.messages(discord.general)] == ["While I was away"] * 2


async def test_a_server_that_shows_no_typing_stops_nothing(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    discord.fail("POST", "typing", status=404)
    await surface.show_status(at(discord, discord.general), AgentStatus.THINKING, "Thinking")


async def test_that_the_agent_works_is_shown_as_typing(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    place = await thread_of(discord, surface)
    await surface.show_status(place, AgentStatus.THINKING, "CatchUpCalls demo/offline …")
    await surface.show_status(place, AgentStatus.IDLE, "")
    assert [channel for _, channel in discord.typing] == [place.thread]
    discord.fail("POST", "typing", status=403, code=50013)
    await surface.show_status(place, AgentStatus.EXECUTING, "")


async def test_files_are_fetched_and_asked_for_anew_when_their_address_ended(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    said = await discord.person("alice").say(discord.general, "look", files=[("plan.txt", b"a plan", "text/plain")])
    attached = discord.message(said)["attachments"][0]
    source = {"id": attached["id"], "url": attached["url"], "channel_id": discord.general, "message_id": said}
    file = RemoteFile(name="plan.txt", media_type="text/plain", size=6, source=source)
    assert (await surface.fetch(file)).data == b"a plan"
    ended = replace(file, source={**source, "url": f"{discord.root}/attachments/1/2/plan.txt"})
    assert (await surface.fetch(ended)).data == b"a plan"
    await discord.person("alice").delete(discord.general, said)
    with pytest.raises(InvalidInput, match="may have been deleted"):
        await surface.fetch(ended)


@pytest.mark.parametrize(
    "url", ["https://example.com/a", "https://cdn.discordapp.com.evil.example/a", "https://cdn.discordapp.com@evil.example/a", "http://["]
)
async def test_nothing_is_fetched_from_elsewhere(surface: DiscordSurface, url: str) -> None:
    with pytest.raises(InvalidInput, match="not kept by Discord"):
        await surface.fetch(RemoteFile(name="a", media_type="", size=1, source={"url": url}))


async def test_a_file_that_is_too_large_is_not_fetched(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    with pytest.raises(InvalidInput):
        await surface.fetch(RemoteFile(name="a", media_type="", size=MAX_BYTES + 1, source={"url": f"{discord.root}/attachments/1/2/a"}))


async def test_links_lead_to_the_thread(discord: DiscordEmulator, make: Make) -> None:
    surface = await make(guilds=frozenset())
    surface.event({"type": "delete", "id": "5", "guild": "7", "channel": "8", "thread": "9"})
    assert surface.link(at(discord, "8", "9")) == "https://discord.com/channels/7/9"
    assert surface.link(at(discord, "8", "10")) == "https://discord.com/channels/7/10"
    surface.event({"type": "delete", "id": "5", "guild": "", "channel": "11", "thread": ""})
    assert surface.link(at(discord, "11")) == "https://discord.com/channels/@me/11"


# --- budgets ---------------------------------------------------------------------------------------------------------


def _names(budgets: dict[str, Budget]) -> set[str]:
    return set(budgets) - {"all"}


async def test_each_thread_has_its_own_budget_for_edits_and_old_messages_another(discord: DiscordEmulator, surface: DiscordSurface) -> None:
    channel, thread = at(discord, "8"), at(discord, "8", "9")
    assert _names(dict(surface.budgets(Call.EDIT, channel))) == {"edit:8"}
    assert _names(dict(surface.budgets(Call.EDIT, thread))) == {"edit:9"}
    assert _names(dict(surface.budgets(Call.AMEND, thread))) == {"edit:9", "amend:9"}
    assert _names(dict(surface.budgets(Call.OPEN, thread))) == {"open:8"}


def test_times_of_ids_are_discords() -> None:
    assert events.time_of(175928847299117063).isoformat(timespec="milliseconds") == "2016-04-30T11:18:25.796+00:00"
