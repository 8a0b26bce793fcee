"""When the connection or the session ends: what is said, what is kept, and how it goes on."""

import re

from playwright.sync_api import Page, WebSocketRoute, expect

from tests.page.browser import Pages
from tests.page.conftest import new_name
from tests.page.site import Person


def search(page: Page) -> None:
    """Asks the server for something."""
    page.keyboard.press("Control+k")
    page.get_by_role("dialog", name="Search").get_by_role("combobox").fill("anything")


def draft(page: Page, text: str) -> None:
    page.get_by_role("main").get_by_role("textbox").fill(text)


def test_lost_connection_is_told_and_comes_back_with_what_was_missed(mia: Person, pages: Pages) -> None:
    pages.allow("WebSocket")
    connected: list[WebSocketRoute] = []
    reachable = [True]

    def pass_on(socket: WebSocketRoute) -> None:
        connected.append(socket)
        if reachable[0]:
            socket.connect_to_server()
        else:
            socket.on_message(lambda _: socket.close(code=1013))  # it opens, and is closed before anything is answered

    context = pages.context(mia)
    context.route_web_socket(re.compile(r"/ws\?"), pass_on)
    page = pages.tab(context, mia.site.url + "/")
    page.get_by_role("button", name="Chats").click()
    expect(page.get_by_text("No chats here.")).to_be_visible()

    reachable[0] = False
    connected[-1].close(code=1012)
    banner = page.locator(".connection")
    expect(banner).to_contain_text("Not connected.")
    expect(banner).to_contain_text(re.compile(r"Next try in \d+ s"))
    mia.asks("Said meanwhile")
    expect(page.locator(".row")).to_have_count(0)

    reachable[0] = True
    left = (
        "import('/static/socket.js').then(({ nextAttempt }) => (document.querySelector('.connection .button').click(), nextAttempt.value))"
    )
    assert page.evaluate(left) == 0  # it tries at once
    expect(page.locator(".row-title")).to_have_text(["Said meanwhile"])
    expect(banner).to_be_hidden()


def test_connection_that_died_without_a_word_is_noticed_and_made_anew(mia: Person, pages: Pages) -> None:
    connected: list[WebSocketRoute] = []
    dead: set[WebSocketRoute] = set()

    def pass_on(socket: WebSocketRoute) -> None:
        connected.append(socket)
        server = socket.connect_to_server()
        socket.on_message(lambda text: None if socket in dead else server.send(text))
        server.on_message(lambda text: None if socket in dead else socket.send(text))

    context = pages.context(mia)
    context.route_web_socket(re.compile(r"/ws\?"), pass_on)
    page = pages.tab(context, mia.site.url + "/")
    page.get_by_role("button", name="Chats").click()
    expect(page.get_by_text("No chats here.")).to_be_visible()
    dead.add(connected[0])
    mia.asks("Said meanwhile")
    page.evaluate("dispatchEvent(new Event('online'))")  # as when the computer wakes up
    expect(page.locator(".row-title")).to_have_text(["Said meanwhile"])
    assert len(connected) == 2


def test_joins_that_were_given_up_do_not_end_the_connection(mia: Person, pages: Pages) -> None:
    chat, on_the_board = mia.asks("Hello")["conversation_id"], mia.task(f"Of {mia.name}")["ref"]
    connected: list[WebSocketRoute] = []
    lost: list[str | bytes] = []
    """The reply to the join."""

    def pass_on(socket: WebSocketRoute) -> None:
        connected.append(socket)
        server = socket.connect_to_server()
        socket.on_message(server.send)
        server.on_message(lambda text: lost.append(text) if f"conversation:{chat}" in str(text) and not lost else socket.send(text))

    context = pages.context(mia)
    context.clock.install()
    context.route_web_socket(re.compile(r"/ws\?"), pass_on)
    page = pages.tab(context, mia.site.url + "/")
    page.locator(".row").filter(has_text="Hello").click()
    expect(page.get_by_role("status", name="Loading the conversation")).to_be_visible()
    page.get_by_role("link", name="Board").click()
    expect(page.locator(".task-card", has_text=on_the_board)).to_be_visible()  # this topic's join is answered
    page.clock.run_for(21000)
    mia.asks("Still connected")
    expect(page.locator(".row").filter(has_text="Still connected")).to_be_visible()
    assert len(connected) == 1


