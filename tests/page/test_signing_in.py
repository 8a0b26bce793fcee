"""Signing in and out in Chromium: on the server's own pages, which have no script, and out of the page."""

from datetime import timedelta

from playwright.sync_api import Page, expect

from core import identity
from core.models import LinkPurpose
from core.ports import UnitOfWork
from tests.page.browser import Pages
from tests.page.conftest import new_name
from tests.page.site import Person, Site

PASSWORD = "correct horse"


def link(site: Site, name: str, purpose: LinkPurpose) -> str:
    async def make(uow: UnitOfWork) -> str:
        return await identity.create_link(uow, await identity.user_named(uow, name), purpose, lifetime=timedelta(hours=1))

    return site.stored(make)


def sign_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_link_of_the_start_opens_the_page(site: Site, mia: Person, pages: Pages) -> None:
    code = link(site, mia.name, LinkPurpose.SIGN_IN)
    context = pages.context()
    page = pages.tab(context, f"{site.url}/login?code={code}")

    expect(page.get_by_role("main")).to_contain_text(mia.name)
    assert page.url == f"{site.url}/"
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("document.referrer") == ""


def test_somebody_sets_a_password_signs_out_and_in_again_where_they_wanted(site: Site, pages: Pages) -> None:
    pages.allow("status of 401")
    somebody = site.person(new_name("ann"))
    task = somebody.task("Water the plants")
    code = link(site, somebody.name, LinkPurpose.SET_PASSWORD)
    page = pages.tab(pages.context(phone=True), f"{site.url}/welcome?code={code}")
    for label in ("Your new password", "The same again"):
        page.get_by_label(label).fill(PASSWORD)
    pages.shot(page, "welcome-phone")
    page.get_by_role("button", name="Set the password and sign in").click()
    expect(page.get_by_role("main")).to_contain_text(somebody.name)
    page.evaluate(
        """() => {
            const form = Object.assign(document.createElement("form"), { method: "post", action: "/logout" });
            document.body.append(form);
            form.submit();
        }"""
    )
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()

    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(f"{site.url}/tasks/{task['ref']}?from=mail")
    sign_in(page, somebody.name, "a wrong one")
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    pages.shot(page, "sign-in-phone")
    expect(page.get_by_label("Name")).to_have_value(somebody.name)
    expect(page.get_by_label("Password")).to_be_focused()
    sign_in(page, somebody.name, PASSWORD)

    expect(page.get_by_role("main")).to_be_visible()
    assert page.url == f"{site.url}/tasks/{task['ref']}?from=mail"


def test_forms_fit_a_narrow_phone_and_need_no_script(site: Site, pages: Pages) -> None:
    page = pages.tab(pages.context(viewport={"width": 320, "height": 480}, java_script_enabled=False), f"{site.url}/login")

    box = page.get_by_role("button", name="Sign in").bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 320
    assert box["height"] >= 38
    assert page.get_by_label("Name").evaluate("element => getComputedStyle(element).borderRadius") == "8px"
