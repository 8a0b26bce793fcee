"""One task on every surface at once, by two people: whatever is done on one of them, all show the same conversation in the same order.

Alice is in Slack and on a page; Mia is in Discord, on another page, in the terminal and in her IDE. What each surface shows is read as
people see it (see surfaces.py), and compared with what was said, done and undone here.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.databases import NewDatabase
from tests.emulators.discord import DiscordEmulator
from tests.emulators.raw_provider import RawProvider, Reply, ToolUse
from tests.emulators.slack import SlackEmulator
from tests.everywhere.people import follows, links_by_a_code, links_by_the_private_link
from tests.everywhere.surfaces import AGENT, NOTICE, DiscordThread, Ide, PageView, Post, Screen, SlackThread, Surface
from tests.everywhere.world import LEASE_SECONDS, SECONDS, Server, World, opened, until, world
from tests.page.site import Halting

JSON = dict[str, Any]
pytestmark = [*(pytest.mark.requires(each) for each in ("slack-emulator", "chromium", "tmux")), pytest.mark.timeout(600)]


async def test_every_surface_shows_the_same_whatever_is_done_on_one_of_them_and_whoever_is_killed(
    tmp_path: Path, slack: SlackEmulator, discord: DiscordEmulator, on_both: NewDatabase
) -> None:
    """On SQLite with two servers; on PostgreSQL with two that do not answer themselves, and a worker that does."""
    agent = Agent()
    async with (
        on_both() as url,
        RawProvider(script=agent) as provider,
        world(
            tmp_path, slack, discord, database_url=str(url), model="openai/scripted", model_api_base=provider.api_base("openai")
        ) as around,
    ):
        apart = ["--no-worker"] if url.drivername.startswith("postgresql") else []
        first, second = await around.server("first", *apart), await around.server("second", *apart)
        workers = [await around.worker()] if apart else []
        on = await scene(around, agent, first, second)

        await everybody_speaks(on)
        await a_reply_grows_everywhere_at_once(on)
        await what_one_asks_for_another_decides(on)
        await what_the_agent_asks_one_another_answers(on)
        await edits_show_everywhere(on)
        await a_stop_shows_everywhere(on)

        await a_server_is_killed_while_a_reply_is_written(on, first, its_page=on.mia, other=second)
        await a_server_is_killed_while_a_reply_is_written(on, second, its_page=on.alice, other=first)
        await others_are_killed_while_a_reply_is_written_and_while_an_approval_waits(on, [*workers, on.terminal, on.ide])
        await everybody_speaks(on)
        await on.all_see()


# --- the agent -------------------------------------------------------------------------------------------------------

HALF, REST = "Half of it", ", and the rest."


class Agent:
    """Repeats what it was told, deletes what it is told to, and where the test says so stops in the middle until it may go on."""

    def __init__(self) -> None:
        self._halting: dict[str, Halting] = {}

    def halts_at(self, text: str) -> Halting:
        self._halting[text] = Halting(HALF, REST)
        return self._halting[text]

    def __call__(self, body: JSON, _: int) -> Reply:
        asked = max(number for number, message in enumerate(body["messages"]) if message["role"] == "user")
        text = re.sub(r"\A\[[\w-]+\] |\s*<context>.*\Z", "", body["messages"][asked]["content"], flags=re.DOTALL)
        if text == "ask me":
            return _calls("ask_user", question="Which colour?", options=["red", "blue"])
        if ref := re.fullmatch(r"delete (OT-\d+)", text):
            return Reply(text=(f"{ref[1]} is gone.",)) if body["messages"][asked + 1 :] else _calls("delete_task", ref=ref[1])
        return self._halting[text].reply() if text in self._halting else Reply(text=("Noted: ", f"{text}."))


def _calls(tool: str, **arguments: Any) -> Reply:
    return Reply(text=(), tools=(ToolUse(name=tool, fragments=(json.dumps(arguments),)),), finish="tool_calls")


# --- the scene -------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Scene:
    world: World
    agent: Agent
    slack: SlackThread
    discord: DiscordThread
    mia: PageView
    alice: PageView
    terminal: Screen
    ide: Ide
    posts: list[Post]
    """What everybody is to see."""

    @property
    def surfaces(self) -> list[Surface]:
        return [self.slack, self.discord, self.mia, self.alice, self.terminal, self.ide]

    async def says(self, surface: Surface, text: str, *, reply: str = "", seconds: float = SECONDS) -> None:
        """Somebody goes on where they see everything. What comes of it is not waited for."""
        await self.sees(surface, seconds=seconds)
        await surface.says(text)
        self.posts += [Post(surface.me, text), Post(AGENT, reply or f"Noted: {text}.")]

    def becomes(self, number: int, **changes: str) -> None:
        """A post is to be seen otherwise from now on."""
        self.posts[number] = self.posts[number]._replace(**changes)

    async def sees(self, surface: Surface, *, seconds: float = SECONDS) -> None:
        wanted = self.posts[surface.skips :]
        try:
            await until(surface.posts, wanted.__eq__, seconds=seconds)
        except AssertionError:
            seen = await surface.posts()
            lines = [f"{'  ' if post in seen else '- '}{post}" for post in wanted]
            raise AssertionError("\n".join([f"{surface.name} shows", *map(str, seen), "and is to show", *lines])) from None

    async def all_see(self, *, seconds: float = SECONDS) -> None:
        for surface in self.surfaces:
            await self.sees(surface, seconds=seconds)


async def scene(on: World, agent: Agent, first: Server, second: Server) -> Scene:
    """A task that Alice begins in Slack, brought to every other surface."""
    await on.slack_posts_to(first)
    await on.discord.connected()
    mias, alices = await on.admin(first), await on.member("alice", second)
    alice, mia, channel = await on.slack.person("alice"), on.discord.person("mia"), await on.slack.channel()
    await links_by_the_private_link(alice, channel, alices, second)
    await links_by_a_code(mia, on)
    root = await alice.mention(channel, "plan the party")
    await alice.sees(channel, root, lambda messages: "Noted: plan the party." in str(messages), seconds=SECONDS)
    thread = await follows(mia, on.discord.general, "OT-1")
    terminal, ide = Screen(lambda: on.terminal("OT-1"), "mia"), Ide(on.ide, "OT-1", "mia")
    await terminal.start()
    await ide.start()
    return Scene(
        world=on,
        agent=agent,
        slack=SlackThread(alice, channel, root, "alice"),
        discord=DiscordThread(mia, on.discord, thread, "mia", skips=3),
        mia=PageView(await opened(mias, f"{first.url}/tasks/OT-1"), "mia", "Mia's page"),
        alice=PageView(await opened(alices, f"{second.url}/tasks/OT-1"), "alice", "Alice's page"),
        terminal=terminal,
        ide=ide,
        posts=[
            Post("alice", "plan the party"),
            Post(AGENT, "Noted: plan the party."),
            Post(NOTICE, "mia follows this in #general on Discord from now on."),
        ],
    )


# --- what happens ----------------------------------------------------------------------------------------------------


async def everybody_speaks(on: Scene) -> None:
    for surface in on.surfaces:
        await on.says(surface, f"{len(on.posts)} from {surface.name}")


async def a_reply_grows_everywhere_at_once(on: Scene) -> None:
    halting = on.agent.halts_at("a long one")
    await on.says(on.ide, "a long one", reply=HALF + REST)
    await half_of_it_shows(on)
    halting.finish()


async def half_of_it_shows(on: Scene) -> None:
    """Everywhere but in the IDE, which reads what is stored."""
    halfway = [*on.posts[:-1], Post(AGENT, HALF)]
    surfaces: list[Surface] = [on.slack, on.discord, on.mia, on.alice]
    for surface in surfaces:
        await until(surface.posts, halfway[surface.skips :].__eq__)
    await until(on.terminal.screen, lambda screen: HALF in screen.partition(on.posts[-2].text)[2])


async def what_one_asks_for_another_decides(on: Scene) -> None:
    await somebody_asks_to_delete(on, on.slack)
    await on.discord.presses("Approve")
    on.becomes(-1, fate="approved by mia")
    await somebody_asks_to_delete(on, on.mia)
    await on.terminal.presses("y")
    on.becomes(-1, fate="approved by mia")


async def somebody_asks_to_delete(on: Scene, surface: Surface) -> None:
    """For which the agent needs an approval."""
    ref = (await on.ide.calls("create_task", title="Nobody needs this"))["ref"]
    await on.says(surface, f"delete {ref}", reply=f"{ref} is gone.")


async def what_the_agent_asks_one_another_answers(on: Scene) -> None:
    await on.says(on.alice, "ask me", reply="Which colour?")
    await on.discord.presses("blue")
    on.posts += [Post("mia", "blue"), Post(AGENT, "Noted: blue.")]


async def edits_show_everywhere(on: Scene) -> None:
    await on.says(on.slack, "we meet on Monday")
    await on.sees(on.slack)
    await on.slack.edits("we meet on Monday", "we meet on Tuesday")
    on.becomes(-2, text="we meet on Tuesday")
    await on.all_see()
    await on.alice.edits("we meet on Tuesday", "we meet on Friday")
    on.becomes(-2, text="we meet on Friday")
    await on.all_see()


async def a_stop_shows_everywhere(on: Scene) -> None:
    on.agent.halts_at("something endless")
    await on.says(on.terminal, "something endless", reply=HALF)
    await on.sees(on.ide)  # what it reads is stored: of what is not yet, a stop may leave nothing
    await on.slack.presses("Stop")
    on.becomes(-1, fate="stopped")
    await on.all_see()


async def a_server_is_killed_while_a_reply_is_written(on: Scene, server: Server, *, its_page: PageView, other: Server) -> None:
    """What is written on its page meanwhile waits there, and nobody else waits for it."""
    text = f"{len(on.posts)} from Slack, halfway"
    halting = on.agent.halts_at(text)
    await on.says(on.slack, text, reply=HALF + REST, seconds=LEASE_SECONDS)
    await half_of_it_shows(on)
    await server.kill()
    await on.world.slack_posts_to(other)
    await its_page.says("written while it was away")
    halting.finish()
    for surface in (on.mia if its_page is on.alice else on.alice, on.terminal, on.ide):
        await on.sees(surface)
    await server.start()
    on.posts += [Post(its_page.me, "written while it was away"), Post(AGENT, "Noted: written while it was away.")]
    await on.all_see(seconds=LEASE_SECONDS)


class Killable(Protocol):
    async def kill(self) -> None: ...
    async def start(self) -> None: ...


async def others_are_killed_while_a_reply_is_written_and_while_an_approval_waits(on: Scene, processes: Sequence[Killable]) -> None:
    halting = on.agent.halts_at("the last one")
    await on.says(on.discord, "the last one", reply=HALF + REST)
    await half_of_it_shows(on)
    await killed_and_started(processes)
    halting.finish()
    await on.all_see()

    await somebody_asks_to_delete(on, on.alice)
    await until(on.terminal.screen, lambda screen: "[y] approve" in screen)
    await killed_and_started(processes)
    await on.terminal.presses("y")
    on.becomes(-1, fate="approved by mia")
    await on.all_see()


async def killed_and_started(processes: Sequence[Killable]) -> None:
    """All of them, before the first is there again."""
    for process in processes:
        await process.kill()
    for process in processes:
        await process.start()
