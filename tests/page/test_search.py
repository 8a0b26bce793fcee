"""The search through everything that one may read."""

import re

from playwright.sync_api import Locator, Page, Route, expect

from tests.page.browser import Pages
from tests.page.site import Person


def opened(page: Page) -> tuple[Locator, Locator]:
    """The search's field, and what it found."""
    page.keyboard.press("Control+k")
    dialog = page.get_by_role("dialog", name="Search")
    return dialog.get_by_role("combobox"), dialog.get_by_role("option")


def test_titles_and_messages_are_found_and_gone_to_by_keys(mia: Person, pages: Pages) -> None:
    task = mia.task(f"Repair {mia.name}'s bicycle")
    mia.asks(f"The bell of {mia.name} rings (a+b) <b>too</b> loud", task_id=task["id"])
    chat = mia.asks(f"About {mia.name}'s bicycle bell")["conversation_id"]
    page = pages.open(mia, "/board")

    field, found = opened(page)
    expect(field).to_be_focused()
    field.fill(f"bicycle {mia.name}")
    expect(found).to_have_count(3)  # two titles, and a message in the chat that begins with it
    expect(found.locator("mark")).to_have_text([mia.name, "bicycle"] * 4)
    expect(found.filter(has_text=task["ref"])).to_have_count(1)

    field.fill(f"{mia.name} rings (a+b) <b>")
    expect(found).to_have_count(1)
    expect(found).to_contain_text(f"{mia.name}: The bell of {mia.name} rings (a+b) <b>too</b> loud")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{mia.site.url}/tasks/{task['ref']}#1")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("main").get_by_text("<b>too</b> loud")).to_be_visible()

    field, found = opened(page)
    field.fill(f"bicycle {mia.name}")
    expect(found.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowDown")
    expect(found.nth(1)).to_have_attribute("aria-selected", "true")
    found.filter(has_text="About").first.click()
    expect(page).to_have_url(f"{mia.site.url}/conversations/{chat}")


def test_search_says_when_nothing_is_found_or_it_failed(mia: Person, pages: Pages) -> None:
    pages.allow("503")
    page = pages.open(mia, "/")
    field, _ = opened(page)
    expect(page.get_by_text("Titles and refs come first")).to_be_visible()
    field.fill("zzyzx never said")
    expect(page.get_by_text("Nothing was found for “zzyzx never said”.")).to_be_visible()

    def refuse(route: Route) -> None:
        route.fulfill(status=503, json={"detail": "The database cannot be reached.", "error_code": "SERVICE_UNAVAILABLE"})

    page.route("**/api/search*", refuse)
    field.fill("zzyzx")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("The database cannot be reached.")
    page.unroute("**/api/search*")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Nothing was found for “zzyzx”.")).to_be_visible()

    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_search_fills_a_phone_without_overflow(mia: Person, pages: Pages) -> None:
    mia.asks("Tell " + "Wortungetüm" * 12)
    page = pages.open(mia, "/", phone=True)
    page.get_by_role("button", name="Search everywhere").last.tap()
    field = page.get_by_role("combobox", name=re.compile("Search"))
    field.fill("Wortungetüm")
    expect(page.locator(".result").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#search-results").evaluate("list => list.scrollWidth - list.clientWidth") == 0
