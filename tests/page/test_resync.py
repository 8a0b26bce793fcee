"""The page keeps the truth when the connection, the server or the reader fails, and beside other pages."""

import json
import re
from collections.abc import Callable

from playwright.sync_api import BrowserContext, Locator, Page, WebSocketRoute, expect

from tests.emulators.raw_provider import Reply
from tests.page.browser import Pages, until
from tests.page.conftest import NewSite, new_name
from tests.page.site import OFFLINE, SCRIPTED, Halting, Model, Person, Site

RECONNECTS = r"WebSocket connection|ERR_CONNECTION|ERR_EMPTY_RESPONSE|status of 50\d"


def text(page: Page) -> Locator:
    return page.locator(".post.reply .md").last


class Line:
    """The WebSockets of a browser's pages, to be cut, held back, and robbed of frames."""

    def __init__(self, context: BrowserContext) -> None:
        self.opened = 0
        self.lost = 0
        self.loses = ""
        """Frames of this event, or all with `*`, do not arrive, until the connection is another."""
        self.refuses = ""
        """Replies about topics that begin so say that it cannot be done."""
        self.refused = 0
        self._held: list[str | bytes] | None = None
        self._route: WebSocketRoute | None = None
        context.route_web_socket(re.compile(r"/ws\?"), self._connected)

    def cut(self) -> None:
        assert self._route
        self._route.close(code=1011)

    def hold(self) -> None:
        self._held = []

    def let_go(self) -> None:
        held, self._held = self._held or [], None
        for each in held:
            assert self._route
            self._route.send(each)

    def _connected(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        self._route, self.loses = route, ""
        self.opened += 1
        route.on_message(server.send)
        server.on_message(lambda message: self._received(route, message))

    def _received(self, route: WebSocketRoute, message: str | bytes) -> None:
        frame = json.loads(message)
        if self.loses in ("*", frame["event"]):
            self.lost += 1
        elif self.refuses and frame["event"] == "reply" and frame["topic"].startswith(self.refuses):
            self.refused += 1
            refusal = {"error_code": "SERVICE_UNAVAILABLE", "detail": "Not now."}
            route.send(json.dumps({**frame, "payload": {"status": "error", "response": refusal}}))
        elif self._held is not None:
            self._held.append(message)
        else:
            route.send(message)


def routed(pages: Pages, who: Person, path: str) -> tuple[Page, Line]:
    context = pages.context(who)
    line = Line(context)
    return pages.tab(context, who.site.url + path), line


def lose_one(page: Page, line: Line, event: str, cause: Callable[[], None]) -> None:
    """Lets a frame of that event be lost, which `cause` makes the server send."""
    line.loses = event
    cause()
    until(page, lambda: line.lost > 0)
    line.loses = ""


def test_a_connection_lost_in_mid_reply_comes_back_with_all_of_it(mia: Person, pages: Pages, model: Model) -> None:
    halting = Halting("One", " two", " three.")
    model.says(halting.reply())
    posted = mia.says("Go", model=SCRIPTED)
    page, line = routed(pages, mia, f"/conversations/{posted['conversation_id']}")
    expect(text(page)).to_have_text("One", timeout=30_000)
    line.cut()
    halting.go_on()
    expect(text(page)).to_have_text("One two")
    halting.go_on()
    expect(text(page)).to_have_text("One two three.")
    expect(page.locator(".post")).to_have_count(2)
    assert line.opened == 2


def test_what_was_loaded_by_scrolling_up_stays_and_is_true_after_a_resync(site: Site, mia: Person, pages: Pages) -> None:
    posted = mia.asks("The first of them")
    conversation = {"conversation_id": posted["conversation_id"]}
    for number in range(28):
        mia.asks(f"Say {number}", **conversation)
    page, line = routed(pages, mia, f"/conversations/{posted['conversation_id']}#1")
    expect(page.locator("#m1")).to_be_in_viewport()
    change = ("PATCH", f"/api/messages/{posted['user_message']['id']}", {"content": "Changed meanwhile"})
    lose_one(page, line, "message_changed", lambda: mia.call(*change))
    expect(page.locator("#m1 .md")).to_have_text("The first of them")
    line.cut()
    expect(page.locator("#m1 .md")).to_have_text("Changed meanwhile")
    expect(page.locator("#m1")).to_be_in_viewport()
    expect(page.locator(".post")).to_have_count(58)

    line.refuses = "conversation:"
    line.cut()
    until(page, lambda: line.refused > 0)
    line.refuses = ""
    mia.call("PATCH", "/api/conversations/" + posted["conversation_id"], {"title": "Heard of in the list"})
    expect(page.locator(".row", has_text="Heard of in the list")).to_be_visible()
    expect(page.locator(".post")).to_have_count(58)  # what was there stays, and where one writes


def test_a_gap_in_the_text_is_mended_by_joining_again(mia: Person, pages: Pages, model: Model) -> None:
    halting = Halting("One", " two", " three", " four.")
    model.says(halting.reply())
    posted = mia.says("Go", model=SCRIPTED)
    page, line = routed(pages, mia, f"/conversations/{posted['conversation_id']}")
    expect(text(page)).to_have_text("One", timeout=30_000)
    lose_one(page, line, "llm_delta", halting.go_on)
    expect(text(page)).to_have_text("One")
    halting.go_on()
    expect(text(page)).to_have_text("One two three")
    halting.go_on()
    expect(text(page)).to_have_text("One two three four.")


def test_a_server_killed_in_mid_reply_goes_on_when_it_is_back(new_site: NewSite, pages: Pages, model: Model) -> None:
    site = new_site()
    mia = site.person("mia")
    halting = Halting("One", " two")
    model.says(halting.reply(), Reply(text=("One two three.",)))
    posted = mia.says("Go", model=SCRIPTED)
    page = pages.open(mia, f"/conversations/{posted['conversation_id']}")
    expect(text(page)).to_have_text("One", timeout=30_000)
    pages.allow(RECONNECTS)
    site.kill()
    expect(page.get_by_text("Not connected.")).to_be_visible()
    expect(text(page)).to_have_text("One")
    pages.shot(page, "chat-offline")
    site.start()
    expect(text(page)).to_have_text("One two three.", timeout=90_000)
    expect(page.get_by_text("Not connected.")).to_have_count(0)
    expect(page.locator(".post")).to_have_count(2)


def test_two_pages_side_by_side_show_the_same(site: Site, mia: Person, pages: Pages, model: Model) -> None:
    task = mia.task("Together")
    ann = site.person(new_name("ann"))
    one, two = pages.open(mia, f"/tasks/{task['ref']}"), pages.open(ann, f"/tasks/{task['ref']}")
    halting = Halting("Half", " whole")
    model.says(halting.reply())
    posted = mia.says("Begin", task_id=task["ref"], model=SCRIPTED)
    for page in (one, two):
        expect(text(page)).to_have_text("Half", timeout=30_000)
    until(one, lambda: mia.messages(posted["conversation_id"])[-1]["content"] == "Half")  # what is not stored yet, a stop may lose
    two.get_by_role("button", name="Stop the answer").click()
    for page in (one, two):
        expect(page.locator(".post").last).to_contain_text("Stopped here.")
    mia.call("DELETE", f"/api/messages/{posted['user_message']['id']}")
    for page in (one, two):
        expect(page.locator(".post").first).to_contain_text(f"{mia.name} deleted this message.")
    until(one, lambda: one.locator(".post .md").all_inner_texts() == two.locator(".post .md").all_inner_texts())


def test_a_slow_reader_has_the_whole_text_in_the_end(mia: Person, pages: Pages, model: Model) -> None:
    posted = mia.asks("hello")
    page, line = routed(pages, mia, f"/conversations/{posted['conversation_id']}")
    expect(page.locator(".post")).to_have_count(2)
    line.hold()
    model.says(Reply(text=(*(f"Word{number} " for number in range(400)), "End."), gap_seconds=0.002))
    mia.asks("Much", conversation_id=posted["conversation_id"], model=SCRIPTED)
    expect(page.locator(".post")).to_have_count(2)
    line.let_go()
    expect(text(page)).to_have_text(re.compile(r"^Word0 Word1 .* Word399 End\.$"))
    expect(page.locator(".post")).to_have_count(4)


def test_a_stranger_sees_nothing_and_is_told_nothing(site: Site, mia: Person, pages: Pages) -> None:
    posted = mia.asks("My secret plan", model=OFFLINE)
    stranger = site.person(new_name("eve"))
    page = pages.open(stranger, f"/conversations/{posted['conversation_id']}")
    expect(page.get_by_role("heading", name="There is no such conversation")).to_be_visible()
    mia.asks("More of the secret plan", conversation_id=posted["conversation_id"])
    stranger.task("Hers, which the page is told after that")
    expect(page.locator(".row-title").get_by_text("Hers, which the page is told after that")).to_be_visible()
    expect(page.get_by_text("secret")).to_have_count(0)
    expect(page.locator(".post")).to_have_count(0)
