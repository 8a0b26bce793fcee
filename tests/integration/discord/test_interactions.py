"""Commands, the menu of a message, and buttons: what they do, who sees the answer, and what is said where they do nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from bots.commands import SUBCOMMANDS, Command, Commands
from bots.discord.command_tree import Tree
from bots.discord.interactions import Interactions
from bots.discord.listening import Listening
from bots.surface import Action
from core import bindings, tasks
from core.errors import StorageUnavailable
from core.ids import new_id
from core.models import Delivery, DeliveryState, MessageStatus, Posted, TaskStatus, Visibility
from tests.emulators.discord import DiscordEmulator, Person
from tests.integration.conftest import World
from tests.integration.discord.desk import Desk, desk_of

BROKEN = "Something went wrong here. Try again; if that fails too, tell an admin of Onethread."


@pytest.fixture
async def desk(world: World, discord: DiscordEmulator) -> AsyncIterator[Desk]:
    async with desk_of(world, discord) as found, found.open():
        yield found


@pytest.fixture
def alice(discord: DiscordEmulator, desk: Desk) -> Person:
    return discord.person("alice")


@pytest.fixture
def bob(discord: DiscordEmulator, desk: Desk) -> Person:
    return discord.person("bob")


# --- what Discord is told of them ------------------------------------------------------------------------------------


async def test_the_commands_are_those_that_there_are(desk: Desk) -> None:
    registered = {each["name"]: each for each in desk.discord.commands}
    assert set(registered) == {"task", "help", "link", "Make a task"}
    assert {each["name"] for each in registered["task"]["options"]} == set(SUBCOMMANDS)
    for each in registered.values():
        assert (each["contexts"], each["integration_types"]) == ([0, 1], [0])


async def test_discord_is_told_of_the_commands_only_where_it_has_others(desk: Desk) -> None:
    await desk.interactions.sync(desk.tree)
    assert len(desk.discord.called("commands.put")) == 1
    desk.discord.commands[0]["options"][0]["description"] = "Something else"
    await desk.interactions.sync(desk.tree)
    assert len(desk.discord.called("commands.put")) == 2
    desk.discord.commands.append({**desk.discord.commands[0], "id": "1", "name": "older"})
    await desk.interactions.sync(desk.tree)
    assert {each["name"] for each in desk.discord.commands} == {"task", "help", "link", "Make a task"}
    await desk.interactions.sync(desk.tree)
    assert len(desk.discord.called("commands.put")) == 3


async def test_whatever_differs_of_an_option_is_told_anew(desk: Desk) -> None:
    differences = {"description": "x", "required": True, "autocomplete": False, "max_length": 7, "type": 4, "name": "x"}
    for number, (what, value) in enumerate(differences.items()):
        show = next(each for each in _options(desk, "task") if each["name"] == "show")
        show["options"][0][what] = value
        await desk.interactions.sync(desk.tree)
        assert len(desk.discord.called("commands.put")) == 2 + number, what


def _options(desk: Desk, command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(each for each in desk.discord.commands if each["name"] == command)["options"]
    return found


async def test_a_server_that_gives_no_contexts_back_is_told_once(world: World, discord: DiscordEmulator) -> None:
    discord.variant = "other server"
    async with desk_of(world, discord) as desk:
        for each in discord.commands:
            each["contexts"] = each["integration_types"] = None
        await desk.interactions.sync(desk.tree)
    assert len(discord.called("commands.put")) == 1


async def test_the_command_that_discord_made_by_itself_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without it would be refused, while Discord's apps with an activity have it."""
    entry = {"id": "1", "name": "launch", "type": 4, "handler": 2, "description": ""}
    desk.discord.commands.append(entry)
    await desk.interactions.sync(desk.tree)
    assert len(desk.discord.called("commands.put")) == 1
    told: list[Any] = []

    async def upsert(_application: object, payload: list[Any]) -> list[Any]:
        told.extend(payload)
        return []

    desk.discord.commands[0]["description"] = "Something else"
    monkeypatch.setattr(desk.listening.client.http, "bulk_upsert_global_commands", upsert)
    await desk.interactions.sync(desk.tree)
    assert [each["name"] for each in told] == ["task", "help", "link", "Make a task", "launch"]


async def test_discord_is_told_until_it_has_taken_them(world: World, discord: DiscordEmulator) -> None:
    discord.fail("GET", "commands", status=503)
    discord.fail("PUT", "commands.put", status=429, retry_after=0.01)
    discord.fail("PUT", "commands.put", status=403, code=50001)
    async with desk_of(world, discord):
        assert {each["name"] for each in discord.commands} == {"task", "help", "link", "Make a task"}


