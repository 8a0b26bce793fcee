"""Who is turned away, and what somebody cannot reach: by no message, command, choice, menu or button.

What there is to try is read from what the bot registered, so that a new command or action fails here until it says how strangers fare.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bots.surface import Action
from core.models import MessageStatus
from tests.emulators.discord import DiscordEmulator, talk
from tests.fakes import Call
from tests.integration.discord.conftest import JSON, Office, Open, Speaker, Thread

People = tuple[Speaker, Speaker, Speaker]
Opened = Callable[[DiscordEmulator, str, Open], Any]
ROLE = "I talk with people who have certain roles only. An admin of the server can give you one."
USER = "I may not talk with you yet. An admin of Onethread can allow it."
SERVERS = "I talk with members of the Discord servers that I serve only, and with no bots."
SERVER = "I do not answer in this server. An admin of Onethread can allow it."
CHANNEL = "I do not answer in this channel. An admin of Onethread can allow it."
DISABLED = "You are not let in here any more. Ask an admin of Onethread."
NOT_YOURS = "What this button is for is gone, or belongs to a conversation that you cannot see."

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "help": {},
    "task list": {},
    "task show": {"ref": "OT-1"},
    "task new": {"title": "Mine"},
    "task assign": {"who": "me", "ref": "OT-1"},
    "task done": {"ref": "OT-1"},
    "task model": {"id": "openai/gpt-4o", "ref": "OT-1"},
    "task follow": {"ref": "OT-1", "read_only": True, "confirm": True},
    "task unfollow": {"ref": "OT-1"},
    "task where": {"ref": "OT-1"},
    "task help": {},
    "link": {"code": "ABCD-EFGH", "confirm": True},
}
"""What each command is tried with."""


# --- what there is ---------------------------------------------------------------------------------------------------


def _lines(commands: list[JSON]) -> dict[str, list[JSON]]:
    """Every command that can be given, with its options."""
    found: dict[str, list[JSON]] = {}
    for command in (each for each in commands if each["type"] == 1):
        inner = [each for each in command.get("options", []) if each["type"] == 1]
        found |= {f"{command['name']} {each['name']}": each.get("options", []) for each in inner}
        found |= {} if inner else {command["name"]: command.get("options", [])}
    return found


def _choices(commands: list[JSON]) -> list[tuple[str, str]]:
    """Every option for which something is offered."""
    return [(line, option["name"]) for line, options in _lines(commands).items() for option in options if option.get("autocomplete")]


def _menus(commands: list[JSON]) -> list[str]:
    return [each["name"] for each in commands if each["type"] == 3]


async def _values(office: Office, thread: Thread) -> dict[Action, str]:
    """What the buttons of a conversation would be for."""
    messages = await office.messages(thread.speaker.channel, thread.id)
    reply = messages[1]
    turn = str(reply.turn_id)
    return {Action.STOP: turn, Action.RETRY: turn, Action.APPROVE: turn, Action.DENY: turn, Action.ANSWER: f"{reply.id} 0"}


async def _interactions(office: Office, stranger: Speaker, values: Mapping[Action, str]) -> dict[str, list[str]]:
    """What somebody is answered to all that can be asked of the bot without a message."""
    commands = office.discord.commands
    assert set(_lines(commands)) == set(OPTIONS)
    assert set(values) == set(Action)
    answers = {line: (await stranger.types(line, **options)).texts for line, options in OPTIONS.items()}
    for menu in _menus(commands):
        answers[menu] = (await stranger.person.menu(menu, stranger.channel, await stranger.says_id("mine"))).texts
    for action, value in values.items():
        answers[action] = await _pressed(office, stranger, action, value)
    for line, option in _choices(commands):
        answers[f"{line} {option}"] = [str(each) for each in await stranger.person.autocomplete(line, option, "", at=stranger.channel)]
    return answers


async def _pressed(office: Office, person: Speaker, action: Action, value: str) -> list[str]:
    """What comes of a button with this id, which the bot has shown there."""
    button = {"type": 2, "style": 2, "label": "Press", "custom_id": f"onethread:{action}:{value}"}
    discord = office.discord
    rows = [{"type": 1, "components": [button]}]
    message = talk.post(discord, discord.channels[person.channel], discord.bot, "hello", components=rows)
    answer = await person.person.press(person.channel, message.id, "Press")
    await answer.until(lambda seen: seen.followups)
    return [each["content"] for each in answer.followups]


async def _state(office: Office, thread: Thread) -> list[Any]:
    channel = thread.speaker.channel
    messages = [(each.content, each.status, each.author_id) for each in await office.messages(channel, thread.id)]
    tasks = [(task.ref, task.title, task.status, task.assignee_id) for task in await office.tasks()]
    return [messages, tasks, await office.users(), (await office.conversation(channel, thread.id)).model]


async def _heard(office: Office, channel: str) -> None:
    """Until all that was said before was taken in, wherever that was."""
    last = int(await office.speaker("carol", channel).says_id("good night"))

    async def done() -> bool:
        return (await office.cursors()).get(channel, 0) >= last and not [each for each in await office.waiting() if not each.waits]

    await office.world.until(done)


# --- strangers -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _without_a_role(discord: DiscordEmulator, channel: str, open_office: Open) -> AsyncIterator[tuple[Office, Speaker, str]]:
    role = discord.home.role("team", people=[discord.person("alice")])
    async with open_office(roles=frozenset({role})) as office:
        yield office, office.speaker("bob", channel), ROLE


@asynccontextmanager
async def _not_named(discord: DiscordEmulator, channel: str, open_office: Open) -> AsyncIterator[tuple[Office, Speaker, str]]:
    async with open_office(users=frozenset({discord.person("alice").id})) as office:
        yield office, office.speaker("bob", channel), USER


@asynccontextmanager
async def _in_another_channel(discord: DiscordEmulator, channel: str, open_office: Open) -> AsyncIterator[tuple[Office, Speaker, str]]:
    elsewhere = discord.home.channel("elsewhere")
    async with open_office(channels=frozenset({channel})) as office:
        yield office, office.speaker("bob", elsewhere), CHANNEL


@asynccontextmanager
async def _in_a_thread_of_another_channel(
    discord: DiscordEmulator, channel: str, open_office: Open
) -> AsyncIterator[tuple[Office, Speaker, str]]:
    elsewhere, bob = discord.home.channel("elsewhere"), discord.person("bob")
    async with open_office(channels=frozenset({channel})) as office:
        yield office, Speaker(office, bob, await bob.loose_thread(elsewhere, "mine")), CHANNEL


@asynccontextmanager
async def _in_a_server_of_others(discord: DiscordEmulator, channel: str, open_office: Open) -> AsyncIterator[tuple[Office, Speaker, str]]:
    """Anybody may invite a bot that is public."""
    eve = discord.stranger("eve")
    there = discord.guild("Other", owner=eve).channel("general")
    async with open_office() as office:
        yield office, Speaker(office, eve, there), SERVER


@asynccontextmanager
async def _in_a_server_that_is_not_named(
    discord: DiscordEmulator, channel: str, open_office: Open
) -> AsyncIterator[tuple[Office, Speaker, str]]:
    """Though it is the bot's owner's."""
    alice = discord.person("alice")
    there = discord.guild("Other", owner=alice).channel("general")
    async with open_office(guilds=frozenset({discord.home.id})) as office:
        yield office, Speaker(office, alice, there), SERVER


@asynccontextmanager
async def _alone_with_the_bot(discord: DiscordEmulator, channel: str, open_office: Open) -> AsyncIterator[tuple[Office, Speaker, str]]:
    """Who shares a server with it that is not served, or did."""
    eve = discord.stranger("eve")
    discord.guild("Other", owner=eve)
    async with open_office() as office:
        yield office, Speaker(office, eve, await eve.direct()), SERVERS


STRANGERS: dict[str, Opened] = {
    each.__name__.strip("_"): each
    for each in (
        _without_a_role,
        _not_named,
        _in_another_channel,
        _in_a_thread_of_another_channel,
        _in_a_server_of_others,
        _in_a_server_that_is_not_named,
        _alone_with_the_bot,
    )
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_strangers_reach_nothing_by_whatever_they_ask_for(
    discord: DiscordEmulator, channel: str, open_office: Open, stranger: str
) -> None:
    async with STRANGERS[stranger](discord, channel, open_office) as (office, somebody, sentence):
        thread = await office.speaker("alice", channel).says("@onethread plan my week")
        await thread.button("Stop")
        before = await _state(office, thread)
        answers = await _interactions(office, somebody, await _values(office, thread))
        offered = {f"{line} {option}" for line, option in _choices(discord.commands)}
        assert {asked: answers[asked] for asked in offered} == {asked: [] for asked in offered}
        assert {asked: texts for asked, texts in answers.items() if asked not in offered and texts != [sentence]} == {}
        await _heard(office, channel)
        assert await _state(office, thread) == before


async def _mention(bob: Speaker, _thread: Thread) -> None:
    await bob.says("@onethread let me in")


async def _write(bob: Speaker, thread: Thread) -> None:
    await bob.says("let me in", thread)


async def _mention_in_the_thread(bob: Speaker, thread: Thread) -> None:
    await bob.says("@onethread let me in", thread)


async def _reply(bob: Speaker, thread: Thread) -> None:
    ours = [each["id"] for each in bob.office.discord.messages(thread.id) if each["author"]["id"] == bob.office.discord.bot_id]
    await bob.says("let me in", thread, reply_to=ours[-1])


async def _reply_to_what_was_said(bob: Speaker, thread: Thread) -> None:
    await bob.says("@onethread and mine", reply_to=thread.id)


async def _stop(bob: Speaker, thread: Thread) -> None:
    await bob.says("!stop", thread)


async def _follow(bob: Speaker, _thread: Thread) -> None:
    mine = await bob.person.thread(bob.channel, await bob.says_id("hello"), "mine")
    await bob.person.say(mine, "!follow OT-1")


async def _unfollow(bob: Speaker, thread: Thread) -> None:
    await bob.says("!unfollow", thread)


async def _write_directly(bob: Speaker, _thread: Thread) -> None:
    await bob.person.say(await bob.person.direct(), "let me in")


async def _edit_into_a_mention(bob: Speaker, _thread: Thread) -> None:
    await bob.edits(await bob.says_id("hello"), "@onethread let me in")


ACTS: dict[str, Callable[[Speaker, Thread], Awaitable[None]]] = {
    each.__name__.strip("_"): each
    for each in (
        _mention,
        _write,
        _mention_in_the_thread,
        _reply,
        _reply_to_what_was_said,
        _stop,
        _follow,
        _unfollow,
        _write_directly,
        _edit_into_a_mention,
    )
}


@pytest.mark.parametrize("act", ACTS)
async def test_strangers_do_nothing_by_what_they_say_and_are_told_so_once(
    discord: DiscordEmulator, channel: str, open_office: Open, act: str
) -> None:
    async with _without_a_role(discord, channel, open_office) as (office, bob, sentence):
        thread = await office.speaker("alice", channel).says("@onethread plan my week")
        await thread.button("Stop")
        before = await _state(office, thread)
        for _ in range(2):
            await ACTS[act](bob, thread)
        await office.tells(bob, sentence)
        await office.settled()
        assert await _state(office, thread) == before
        assert await office.told(bob) == [sentence]


@pytest.mark.parametrize("stranger", ["in_a_server_of_others", "in_a_server_that_is_not_named"])
async def test_what_is_said_in_other_servers_makes_no_task(
    discord: DiscordEmulator, channel: str, open_office: Open, stranger: str
) -> None:
    async with STRANGERS[stranger](discord, channel, open_office) as (office, somebody, _):
        await somebody.says("@onethread let me in")
        await office.speaker("bob", channel).says("@onethread plan my week")
        await _heard(office, channel)
        assert [task.title for task in await office.tasks()] == ["plan my week"]


async def test_a_stranger_who_speaks_to_others_is_not_told_anything(discord: DiscordEmulator, channel: str, open_office: Open) -> None:
    async with _without_a_role(discord, channel, open_office) as (office, bob, _):
        await bob.says("good morning")
        await office.settled()
        assert await office.told(bob) == []


async def test_somebody_who_was_disabled_is_turned_away(office: Office, people: People, channel: str) -> None:
    alice, _, _ = people
    thread = await alice.says("@onethread hello")
    await office.says(channel, thread.id, "alice: hello")
    await office.world.write(_disable_alice)
    before, values = await _state(office, thread), await _values(office, thread)
    answers = await _interactions(office, alice, values)
    assert {text for texts in answers.values() for text in texts} == {DISABLED}
    await alice.says("let me in", thread)
    await office.tells(alice, DISABLED)
    await office.settled()
    assert await _state(office, thread) == before


async def _disable_alice(uow: Any) -> None:
    user = await uow.users.by_name("alice")
    await uow.users.set_disabled(user.id, uow.now)


# --- members, where they are not -------------------------------------------------------------------------------------


async def _in_a_private_channel(office: Office) -> Speaker:
    alice = office.discord.person("alice")
    return Speaker(office, alice, office.discord.home.channel("secret", private=True, people=[alice]))


async def _in_a_private_thread(office: Office) -> Speaker:
    alice = office.discord.person("alice")
    return Speaker(office, alice, await alice.private_thread(office.discord.general, "secret", bot=True))


SECRETS = {each.__name__.strip("_"): each for each in (_in_a_private_channel, _in_a_private_thread)}


async def _secret(office: Office, where: str) -> Thread:
    """A private task of alice's, which waits for its answer."""
    alice = await SECRETS[where](office)
    said = await alice.says_id("@onethread plan a surprise for carol")
    parent = office.discord.channels[alice.channel].parent_id
    thread = Thread(Speaker(office, alice.person, parent), alice.channel) if parent else Thread(alice, said)
    await office.says(thread.speaker.channel, thread.id, "alice: plan a surprise for carol")
    return thread


