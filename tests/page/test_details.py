"""The details of a task beside its chat: every field, its texts, its history, and what others do to it meanwhile."""

import re
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

from tests.emulators.raw_provider import Reply, ToolUse
from tests.page.browser import Pages
from tests.page.conftest import new_name
from tests.page.site import JSON, SCRIPTED, Model, Person, Site


def opened(pages: Pages, who: Person, task: JSON, **options: Any) -> Page:
    page = pages.open(who, f"/tasks/{task['ref']}", **options)
    if options.get("phone"):
        page.get_by_role("button", name="Details of the task").tap()
    expect(details(page)).to_be_visible()
    return page


def details(page: Page) -> Locator:
    return page.locator(".details")


def history(page: Page) -> Locator:
    return page.get_by_role("region", name="History").get_by_role("listitem")


def edit(page: Page, field: str) -> Locator:
    """Begins to edit a text by its button."""
    details(page).get_by_role("button", name=f"Edit the {field}").click()
    area = details(page).get_by_role("textbox", name=field.capitalize())
    expect(area).to_be_focused()
    return area


def read(who: Person, task: JSON) -> JSON:
    found: JSON = who.call("GET", f"/api/tasks/{task['ref']}")
    return found


def test_fields_are_changed_and_the_history_tells_it(site: Site, mia: Person, pages: Pages) -> None:
    ann = site.person(new_name("annabel"))
    task = mia.task("Order the parts", labels=["old"])
    mia.task("Another", labels=["known-label"])
    page = opened(pages, mia, task)
    pane = details(page)
    expect(history(page)).to_have_count(1)
    expect(history(page).first).to_contain_text(f"{mia.name} made the task")

    pane.get_by_label("Status").select_option("in_progress")
    expect(history(page).first).to_contain_text(f"{mia.name} moved it from To do to In progress")
    pane.get_by_label("Priority").select_option("urgent")
    expect(history(page).first).to_contain_text("changed the priority from Medium to Urgent")

    # Somebody is found by a part of their name; a day is a day, whatever the zone.
    pane.get_by_role("button", name="Assignee: nobody").click()
    people = page.get_by_role("dialog", name="Assignee")
    expect(people.get_by_role("option").nth(0)).to_have_text("Nobody")
    expect(people.get_by_role("option").nth(1)).to_contain_text(f"{mia.name}you")
    people.get_by_role("combobox", name="Find somebody").fill(ann.name[3:])
    expect(people.get_by_role("option")).to_have_count(1)
    pages.shot(page, "details-assignee")
    page.keyboard.press("Enter")
    expect(pane.get_by_role("button", name=f"Assignee: {ann.name}")).to_be_focused()
    expect(history(page).first).to_contain_text(f"assigned it to {ann.name}")
    pane.get_by_label("Due", exact=True).fill("2031-02-03")
    pane.get_by_label("Due", exact=True).press("Enter")
    expect(history(page).first).to_contain_text("set the due date Monday, February 3, 2031")
    pane.get_by_role("button", name="Remove the due date").click()
    expect(history(page).first).to_contain_text("removed the due date Monday, February 3, 2031")

    label = pane.get_by_role("combobox", name="Labels")
    label.fill("new, old")
    label.press("Enter")
    expect(history(page).first).to_contain_text("added the label new")
    pane.get_by_role("button", name="Remove the label old").click()
    expect(history(page).first).to_contain_text("removed the label old")
    pages.shot(page, "details")
    now = read(mia, task)
    assert (now["status"], now["priority"], now["assignee"], now["due_at"], now["labels"]) == (
        "in_progress",
        "urgent",
        ann.name,
        None,
        ["new"],
    )

    # What somebody else does is seen at once.
    ann.call("PATCH", f"/api/tasks/{task['ref']}", {"status": "done", "assignee": None})
    expect(pane.get_by_label("Status")).to_have_value("done")
    expect(pane.get_by_role("button", name="Assignee: nobody")).to_be_visible()
    expect(history(page).filter(has_text=f"{ann.name} took it from {ann.name}")).to_be_visible()


