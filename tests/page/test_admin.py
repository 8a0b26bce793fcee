"""What admins look after: users and their links, projects, the queue, failed answers, workers."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Page, Route, expect

from core.ids import new_id
from core.models import ModelPause, WorkerInfo
from core.ports import UnitOfWork
from tests.emulators.raw_provider import Reply
from tests.page.browser import Pages
from tests.page.conftest import new_name
from tests.page.site import SCRIPTED, Halting, Model, Person, Site
from tests.page.test_settings import PASSWORD, panel

REFUSED = Reply(status=401, error={"message": "no", "type": "invalid_request_error", "code": "invalid_api_key"})


@pytest.fixture
def ann(site: Site) -> Person:
    return site.person(new_name("ann"), admin=True)


def choose(page: Page, name: str, item: str) -> None:
    page.get_by_role("button", name=f"What to do with {name}").click()
    page.get_by_role("menu").get_by_role("menuitem", name=item).click()


def test_added_user_comes_in_by_a_link_that_is_shown_once(ann: Person, pages: Pages) -> None:
    pages.allow("status of 40[09]")
    page = pages.open(ann, "/settings/users", permissions=["clipboard-read", "clipboard-write"])
    form, name = panel(page, "Add somebody"), new_name("kim")
    form.get_by_label("Name").fill("no name!")
    form.get_by_role("button", name="Add").click()
    expect(form.get_by_role("alert")).to_contain_text("is no user name")
    form.get_by_label("Name").fill(name)
    form.get_by_role("button", name="Add").click()

    expect(form).to_contain_text(re.compile(f"Give this link to {name},.*shown now and never again", re.DOTALL))
    expect(form.get_by_label("Name")).to_have_value("")
    link = form.get_by_label("The link").input_value()
    form.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_text("The link is copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == link
    form.get_by_label("Name").fill(name)
    form.get_by_role("button", name="Add").click()
    expect(form.get_by_role("alert")).to_have_text(f"There is a user '{name}' already.")
    form.get_by_role("button", name="Hide it for good").click()
    assert link not in page.content()

    page.get_by_label("Filter users").fill(name)
    rows = panel(page, "Users").get_by_role("listitem")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("no password yet")
    pages.shot(page, "settings-users")
    choose(page, name, "New link for a password")
    second = form.get_by_label("The link")
    expect(second).not_to_have_value(link)
    expect(second).to_be_focused()

    guest = pages.tab(pages.context(), second.input_value())
    guest.locator("input[type=password]").first.fill(PASSWORD)
    guest.locator("input[type=password]").last.fill(PASSWORD)
    guest.locator("button").last.click()
    expect(guest.get_by_role("heading", name=f"What should be done, {name}?")).to_be_visible()


def test_user_is_made_an_admin_and_is_disabled(ann: Person, mia: Person, pages: Pages) -> None:
    page = pages.open(ann, "/settings/users")
    page.get_by_label("Filter users").fill(mia.name)
    rows = panel(page, "Users").get_by_role("listitem")
    row = rows.filter(has=page.get_by_text(mia.name, exact=True))
    expect(row).to_be_visible()
    choose(page, mia.name, "Make an admin")
    expect(row.locator(".badge")).to_have_text("admin")
    assert mia.call("GET", "/api/me")["admin"]
    choose(page, mia.name, "Make a member")
    expect(row.locator(".badge")).to_have_count(0)

    choose(page, mia.name, "Disable")
    page.get_by_role("dialog", name=f"Disable {mia.name}?").get_by_role("button", name="Cancel").click()
    assert mia.request("GET", "/api/me").is_success
    choose(page, mia.name, "Disable")
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    expect(row.locator(".badge")).to_have_text("disabled")
    assert mia.request("GET", "/api/me").status_code == 401
    choose(page, mia.name, "Enable")
    expect(row.locator(".badge")).to_have_count(0)

    page.get_by_label("Filter users").fill(ann.name)
    expect(rows.filter(has_text="(you)")).to_be_visible()
    expect(page.get_by_role("button", name=f"What to do with {ann.name}", exact=True)).to_have_count(0)  # nobody locks themselves out


def test_users_beyond_the_first_hundred_are_shown_when_asked_for(ann: Person, pages: Pages) -> None:
    context = pages.context(ann)

    def shorter(route: Route) -> None:
        route.continue_(url=route.request.url.replace("limit=100", "limit=1"))

    context.route("**/api/admin/users?*", shorter)
    page = pages.tab(context, ann.site.url + "/settings/users")
    rows = panel(page, "Users").get_by_role("listitem")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(2)
    page.get_by_label("Filter users").fill("nobody-of-this-name")
    expect(panel(page, "Users")).to_contain_text("Nobody of that name.")


def test_projects_are_made_and_instructed(ann: Person, pages: Pages) -> None:
    pages.allow("status of 409")
    page = pages.open(ann, "/settings/projects")
    key = new_name("W").upper()
    page.get_by_role("button", name="New project").click()
    expect(page.get_by_label("Key")).to_be_focused()
    page.get_by_label("Key").fill("ot")
    page.get_by_label("Name").fill("Website")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").filter(has_text="There is a project 'OT' already.")).to_be_visible()
    page.get_by_label("Key").fill(key.lower())
    page.get_by_label("Instructions").fill("Answer in German.")
    page.get_by_role("button", name="Save").click()
    row = panel(page, "Projects").get_by_role("listitem").filter(has=page.get_by_text(key, exact=True))
    expect(row).to_contain_text("Answer in German.")
    expect(page.get_by_role("button", name="New project")).to_be_focused()

    row.get_by_role("button", name=f"Edit {key}").click()
    form = page.get_by_role("form", name=f"Project {key}")
    expect(form.get_by_label("Instructions")).to_have_value("Answer in German.")
    form.get_by_label("Model").fill("demo/offline")
    form.get_by_label("Instructions").fill("Answer in French.")
    form.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("demo/offline")
    project = ann.call("GET", f"/api/projects/{key}")
    assert (project["name"], project["instructions"], project["model"]) == ("Website", "Answer in French.", "demo/offline")

    row.get_by_role("button", name=f"Edit {key}").click()
    form.get_by_label("Name").fill("Never saved")
    page.keyboard.press("Escape")
    expect(form).to_have_count(0)
    expect(page.get_by_role("button", name=f"Edit {key}")).to_be_focused()
    assert ann.call("GET", f"/api/projects/{key}")["name"] == "Website"


def test_failed_answer_is_retried_and_a_running_one_stopped(ann: Person, mia: Person, model: Model, pages: Pages) -> None:
    model.says(REFUSED)
    failed = mia.says("A secret question", model=SCRIPTED)
    page = pages.open(ann, "/settings/queue")
    turns = panel(page, "Turns").get_by_role("listitem").filter(has_text=f"{mia.name},")
    expect(turns).to_contain_text("A private conversation")
    expect(turns.locator("[data-turn=failed]")).to_be_visible()
    expect(turns).to_contain_text("OPENAI_API_KEY")
    assert "A secret question" not in page.content()
    pages.shot(page, "settings-queue")

    halting = Halting("Half", " whole")
    model.says(halting.reply())
    page.get_by_role("button", name="Failed").click()
    turns.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("It is answered again.")).to_be_visible()
    expect(turns).to_have_count(0)

    page.get_by_role("button", name="Running").click()
    turns.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog", name="Stop this answer?").get_by_role("button", name="Stop it").click()
    expect(turns).to_have_count(0)
    halting.finish()
    assert mia.messages(failed["conversation_id"])[-1]["status"] == "cancelled"


def test_earlier_message_is_not_retried_and_it_is_told_why(ann: Person, model: Model, pages: Pages) -> None:
    pages.allow("status of 409")
    model.says(REFUSED, Reply())
    first = ann.says("First", model=SCRIPTED)
    page = pages.open(ann, "/settings/queue")
    page.get_by_role("button", name="Failed").click()
    turns = panel(page, "Turns").get_by_role("listitem").filter(has_text=f"{ann.name},")
    expect(turns.get_by_role("link", name="First")).to_have_attribute("href", f"/conversations/{first['conversation_id']}")
    ann.asks("Second", conversation_id=first["conversation_id"])
    turns.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("alert")).to_contain_text("Something was asked after it")


def test_queue_is_read_anew_while_one_looks(ann: Person, pages: Pages) -> None:
    context = pages.context(ann)
    answer = ann.call("GET", "/api/admin/queue")
    depth = {**answer["turns"], "queued": 0}
    asked = []

    def count(route: Route) -> None:
        asked.append(route.request.url)
        grown = {**answer, "turns": {**depth, "queued": len(asked)}, "oldest_queued_seconds": 125.0}
        route.fulfill(json=grown if len(asked) < 3 else {**grown, "workers": []})

    context.route("**/api/admin/queue", count)
    context.clock.install()
    page = pages.tab(context, ann.site.url + "/settings/queue")
    totals = page.locator(".totals")
    expect(totals).to_contain_text(re.compile("Queued ?1"))
    expect(totals).to_contain_text("2 min")
    expect(panel(page, "Workers").get_by_text("alive", exact=True)).to_be_visible()
    expect(page.get_by_text("No worker is alive")).to_have_count(0)
    page.clock.run_for(5100)
    expect(totals).to_contain_text(re.compile("Queued ?2"))
    page.clock.run_for(5100)
    expect(page.get_by_role("alert").filter(has_text="No worker is alive, so nothing is answered.")).to_contain_text("onethread worker")


def test_silent_worker_and_paused_model_are_told(ann: Person, pages: Pages) -> None:
    async def went_wrong(uow: UnitOfWork) -> None:
        silent = WorkerInfo(
            id=new_id(),
            host="far-away",
            pid=7,
            concurrency=4,
            unserved=frozenset({"anthropic"}),
            started_at=uow.now - timedelta(hours=3),
            heartbeat_at=uow.now - timedelta(hours=2),
        )
        await uow.workers.beat(silent)
        now = uow.now
        pause = ModelPause(model="demo/paused", paused_since=now - timedelta(minutes=5), paused_until=now + timedelta(minutes=5), pauses=2)
        await uow.pauses.put(pause)

    ann.site.stored(went_wrong)
    page = pages.open(ann, "/settings/queue")
    worker = panel(page, "Workers").get_by_role("listitem").filter(has_text="far-away")
    expect(worker).to_contain_text("silent")
    expect(worker).to_contain_text("started 3h ago, heard of 2h ago")
    expect(worker).to_contain_text("has no key for anthropic")
    expect(panel(page, "Queue")).to_contain_text("demo/paused is paused")