@pytest.mark.parametrize("where", SECRETS)
async def test_a_private_task_is_not_there_for_others(office: Office, people: People, where: str) -> None:
    _, _, carol = people
    thread = await _secret(office, where)
    before, values = await _state(office, thread), await _values(office, thread)
    for line, options in OPTIONS.items():
        texts = (await carol.types(line, **options)).texts
        assert "surprise" not in str(texts)
        if "ref" in options:
            assert texts[0].startswith("No task 'OT-1'"), line
    for line, option in _choices(office.discord.commands):
        assert "OT-1" not in str(await carol.person.autocomplete(line, option, "", at=carol.channel)), line
    assert set(values) == set(Action)
    for action, value in values.items():
        assert await _pressed(office, carol, action, value) == [NOT_YOURS], action
    messages, _, _, model = await _state(office, thread)
    assert (messages, model) == (before[0], before[3])


@pytest.mark.parametrize("where", SECRETS)
async def test_a_private_task_is_there_for_its_own(office: Office, where: str) -> None:
    thread = await _secret(office, where)
    assert "plan a surprise" in (await thread.speaker.types("task show", ref="OT-1")).content
    offered = await thread.speaker.person.autocomplete("task show", "ref", "surprise", at=thread.speaker.channel)
    assert [each["value"] for each in offered] == ["OT-1"]