@pytest.mark.parametrize(
    "registered", [None, [{"id": "1"}], [{"name": None, "options": [{}]}], ["odd"], [{"name": "task", "options": [1]}]]
)
async def test_whatever_a_server_has_registered_ends_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch, registered: Any) -> None:
    answers = [registered]

    async def get(_application: object) -> Any:
        return answers.pop() if answers else desk.discord.commands

    monkeypatch.setattr(desk.listening.client.http, "get_global_commands", get)
    await desk.interactions.sync(desk.tree)
    assert {each["name"] for each in desk.discord.commands} == {"task", "help", "link", "Make a task"}


async def test_a_defect_in_describing_the_commands_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    described, tried = Tree.described, 0

    def once(tree: Tree) -> list[Any]:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise KeyError("name")
        return described(tree)

    monkeypatch.setattr(Tree, "described", once)
    await desk.interactions.sync(desk.tree)
    assert tried == 2


# --- commands --------------------------------------------------------------------------------------------------------


async def test_a_task_from_its_making_to_its_end(desk: Desk, alice: Person, bob: Person) -> None:
    await bob.command("task list")  # by which bob is known
    assert (await alice.command("task new", title="Buy milk")).texts == ["Made **OT-1** Buy milk · todo"]
    assert (await alice.command("task list")).texts == ["- **OT-1** Buy milk · todo"]
    assert (await alice.command("task list", status_or_words="MILK")).texts == ["- **OT-1** Buy milk · todo"]
    assert (await alice.command("task list", status_or_words="in review")).texts == ["No task is in review."]
    assert (await alice.command("task assign", who="bob", ref="OT-1")).texts == ["**OT-1** Buy milk · todo · assigned to bob"]
    assert (await alice.command("task assign", who=f"<@{alice.id}>", ref="ot-1")).content.endswith("assigned to alice")
    assert "assigned to alice" in (await bob.command("task show", ref="OT-1")).content
    assert (await bob.command("task model", id="openai/gpt-4o", ref="OT-1")).texts == ["From now on: `openai/gpt-4o`"]
    assert (await bob.command("task model", ref="OT-1")).content.splitlines()[0] == "Now: `openai/gpt-4o`"
    assert (await bob.command("task done", ref="OT-1")).texts == ["**OT-1** Buy milk · done"]


async def test_every_answer_is_for_the_person_alone(desk: Desk, alice: Person) -> None:
    plain = (alice.command(line) for line in ("help", "task help", "task list", "task done", "task model", "task where", "link"))
    for asked in (*plain, alice.command("task new", title="x"), alice.command("task show", ref="nothing")):
        assert (await asked).ephemeral
    assert desk.discord.messages(desk.discord.general) == []


async def test_help_shows_the_commands_as_they_are_chosen(desk: Desk, alice: Person) -> None:
    shown = (await alice.command("help")).content
    assert shown == (await alice.command("task help")).content
    assert all(f"`/task {name}`" in shown for name in SUBCOMMANDS)


async def test_a_new_task_in_a_text_channel_gets_a_thread(desk: Desk, alice: Person) -> None:
    await alice.command("task new", title="Buy milk")
    (binding,) = await desk.bindings()
    assert (binding.channel, binding.opened, binding.root) == (desk.discord.general, False, "")


async def test_a_new_task_from_a_thread_gets_one_in_the_same_channel(desk: Desk, alice: Person) -> None:
    thread = await alice.thread(desk.discord.general, await alice.say(desk.discord.general, "hello"), "hello")
    await alice.command("task new", at=thread, title="Buy milk")
    (binding,) = await desk.bindings()
    assert (binding.channel, binding.opened) == (desk.discord.general, False)


async def _in_a_direct_message(desk: Desk, alice: Person) -> str:
    return await alice.direct()


async def _in_a_forums_post(desk: Desk, alice: Person) -> str:
    return await alice.post(desk.discord.home.channel("ideas", kind="forum"), "An idea", "hello")


async def _in_a_private_thread(desk: Desk, alice: Person) -> str:
    return await alice.private_thread(desk.discord.general, "secret", bot=True)


