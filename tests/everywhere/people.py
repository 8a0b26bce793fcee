"""What Alice and Mia do before anything else: each says who they are on a chat platform, and Mia has the task followed in Discord."""

import re

from playwright.async_api import BrowserContext

from tests.emulators import discord, slack
from tests.everywhere.world import SECONDS, Server, World, opened


async def links_by_the_private_link(person: slack.Person, channel: str, browser: BrowserContext, server: Server) -> None:
    answer = await person.slash("/link", "", channel)
    link = re.search(r"/link/[\w-]+", answer.text)
    assert link, answer
    page = await opened(browser, f"{server.url}{link[0]}")
    await page.get_by_role("button", name="Yes, link it").click()
    await page.wait_for_url("**/settings/accounts")
    await page.close()


async def links_by_a_code(person: discord.Person, on: World) -> None:
    """With the local admin."""
    code = (await on.ask("link")).strip()
    asked = await person.command("link", code=code)
    assert "will act as mia" in asked.content
    linked = await person.command("link", code=code, confirm=True)
    assert "linked with mia" in linked.content


async def follows(person: discord.Person, channel: str, ref: str) -> str:
    """The id of the thread that is made for it."""
    await person.command("task follow", at=channel, ref=ref)
    seen = await person.sees(channel, lambda messages: any(each.get("thread") for each in messages), seconds=SECONDS)
    return next(str(each["thread"]["id"]) for each in seen if each.get("thread"))
