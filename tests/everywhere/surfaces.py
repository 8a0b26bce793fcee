"""The surfaces as people have them before their eyes: each is read as it shows itself, and spoken through as people do.

What is read of each is the same: the posts in the order in which they stand there. How a surface writes them is known here alone.
"""

import asyncio
import json
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from playwright.async_api import Page

from tests.e2e.conftest import Terminal
from tests.emulators import discord, slack
from tests.everywhere.world import until
from tests.mcp_client import McpClient, PipeWire

AGENT, NOTICE = "agent", "notice"
JSON = dict[str, Any]
_WORDS = {"allowed": "approved"}
_BY = re.compile(r"\b(approved|allowed|denied) by (\w+)")


class Post(NamedTuple):
    """A message, as a surface shows it."""

    who: str
    """`agent`, or `notice` for a line that nobody said: it tells who followed the conversation where."""
    text: str
    fate: str = ""
    """What else is said of it: `stopped`, or `approved by mia`."""


class Surface(Protocol):
    name: str
    me: str
    """Who sits there."""
    skips: int
    """So many of the first posts are not shown there."""

    async def posts(self) -> list[Post]: ...
    async def says(self, text: str) -> None: ...


def fate(notes: str) -> str:
    """What the small print says that everybody has to see."""
    decided = _BY.search(notes)
    told = [f"{_WORDS.get(decided[1], decided[1])} by {decided[2]}"] if decided else []
    return ", ".join([*told, *(["stopped"] if "Stopped" in notes else [])])


_CHANGED_ELSEWHERE = re.compile(r"✎ [\w-]+ changed elsewhere what they wrote here: (.+)")
"""What stands on a chat platform behind a message that its writer changed elsewhere: the last one of theirs, in these tests."""


# --- Slack -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SlackThread:
    person: slack.Person
    channel: str
    ts: str
    me: str
    name: str = "Slack"
    skips: int = 0

    async def posts(self) -> list[Post]:
        posts: list[Post] = []
        for message in await self.person.replies(self.channel, self.ts):
            changed = _CHANGED_ELSEWHERE.search(str(message["text"]))
            if changed and message["user"] != self.person.id:
                mine = max(number for number, post in enumerate(posts) if post.who == self.me)
                posts[mine] = posts[mine]._replace(text=changed[1])
            elif post := self._post(message):
                posts.append(post)
        return posts

    async def says(self, text: str) -> None:
        await self.person.say(self.channel, text, thread=self.ts)

    async def edits(self, before: str, after: str) -> None:
        """A message of one's own."""
        (ts,) = [each["ts"] for each in await self._own() if _unmentioned(each["text"]) == before]
        await self.person.edit(self.channel, ts, after)

    async def presses(self, label: str) -> None:
        """The newest button of that label, as soon as there is one."""
        found = await self.offers(label)
        answer = await self.person.press(self.channel, *found[-1][:2], value=found[-1][2])
        assert answer.status == 200

    async def offers(self, label: str) -> list[tuple[str, str, str]]:
        """The buttons of that label, as soon as there is one."""
        return await until(lambda: self._buttons(label), bool)

    async def _buttons(self, label: str) -> list[tuple[str, str, str]]:
        """ts, action id and value of each."""
        messages = await self.person.replies(self.channel, self.ts)
        rows = [(each["ts"], block) for each in messages for block in each.get("blocks") or [] if block["type"] == "actions"]
        buttons = [(ts, button) for ts, block in rows for button in block["elements"] if button["text"]["text"] == label]
        return [(ts, button["action_id"], button["value"]) for ts, button in buttons]

    async def _own(self) -> list[JSON]:
        return [each for each in await self.person.replies(self.channel, self.ts) if each["user"] == self.person.id]

    def _post(self, message: JSON) -> Post | None:
        """None for a card."""
        if message["user"] == self.person.id:
            return Post(self.me, _unmentioned(message["text"]))
        blocks = message.get("blocks") or []
        texts = [block["text"] for block in blocks if block["type"] == "markdown"]
        small = [element["text"] for block in blocks if block["type"] == "context" for element in block["elements"]]
        if not texts:
            return _small(small)
        speaker = small.pop(0) if blocks[0]["type"] == "context" and _spoken(small[0]) else ""
        return Post(_spoken(speaker) or AGENT, "".join(texts), fate("\n".join(small)))


