"""The page in a browser.

Chromium, in a process of its own, opens the page with fifty conversations in its list. The *first load* is everything that it asks
for until one can write, with sizes as the browser reads them, not as they were compressed on the way; the reference is the libraries
in it, which are not ours. A conversation opened as the first page needs the chat and the Markdown parser too.

Then a model inside the server's process says 15 kB (tables, lists, code, prose) by 10 characters, 50 times a second, while the page
shows it. A *long task* is one that keeps the browser's main thread busy for more than 50 ms, so that a key is late. The main thread's
time stands beside that of a bare page that appends the same text to a `<pre>`. The server's CPU is that of its process, worker and
database included, from the post to the end; beside it the same answer that nobody follows. The last figure is the same with litellm
and a provider in another process, beside a bare litellm loop at that pace: what a server pays that asks a real model.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from core import identity
from core.access import Principal
from core.llm.client import load
from core.ports import ModelRequest, RoundEnd, TextChunk
from onethread.bootstrap import App, working
from tests.benchmarks.databases import sqlite
from tests.benchmarks.figures import Comparison, Figure, NotMeasured, Reference, Result, Target
from tests.benchmarks.provider import prose, prose_model, provider
from tests.benchmarks.serving import Clients, clients, plan, say, served
from tests.benchmarks.subject import NO_USAGE, bare_stream, ended, new_conversations, onethread, post

CHROMIUM = shutil.which("chromium")
DELTA_SECONDS = 0.02
_SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    deltas: int
    """Of 10 characters, one every 20 ms."""


FULL = Size(deltas=1_536)
QUICK = Size(deltas=100)


class Prose:
    """Says as many deltas as the model's name tells, 50 a second."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextChunk | RoundEnd, None]:
        text = prose(int(request.model.split("-")[1]))
        began = time.monotonic()
        for begin in range(0, len(text), 10):
            await asyncio.sleep(began + begin / 10 * DELTA_SECONDS - time.monotonic())
            yield TextChunk(text[begin : begin + 10])
        yield RoundEnd(text=text, tool_requests=(), finish_reason="stop", usage=NO_USAGE)

    async def count_tokens(self, request: ModelRequest) -> int:
        return 1

    async def context_window(self, model: str) -> int:
        return 128_000

    async def image_types(self, model: str) -> frozenset[str]:
        return frozenset()


async def measure(size: Size) -> Sequence[Result]:
    if CHROMIUM is None:
        return [NotMeasured(name="the page", reason="no Chromium is installed")]
    litellm = await asyncio.to_thread(load)  # as in every worker
    return [*await _in_the_browser(size), await _through_litellm(litellm, size)]


async def _in_the_browser(size: Size) -> list[Result]:
    async with AsyncExitStack() as parts:
        url = await parts.enter_async_context(sqlite())
        app = await parts.enter_async_context(onethread(url, model=Prose()))
        await parts.enter_async_context(working(app))
        address = await parts.enter_async_context(served(app))
        principal = await app.principal()
        conversations = await new_conversations(app, principal, 50)
        answered = partial(_answered, app, principal)
        await answered(conversations[1], 10)  # what a process does once
        nobody = await answered(conversations[2], size.deltas)
        asked = {"site": f"http://{address}", "cookie": await _cookie(app), "conversation": str(conversations[0]), "deltas": size.deltas}
        browser = await parts.enter_async_context(clients("tests.benchmarks.browser", asked))
        return await _results(browser, nobody, partial(answered, conversations[0], size.deltas))


async def _results(browser: Clients, nobody: float, answered: Callable[[], Awaitable[float]]) -> list[Result]:
    async with asyncio.timeout(300):
        home, chat = await browser.said(), await browser.said()
        await browser.said()  # it shows the conversation
        cpu = await answered()
        shown, bare = await browser.said(), await browser.said()
    return [
        *_loaded("first load", home, kilobytes=130, requests=14),
        *_loaded("first load of a conversation", chat),
        Figure(
            name="longest task of more than 50 ms",
            value=shown["longest"],
            unit="ms",
            reference=Reference(name="the bound", value=50),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=50),
        ),
        Figure(
            name="main thread, for each second of the answer",
            value=shown["busy"] / shown["seconds"] * 1000,
            unit="ms",
            reference=Reference(name="a page that appends to a <pre>", value=bare["busy"] / bare["seconds"] * 1000),
        ),
        Figure(
            name="the server's CPU for the answer",
            value=cpu,
            unit="s",
            reference=Reference(name="that nobody follows", value=nobody),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=1),
        ),
    ]


def _loaded(name: str, seen: Any, *, kilobytes: float | None = None, requests: int | None = None) -> list[Result]:
    return [
        Figure(
            name=f"{name}, uncompressed",
            value=seen["bytes"] / 1000,
            unit="kB",
            reference=Reference(name="the libraries in it", value=seen["vendor_bytes"] / 1000),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=kilobytes) if kilobytes else None,
        ),
        Figure(
            name=f"{name}, requests",
            value=seen["requests"],
            unit="requests",
            reference=Reference(name="the libraries in it", value=seen["vendor_requests"]),
            target=Target(comparison=Comparison.VALUE_AT_MOST, bound=requests) if requests else None,
        ),
        Figure(
            name=f"{name}, first contentful paint",
            value=seen["painted"],
            unit="ms",
            reference=Reference(name="the server's first byte", value=seen["first_byte"]),
        ),
    ]


