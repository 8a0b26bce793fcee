"""The list of conversations: live from everywhere, what is unread, found and chosen in it, and what is done with each."""

import re
from uuid import UUID

from playwright.sync_api import Locator, Page, Route, WebSocketRoute, expect

from core import conversations
from core.access import Principal
from core.models import Conversation
from core.ports import UnitOfWork
from tests.page.browser import Pages, until
from tests.page.site import SCRIPTED, Halting, Model, Person

AT_ONCE = 8000
"""Milliseconds; what the live connection alone would tell comes after up to half a minute."""


def row(page: Page, title: str) -> Locator:
    return page.locator(".thread-list li").filter(has=page.locator(".row-title", has_text=re.compile(f"^{re.escape(title)}$")))


def act(page: Page, title: str, item: str) -> None:
    row(page, title).hover()
    row(page, title).get_by_role("button").click()
    page.get_by_role("menuitem", name=item).click()


def test_list_follows_what_others_do(mia: Person, pages: Pages, model: Model) -> None:
    page = pages.open(mia, "/")
    task = mia.task(f"Water {mia.name}'s plants")
    plants = row(page, f"Water {mia.name}'s plants")
    expect(plants).to_contain_text(task["ref"])
    expect(plants).to_contain_text("No messages")

    halting = Halting("In the ", "morning.")
    model.says(halting.reply())
    mia.says("When?", task_id=task["id"], model=SCRIPTED)
    expect(plants.locator(".status")).to_have_attribute("data-status", re.compile("thinking|executing"))
    halting.finish()
    expect(plants.locator(".status")).to_have_attribute("data-status", "idle")
    expect(plants).to_contain_text("2 messages")

    mia.call("PATCH", f"/api/tasks/{task['ref']}", {"title": f"Water {mia.name}'s roses"})
    expect(row(page, f"Water {mia.name}'s roses")).to_be_visible()
    mia.call("DELETE", f"/api/tasks/{task['ref']}")
    expect(row(page, f"Water {mia.name}'s roses")).to_have_count(0)


def test_last_spoken_in_is_first_and_nothing_else_moves_it(mia: Person, pages: Pages) -> None:
    older = mia.asks("Older")["conversation_id"]
    mia.asks("Newer")
    page = pages.open(mia, "/")
    page.get_by_role("button", name="Chats").click()
    titles = page.locator(".row-title")
    expect(titles).to_have_text(["Newer", "Older"])

    mia.call("PATCH", f"/api/conversations/{older}", {"title": "Oldest"})
    expect(titles).to_have_text(["Newer", "Oldest"])
    mia.asks("ask me which", conversation_id=older)
    expect(titles).to_have_text(["Oldest", "Newer"])
    expect(row(page, "Oldest").locator(".status")).to_have_attribute("data-status", "waiting_for_user")


def test_what_one_has_not_seen_is_unread_on_all_pages(mia: Person, pages: Pages) -> None:
    chat = mia.asks("First")["conversation_id"]
    page = pages.open(mia, f"/conversations/{chat}")
    expect(page.get_by_role("heading", name="First")).to_be_visible()
    expect(page.locator(".row[data-unread=true]")).to_have_count(0)
    page.get_by_role("link", name="Board").click()

    mia.asks("Second", conversation_id=chat)
    expect(row(page, "First").get_by_text("Unread")).to_be_attached()
    expect(page).to_have_title("(1) Board · Onethread")
    page.get_by_role("button", name="Unread 1").click()
    expect(page.locator(".row-title")).to_have_text(["First"])

    other = pages.tab(page.context, f"{mia.site.url}/conversations/{chat}")
    expect(other.get_by_text("Second").first).to_be_visible()
    other.bring_to_front()
    expect(page).to_have_title("Board · Onethread")
    expect(page.get_by_text("Nothing is unread.")).to_be_visible()


def test_list_is_filtered_by_kind_and_words(mia: Person, pages: Pages) -> None:
    task = mia.task("Rare orchids")
    mia.asks("Hello orchids")
    mia.asks("Something else")
    page = pages.open(mia, "/")
    titles = page.locator(".row-title")
    page.get_by_label("Filter the list").fill("ORCHIDS")
    expect(titles).to_have_text(["Hello orchids", "Rare orchids"])
    page.get_by_role("button", name="Tasks").click()
    expect(titles).to_have_text(["Rare orchids"])
    page.get_by_role("button", name="Chats").click()
    expect(titles).to_have_text(["Hello orchids"])

    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("Filter the list").fill(task["ref"].lower())
    expect(titles.first).to_have_text("Rare orchids")
    page.get_by_label("Filter the list").fill("no such words")
    expect(page.get_by_text("Nothing in this list has these words.")).to_be_visible()
    page.get_by_role("button", name="Search everywhere for “no such words”").click()
    expect(page.get_by_role("combobox", name="Search titles and messages")).to_have_value("no such words")


