"""The board: what stands on it, how a card is moved, and what happens when somebody else moves it, too."""

import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

from tests.page.browser import Pages
from tests.page.conftest import NewSite, new_name
from tests.page.site import JSON, SCRIPTED, Halting, Model, Person, Site

_numbers = itertools.count(1)
_WATCH_CARDS = """() => {
    const count = () => document.querySelectorAll(".task-card[data-task]").length;
    window.least = count();
    const look = () => (window.least = Math.min(window.least, count()));
    new MutationObserver(look).observe(document.querySelector(".board"), {childList: true, subtree: true});
}"""
"""How few cards stood on the board at any time, in `window.least`."""


def a_word() -> str:
    """That stands in nobody else's task."""
    return f"word{next(_numbers)}x"


def column(page: Page, status: str) -> Locator:
    return page.locator(f'.column[data-status="{status}"]')


def cards(page: Page, status: str) -> Locator:
    return column(page, status).locator(".task-card[data-task]")


def card(page: Page, task: JSON, status: str = "") -> Locator:
    place = column(page, status) if status else page
    return place.locator(f'[data-task="{task["id"]}"]')


def board_of(pages: Pages, who: Person, word: str, **options: Any) -> Page:
    """A board that shows only the tasks with this word."""
    who.task("Another")  # without any task there would be nothing to filter
    page = pages.open(who, "/board", **options)
    page.get_by_role("search", name="Filter the tasks").get_by_role("searchbox").fill(word)
    return page