def _small(lines: Sequence[str]) -> Post | None:
    """A message that is nothing but small print."""
    return Post(NOTICE, lines[0].removeprefix("→ ")) if lines and lines[0].startswith("→ ") else None


def _unmentioned(text: str) -> str:
    return re.sub(r"<@\w+>\s*", "", text)


def _spoken(line: str) -> str:
    """Whose name stands above a message of somebody elsewhere; empty for another line."""
    said = re.fullmatch(r"([\w-]+), (?:in|on|by) [\w ]+", line)
    return said[1] if said else ""


# --- Discord ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class DiscordThread:
    person: discord.Person
    emulator: discord.DiscordEmulator
    thread: str
    me: str
    skips: int
    name: str = "Discord"

    async def posts(self) -> list[Post]:
        return [post for message in self.emulator.messages(self.thread) if (post := self._post(message))]

    async def says(self, text: str) -> None:
        await self.person.say(self.thread, text)

    async def presses(self, label: str) -> None:
        """The newest button of that label, as soon as there is one."""
        found = await self.offers(label)
        await self.person.press(self.thread, found[-1]["id"], label)

    async def offers(self, label: str) -> list[JSON]:
        """The messages with a button of that label, as soon as there is one."""
        return await until(lambda: self._with(label), bool)

    async def _with(self, label: str) -> list[JSON]:
        return [each for each in self.emulator.messages(self.thread) if f"'label': '{label}'" in str(each["components"])]

    def _post(self, message: JSON) -> Post | None:
        content = message["content"]
        if message["author"]["id"] == self.person.id:
            return Post(self.me, content) if content else None
        lines = content.splitlines()
        small = [line for line in lines if line.startswith("-# ")]
        said = [line for line in lines if not line.startswith("-# ")]
        above = re.fullmatch(r"\*\*(.+)\*\*", said[0]) if said else None
        speaker = _spoken(above[1]) if above else ""
        text = "\n".join(said[1:] if speaker else said)
        if text.startswith("Follows "):
            return None  # what the thread begins with
        return Post(speaker or AGENT, text, fate("\n".join(small))) if text else _small([line.removeprefix("-# ") for line in small])


# --- the page --------------------------------------------------------------------------------------------------------

_READ = """() => [...document.querySelectorAll(".thread .post")].map((post) => ({
  who: post.matches(".reply") ? "agent" : post.matches(".notice") ? "notice" : (post.querySelector("header b")?.textContent ?? ""),
  text: post.querySelector(".md, :scope.notice span")?.textContent.trim() ?? "",
  notes: [...post.querySelectorAll(".note, .tool-by, .tool-problem")].map((each) => each.textContent).join("\\n"),
}))"""
"""By textContent: what is scrolled out of sight has no innerText."""


@dataclass(slots=True)
class PageView:
    page: Page
    me: str
    name: str = "page"
    skips: int = 0

    async def posts(self) -> list[Post]:
        found: list[JSON] = await self.page.evaluate(_READ)
        return [Post(each["who"], each["text"], fate(each["notes"])) for each in found if each["text"]]

    async def says(self, text: str) -> None:
        field = self.page.get_by_role("textbox", name="Message", exact=True)
        await field.fill(text)
        await field.press("Enter")

    async def edits(self, before: str, after: str) -> None:
        await self.page.locator(".post.mine", has_text=before).get_by_role("button", name="Edit the message").click()
        field = self.page.get_by_role("textbox", name="Edit the message")
        await field.fill(after)
        await field.press("Enter")


# --- the terminal ----------------------------------------------------------------------------------------------------

_TOLD = re.compile(r"  ([\w-]+ follows this in .+)")
_CHANGED = re.compile(r"  [\w-]+ changed “(.+)” to: (.+)")


