"""Chromium, and the pages in it that a test opens. Whatever goes wrong in a page unsaid fails the test: see `Pages`."""

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.page.site import COOKIE, Person

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
_WITHOUT = [
    # For each new context they would start a process and load two pages of the browser's own, which takes more than ours does.
    *("WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup", "PreloadTopChromeWebUI", "SpareRendererForSitePerProcess"),
    # What Playwright asks for itself, as far as it matters here: of several such lists Chromium takes the last one.
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades", "HttpsFirstBalancedModeAutoEnable"),
    *("LensOverlay", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning", "AvoidCorsURLLoaderRestartOnRedirect"),
    *("OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch"),
]
"""Features of Chromium."""
ARGUMENTS = [
    f"--disable-features={','.join(_WITHOUT)}",
    "--disable-gpu",
    "--disable-gpu-rasterization",
    "--in-process-gpu",
    "--disable-software-rasterizer",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing leaves this machine, whatever a page asks for
]
_TIMEOUT = 30_000
"""Milliseconds; other tests run at the same time."""
_SHOTS = "ONETHREAD_SHOTS"
"""Names a folder for screenshots."""
expect.set_options(timeout=_TIMEOUT)


class RunningLoop:
    """Playwright's event loop, which between its calls counts as running in this thread, where other tests want to run others."""

    _loop: asyncio.AbstractEventLoop | None = None

    def put_aside(self) -> None:
        self._loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)

    def take_up(self) -> None:
        asyncio._set_running_loop(self._loop)


running_loop = RunningLoop()


@contextmanager
def launched(program: str | None) -> Iterator[Browser]:
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS, *root])
        yield browser
        browser.close()


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Waits for what `expect` cannot see. `page.wait_for_function` cannot be used: it needs eval, which the page's policy forbids."""
    for _ in range(_TIMEOUT // 20):
        if holds():
            return
        page.wait_for_timeout(20)  # lets Playwright hear what happens meanwhile
    raise AssertionError("it did not come to pass")


class Pages:
    """Opens pages, and notes as trouble what nobody should see there: an exception that nobody caught, an error in the console (a violation
    of the Content-Security-Policy is one), a request to another host. `check()` fails for what no pattern of `allow()` matches.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._allowed: list[re.Pattern[str]] = []
        self._hosts: set[str] = set()
        self.trouble: list[str] = []

    def open(self, who: Person, path: str = "/", *, phone: bool = False, dark: bool = False, **options: Any) -> Page:
        """A page of a browser of their own, signed in. Options are those of Playwright's `new_context`."""
        context = self.context(who, phone=phone, dark=dark, **options)
        return self.tab(context, who.site.url + path)

    def context(self, who: Person | None = None, *, phone: bool = False, dark: bool = False, **options: Any) -> BrowserContext:
        """A browser of its own, without a page yet."""
        shape = {"viewport": PHONE, "is_mobile": True, "has_touch": True, "device_scale_factor": 2} if phone else {"viewport": DESKTOP}
        context = self._browser.new_context(**{**shape, "color_scheme": "dark" if dark else "light", **options})
        context.set_default_timeout(_TIMEOUT)
        context.on("page", self._watch)
        context.on("request", lambda request: self._asked(request.url))
        self._contexts.append(context)
        if who:
            self.sign_in(context, who)
        return context

    def sign_in(self, context: BrowserContext, who: Person) -> None:
        context.add_cookies([{"name": COOKIE, "value": who.secret, "url": who.site.url, "httpOnly": True, "sameSite": "Lax"}])

    def tab(self, context: BrowserContext, url: str) -> Page:
        """One more page there. Its site's host is no other host."""
        self._hosts.add(urlsplit(url).netloc)
        page = context.new_page()
        page.goto(url)
        return page

    def allow(self, pattern: str) -> None:
        """Trouble that a test means to make, such as `r"status of 409"` for what the console says of a refused request."""
        self._allowed.append(re.compile(pattern))

    def shot(self, page: Page, name: str, *, full_page: bool = False) -> None:
        """A screenshot into the folder that ONETHREAD_SHOTS names; nothing where it names none."""
        if folder := os.environ.get(_SHOTS):
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=full_page)

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def check(self) -> None:
        unexpected = [each for each in self.trouble if not any(pattern.search(each) for pattern in self._allowed)]
        assert unexpected == [], "\n".join(["the pages made trouble:", *unexpected])

    def _watch(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.trouble.append(f"uncaught: {error.stack or error.message}"))
        page.on("crash", lambda _: self.trouble.append("the page crashed"))
        page.on("websocket", lambda socket: self._asked(socket.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert") or "Trusted" in message.text:
            self.trouble.append(f"console: {message.text} ({message.location['url']})")

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc not in self._hosts:
            self.trouble.append(f"request to another host: {url[:200]}")