def test_rows_are_reached_by_keys(mia: Person, pages: Pages) -> None:
    for text in ("One", "Two", "Three"):
        mia.asks(text)
    page = pages.open(mia, "/")
    page.get_by_role("button", name="Chats").click()
    expect(page.locator(".row-title")).to_have_text(["Three", "Two", "One"])

    page.get_by_label("Filter the list").press("ArrowDown")
    expect(row(page, "Three").get_by_role("link")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    expect(row(page, "Two").get_by_role("link")).to_be_focused()
    assert page.locator(".row[tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="What to do with Two")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/conversations/"))
    expect(row(page, "Two").get_by_role("link")).to_have_attribute("aria-current", "page")


def test_chat_is_renamed_archived_brought_back_and_deleted(mia: Person, pages: Pages) -> None:
    chat = mia.asks("Draft")["conversation_id"]
    page = pages.open(mia, f"/conversations/{chat}")
    act(page, "Draft", "Rename")
    page.get_by_role("textbox", name="Title").fill("Final")
    page.keyboard.press("Enter")
    expect(row(page, "Final")).to_be_visible()
    assert mia.call("GET", f"/api/conversations/{chat}")["title"] == "Final"

    act(page, "Final", "Archive")
    expect(row(page, "Final")).to_have_count(0)
    expect(page).to_have_url(f"{mia.site.url}/")
    page.get_by_role("button", name="Archived").click()
    act(page, "Final", "Bring back")
    expect(page.get_by_text("Nothing is archived.")).to_be_visible()
    page.get_by_role("button", name="Archived").click()
    expect(row(page, "Final")).to_be_visible()

    act(page, "Final", "Archive")
    page.get_by_role("button", name="Undo").last.click()
    expect(row(page, "Final")).to_be_visible()

    act(page, "Final", "Delete")
    asked = page.get_by_role("dialog", name="Delete this chat?")
    expect(asked.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(asked).to_be_hidden()
    assert mia.call("GET", f"/api/conversations/{chat}")

    act(page, "Final", "Delete")
    asked.get_by_role("button", name="Delete").click()
    expect(row(page, "Final")).to_have_count(0)
    assert mia.request("GET", f"/api/conversations/{chat}").status_code == 404


def test_task_is_renamed_and_deleted_by_its_conversation(mia: Person, pages: Pages) -> None:
    task = mia.task("Old <b>title</b>")
    page = pages.open(mia, f"/tasks/{task['ref']}")
    act(page, "Old <b>title</b>", "Rename")
    page.get_by_role("textbox", name="Title").fill("Best title")
    page.keyboard.press("Enter")
    expect(row(page, "Best title")).to_be_visible()
    expect(page).to_have_title("Best title · Onethread")
    assert mia.call("GET", f"/api/tasks/{task['ref']}")["title"] == "Best title"

    act(page, "Best title", f"Delete {task['ref']}")
    asked = page.get_by_role("dialog", name=f"Delete the task {task['ref']}?")
    expect(asked).to_contain_text("goes with its conversation, for everybody")
    asked.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(f"{mia.site.url}/")
    assert mia.request("GET", f"/api/tasks/{task['ref']}").status_code == 404


def test_what_fails_is_said_and_can_be_tried_again(mia: Person, pages: Pages) -> None:
    pages.allow("503")
    mia.asks("Draft")
    page = pages.open(mia, "/")

    def refuse(route: Route) -> None:
        route.fulfill(status=503, json={"detail": "The database cannot be reached.", "error_code": "SERVICE_UNAVAILABLE"})

    page.route("**/api/conversations/*", refuse)
    act(page, "Draft", "Rename")
    page.get_by_role("textbox", name="Title").fill("Final")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("The database cannot be reached.")
    page.unroute("**/api/conversations/*")
    page.keyboard.press("Enter")
    expect(row(page, "Final")).to_be_visible()

    page.evaluate("const real = AbortSignal.timeout; AbortSignal.timeout = (ms) => real.call(AbortSignal, ms / 100)")
    page.route("**/api/conversations/*", lambda _: None)  # it never answers
    act(page, "Final", "Rename")
    page.get_by_role("textbox", name="Title").fill("Last")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("did not answer in time")
    page.keyboard.press("Escape")
    page.unroute("**/api/conversations/*")

    page.route("**/api/conversations/*", refuse)
    act(page, "Final", "Archive")
    expect(page.get_by_role("alert")).to_contain_text("The database cannot be reached.")
    expect(row(page, "Final")).to_be_visible()


def test_task_is_made_in_a_dialog_that_keeps_what_was_written(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/board")
    page.get_by_role("button", name="New task").first.click()
    made = page.get_by_role("dialog", name="New task")
    expect(made.get_by_label("Title")).to_be_focused()
    expect(made.get_by_role("button", name="Make the task")).to_be_disabled()
    made.get_by_label("Title").fill("Order seeds")
    made.get_by_label("Description").fill("For **spring**.")
    made.get_by_label("Due").fill("2027-03-01")
    made.get_by_label("Title").focus()
    page.keyboard.press("Escape")
    expect(made).to_be_hidden()
    expect(page.get_by_role("button", name="New task").first).to_be_focused()

    page.keyboard.press("t")
    expect(made.get_by_label("Description")).to_have_value("For **spring**.")
    made.get_by_role("button", name="Assignee").or_(made.get_by_label("Assignee")).first.click()
    page.get_by_role("option", name=mia.name).click()
    made.get_by_role("button", name="Make the task").click()
    expect(page).to_have_title("Order seeds · Onethread")

    ref = page.url.rpartition("/")[2]
    task = mia.call("GET", f"/api/tasks/{ref}")
    shown = {name: task[name] for name in ("title", "description", "assignee", "priority", "due_at")}
    due = "2027-03-01T00:00:00.000Z"
    assert shown == {"title": "Order seeds", "description": "For **spring**.", "assignee": mia.name, "priority": "medium", "due_at": due}
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New task").first.click()
    expect(made.get_by_label("Title")).to_have_value("")


def test_older_conversations_come_when_one_scrolls_to_them(mia: Person, pages: Pages) -> None:
    async def add(uow: UnitOfWork) -> None:
        for number in range(120):
            made.append(await conversations.create(uow, Principal(user_id=UUID(mia.id)), title=f"Chat {number}"))

    made: list[Conversation] = []
    mia.site.stored(add)
    page = pages.open(mia, f"/conversations/{made[85].id}")
    rows, end = page.locator(".row"), "list => list.scrollTo(0, list.scrollHeight)"
    expect(rows).to_have_count(50)
    expect(row(page, "Chat 85")).to_be_in_viewport()
    page.locator(".thread-list").evaluate("list => list.scrollTo(0, 0)")
    expect(row(page, "Chat 85")).not_to_be_in_viewport()
    page.keyboard.press("Alt+ArrowDown")
    expect(row(page, "Chat 84")).to_be_in_viewport()
    page.locator(".thread-list").evaluate(end)
    expect(rows).to_have_count(100)
    joined_again = "({ subscribe }) => new Promise((done) => subscribe('conversations', { snapshot: () => done(), frame() {} }))"
    page.evaluate(f"import('/static/socket.js').then({joined_again})")
    expect(rows).to_have_count(100)
    expect(row(page, "Chat 0")).to_have_count(0)
    page.get_by_role("button", name="Chats").click()
    page.get_by_role("button", name="Show older ones").click()
    expect(row(page, "Chat 0")).to_be_attached()


def test_list_says_that_it_is_loading_refused_or_empty(mia: Person, pages: Pages) -> None:
    held: list[tuple[WebSocketRoute, str]] = []

    def hold(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        socket.on_message(server.send)
        server.on_message(lambda text: held.append((socket, str(text))) if '"conversations"' in str(text) else socket.send(text))

    context = pages.context(mia)
    context.route_web_socket(re.compile(r"/ws\?"), hold)
    page = pages.tab(context, mia.site.url + "/")
    expect(page.get_by_role("status", name="Loading the conversations")).to_be_visible()

    until(page, lambda: bool(held))
    socket, answer = held.pop()
    refusal = '"payload": {"status": "error", "response": {"error_code": "INTERNAL", "detail": "It broke."}}}'
    socket.send(re.sub(r'"payload":.*', refusal, answer))
    expect(page.get_by_role("alert")).to_contain_text("It broke.")

    page.get_by_role("button", name="Try again").click()
    until(page, lambda: bool(held))
    socket, answer = held.pop()
    socket.send(answer)
    page.get_by_role("button", name="Chats").click()
    expect(page.get_by_text("No chats here.")).to_be_visible()


def test_titles_are_shown_as_they_are_written(mia: Person, pages: Pages) -> None:
    chat = mia.asks("x")["conversation_id"]
    page = pages.open(mia, f"/conversations/{chat}")
    for title in ('<img src=x onerror="window.ran = 1">', "שלום <script>window.ran = 1</script>", "漢字🥛"):
        mia.call("PATCH", f"/api/conversations/{chat}", {"title": title})
        expect(row(page, title)).to_be_visible()
        expect(page).to_have_title(f"{title} · Onethread")
    assert page.evaluate("window.ran") is None


def test_signing_out_ends_the_session_and_the_other_tabs_know(mia: Person, pages: Pages) -> None:
    pages.allow("401")
    page = pages.open(mia, "/board")
    other = pages.tab(page.context, mia.site.url + "/")
    expect(other.locator(".thread-list")).to_be_visible()
    page.get_by_role("button", name=re.compile(f"^{mia.name}: ")).click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page).to_have_url(re.compile("/login"))
    assert mia.request("GET", "/api/me").status_code == 401
    ended = other.get_by_role("dialog", name="You are signed out")
    expect(ended).to_be_visible(timeout=AT_ONCE)

    pages.sign_in(page.context, mia.site.sign_in_again(mia))
    page.goto(mia.site.url + "/board")
    expect(ended).to_be_hidden(timeout=AT_ONCE)


def test_signing_out_that_fails_is_told(mia: Person, pages: Pages) -> None:
    pages.allow("ERR_FAILED")
    page = pages.open(mia, "/board")
    page.route("**/logout", lambda route: route.abort())
    page.get_by_role("button", name=re.compile(f"^{mia.name}: ")).click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("alert")).to_contain_text("you are still signed in")
    expect(page).to_have_url(re.compile("/board"))