@pytest.mark.parametrize(
    ("where", "visibility"),
    [
        (_in_a_direct_message, Visibility.PRIVATE),
        (_in_a_forums_post, Visibility.SHARED),
        (_in_a_private_thread, Visibility.PRIVATE),
    ],
)
async def test_a_new_task_where_no_thread_can_be_made_has_none(
    desk: Desk, alice: Person, where: Callable[[Desk, Person], Awaitable[str]], visibility: Visibility
) -> None:
    answer = await alice.command("task new", at=await where(desk, alice), title="Buy a present")
    assert answer.content.startswith("Made **OT-1** Buy a present · todo\n\nNo thread can be made here. Talk about it [on the web](http://")
    conversation = (await desk.world.read(lambda uow: uow.conversations.page(desk.world.admin, limit=10, offset=0)))[:1]
    assert ([each.visibility for each in conversation], await desk.bindings()) == ([visibility] if visibility == "shared" else [], [])


async def test_in_a_tasks_thread_the_ref_may_be_left_out_and_is_not_guessed(desk: Desk, alice: Person) -> None:
    thread = await alice.thread(desk.discord.general, await alice.say(desk.discord.general, "hello"), "hello")
    task = await desk.world.task("Buy milk")
    await desk.world.write(lambda uow: bindings.bind(uow, desk.world.admin, task.conversation_id, desk.place(desk.discord.general, thread)))
    assert (await alice.command("task done", at=thread, ref="milk")).content.startswith("No task 'milk'")
    assert (await alice.command("task done", at=thread)).texts == ["**OT-1** Buy milk · done"]


async def test_an_answer_comes_however_long_it_takes(desk: Desk, alice: Person) -> None:
    desk.discord.interaction_seconds = 0.2
    desk.discord.slow("GET", "guild.member", 0.4)
    answer = await alice.command("task new", title="Buy milk", wait=False)
    await answer.until(lambda seen: seen.thinking)
    assert (await answer.settled()).texts == ["Made **OT-1** Buy milk · todo"]


async def test_a_long_answer_comes_in_several_messages_for_the_person_alone(desk: Desk, alice: Person) -> None:
    await desk.world.task("Buy milk", description="\n".join(f"{number} {'x' * 200}" for number in range(20)))
    answer = await alice.command("task show", ref="OT-1")
    await answer.until(lambda seen: len(seen.texts) == 3)
    assert all(len(each) <= 2000 for each in answer.texts)
    assert "19 xxx" in answer.texts[2]
    assert all(each["flags"] & 64 for each in (answer.message, *answer.followups))


