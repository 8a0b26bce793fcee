"""The page in real Chromium. Tests here are plain functions (Playwright's synchronous API), each with a person and pages of its own.

    def test_a_message_is_answered(site, mia, pages, model):
        page = pages.open(mia, "/board", phone=True, dark=True)

- `site`      the running server, one for all: `demo/offline` answers, or, in a conversation with `model=SCRIPTED`, `model`
- `new_site`  `new_site()` is a server of the test's own, to `.kill()`, `.stop()`, `.start()`, `.restart()`; 1 s, so only for that.
              `new_site(ONETHREAD_MODEL=SCRIPTED)` sets what `.env.example` names; `api_base=""` takes the scripted model away
- `mia`       somebody new; `site.person(new_name("ann"), admin=True)` makes more. What they do by HTTP: `mia.task("Buy milk")`,
              `mia.says("Hi", model=SCRIPTED)`, `mia.asks("Hi", task_id=...)`, `mia.messages(id)`, `mia.call("PATCH", "/api/...", {...})`
- `pages`     `pages.open(mia, path, phone=, dark=, reduced_motion=, ...)` gives Playwright's Page; `pages.tab(page.context, url)` one more
              beside it. At the end of the test any uncaught exception, error in the console or request to another host fails it, but for
              what `pages.allow(pattern)` named. `pages.shot(page, "name")` takes a screenshot when ONETHREAD_SHOTS names a folder
- `model`     `model.says(Reply(text=("Hel", "lo")), ...)`, `model.answers(lambda body: Reply(...))`, `model.requests`; a reply that waits
              for the test: `halting = Halting("Half", " whole"); model.says(halting.reply()); ...; halting.go_on()`

Wait by `expect(locator)` and `until(page, ...)`, never by time. Many people and tasks are on `site`: look for your own.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.conftest import chromium as program
from tests.conftest import require
from tests.page.browser import Pages, launched, running_loop
from tests.page.site import Model, Person, Site

NewSite = Callable[..., Site]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One for all tests of this process."""
    require("chromium")
    with launched(program()) as browser:
        running_loop.put_aside()
        yield browser
        running_loop.take_up()


@pytest.fixture(scope="session")
def scripted(chromium: Browser) -> Iterator[Model]:
    del chromium  # without one there is nothing to answer for
    model = Model()
    yield model
    model.close()


@pytest.fixture
def model(scripted: Model) -> Iterator[Model]:
    scripted.forget()
    yield scripted
    scripted.forget()


@pytest.fixture(scope="session")
def site(scripted: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("site"), api_base=scripted.api_base).start()
    yield running
    running.close()


@pytest.fixture
def new_site(scripted: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewSite]:
    started: list[Site] = []

    def start(**fields: Any) -> Site:
        started.append(Site(tmp_path_factory.mktemp("site"), **{"api_base": scripted.api_base, **fields}))
        return started[-1].start()

    yield start
    for each in started:
        each.close()


def new_name(start: str = "mia") -> str:
    """That nobody else has."""
    return f"{start}{next(_numbers)}"


@pytest.fixture
def mia(site: Site) -> Person:
    return site.person(new_name())


@pytest.fixture
def pages(chromium: Browser) -> Iterator[Pages]:
    opened = Pages(chromium)
    yield opened
    opened.close()
    opened.check()


@pytest.fixture(autouse=True)
def playwright_loop(chromium: Browser) -> Iterator[None]:
    """Playwright's while a test here runs, nobody's between them."""
    del chromium
    running_loop.take_up()
    yield
    running_loop.put_aside()