def day(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


def status_of(who: Person, task: JSON, page: Page) -> str:
    """As the server has it, once it has what the page has."""
    expect(card(page, task)).to_have_attribute("aria-busy", "false")
    return str(who.call("GET", f"/api/tasks/{task['ref']}")["status"])


def test_tasks_stand_in_columns_with_what_matters_of_them(site: Site, mia: Person, pages: Pages) -> None:
    word = a_word()
    other = site.person(new_name("ann"))
    late = mia.task(f"{word} late", priority="high", due_at=day(-3), assignee=mia.name, labels=["one", "two", "three", "four"])
    urgent = mia.task(f"{word} urgent", priority="urgent", due_at=day(3), assignee=other.name, labels=["billing"])
    plain = mia.task(f"{word} plain <b>text</b>", status="in_review", description=f"{word} elsewhere")
    gone = mia.task(f"{word} gone", status="cancelled", due_at=day(-9))
    finished = [mia.task(f"{word} done {number}", status="done") for number in range(16)]
    page = board_of(pages, mia, word)

    expect(cards(page, "todo")).to_have_count(2)
    expect(cards(page, "todo").nth(0)).to_have_attribute("data-task", urgent["id"])  # the most urgent first
    shown = card(page, late, "todo")
    expect(shown).to_contain_text(late["ref"])
    expect(shown).to_contain_text(f"Assigned to {mia.name}")
    expect(shown.locator(".due")).to_contain_text("Overdue:")
    expect(shown.locator(".label-chip")).to_have_count(3)
    expect(shown.get_by_text("+1", exact=True)).to_have_attribute("title", "four")
    expect(card(page, urgent).locator(".due")).not_to_contain_text("Overdue")
    expect(card(page, plain, "in_review")).to_contain_text("plain <b>text</b>")
    # What is finished is folded to its newest, what was cancelled altogether.
    expect(column(page, "done").locator(".column-count")).to_have_text("16")
    expect(cards(page, "done")).to_have_count(15)
    expect(cards(page, "done").first).to_have_attribute("data-task", finished[-1]["id"])
    page.get_by_role("button", name="Show more (1)").click()
    expect(cards(page, "done")).to_have_count(16)
    expect(column(page, "cancelled").locator(".column-count")).to_have_text("1")
    expect(cards(page, "cancelled")).to_have_count(0)
    page.get_by_role("button", name=re.compile("^Cancelled")).click()
    expect(card(page, gone, "cancelled").locator(".due")).not_to_contain_text("Overdue")
    pages.shot(page, "board")

    def filtered(name: str, choice: str, *left: JSON) -> None:
        page.get_by_label(name, exact=True).select_option(choice)
        expect(page.locator(".task-card[data-task]")).to_have_count(len(left))
        for task in left:
            expect(card(page, task)).to_be_visible()
        page.get_by_role("search", name="Filter the tasks").get_by_role("button", name="Clear").click()
        page.get_by_role("searchbox", name=re.compile("Words in ref")).fill(word)

    filtered("Assignee", "Me", late)
    filtered("Priority", "Urgent", urgent)
    filtered("Label", "billing", urgent)
    filtered("Due", "Overdue", late)
    filtered("Due", "Due in a week", late, urgent)
    page.get_by_role("searchbox", name=re.compile("Words in ref")).fill(f"{word} ELSEWHERE")
    expect(page.locator(".task-card[data-task]")).to_have_count(1)
    page.get_by_role("searchbox", name=re.compile("Words in ref")).fill(f"{word} nowhere")
    expect(page.get_by_text("No task is like that.")).to_be_visible()
    page.get_by_role("button", name="Clear the filters").click()
    page.get_by_role("searchbox", name=re.compile("Words in ref")).fill(word)
    # What was folded stays so in this browser, and a card opens the task's conversation.
    page.reload()
    expect(page.get_by_role("button", name=re.compile("^Cancelled"))).to_have_attribute("aria-expanded", "true")
    page.get_by_role("searchbox", name=re.compile("Words in ref")).fill(word)
    card(page, plain).click()
    expect(page).to_have_url(re.compile(f"/tasks/{plain['ref']}$"))
    expect(page.get_by_role("heading", name="plain <b>text</b>").first).to_be_visible()


def test_a_card_is_moved_with_the_mouse_by_keys_and_by_its_menu(mia: Person, pages: Pages) -> None:
    word = a_word()
    tasks = [mia.task(f"{word} {name}") for name in ("third", "second", "first")]
    first, second, third = reversed(tasks)
    page = board_of(pages, mia, word)
    beside = pages.tab(page.context, page.url)
    beside.get_by_role("searchbox", name=re.compile("Words in ref")).fill(word)
    expect(cards(beside, "todo")).to_have_count(3)

    # The mouse.
    card(page, third).drag_to(column(page, "in_review"))
    expect(card(page, third, "in_review")).to_be_visible()
    expect(card(beside, third, "in_review")).to_be_visible()
    assert status_of(mia, third, page) == "in_review"

    # Keys: one card is a stop of Tab, arrows lead to the others, Shift with an arrow takes the card along.
    expect(page.locator(".card-title[tabindex='0']")).to_have_count(1)
    card(page, first).locator(".card-title").focus()
    page.keyboard.press("ArrowDown")
    expect(card(page, second).locator(".card-title")).to_be_focused()
    page.keyboard.press("Shift+ArrowRight")
    expect(card(page, second, "in_progress").locator(".card-title")).to_be_focused()
    expect(page.locator("#announcer")).to_have_text(f"{second['ref']} moved to In progress.")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(card(page, second, "done").locator(".card-title")).to_be_focused()
    expect(card(beside, second, "done")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(card(page, third).locator(".card-title")).to_be_focused()
    page.keyboard.press("ArrowLeft")  # past the empty column
    expect(card(page, first).locator(".card-title")).to_be_focused()
    expect(page.locator(".toast")).to_have_count(0)
    assert status_of(mia, second, page) == "done"

    # The menu, by keys; the focus stays with the card.
    page.keyboard.press("m")
    expect(page.get_by_role("menuitemradio", name="To do")).to_be_focused()
    pages.shot(page, "board-menu")
    page.keyboard.press("Escape")
    expect(page.get_by_role("menuitemradio", name="To do")).to_be_hidden()
    expect(card(page, first).get_by_role("button")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(card(page, first, "in_review").locator(".card-title")).to_be_focused()
    expect(card(beside, first, "in_review")).to_be_visible()
    assert status_of(mia, first, page) == "in_review"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/tasks/{first['ref']}$"))


def test_a_move_that_meets_another_is_told_and_not_made(mia: Person, pages: Pages) -> None:
    word = a_word()
    task, other, lost = (mia.task(f"{word} {name}") for name in ("both", "beside", "away"))
    page = board_of(pages, mia, word)
    expect(cards(page, "todo")).to_have_count(3)
    pages.allow("status of 409")
    pages.allow("ERR_INTERNET_DISCONNECTED|ERR_FAILED")

    def meanwhile(first: JSON, **fields: Any) -> None:
        """Somebody changes the task while the page's own change is on its way."""

        def change(route: Route) -> None:
            mia.call("PATCH", f"/api/tasks/{first['ref']}", fields)
            route.continue_()

        page.route("**/api/tasks/*", change, times=1)

    meanwhile(task, status="done")
    card(page, task).locator(".card-title").focus()
    page.keyboard.press("Shift+ArrowRight")
    expect(page.get_by_role("alert")).to_contain_text(f"Somebody else changed {task['ref']} meanwhile. It is in “Done” now.")
    expect(card(page, task, "done").locator(".card-title")).to_be_focused()
    assert status_of(mia, task, page) == "done"
    pages.shot(page, "board-conflict")
    page.get_by_role("button", name="Dismiss").click()

    # What was changed beside it stays, and the move is made.
    meanwhile(other, title=f"{word} renamed", priority="urgent")
    card(page, other).locator(".card-title").focus()
    page.keyboard.press("Shift+ArrowRight")
    expect(card(page, other, "in_progress")).to_contain_text(f"{word} renamed")
    assert status_of(mia, other, page) == "in_progress"
    assert mia.call("GET", f"/api/tasks/{other['ref']}")["priority"] == "urgent"
    expect(page.get_by_role("alert")).to_have_count(0)

    # Where the server is not reached, the card goes back, and it is said.
    page.route("**/api/tasks/*", lambda route: route.abort())
    card(page, lost).locator(".card-title").focus()
    page.keyboard.press("Shift+ArrowRight")
    expect(page.get_by_role("alert")).to_contain_text(f"{lost['ref']} was not moved: The server cannot be reached.")
    expect(card(page, lost, "todo").locator(".card-title")).to_be_focused()


def test_what_happens_elsewhere_is_seen_at_once(mia: Person, pages: Pages, model: Model) -> None:
    word = a_word()
    page = board_of(pages, mia, word)
    expect(page.get_by_text("No task is like that.")).to_be_visible()
    task = mia.task(f"{word} from elsewhere")
    expect(card(page, task, "todo")).to_be_visible()
    halting = Halting("Half", " whole")
    model.says(halting.reply())
    mia.call("PATCH", f"/api/conversations/{task['conversation_id']}", {"model": SCRIPTED})
    mia.says("Do it", task_id=task["ref"])
    expect(card(page, task).locator(".status")).to_have_attribute("data-status", re.compile("thinking|executing"))
    halting.finish()
    expect(card(page, task).locator(".status")).to_have_count(0)
    mia.call("PATCH", f"/api/tasks/{task['ref']}", {"status": "in_progress", "title": f"{word} renamed"})
    expect(card(page, task, "in_progress")).to_contain_text("renamed")
    mia.call("DELETE", f"/api/tasks/{task['ref']}")
    expect(card(page, task)).to_have_count(0)


def test_a_task_is_made_in_a_column(mia: Person, pages: Pages) -> None:
    word = a_word()
    page = board_of(pages, mia, word)
    page.get_by_label("Assignee", exact=True).select_option("Me")
    page.get_by_role("button", name="New task in In progress").click()
    title = page.get_by_label("Title of a new task in In progress")
    expect(title).to_be_focused()
    title.fill(f"{word} one")
    title.press("Enter")
    expect(cards(page, "in_progress")).to_have_count(1)
    expect(cards(page, "in_progress")).to_contain_text(f"Assigned to {mia.name}")  # or the filter would hide it
    expect(title).to_have_value("")
    pages.allow("ERR_FAILED|ERR_INTERNET_DISCONNECTED")
    page.route("**/api/tasks", lambda route: route.abort())
    title.fill(f"{word} two")
    title.press("Enter")
    expect(column(page, "in_progress").get_by_role("alert")).to_contain_text("The server cannot be reached.")
    expect(title).to_have_value(f"{word} two")
    page.unroute("**/api/tasks")
    title.press("Enter")
    expect(cards(page, "in_progress")).to_have_count(2)
    title.press("Escape")
    expect(title).to_have_count(0)
    found = mia.call("GET", f"/api/tasks?query={word}")["tasks"]
    assert {(task["title"], task["status"], task["assignee"]) for task in found} == {
        (f"{word} one", "in_progress", mia.name),
        (f"{word} two", "in_progress", mia.name),
    }


def test_an_empty_board_and_one_of_many_pages(new_site: NewSite, pages: Pages) -> None:
    site = new_site()
    mia = site.person("mia")
    page = pages.open(mia, "/board")
    expect(page.get_by_role("heading", name="No tasks yet")).to_be_visible()
    pages.shot(page, "board-empty")
    page.locator(".board .empty-state").get_by_role("button", name="New task").click()
    page.get_by_label("Title of a new task in To do").fill("The first")
    page.keyboard.press("Enter")
    expect(cards(page, "todo")).to_have_count(1)
    for number in range(63):
        mia.task(f"Task {number}", priority="low")
    pages.allow("status of 503|WebSocket connection to .* failed")
    failing = True

    def fail(route: Route) -> None:
        if failing:
            route.fulfill(status=503, json={"detail": "The database cannot be reached.", "error_code": "SERVICE_UNAVAILABLE"})
        else:
            route.continue_()

    page.route("**/api/tasks?*", fail)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Some tasks are missing: The database cannot be reached.")
    expect(column(page, "todo").locator(".column-count")).to_have_text("50")
    failing = False
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".board-count")).to_have_text("64 tasks")
    expect(column(page, "todo").locator(".column-count")).to_have_text("64")
    # More cards of a long column come as one nears its end.
    expect(cards(page, "todo")).to_have_count(60)
    cards(page, "todo").last.scroll_into_view_if_needed()
    expect(cards(page, "todo")).to_have_count(64)
    # The page comes back from a lost connection without a hole.
    page.evaluate(_WATCH_CARDS)
    site.restart()
    expect(page.locator(".connection")).to_have_count(0)
    mia.task("After the restart")
    expect(page.locator(".board-count")).to_have_text("65 tasks")
    assert page.evaluate("window.least") >= 64


def test_on_a_phone_columns_are_swiped_or_chosen(mia: Person, pages: Pages) -> None:
    word = a_word()
    task = mia.task(f"{word} that needs more than one line on a phone", due_at=day(-1), labels=["a label", "another"])
    review = mia.task(f"{word} reviewed", status="in_review")
    page = board_of(pages, mia, word, phone=True, dark=True)
    expect(card(page, task)).to_be_in_viewport()
    expect(card(page, review)).not_to_be_in_viewport()
    pages.shot(page, "board-phone")
    tab = page.get_by_role("navigation", name="Columns").get_by_role("button", name=re.compile("In review"))
    tab.tap()
    expect(card(page, review)).to_be_in_viewport()
    expect(tab).to_have_attribute("aria-current", "true")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    card(page, review).get_by_role("button", name=f"Menu of {review['ref']}").tap()
    page.get_by_role("menuitemradio", name="To do").tap()
    expect(card(page, review, "todo")).to_have_count(1)
    assert status_of(mia, review, page) == "todo"


def test_a_board_that_cannot_be_loaded_says_so(mia: Person, pages: Pages) -> None:
    context = pages.context(mia)
    refuse = True

    def between(socket: Any) -> None:
        server = socket.connect_to_server()

        def ask(text: Any) -> None:
            if refuse and '"topic":"tasks"' in text:
                ref = re.search(r'"ref":(\d+)', text)
                assert ref
                reply = '{"status":"error","response":{"error_code":"RATE_LIMITED","detail":"Too much at once."}}'
                socket.send(f'{{"topic":"tasks","event":"reply","ref":{ref[1]},"payload":{reply}}}')
            else:
                server.send(text)

        socket.on_message(ask)

    context.route_web_socket(re.compile(r"/ws\?"), between)
    page = pages.tab(context, f"{mia.site.url}/board")
    expect(page.get_by_role("alert")).to_contain_text("The tasks could not be loaded: Too much at once.")
    refuse = False
    task = mia.task(a_word())
    page.get_by_role("button", name="Try again").click()
    expect(card(page, task)).to_be_visible()