def test_ended_session_is_told_and_goes_on_after_signing_in(mia: Person, pages: Pages) -> None:
    pages.allow("401")
    page = pages.open(mia, "/")
    expect(page.locator(".thread-list")).to_be_visible()
    draft(page, "Half a thought")
    mia.call("POST", "/api/auth/sign-out-everywhere")

    search(page)
    ended = page.get_by_role("dialog", name="You are signed out")
    expect(ended).to_be_visible()
    page.keyboard.press("Escape")
    expect(ended).to_be_visible()
    expect(ended.get_by_role("link", name="Sign in in a new tab")).to_have_attribute("href", "/login")
    expect(ended.get_by_role("link", name="Sign in here")).to_have_attribute("href", "/login?next=%2F")
    ended.get_by_role("button", name="I am signed in again").click()
    expect(ended.get_by_role("alert")).to_have_text("You are not signed in yet.")

    again = mia.site.sign_in_again(mia)
    pages.sign_in(page.context, again)
    page.evaluate("dispatchEvent(new Event('focus'))")  # as when one comes back from the other tab
    expect(ended).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.get_by_role("main").get_by_role("textbox")).to_have_value("Half a thought")
    again.asks("Live again")
    expect(page.locator(".row-title").filter(has_text="Live again")).to_be_visible()


def test_draft_of_an_ended_session_is_there_after_signing_in_here(mia: Person, pages: Pages) -> None:
    pages.allow("401")
    page = pages.open(mia, "/")
    draft(page, "Half a thought")
    mia.call("POST", "/api/auth/sign-out-everywhere")
    page.reload()
    expect(page).to_have_url(re.compile("/login"))

    pages.sign_in(page.context, mia.site.sign_in_again(mia))
    page.goto(mia.site.url + "/")
    expect(page.get_by_role("main").get_by_role("textbox")).to_have_value("Half a thought")


def test_somebody_else_who_signs_in_gets_a_page_of_their_own(mia: Person, pages: Pages) -> None:
    pages.allow("401")
    mia.asks("A secret of mine")
    page = pages.open(mia, "/")
    expect(page.locator(".row").first).to_be_visible()
    draft(page, "Only for me")
    mia.call("POST", "/api/auth/sign-out-everywhere")
    search(page)
    ended = page.get_by_role("dialog", name="You are signed out")
    expect(ended).to_be_visible()

    ann = mia.site.person(new_name("ann"))
    pages.sign_in(page.context, ann)
    ended.get_by_role("button", name="I am signed in again").click()
    expect(page.get_by_role("heading", name=f"What should be done, {ann.name}?")).to_be_visible()
    expect(page.get_by_role("main").get_by_role("textbox")).to_have_value("")
    expect(page.get_by_text("A secret of mine")).to_have_count(0)


def test_page_left_open_becomes_that_of_whoever_signed_in_since(mia: Person, pages: Pages) -> None:
    pages.allow("401")
    tom = mia.site.person(new_name("tom"))
    page = pages.open(mia, "/")
    expect(page.locator(".thread-list")).to_be_visible()
    pages.sign_in(page.context, tom)
    page.evaluate("void import('/static/api.js').then(({ post }) => post('/tasks', { title: 'Not his' }).catch(() => {}))")
    expect(page.get_by_role("button", name=f"{tom.name}: ")).to_be_visible()
    assert "Not his" not in [task["title"] for task in tom.call("GET", "/api/tasks")["tasks"]]

    pages.sign_in(page.context, mia.site.sign_in_again(mia))
    pages.tab(page.context, mia.site.url + "/")
    expect(page.get_by_role("button", name=f"{mia.name}: ")).to_be_visible()  # at once, unasked
