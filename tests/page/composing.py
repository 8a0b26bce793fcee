"""The page's place to write, as the tests reach it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from playwright.sync_api import FilePayload, Locator, Page, Route

from tests.page.browser import until

_WATCH = """text => {
    const has = query => [...document.querySelectorAll(query)].some(each => each.textContent.replace("\\n", "").includes(text));
    window.places = [];
    const look = () => {
        const now = [has(".unsent-message") && "unsent", has("article") && "stored"].filter(Boolean).join(" and ");
        if (now !== (window.places.at(-1) ?? "")) window.places.push(now);
        requestAnimationFrame(look);
    };
    look();
}"""


def watch(page: Page, text: str) -> Callable[[], list[str]]:
    """What the function gives: where that text stood from now on, whenever the page was painted."""
    page.evaluate(_WATCH, text)
    return lambda: list(page.evaluate("window.places"))


@contextmanager
def held(page: Page, pattern: str, holds: Callable[[], bool]) -> Iterator[None]:
    """A request that is made in the block goes out when that holds: the server is quicker than a browser paints."""
    asked: list[Route] = []
    page.route(pattern, lambda route: asked.append(route), times=1)  # noqa: PLW0108  # Playwright looks into the function
    yield
    until(page, lambda: bool(asked) and holds())
    asked[0].continue_()


def field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message", exact=True)


def hint(page: Page) -> Locator:
    return page.locator("#composer-hint")


def messages(page: Page) -> Locator:
    return page.get_by_role("log", name="Messages")


def chosen(page: Page) -> Locator:
    return page.get_by_role("list", name="Files to be sent").get_by_role("listitem")


def choose(page: Page, *files: tuple[str, str, bytes]) -> None:
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Attach files").click()
    choosing.value.set_files([FilePayload(name=name, mimeType=kind, buffer=data) for name, kind, data in files])
