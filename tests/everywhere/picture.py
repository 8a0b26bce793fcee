"""Makes docs/everywhere.png from the running system: one task in Slack, in Discord, on the page and in a terminal. `make picture`.

The page is a screenshot, and the terminal what tmux shows. Slack and Discord are drawn from what Onethread sent to the emulators.
"""

import asyncio
import base64
import struct
import tempfile
import zlib
from pathlib import Path

from tests.conftest import ROOT
from tests.emulators.discord import discord_running
from tests.emulators.slack import SlackEmulator, slack_running
from tests.everywhere import drawing
from tests.everywhere.people import follows, links_by_a_code, links_by_the_private_link
from tests.everywhere.surfaces import JSON, DiscordThread, PageView, Screen, SlackThread
from tests.everywhere.world import World, opened, until, world

PICTURE = ROOT / "docs" / "everywhere.png"
FOLDER = Path(__file__).parent
SCALE = 1.6
"""Of 1,000 units across: 1,600 pixels, and letters that can be read at half the size."""
PANE = {"width": 484, "height": 640}
COLUMNS, LINES = 62, 38
"""What the terminal has room for in a pane."""


async def make() -> None:
    with tempfile.TemporaryDirectory() as folder, slack_running() as address:
        slack = SlackEmulator(address)
        await slack.reset()
        async with discord_running() as discord, world(Path(folder), slack, discord, model="demo/offline") as on:
            PICTURE.write_bytes(await _picture(on, await _panes(on)))


async def _panes(on: World) -> str:
    """Something is done on each of four surfaces, and at the end a question that waits on all of them."""
    server = await on.server("one")
    await on.slack_posts_to(server)
    await on.discord.connected()
    browser = await on.member("alice", server, viewport=PANE, device_scale_factor=SCALE)
    alice, ops = await on.slack.person("alice"), await on.slack.channel("ops")
    mia, party = on.discord.person("mia"), on.discord.home.channel("party")
    await links_by_the_private_link(alice, ops, browser, server)
    await links_by_a_code(mia, on)

    await alice.slash("/task", "new Summer party", ops)
    (card,) = await on.slack.until(lambda: alice.history(ops), lambda messages: any("OT-1" in each["text"] for each in messages))
    slack = SlackThread(alice, ops, card["ts"], "alice")
    await slack.says("create a task to book the pier")
    await until(slack.posts, lambda posts: "Book the pier (todo" in posts[-1].text)
    discord = DiscordThread(mia, on.discord, await follows(mia, party, "OT-1"), "mia", skips=0)
    page = PageView(await opened(browser, f"{server.url}/tasks/OT-1"), "alice")
    terminal = Screen(lambda: on.terminal("OT-1", columns=COLUMNS, lines=LINES), "mia")
    await terminal.start()
    await until(terminal.posts, lambda posts: any("follows this in #party" in post.text for post in posts))
    await discord.says("mark OT-2 in progress")
    await until(terminal.posts, lambda posts: "is now in progress" in posts[-1].text)
    await terminal.says("create a task to hire a boat")
    await until(page.posts, lambda posts: "Hire a boat (todo" in posts[-1].text)
    await page.says("delete OT-3")
    await slack.offers("Approve")
    await discord.offers("Approve")
    await until(terminal.screen, lambda screen: "[y] approve" in screen)
    await page.page.get_by_role("button", name="Allow").wait_for()

    thread = await alice.replies(ops, card["ts"])
    panes = (
        drawing.pane("Slack", "drawn from the emulator", "slack", drawing.slack_thread("ops", thread, {alice.id: "alice"})),
        drawing.pane("Discord", "drawn from the emulator", "discord", drawing.discord_thread(on.discord, discord.thread)),
        drawing.pane("The page", "in Chromium", "page", drawing.image(await page.page.screenshot(animations="disabled"))),
        drawing.pane("The terminal", "onethread chat OT-1", "terminal", drawing.terminal(terminal.terminal.raw)),
    )
    return "".join(panes)


async def _picture(on: World, panes: str) -> bytes:
    style, script = [(FOLDER / name).read_text(encoding="utf-8") for name in ("picture.css", "picture.js")]
    context = await on.context(viewport={"width": 1000, "height": 800}, device_scale_factor=SCALE)
    page = await context.new_page()
    await page.set_content(f"<!doctype html><meta charset=utf-8><style>{style}</style><main>{panes}</main>")
    whole = await page.locator("main").screenshot(animations="disabled")
    fewer: JSON = await page.evaluate(script, drawing.address(whole))
    await context.close()
    return _png(**fewer)


def _png(width: int, height: int, palette: list[int], rows: str) -> bytes:
    """With a palette: half as large as Chromium writes it."""
    pixels = base64.b64decode(rows)
    lines = b"".join(b"\0" + pixels[begin : begin + width] for begin in range(0, len(pixels), width))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(palette)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


if __name__ == "__main__":
    asyncio.run(make())
