"""What was sent and did not arrive: it waits, or says why not, over a reload too, and is stored once."""

import re
from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from playwright.sync_api import Error, Locator, Page, Route, expect

from tests.page.browser import Pages, until
from tests.page.composing import choose, chosen, field, held, watch
from tests.page.conftest import new_name
from tests.page.site import JSON, Person, Site

_UNREACHED = r"net::ERR_|WebSocket connection"
_CHAT = "**/api/chat"


def unsent(page: Page) -> Locator:
    return page.get_by_role("list", name="Not sent yet").get_by_role("listitem")


def stored(page: Page, text: str) -> Locator:
    """The message, as the server told it."""
    return page.get_by_role("log", name="Messages").get_by_role("article").get_by_text(text, exact=True)


def write(page: Page, text: str) -> None:
    field(page).fill(text)
    field(page).press("Enter")
    expect(field(page)).to_have_value("")


def said(mia: Person, chat: str) -> list[str]:
    found = mia.call("GET", f"/api/conversations/{chat}/messages?limit=100")["messages"]
    return [each["content"] for each in found if each["role"] == "user"]


def chats(who: Person) -> list[JSON]:
    """Without those of tasks, which belong to everybody."""
    found = who.call("GET", "/api/conversations")["conversations"]
    return [each for each in found if not each["task_ref"]]


def lose_the_answer(route: Route) -> None:
    """The server gets it, and the page does not learn that."""
    with suppress(Error):  # the page may be gone by then
        route.fetch()
        route.abort("connectionreset")


def _earlier(moment: str) -> str:
    return f"{(datetime.fromisoformat(moment) - timedelta(milliseconds=1)).isoformat(timespec='milliseconds')[:23]}Z"


@pytest.fixture
def chat(mia: Person) -> str:
    return str(mia.asks("Hello")["conversation_id"])


def test_what_is_written_without_a_connection_goes_out_in_order_when_it_is_back(mia: Person, chat: str, pages: Pages) -> None:
    pages.allow(_UNREACHED)
    page = pages.open(mia, f"/conversations/{chat}")
    expect(field(page)).to_be_visible()
    page.context.set_offline(True)
    for word in ("one", "two", "three"):
        write(page, word)
    expect(unsent(page)).to_have_count(3)
    expect(unsent(page).first).to_contain_text("Waiting for the connection …")
    pages.shot(page, "outbox-offline")
    unsent(page).nth(1).get_by_role("button", name="Discard").click()
    expect(unsent(page)).to_have_count(2)
    page.context.set_offline(False)
    expect(unsent(page)).to_have_count(0)
    expect(stored(page, "three")).to_be_visible()
    assert said(mia, chat) == ["Hello", "one", "three"]

    write(page, "ok")
    expect(stored(page, "ok")).to_have_count(1)
    page.context.set_offline(True)
    write(page, "ok")
    expect(unsent(page)).to_contain_text("Waiting for the connection")  # the first one is not taken for it
    page.context.set_offline(False)
    expect(stored(page, "ok")).to_have_count(2)
    expect(unsent(page)).to_have_count(0)


def test_a_new_chat_without_a_connection_becomes_one_chat(mia: Person, pages: Pages) -> None:
    pages.allow(_UNREACHED)
    page = pages.open(mia)
    with page.expect_response("**/static/css/chat.css"):
        field(page).press_sequentially("first")
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    field(page).press("Enter")
    expect(unsent(page)).to_have_count(1)
    write(page, "second")
    field(page).fill("and a third that is still being written")
    pages.shot(page, "outbox-home")
    page.context.set_offline(False)
    page.wait_for_url("**/conversations/*")
    expect(stored(page, "second")).to_be_visible()
    expect(field(page)).to_have_value("and a third that is still being written")
    assert said(mia, page.url.rpartition("/")[2]) == ["first", "second"]
    assert len(chats(mia)) == 1