async def test_an_answer_that_never_ends_is_cut_after_five_messages(desk: Desk, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(_commands: Commands, _command: Command) -> str:
        return "\n\n".join(f"{number} {'x' * 1000}" for number in range(20))

    monkeypatch.setattr(Commands, "run", endless)
    answer = await alice.command("task list")
    await answer.until(lambda seen: len(seen.texts) == 5)
    assert answer.texts[4] == "…"


async def test_an_answer_mentions_nobody(desk: Desk, alice: Person, bob: Person) -> None:
    made = await alice.command("task new", title=f"Ask <@{bob.id}> and @everyone")
    assert all("<@" not in text for text in [*made.texts, *(await alice.command("task list")).texts])
    assert all(call.json["allowed_mentions"]["parse"] == [] for call in desk.discord.called("interaction.edit"))


async def test_a_command_that_discord_does_not_wait_for_any_more_does_nothing(
    desk: Desk, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    obeyed: list[str] = []

    async def noted(_commands: Commands, command: Command) -> str:
        obeyed.append(command.text)
        return "Done."

    monkeypatch.setattr(Commands, "run", noted)
    desk.discord.fail("POST", "interaction.callback", status=404, code=10062)
    await alice.command("task new", title="Buy milk", wait=False)
    await desk.discord.until(lambda: desk.discord.called("interaction.callback"), lambda calls: calls)
    await alice.command("task done")
    assert obeyed == ["done"]


async def test_what_goes_wrong_with_one_command_leaves_the_rest_as_it_is(
    desk: Desk, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defect(*_: object) -> str:
        raise KeyError("a defect")

    monkeypatch.setattr(Commands, "run", defect)
    assert (await alice.command("task list")).texts == [BROKEN]
    monkeypatch.undo()
    desk.discord.fail("PATCH", "interaction.edit", status=400, code=50006)
    await alice.command("task list", wait=False)
    await desk.discord.until(lambda: desk.discord.called("interaction.edit"), lambda calls: len(calls) == 2)
    assert (await alice.command("task list")).texts == ["No task is open. Make one: `/task new <title>`"]


async def test_a_command_of_an_older_version_is_answered(desk: Desk, alice: Person) -> None:
    _options(desk, "task").append({"name": "drop", "type": 1, "description": "x"})
    assert (await alice.command("task drop")).texts[0].startswith("This command is another one by now.")
    next(each for each in _options(desk, "task") if each["name"] == "show")["options"][0]["name"] = "task"
    assert (await alice.command("task show", task="OT-1")).content


# --- what may be chosen ----------------------------------------------------------------------------------------------


async def test_the_tasks_that_may_be_meant_are_offered(desk: Desk, alice: Person) -> None:
    for title in ("Buy milk", f"Sell {'x' * 150}"):
        await desk.world.task(title)
    await desk.world.write(lambda uow: tasks.update(uow, desk.world.admin, "OT-1", {"status": TaskStatus.DONE}))
    offered = await alice.autocomplete("task done", "ref", "")
    assert [each["value"] for each in offered] == ["OT-2", "OT-1"]
    assert (offered[1]["name"], len(offered[0]["name"])) == ("OT-1 Buy milk", 100)
    assert [each["value"] for each in await alice.autocomplete("task show", "ref", "milk")] == ["OT-1"]
    assert await alice.autocomplete("task model", "id", "") == [{"name": "default", "value": "default"}]


@pytest.mark.parametrize("error", [KeyError("a defect"), StorageUnavailable("The database is away.")])
async def test_where_nothing_can_be_looked_up_nothing_is_offered(
    desk: Desk, alice: Person, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def failing(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(tasks, "listing", failing)
    assert await alice.autocomplete("task show", "ref", "") == []


async def test_what_takes_too_long_to_look_up_is_not_offered(desk: Desk, alice: Person) -> None:
    await desk.world.task("Buy milk")
    desk.discord.slow("GET", "guild.member", 1.0)
    assert await alice.autocomplete("task show", "ref", "") == []


# --- the menu of a message -------------------------------------------------------------------------------------------


async def test_a_task_is_made_of_a_message(desk: Desk, alice: Person, bob: Person) -> None:
    said = await alice.say(desk.discord.general, "please **paint** the wall")
    answer = await bob.menu("Make a task", desk.discord.general, said)
    assert (answer.texts, answer.ephemeral) == (["I make a task of it."], True)
    (stored,) = await desk.stored()
    told = desk.listening.surface.event(stored.payload)
    assert (told.by, told.said.remote_id, told.said.author, told.said.text) == (bob.id, said, alice.id, "please **paint** the wall")  # type: ignore[union-attr]
    assert (told.said.channel, told.said.thread) == (desk.discord.general, "")  # type: ignore[union-attr]


async def test_a_task_is_made_of_a_message_in_a_thread_and_of_a_direct_one(desk: Desk, alice: Person) -> None:
    thread = await alice.thread(desk.discord.general, await alice.say(desk.discord.general, "hello"), "hello")
    direct = await alice.direct()
    for place in (thread, direct):
        await alice.menu("Make a task", place, await alice.say(place, "paint"))
    places = [desk.listening.surface.event(each.payload).said for each in await desk.stored()]  # type: ignore[union-attr]
    assert [(each.channel, each.thread) for each in places] == [(desk.discord.general, thread), (direct, "")]


async def test_what_cannot_be_stored_is_told(desk: Desk, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise StorageUnavailable("The database is away.")

    monkeypatch.setattr(Listening, "store", away)
    answer = await alice.menu("Make a task", desk.discord.general, await alice.say(desk.discord.general, "paint"))
    assert answer.texts == ["The database is away."]


# --- buttons ---------------------------------------------------------------------------------------------------------


async def _asked(desk: Desk) -> tuple[str, Posted]:
    """The message with a button that stops a reply, and what it answers."""
    task = await desk.world.task("Plan my week")
    posted = await desk.world.post(task.conversation_id, "plan")
    return await desk.button(desk.discord.general, Action.STOP, str(posted.turn_id)), posted


async def test_a_button_does_what_it_says_and_nothing_is_said(desk: Desk, bob: Person) -> None:
    message, posted = await _asked(desk)
    answer = await bob.press(desk.discord.general, message, "Press")
    await desk.world.until(lambda: _is(desk, posted, MessageStatus.CANCELLED))
    await bob.command("task list")
    assert (answer.type, answer.followups, desk.discord.called("interaction.followup")) == (6, [], [])


async def _is(desk: Desk, posted: Posted, status: MessageStatus) -> bool:
    return await desk.status(posted.reply_id) == status


async def test_a_button_that_came_too_late_tells_the_person_why(desk: Desk, alice: Person, bob: Person) -> None:
    message, posted = await _asked(desk)
    await bob.press(desk.discord.general, message, "Press")
    await desk.world.until(lambda: _is(desk, posted, MessageStatus.CANCELLED))
    await desk.tells(await alice.press(desk.discord.general, message, "Press"), "This answer has ended already.")


async def test_a_button_works_after_a_restart(world: World, discord: DiscordEmulator) -> None:
    async with desk_of(world, discord) as before, before.open():
        message, posted = await _asked(before)
    async with desk_of(world, discord) as desk, desk.open():
        await discord.person("bob").press(discord.general, message, "Press")
        await world.until(lambda: _is(desk, posted, MessageStatus.CANCELLED))


@pytest.mark.parametrize("action", list(Action))
async def test_a_button_of_no_use_says_so(desk: Desk, bob: Person, action: Action) -> None:
    for value in ("no id", "", "a:b", "x" * 70):
        message = await desk.button(desk.discord.general, action, value)
        await desk.tells(await bob.press(desk.discord.general, message, "Press"), "This button does not work any more.")


async def test_a_button_that_nobody_knows_does_nothing(desk: Desk, bob: Person) -> None:
    message = await desk.button(desk.discord.general, "explode", "x")
    assert (await bob.press(desk.discord.general, message, "Press")).type == 6
    await bob.command("task list")
    assert desk.discord.called("interaction.followup") == []


async def test_whoever_presses_a_button_that_takes_long_is_told_later(desk: Desk, bob: Person) -> None:
    message = await desk.button(desk.discord.general, Action.STOP, "no id")
    desk.discord.interaction_seconds = 0.2
    desk.discord.slow("GET", "guild.member", 0.4)
    answer = await bob.press(desk.discord.general, message, "Press")
    assert not answer.failed
    await desk.tells(answer, "This button does not work any more.")


async def test_a_button_works_also_where_discord_cannot_be_told_so(desk: Desk, bob: Person) -> None:
    message, posted = await _asked(desk)
    desk.discord.fail("POST", "interaction.callback", status=404, code=10062)
    await bob.press(desk.discord.general, message, "Press", wait=False)
    await desk.world.until(lambda: _is(desk, posted, MessageStatus.CANCELLED))


async def test_a_button_of_an_answer_in_a_private_channel_is_for_whoever_reads_along(desk: Desk, alice: Person, bob: Person) -> None:
    """The answer stands in the channel while the conversation's thread is not made yet."""
    channel = desk.discord.home.channel("secret", private=True, people=[alice, bob])
    await alice.command("task new", at=channel, title="A surprise")
    (binding,) = await desk.bindings()
    owner = await desk.world.read(lambda uow: uow.users.by_name("alice"))
    assert owner
    posted = await desk.world.post(binding.conversation_id, "plan", await desk.listening.people.admit(alice.id, channel))
    message = await desk.button(channel, Action.STOP, str(posted.turn_id))
    answer = await bob.press(channel, message, "Press")
    await desk.tells(answer, "What this button is for is gone, or belongs to a conversation that you cannot see.")
    now = desk.world.app.clock.now()
    shown = Delivery(
        binding_id=binding.id,
        item=str(posted.reply_id),
        part=0,
        message_id=posted.reply_id,
        revision=0,
        remote_id=message,
        nonce=new_id(),
        state=DeliveryState.LIVE,
        end=None,
        shown="",
        sent_at=now,
    )
    await desk.world.write(lambda uow: uow.deliveries.put(shown))
    await bob.press(channel, message, "Press")
    await desk.world.until(lambda: _is(desk, posted, MessageStatus.CANCELLED))


async def test_what_goes_wrong_with_one_button_leaves_the_rest_as_it_is(
    desk: Desk, bob: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = await desk.button(desk.discord.general, Action.STOP, "no id")

    async def defect(*_: object, **__: object) -> str:
        raise KeyError("a defect")

    monkeypatch.setattr("bots.controls.press", defect)
    await desk.tells(await bob.press(desk.discord.general, message, "Press"), BROKEN)
    monkeypatch.undo()
    await desk.tells(await bob.press(desk.discord.general, message, "Press"), "This button does not work any more.")
    assert "discord.answer_failed" in "".join(capsys.readouterr())


async def test_what_is_asked_while_everything_ends_is_left_out(world: World, discord: DiscordEmulator) -> None:
    async with asyncio.TaskGroup() as ended:
        pass
    async with desk_of(world, discord) as desk:
        ending = replace(desk, interactions=Interactions(replace(desk.listening, tasks=ended)))
        async with ending.open():
            discord.interaction_seconds = 0.2
            assert (await discord.person("alice").command("task new", title="Buy milk")).failed
    assert await world.titles() == []
