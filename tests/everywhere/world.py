"""Onethread with everything around it: servers that can be killed, a workspace in Slack, a server in Discord, a browser, terminals, IDEs.

All of it runs within one event loop and on one database. Nothing waits by time: see `until`.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

from tests import forking
from tests.conftest import chromium
from tests.e2e.conftest import Terminal, Terminals
from tests.emulators.discord import DiscordEmulator
from tests.emulators.slack import SlackEmulator
from tests.mcp_client import McpClient, PipeWire
from tests.page.browser import ARGUMENTS
from tests.page.site import COOKIE
from tests.serving import Served, environment, served

SECONDS = 40.0
"""Within which everything comes to pass that needs no process to be missed first."""
LEASE_SECONDS = 90.0
"""Within which another process acts for a chat platform where one was killed that did: its lease lasts for 30."""
SMALL: ViewportSize = {"width": 800, "height": 500}
"""What nobody looks at need not be drawn large."""
PASSWORD = "correct horse"
_LOOK_SECONDS = 0.2
Seen = TypeVar("Seen")


async def until(look: Callable[[], Awaitable[Seen]], holds: Callable[[Seen], object], *, seconds: float = SECONDS) -> Seen:
    """What `look` gives, as soon as it holds. AssertionError with what was seen last after that."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds(seen := await look()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s, but {seen}"
        await asyncio.sleep(_LOOK_SECONDS)
    return seen


@dataclass(slots=True)
class Server:
    """A process with the web, the chat platforms and perhaps a worker. It keeps its port when it is started again."""

    world: "World"
    name: str
    arguments: tuple[str, ...] = ()
    site: Served = field(init=False)
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)
    _port: int = 0
    _starts: int = 0

    async def start(self) -> None:
        """Until it serves both platforms."""
        self._starts += 1
        name = f"{self.name}-{self._starts}"
        variables: Any = self.world.tokens
        started = served(self.world.data_dir, *self.arguments, port=self._port, name=name, **variables)
        self.site = await self._open.enter_async_context(started)
        self._port = self.site.port
        async with asyncio.timeout(SECONDS):
            for platform in ("slack.serving", "discord.serving"):
                await self.site.has_logged(platform, times=1)

    async def kill(self) -> None:
        self.site.process.kill()
        await self.site.process.wait()
        await self._open.aclose()

    async def close(self) -> None:
        await self._open.aclose()

    @property
    def url(self) -> str:
        return self.site.url

    @property
    def cookie(self) -> str:
        """Of the local admin, who came by its link."""
        return str(self.site.browser.cookies[COOKIE])


@dataclass(slots=True)
class Worker:
    """A process that only answers."""

    world: "World"
    process: forking.Process = field(init=False)

    async def start(self) -> None:
        self.process = await self.world.run("worker")

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def close(self) -> None:
        if self.process.returncode is None:
            await self.kill()