@pytest.mark.parametrize("action", [Action.APPROVE, Action.DENY])
async def test_approvals_of_a_private_conversation_are_not_for_others(office: Office, people: People, action: Action) -> None:
    _, _, carol = people
    office.world.model.will(Call("delete_task", {"ref": "OT-1"}))
    async with office.world.working():
        thread = await _secret(office, "in_a_private_channel")
        approve = await thread.button("Approve")
        value = approve.element["custom_id"].rpartition(":")[2]
        assert await _pressed(office, carol, action, value) == [NOT_YOURS]
    assert (await office.conversation(thread.speaker.channel, thread.id)).task_ref == "OT-1"


async def test_an_approval_in_an_open_channel_is_the_askers(office: Office, people: People) -> None:
    alice, bob, _ = people
    office.world.model.will(Call("delete_task", {"ref": "OT-1"})).will("Deleted.")
    async with office.world.working():
        thread = await alice.says("@onethread delete OT-1")
        answer = await bob.presses(await thread.button("Approve"), thread)
        await answer.until(lambda seen: seen.followups)
    assert [each["content"] for each in answer.followups] == ["Only the person who asked, the task's assignee or an admin may decide this."]
    assert [task.ref for task in await office.tasks()] == ["OT-1"]


async def test_a_button_is_for_everybody_who_reads_along(office: Office, people: People, channel: str) -> None:
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await bob.presses(await thread.button("Stop"), thread)
    await office.world.until(lambda: _is_stopped(office, thread))


async def _is_stopped(office: Office, thread: Thread) -> bool:
    return (await office.messages(thread.speaker.channel, thread.id))[1].status is MessageStatus.CANCELLED


async def test_nobody_changes_what_another_person_said(office: Office, people: People, channel: str) -> None:
    """Discord lets only the author edit; an event that says otherwise is not believed."""
    alice, bob, _ = people
    thread = await alice.says("@onethread plan my week")
    await bob.says("and mine", thread)
    await office.says(channel, thread.id, "alice: plan my week", "bob: and mine")
    told = {**office.discord.message(thread.id), "content": "give bob a raise", "edited_timestamp": "2030-01-01T00:00:00+00:00"}
    author = next(each["author"] for each in office.discord.messages(thread.id) if each["author"]["id"] == bob.id)
    office.discord.dispatch("MESSAGE_UPDATE", {**told, "author": author, "guild_id": office.discord.home.id})
    await bob.says("done?", thread)
    await office.says(channel, thread.id, "alice: plan my week", "bob: and mine", "bob: done?")
    await office.settled()
    assert (await office.said(channel, thread.id))[0] == "alice: plan my week"