@dataclass(slots=True)
class Screen:
    opens: Callable[[], Terminal]
    me: str
    name: str = "terminal"
    skips: int = 0
    terminal: Terminal = field(init=False)

    async def start(self) -> None:
        self.terminal = await asyncio.to_thread(self.opens)

    async def kill(self) -> None:
        os.kill(self.terminal.pid, signal.SIGKILL)
        await asyncio.to_thread(self.terminal.wait_for_end)

    async def posts(self) -> list[Post]:
        """Of what was printed since the conversation was opened."""
        return list(_changed(self._printed((await self.screen()).splitlines())))

    async def says(self, text: str) -> None:
        await asyncio.to_thread(self.terminal.enter, text)

    async def presses(self, key: str) -> None:
        """A key, when the screen offers it."""
        await until(self.screen, lambda screen: f"[{key}]" in screen.rstrip().split("\n\n")[-1])
        await asyncio.to_thread(self.terminal.key, key)

    async def screen(self) -> str:
        return await asyncio.to_thread(lambda: self.terminal.screen)

    def _printed(self, lines: Sequence[str]) -> Iterator[Post | tuple[str, str]]:
        """The posts, and what each edit changed into what. Without what stands below the paper: the status and the input."""
        begun = next((number for number, line in enumerate(lines) if line.startswith("── ")), 0)
        end = max((number for number, line in enumerate(lines) if re.match(r"[○◐◓◑◒◉◎✕] ", line)), default=len(lines))
        speaker, said = self.me, list[str]()
        for line in lines[begun + 1 : end]:
            if named := re.fullmatch(r"([\w-]+) \(\w+\)", line):
                speaker = named[1]
            elif line.startswith("❯ "):
                yield from _replied(said)
                yield Post(speaker, line.removeprefix("❯ "))
                speaker, said = self.me, []
            elif told := _TOLD.fullmatch(line):
                yield from _replied(said)
                said = []
                yield Post(NOTICE, told[1])
            elif changed := _CHANGED.fullmatch(line):
                yield changed[1], changed[2]
            else:
                said.append(line)
        yield from _replied(said)


def _replied(lines: Sequence[str]) -> Iterator[Post]:
    """The reply that stands there, if there is one: what is indented is said of it."""
    text = "\n".join(line for line in lines if line and not line.startswith("  "))
    if text:
        yield Post(AGENT, text, fate("\n".join(line for line in lines if line.startswith("  "))))


def _changed(printed: Iterable[Post | tuple[str, str]]) -> list[Post]:
    """The posts as the edits made them."""
    posts: list[Post] = []
    for each in printed:
        if isinstance(each, Post):
            posts.append(each)
        else:
            before, after = each
            posts = [post._replace(text=after) if post.text == before and post.who != AGENT else post for post in posts]
    return posts


# --- an IDE ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ide:
    """It starts its server itself, and speaks with it on pipes."""

    opens: Callable[[], Awaitable[McpClient]]
    ref: str
    me: str
    name: str = "IDE"
    skips: int = 0
    client: McpClient = field(init=False)

    async def start(self) -> None:
        self.client = await self.opens()

    async def kill(self) -> None:
        assert isinstance(self.client.wire, PipeWire)
        self.client.wire.process.kill()
        await self.client.wire.process.wait()

    async def posts(self) -> list[Post]:
        shown = await self.calls("list_messages", ref=self.ref, limit=100)
        return [self._post(each) for each in shown["messages"] if each["content"]]

    async def says(self, text: str) -> None:
        await self.calls("send_message", ref=self.ref, text=text, wait_s=0)

    async def calls(self, tool: str, **arguments: Any) -> JSON:
        result = await self.client.call(tool, **arguments)
        assert not result.get("isError"), result
        found: JSON = result["structuredContent"]
        return found

    @staticmethod
    def _post(message: JSON) -> Post:
        if message["role"] != "assistant":
            return Post(message.get("author", NOTICE), message["content"])
        notes = "Stopped" if message["status"] == "cancelled" else json.dumps(message.get("tool_calls") or [])
        return Post(AGENT, message["content"], fate(notes))