async def _through_litellm(litellm: Any, size: Size) -> Result:
    async with provider() as api_base, sqlite() as url, onethread(url, api_base=api_base) as app, working(app):
        principal = await app.principal()
        (conversation,) = await new_conversations(app, principal, 1)
        await _answered(app, principal, conversation, 10)
        ours = await _answered(app, principal, conversation, size.deltas)
        began = time.process_time()
        async for _ in await bare_stream(litellm, api_base, prose_model(size.deltas)):
            pass
        bare = time.process_time() - began
    return Figure(name="the same through litellm", value=ours, unit="s", reference=Reference(name="bare litellm", value=bare))


async def _answered(app: App, principal: Principal, conversation: UUID, deltas: int) -> float:
    """The CPU seconds of this process for one answer."""
    began = time.process_time()
    with app.live.subscribe(size=1_000_000) as events:
        await post(app, principal, conversation, "Tell me everything.", model=prose_model(deltas))
        assert await ended(events, 1) == 0
    return time.process_time() - began


async def _cookie(app: App) -> str:
    person = await app.person()
    async with app.storage.write() as uow:
        return await identity.open_session(uow, person)


# --- the browser, in a process of its own ----------------------------------------------------------------------------

_WATCH = """
window.longest = 0;
new PerformanceObserver((list) => list.getEntries().forEach((task) => (window.longest = Math.max(window.longest, task.duration))))
  .observe({type: "longtask"});
"""
_PAINTED = """() => ({
  painted: performance.getEntriesByName("first-contentful-paint")[0].startTime,
  first_byte: performance.getEntriesByType("navigation")[0].responseStart,
})"""
_APPEND = """([text, deltas]) => new Promise((done) => {
  const shown = document.querySelector("pre");
  let number = 0;
  const timer = setInterval(() => {
    shown.append(text.slice(number * 10, ++number * 10));
    if (number === deltas) done(clearInterval(timer));
  }, 20);
})"""


def _browse(asked: dict[str, Any]) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_SWITCHES)
        cookie = {"name": "onethread_sid", "value": asked["cookie"], "url": asked["site"]}
        for path in ("/", f"/conversations/{asked['conversation']}"):
            say(_first_load(browser, cookie, asked["site"] + path))
        context = _context(browser, cookie)
        say(_streamed(context, asked))
        say(_bare(context, asked["deltas"]))
        browser.close()


def _context(browser: Any, cookie: Any) -> Any:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_cookies([cookie])
    context.add_init_script(_WATCH)
    return context


def _first_load(browser: Any, cookie: Any, address: str) -> dict[str, float]:
    context = _context(browser, cookie)
    page = context.new_page()
    got: list[Any] = []
    page.on("response", lambda response: got.append(response))  # noqa: PLW0108  # playwright marks the function
    page.goto(address)
    page.get_by_role("textbox", name="Message").wait_for()
    page.wait_for_load_state("networkidle")
    sizes = {response.url: len(response.body()) for response in got}
    libraries = [size for url, size in sizes.items() if "/vendor/" in url]
    seen = page.evaluate(_PAINTED)
    context.close()
    return {
        "requests": len(got),
        "bytes": sum(sizes.values()),
        "vendor_requests": len(libraries),
        "vendor_bytes": sum(libraries),
        **seen,
    }


def _streamed(context: Any, asked: dict[str, Any]) -> dict[str, float]:
    page = context.new_page()
    page.goto(f"{asked['site']}/conversations/{asked['conversation']}")
    page.get_by_role("textbox", name="Message").wait_for()
    page.wait_for_load_state("networkidle")
    say("ready")
    page.locator("[aria-busy=true]").wait_for(timeout=60_000)
    page.evaluate("window.longest = 0")  # what came before was its loading
    worked = _main_thread(context, page)
    began, busy = time.monotonic(), worked()
    page.get_by_text("This is the end.").wait_for(timeout=120_000)
    page.locator("[aria-busy=true]").wait_for(state="detached")
    seen = {"seconds": time.monotonic() - began, "busy": worked() - busy, "longest": page.evaluate("window.longest")}
    page.close()
    return seen


def _bare(context: Any, deltas: int) -> dict[str, float]:
    page = context.new_page()
    page.set_content("<pre style='white-space: pre-wrap'></pre>")
    worked = _main_thread(context, page)
    began, busy = time.monotonic(), worked()
    page.evaluate(_APPEND, [prose(deltas), deltas])
    return {"seconds": time.monotonic() - began, "busy": worked() - busy}


def _main_thread(context: Any, page: Any) -> Callable[[], float]:
    """Tells how many seconds the page's main thread has worked."""
    session = context.new_cdp_session(page)
    session.send("Performance.enable")

    def worked() -> float:
        return next(float(each["value"]) for each in session.send("Performance.getMetrics")["metrics"] if each["name"] == "TaskDuration")

    return worked


if __name__ == "__main__":
    _browse(plan())