def test_an_answer_that_comes_after_the_reply_has_ended_takes_nothing_back(mia: Person, chat: str, pages: Pages) -> None:
    """The live connection told of the end before: the request's answer tells of the reply as it was while it was being written."""
    page = pages.open(mia, f"/conversations/{chat}")
    asked: list[Route] = []
    page.route(_CHAT, lambda route: asked.append(route))  # noqa: PLW0108  # Playwright looks into the function
    write(page, "count to 3")
    until(page, lambda: bool(asked))
    answer = asked[0].fetch()
    expect(stored(page, "1 2 3")).to_be_visible()
    reply = mia.call("GET", f"/api/conversations/{chat}/messages")["messages"][-1]
    body = answer.json()
    body["message"] |= {"status": "processing", "content": "", "updated_at": _earlier(reply["updated_at"])}
    with page.expect_response(_CHAT):
        asked[0].fulfill(response=answer, json=body)
    expect(unsent(page)).to_have_count(0)
    page.wait_for_timeout(200)  # were it taken in, it would be by now
    expect(stored(page, "1 2 3")).to_be_visible()


def test_what_got_lost_on_its_way_is_stored_once(mia: Person, chat: str, pages: Pages) -> None:
    pages.allow(_UNREACHED)
    page = pages.open(mia, f"/conversations/{chat}")
    page.route(_CHAT, lose_the_answer, times=1)
    write(page, "only once")
    expect(stored(page, "only once")).to_have_count(1)
    expect(unsent(page)).to_have_count(0)
    places = watch(page, "at once")
    with held(page, _CHAT, lambda: "unsent" in places()):
        write(page, "at once")
    until(page, lambda: "stored" in places())
    assert places() == ["unsent", "stored"], "it stood there twice, or not at all in between"

    page.route(_CHAT, lose_the_answer)
    choose(page, ("a.txt", "text/plain", b"a"))
    page.on("dialog", lambda dialog: dialog.accept())
    write(page, "once, with a file")
    expect(stored(page, "once, with a file")).to_be_visible()
    write(page, "once over a reload")
    expect(unsent(page)).to_have_count(1)
    page.route(_CHAT, lambda route: route.abort("connectionreset"))
    page.reload()
    failed = unsent(page).filter(has_text="once, with a file")
    expect(failed).to_contain_text("Not sent: The page was reloaded before it was known whether this arrived.")
    expect(failed).to_contain_text("a.txt")
    pages.shot(page, "outbox-failed")
    page.unroute(_CHAT)
    pages.allow("status of 409")  # by which the page learns that the first attempt arrived
    failed.get_by_role("button", name="Retry").click()
    expect(unsent(page)).to_have_count(0)
    expect(stored(page, "once over a reload")).to_be_visible()
    assert said(mia, chat) == ["Hello", "only once", "at once", "once, with a file", "once over a reload"]


def test_what_failed_says_why_and_is_kept(mia: Person, chat: str, pages: Pages) -> None:
    pages.allow(r"status of (400|409|429|500)|ERR_CONNECTION_RESET")
    page = pages.open(mia, f"/conversations/{chat}", dark=True)
    refusal = {"detail": "No. Not like this.", "error_code": "VALIDATION_ERROR"}
    page.route(_CHAT, lambda route: route.fulfill(status=400, json=refusal))
    write(page, "refused")
    write(page, "refused as well")
    expect(unsent(page).first).to_contain_text("Not sent: No. Not like this.")
    page.reload()
    expect(unsent(page)).to_have_count(2)
    expect(unsent(page).first).to_contain_text("Not sent: No. Not like this.")
    unsent(page).first.get_by_role("button", name="Discard").click()
    expect(unsent(page)).to_have_count(1)
    page.unroute(_CHAT)
    unsent(page).get_by_role("button", name="Retry").click()
    expect(stored(page, "refused as well")).to_be_visible()
    expect(unsent(page)).to_have_count(0)

    other = {"detail": "No, for another reason.", "error_code": "CONFLICT"}
    page.route(_CHAT, lambda route: route.fulfill(status=409, json=other))
    page.route(_CHAT, lambda route: route.abort("connectionreset"), times=1)
    write(page, "lost at first")
    expect(unsent(page)).to_contain_text("Not sent: No, for another reason.")  # not taken for one that arrived
    unsent(page).get_by_role("button", name="Discard").click()
    page.unroute(_CHAT)

    busy = {"detail": "More than 60 messages in a minute. Try again in 41 s.", "error_code": "RATE_LIMITED"}
    page.route(_CHAT, lambda route: route.fulfill(status=429, json=busy, headers={"Retry-After": "41"}))
    write(page, "too many")
    expect(unsent(page)).to_contain_text(re.compile(r"Not sent: More than 60 messages in a minute\.\s*It can be sent in 4[01] s\."))
    expect(unsent(page)).to_contain_text(re.compile(r"It can be sent in 3\d s\."))  # it counts down
    pages.shot(page, "outbox-limited")
    page.unroute(_CHAT)
    unsent(page).get_by_role("button", name="Retry").click()
    expect(stored(page, "too many")).to_be_visible()
    page.reload()
    expect(stored(page, "too many")).to_have_count(1)
    expect(unsent(page)).to_have_count(0)
    assert said(mia, chat) == ["Hello", "refused as well", "too many"]