def test_a_field_that_somebody_else_changed_is_not_overwritten(mia: Person, pages: Pages) -> None:
    task = mia.task("Order the parts")
    page = opened(pages, mia, task)
    pages.allow("status of 409")

    def change(route: Route) -> None:
        mia.call("PATCH", f"/api/tasks/{task['ref']}", {"priority": "low", "labels": ["theirs"]})
        route.continue_()

    page.route("**/api/tasks/*", change, times=1)
    details(page).get_by_label("Priority").select_option("urgent")
    expect(page.get_by_role("alert")).to_contain_text(f"Somebody else changed {task['ref']} meanwhile. Its priority is “Low” now.")
    expect(details(page).get_by_label("Priority")).to_have_value("low")
    # Another field of the same task is not in the way.
    page.route("**/api/tasks/*", change, times=1)
    details(page).get_by_label("Status").select_option("done")
    expect(history(page).first).to_contain_text("moved it from To do to Done")
    assert read(mia, task)["priority"] == "low"


def test_title_and_description_are_edited_in_their_place(mia: Person, pages: Pages) -> None:
    task = mia.task("Order the parts", description="Of **steel**\n\n<img src=x onerror=alert(1)>")
    page = opened(pages, mia, task)
    pane = details(page)
    expect(pane.locator("strong")).to_have_text("steel")
    expect(pane.locator("img")).to_have_count(0)

    area = edit(page, "description")
    expect(area).to_have_value(task["description"])
    area.fill("never saved")
    area.press("Escape")
    expect(pane.locator("strong")).to_have_text("steel")
    expect(pane.get_by_role("button", name="Edit the description")).to_be_focused()
    area = edit(page, "description")
    area.fill("Of *brass*")
    pages.shot(page, "details-editing")
    area.press("Control+Enter")
    expect(pane.locator("em")).to_have_text("brass")
    pane.locator(".details-markdown").click()  # the text itself begins it, too
    pane.get_by_role("textbox", name="Description").fill("Of `wood`")
    page.get_by_role("heading", name="History").click()  # leaving saves
    expect(pane.locator(".details-markdown code")).to_have_text("wood")
    expect(history(page).first).to_contain_text("changed the description")
    expect(history(page).first).not_to_contain_text("brass")

    area = edit(page, "title")
    area.fill("  ")
    area.press("Enter")
    expect(pane.get_by_role("alert")).to_have_text("It needs a title.")
    area.fill("Order\nmore")
    area.press("Enter")
    expect(pane.get_by_role("heading", name="Order more")).to_be_visible()
    expect(history(page).first).to_contain_text("renamed it from Order the parts to Order more")
    now = read(mia, task)
    assert (now["title"], now["description"]) == ("Order more", "Of `wood`")

    # Where it cannot be saved, what was typed stays.
    pages.allow("ERR_FAILED")
    area = edit(page, "description")
    area.fill("Of stone")
    page.route("**/api/tasks/*", lambda route: route.abort())
    area.press("Control+Enter")
    expect(pane.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    expect(area).to_have_value("Of stone")
    page.unroute_all()
    area.press("Control+Enter")
    expect(pane.locator(".details-markdown")).to_have_text("Of stone")


def test_what_was_typed_and_what_somebody_else_wrote_are_both_kept(mia: Person, pages: Pages) -> None:
    task = mia.task("Order the parts", description="First")
    page = opened(pages, mia, task)
    pane = details(page)
    area = edit(page, "description")
    area.fill("Mine")
    mia.call("PATCH", f"/api/tasks/{task['ref']}", {"description": "Theirs", "status": "done"})
    conflict = pane.get_by_role("alert")
    expect(conflict).to_contain_text("Somebody else changed the description meanwhile.")
    expect(conflict.get_by_role("blockquote")).to_have_text("Theirs")
    pages.shot(page, "details-conflict")
    area.press("Control+Enter")  # decides nothing
    page.get_by_role("heading", name="History").click()
    expect(area).to_have_value("Mine")
    assert read(mia, task)["description"] == "Theirs"
    conflict.get_by_role("button", name="Save mine").click()
    expect(pane.locator(".details-markdown")).to_have_text("Mine")
    expect(history(page).first).to_contain_text("changed the description")
    assert (read(mia, task)["description"], read(mia, task)["status"]) == ("Mine", "done")

    # The same where it is only found out by saving.
    pages.allow("status of 409")
    area = edit(page, "description")
    area.fill("Mine again")

    def change(route: Route) -> None:
        mia.call("PATCH", f"/api/tasks/{task['ref']}", {"description": "Theirs again"})
        route.continue_()

    page.route("**/api/tasks/*", change, times=1)
    area.press("Control+Enter")
    expect(conflict.get_by_role("blockquote")).to_have_text("Theirs again")
    expect(area).to_have_value("Mine again")
    conflict.get_by_role("button", name="Take theirs").click()
    expect(pane.locator(".details-markdown")).to_have_text("Theirs again")
    # Something else that changes meanwhile is no conflict.
    area = edit(page, "description")
    area.fill("Mine at last")
    mia.call("PATCH", f"/api/tasks/{task['ref']}", {"priority": "high"})
    expect(pane.get_by_label("Priority")).to_have_value("high")
    area.press("Control+Enter")
    expect(pane.locator(".details-markdown")).to_have_text("Mine at last")


def test_the_history_tells_what_the_agent_did_and_goes_back_as_far_as_one_likes(mia: Person, pages: Pages, model: Model) -> None:
    task = mia.task("Order the parts")
    for number in range(8):
        mia.call("PATCH", f"/api/tasks/{task['ref']}", {"title": f"Title {number}", "priority": ["low", "high"][number % 2]})
    arguments = f'{{"ref": "{task["ref"]}", "status": "done"}}'
    model.says(Reply(text=(), tools=(ToolUse(name="update_task", fragments=(arguments,)),), finish="tool_calls"), Reply(text=("Done.",)))
    mia.call("PATCH", f"/api/conversations/{task['conversation_id']}", {"model": SCRIPTED})
    page = opened(pages, mia, task)
    expect(history(page)).to_have_count(15)
    mia.asks("Finish it", task_id=task["ref"])
    expect(history(page).first).to_contain_text(f"Agent for {mia.name} moved it from To do to Done")
    expect(history(page)).to_have_count(16)
    page.get_by_role("button", name="Show earlier changes").click()
    expect(history(page).last).to_contain_text("made the task")
    expect(history(page)).to_have_count(18)
    expect(page.get_by_role("button", name="Show earlier changes")).to_have_count(0)


def test_a_task_is_copied_closed_and_deleted(mia: Person, pages: Pages) -> None:
    task = mia.task("Order the parts")
    page = opened(pages, mia, task, permissions=["clipboard-read", "clipboard-write"])
    details(page).get_by_role("button", name="Copy the link").click()
    expect(page.get_by_text("The link is copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"{mia.site.url}/tasks/{task['ref']}"
    details(page).get_by_role("button", name="More for this task").click()
    page.get_by_role("menuitem", name=f"Copy {task['ref']}").click()
    expect(page.get_by_text(f"{task['ref']} is copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == task["ref"]
    details(page).get_by_role("button", name="Close the details").click()
    expect(details(page)).to_have_count(0)
    page.get_by_role("button", name="Details of the task").click()
    details(page).get_by_role("button", name="More for this task").click()
    page.get_by_role("menuitem", name="Delete the task").click()
    question = page.get_by_role("dialog", name=f"Delete the task {task['ref']}?")
    expect(question).to_contain_text("Order the parts")
    question.get_by_role("button", name="Cancel").click()
    assert read(mia, task)["ref"] == task["ref"]
    details(page).get_by_role("button", name="More for this task").click()
    page.get_by_role("menuitem", name="Delete the task").click()
    question.get_by_role("button", name="Delete").click()
    expect(page).not_to_have_url(re.compile("/tasks/"))
    assert mia.request("GET", f"/api/tasks/{task['ref']}").status_code == 404


def test_on_a_phone_the_details_are_a_sheet(mia: Person, pages: Pages) -> None:
    task = mia.task("Order the parts of the machine", description="- one\n- two", due_at="2020-01-01", labels=["a label", "W" * 50])
    page = opened(pages, mia, task, phone=True, dark=True, reduced_motion="reduce")
    expect(details(page).get_by_role("button", name="Close the details")).to_be_focused()
    expect(details(page).get_by_title("Overdue")).to_be_visible()
    box = details(page).bounding_box()
    assert box
    assert (box["x"], box["width"], box["y"] + box["height"]) == (0, 390, 844)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.locator(".details-body").evaluate("body => body.scrollWidth <= body.clientWidth")
    pages.shot(page, "details-phone")
    page.keyboard.press("Escape")
    expect(details(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Details of the task")).to_be_focused()