@dataclass(slots=True, kw_only=True)
class World:
    folder: Path
    slack: SlackEmulator
    discord: DiscordEmulator
    terminals: Terminals
    closing: AsyncExitStack
    trouble: list[str] = field(default_factory=list)
    """Exceptions that nobody caught in a page."""
    _browser: Browser | None = None

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def tokens(self) -> Mapping[str, str]:
        slack, discord = self.slack, self.discord
        return {
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_SIGNING_SECRET": slack.signing_secret,
            "ONETHREAD_SLACK_API_URL": slack.url,
            "DISCORD_TOKEN": discord.token,
            "ONETHREAD_DISCORD_API_URL": discord.api_url,
            "ONETHREAD_DISCORD_GATEWAY_URL": discord.gateway_url,
        }

    async def run(self, *arguments: str, user: str = "mia", **streams: int) -> forking.Process:
        """A command, begun."""
        with (self.folder / f"{arguments[0]}.log").open("a", encoding="utf-8") as log:
            environ = environment(self.data_dir, ONETHREAD_LOG_FORMAT="json", ONETHREAD_USER=user)
            return await forking.start(arguments, env=environ, cwd=self.folder, stderr=log, **streams)

    async def ask(self, *arguments: str) -> str:
        """What a command prints that succeeds."""
        process = await self.run(*arguments, stdout=asyncio.subprocess.PIPE)
        assert process.stdout
        said = (await process.stdout.read()).decode()
        assert await process.wait() == 0, said
        return said

    async def server(self, name: str, *arguments: str) -> Server:
        server = Server(self, name, arguments)
        self.closing.push_async_callback(server.close)
        await server.start()
        return server

    async def worker(self) -> Worker:
        worker = Worker(self)
        await worker.start()
        self.closing.push_async_callback(worker.close)
        return worker

    async def slack_posts_to(self, server: Server) -> None:
        """As the balancer does that Slack's requests come to."""
        await self.slack.connect(f"{server.url}/slack/events")

    # --- people ---

    async def admin(self, server: Server) -> BrowserContext:
        """The browser of the local admin."""
        context = await self.context()
        cookie = {"name": COOKIE, "value": server.cookie, "url": server.url, "httpOnly": True, "sameSite": "Lax"}
        await context.add_cookies([cookie])  # type: ignore[list-item]  # a TypedDict
        return context

    async def member(self, name: str, server: Server, **options: Any) -> BrowserContext:
        """The browser of somebody new, who sets a password by the link that an admin gave them."""
        invited = re.search(r"/welcome\?code=\S+", await self.ask("user", "add", name))
        assert invited
        context = await self.context(**options)
        page = await context.new_page()
        await page.goto(f"{server.url}{invited[0]}")
        for label in ("Your new password", "The same again"):
            await page.get_by_label(label).fill(PASSWORD)
        await page.get_by_role("button", name="Set the password and sign in").click()
        await page.get_by_role("main").wait_for()
        await page.close()
        return context

    async def context(self, **options: Any) -> BrowserContext:
        """A browser of its own, in which nobody is signed in. The first one starts Chromium."""
        if self._browser is None:
            root = ["--no-sandbox"] if os.geteuid() == 0 else []
            playwright = await self.closing.enter_async_context(async_playwright())
            self._browser = await playwright.chromium.launch(executable_path=chromium(), args=[*ARGUMENTS, *root])
            self.closing.push_async_callback(self._browser.close)
        context = await self._browser.new_context(**{"viewport": SMALL, "reduced_motion": "reduce", **options})
        context.set_default_timeout(SECONDS * 1000)
        context.on("weberror", lambda error: self.trouble.append(error.error.stack or error.error.message))
        return context

    # --- surfaces that are processes of their own ---

    def terminal(self, *arguments: str, columns: int = 120, lines: int = 40) -> Terminal:
        return self.terminals.open("chat", *arguments, columns=columns, lines=lines, program=forking.program())

    async def ide(self) -> McpClient:
        process = await self.run("mcp", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        self.closing.push_async_callback(_ended, process)
        return await McpClient(PipeWire(process)).start()


@asynccontextmanager
async def world(folder: Path, slack: SlackEmulator, discord: DiscordEmulator, **settings: str) -> AsyncIterator[World]:
    """Nothing runs there yet. Mia is the admin who sits at this machine; `settings` are further ones of onethread.toml."""
    data_dir = folder / "data"
    data_dir.mkdir()
    settings = {"user": "mia", **settings}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
    (data_dir / "onethread.toml").write_text("".join(lines), encoding="utf-8")
    terminals = Terminals(data_dir)
    async with AsyncExitStack() as closing:
        closing.callback(terminals.close)
        on = World(folder=folder, slack=slack, discord=discord, terminals=terminals, closing=closing)
        await on.ask("user", "add", "mia", "--admin")
        yield on
        assert on.trouble == []


async def _ended(process: forking.Process) -> None:
    process.kill()
    await process.wait()


async def opened(context: BrowserContext, address: str) -> Page:
    page = await context.new_page()
    await page.goto(address)
    return page