def test_one_tab_sends_what_is_kept_and_another_when_it_is_gone(mia: Person, chat: str, pages: Pages) -> None:
    pages.allow(_UNREACHED)
    page = pages.open(mia, f"/conversations/{chat}")
    beside = pages.tab(page.context, page.url)
    expect(field(beside)).to_be_visible()
    page.route(_CHAT, lambda route: route.abort("connectionreset"))
    sent: list[str] = []
    beside.on("request", lambda request: sent.append(request.url) if request.url.endswith("/api/chat") else None)
    write(page, "from the first tab")
    expect(unsent(page)).to_have_count(1)
    beside.reload()
    expect(stored(beside, "Hello")).to_be_visible()
    assert (unsent(beside).count(), sent) == (0, [])
    page.close()
    expect(stored(beside, "from the first tab")).to_be_visible()
    assert said(mia, chat) == ["Hello", "from the first tab"]


def test_what_is_written_outlives_the_session_and_goes_out_as_nobody_else(site: Site, mia: Person, chat: str, pages: Pages) -> None:
    pages.allow("status of 40[14]")
    page = pages.open(mia, f"/conversations/{chat}")
    expect(field(page)).to_be_visible()
    page.context.clear_cookies()
    write(page, "after the session")
    expect(page.get_by_role("dialog", name="You are signed out")).to_be_visible()
    expect(unsent(page)).to_contain_text("Waiting for you to sign in")
    pages.sign_in(page.context, site.sign_in_again(mia))
    page.get_by_role("button", name="I am signed in again").click()
    expect(stored(page, "after the session")).to_be_visible()
    expect(unsent(page)).to_have_count(0)

    bob = site.person(new_name("bob"))
    page.evaluate("id => localStorage.setItem('onethread:user', id)", bob.id)  # as his page does, before this one hears of it
    write(page, "my secret")
    expect(unsent(page)).to_contain_text("Waiting for you to sign in")
    pages.sign_in(page.context, bob)
    page.goto(site.url)
    expect(field(page)).to_be_visible()
    assert "my secret" not in page.content()
    assert chats(bob) == []

    pages.sign_in(page.context, site.sign_in_again(mia))
    page.goto(f"{site.url}/conversations/{chat}")
    expect(stored(page, "my secret")).to_be_visible()
    assert said(mia, chat) == ["Hello", "after the session", "my secret"]


def test_a_message_for_a_task_goes_into_its_conversation(mia: Person, pages: Pages) -> None:
    pages.allow(_UNREACHED)
    task = mia.task("Buy milk")
    page = pages.open(mia, f"/tasks/{task['ref']}", phone=True)
    choose(page, ("list.txt", "text/plain", b"milk"))
    expect(chosen(page)).to_have_count(1)
    page.context.set_offline(True)
    field(page).fill("What is on the list?")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(unsent(page)).to_contain_text("list.txt")
    expect(unsent(page)).to_contain_text("Waiting for the connection")
    pages.shot(page, "outbox-phone")
    page.context.set_offline(False)
    expect(unsent(page)).to_have_count(0)
    expect(stored(page, "What is on the list?")).to_be_visible()
    assert said(mia, task["conversation_id"]) == ["What is on the list?"]
