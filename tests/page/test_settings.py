"""What everybody sets: profile and password, sessions, theme, access tokens, how to connect, models, usage."""

import json
import re
from dataclasses import asdict
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, Route, WebSocketRoute, expect

from core import identity
from core.llm.providers import choices
from core.ports import UnitOfWork
from onethread import mcp_config
from onethread.settings import Settings
from tests.page.browser import Pages
from tests.page.conftest import new_name
from tests.page.site import SCRIPTED, Model, Person, Site

PASSWORD = "correct horse battery"


def panel(page: Page, title: str) -> Locator:
    return page.locator(".panel").filter(has=page.get_by_role("heading", name=title, exact=True))


def fill(page: Page, **fields: str) -> None:
    labels = {"current": "Present password", "new": "New password", "again": "The same again"}
    for name, text in fields.items():
        page.get_by_label(labels[name]).fill(text)


def test_every_section_has_an_address_and_the_keyboard_reaches_it(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/settings")
    sections = page.get_by_role("navigation", name="Settings").get_by_role("link")
    expect(sections).to_have_text(["Profile", "Accounts", "Access tokens", "Connections", "Models", "Usage"])
    expect(panel(page, "Profile")).to_contain_text(mia.name)
    expect(panel(page, "Profile")).to_contain_text("Member")

    sections.filter(has_text="Access tokens").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(mia.site.url + "/settings/tokens")
    expect(panel(page, "Your tokens")).to_have_text(re.compile("You have none."))
    expect(sections.filter(has_text="Access tokens")).to_be_focused()
    expect(page.locator(".settings-nav [aria-current=page]")).to_have_text("Access tokens")
    page.go_back()
    expect(panel(page, "Profile")).to_be_visible()

    page.goto(mia.site.url + "/settings/nothing")
    expect(page.get_by_text("There is no such section")).to_be_visible()


def test_phone_shows_the_list_of_sections_then_one_of_them(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/settings", phone=True)
    page.get_by_role("link", name="Usage").tap()
    expect(panel(page, "Usage")).to_contain_text("No model was asked in this time.")
    expect(page.get_by_role("link", name="Profile")).to_be_hidden()
    back = page.get_by_role("link", name="All settings")
    expect(back).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Usage")).to_be_focused()
    expect(panel(page, "Profile")).to_be_hidden()


def test_theme_is_chosen_and_kept(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/settings/profile")
    page.get_by_role("radio", name="Dark").check()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.get_by_role("radio", name="Dark")).to_be_checked()
    expect(page.locator("body")).to_have_css("color-scheme", "dark")
    page.get_by_role("radio", name="As the system").check()
    expect(page.locator("html")).not_to_have_attribute("data-theme", re.compile("."))


def test_password_is_set_then_changed_and_its_rules_are_told(mia: Person, pages: Pages) -> None:
    pages.allow("status of 40[01]")
    elsewhere = mia.site.sign_in_again(mia)
    page = pages.open(mia, "/settings/profile")
    form = panel(page, "Password")
    expect(form.get_by_label("Present password")).to_have_count(0)

    fill(page, new="too short", again="too short")
    form.get_by_role("button").click()
    assert page.get_by_label("New password").evaluate("(input) => input.validity.tooShort")
    fill(page, new=PASSWORD, again="another one")
    expect(form.get_by_text("The two are not the same.")).to_be_visible()
    expect(form.get_by_role("button")).to_be_disabled()
    fill(page, new=" " * 12, again=" " * 12)
    form.get_by_role("button").click()
    expect(form.get_by_role("alert")).to_have_text("A password of nothing but spaces is too easy to guess. Choose another one.")
    fill(page, new=PASSWORD, again=PASSWORD)
    form.get_by_role("button", name="Set the password").click()
    expect(page.get_by_text("The password is set. Your other sessions have ended.")).to_be_visible()
    assert elsewhere.request("GET", "/api/me").status_code == 401

    fill(page, current="a wrong one", new=PASSWORD + "!", again=PASSWORD + "!")
    form.get_by_role("button", name="Change the password").click()
    expect(form.get_by_role("alert")).to_have_text("The present password is wrong.")
    expect(page.get_by_role("dialog")).to_have_count(0)  # it is no end of the session, though it is a 401
    fill(page, current=PASSWORD)
    form.get_by_role("button", name="Change the password").click()
    expect(page.get_by_text("The password is changed.")).to_be_visible()
    expect(page.get_by_label("New password")).to_have_value("")
    answer = mia.site.http.post(mia.site.url + "/api/auth/token", json={"name": mia.name, "password": PASSWORD + "!"})
    assert answer.status_code == 200


def test_page_stays_live_after_its_session_was_replaced(mia: Person, pages: Pages) -> None:
    """A new password ends the session by which the live connection was made: within a minute the server hangs up."""
    connected: list[WebSocketRoute] = []

    def pass_on(socket: WebSocketRoute) -> None:
        connected.append(socket)
        socket.connect_to_server()

    context = pages.context(mia)
    context.route_web_socket(re.compile(r"/ws\?"), pass_on)
    page = pages.tab(context, mia.site.url + "/settings/profile")
    fill(page, new=PASSWORD, again=PASSWORD)
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_label("Present password")).to_be_visible()
    connected[0].close(code=4401)
    mia.site.sign_in_again(mia).says("Still heard")
    expect(page.locator(".row-title").filter(has_text="Still heard")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(connected) == 2


def test_signs_out_everywhere_after_saying_what_follows(mia: Person, pages: Pages) -> None:
    other = mia.site.sign_in_again(mia)
    page = pages.open(mia, "/settings/profile")
    page.get_by_role("button", name="Sign out everywhere").click()
    dialog = page.get_by_role("dialog", name="Sign out everywhere?")
    expect(dialog).to_contain_text(f"onethread user link {mia.name}")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Sign out everywhere")).to_be_focused()
    assert other.request("GET", "/api/me").is_success

    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Sign out everywhere").click()
    expect(page).to_have_url(re.compile("/login"))
    assert other.request("GET", "/api/me").status_code == 401


def test_token_is_shown_once_works_and_is_revoked(mia: Person, pages: Pages) -> None:
    pages.allow("status of 409")
    page = pages.open(mia, "/settings/tokens", permissions=["clipboard-read", "clipboard-write"])
    form = panel(page, "New token")
    expect(form.get_by_role("checkbox", name="Act as an admin")).to_have_count(0)
    form.get_by_label("Name").fill("laptop")
    form.get_by_label("Valid for").select_option("30 days")
    form.get_by_role("checkbox", name="Talk with the agent").uncheck()
    form.get_by_role("button", name="Make the token").click()

    expect(form).to_contain_text("shown now and never again")
    secret = form.get_by_label("The token").input_value()
    answer = mia.site.http.get(mia.site.url + "/api/me", headers={"Authorization": f"Bearer {secret}"})
    assert answer.json()["scopes"] == ["tasks:read", "tasks:write"]
    form.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_text("The token is copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    expect(form.locator("pre")).to_have_text(f'curl -H "Authorization: Bearer {secret}" {mia.site.url}/api/me')

    form.get_by_label("Name").fill("laptop")
    form.get_by_role("button", name="Make the token").click()
    expect(form.get_by_role("alert")).to_contain_text("has a token 'laptop' already")

    page.reload()
    row = panel(page, "Your tokens").get_by_role("listitem").filter(has_text="laptop")
    expect(row).to_contain_text(re.compile("tasks:read.*valid until"))
    assert secret not in page.content()
    pages.shot(page, "settings-tokens")

    row.get_by_role("button", name="Revoke laptop").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    answer = mia.site.http.get(mia.site.url + "/api/me", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 401


def test_expired_token_is_marked(mia: Person, pages: Pages) -> None:
    async def made(uow: UnitOfWork) -> None:
        user = await identity.user_named(uow, mia.name)
        await identity.create_token(uow, user, "old one", scopes=frozenset({"chat"}), lifetime=timedelta(seconds=-1))

    mia.site.stored(made)
    page = pages.open(mia, "/settings/tokens")
    expect(panel(page, "Your tokens").get_by_role("listitem")).to_contain_text("expired")


def test_what_editors_need_is_what_our_command_writes(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/settings/connections")
    clients = {client.label: name for name, client in mcp_config.CLIENTS.items()}
    editors = page.get_by_role("group", name="Which editor").get_by_role("button")
    expect(editors).to_have_text(list(clients))
    for label, name in clients.items():
        editors.filter(has_text=label).click()
        shown = panel(page, "Your editor").locator("pre")
        expect(shown.last).to_have_text(f"onethread mcp config {name} --write")
        if mcp_config.CLIENTS[name].http is None:
            expect(shown).to_have_count(1)
            continue
        made = mcp_config.made(name, Settings(), read_only=False, tools=None, url=mia.site.url)
        assert json.loads(shown.first.inner_text()) == made.whole
        expect(shown.nth(1)).to_have_text(f"onethread mcp config {name} --url {mia.site.url}/mcp --write")


def test_models_say_what_they_lack(mia: Person, pages: Pages) -> None:
    one_key = choices("demo/offline", {"OPENAI_API_KEY": "sk-none"})  # with the site's own address for models none is missing
    assert {*mia.call("GET", "/api/models")[0]} == {*asdict(one_key[0])}
    context = pages.context(mia)
    context.route("**/api/models", lambda route: route.fulfill(json=[asdict(each) for each in one_key]))
    page = pages.tab(context, mia.site.url + "/settings/models")
    expect(panel(page, "Can be asked").get_by_role("listitem").filter(has_text="demo/offline")).to_contain_text("default")
    expect(panel(page, "Can be asked")).to_contain_text("OpenAI")
    missing = panel(page, "Not set up").get_by_role("listitem")
    expect(missing.filter(has_text="anthropic/claude").first).to_have_text(re.compile(r"^Anthropic\s*anthropic/\S+\s*ANTHROPIC_API_KEY$"))
    expect(missing.filter(has_text="gemini/").first).to_contain_text("GEMINI_API_KEY or GOOGLE_API_KEY")
    expect(missing.filter(has_text="openai/gpt").filter(has_text="OPENAI_API_KEY")).to_have_count(0)


def test_usage_is_told_by_model_and_by_day(site: Site, mia: Person, model: Model, pages: Pages) -> None:
    mia.asks("Hello")
    mia.asks("Hello", model=SCRIPTED)
    page = pages.open(mia, "/settings/usage")
    usage = panel(page, "Usage")
    expect(usage.locator(".totals")).to_contain_text(re.compile("Cost ?unknown"))  # of openai/scripted nobody knows the price
    expect(usage.get_by_role("row").filter(has_text="demo/offline")).to_contain_text("$0.00")
    expect(usage.get_by_role("row").filter(has_text=SCRIPTED)).to_contain_text("unknown")
    expect(usage.locator(".chart .slot")).to_have_count(30)  # today and 29 days before
    expect(usage.locator(".chart .bar:not([height='0'])")).to_have_count(1)
    today = mia.call("GET", "/api/usage")["by_day"][0]
    expect(usage.locator(".chart title").last).to_have_text(f"{today['day']}: {today['tokens_in']} in, {today['tokens_out']} out, unknown")
    usage.get_by_text("Day by day").click()
    expect(usage.get_by_role("row").filter(has_text=today["day"])).to_be_visible()

    usage.get_by_role("button", name="7 days").click()
    expect(usage.locator(".chart .slot")).to_have_count(7)
    expect(usage.get_by_role("group", name="Whose")).to_have_count(0)

    admin = pages.open(site.person(new_name("ann"), admin=True), "/settings/usage")
    expect(panel(admin, "Usage")).to_contain_text("No model was asked in this time.")
    admin.get_by_role("button", name="Everybody's").click()
    expect(panel(admin, "Usage").get_by_role("row").filter(has_text="demo/offline")).to_be_visible()


def test_failure_is_told_and_tried_again(mia: Person, pages: Pages) -> None:
    pages.allow("status of 503")
    context = pages.context(mia)

    def refuse(route: Route) -> None:
        route.fulfill(status=503, json={"detail": "The database is away.", "error_code": "SERVICE_UNAVAILABLE"})

    context.route("**/api/usage?*", refuse)
    page = pages.tab(context, mia.site.url + "/settings/usage")
    expect(page.locator(".settings").get_by_role("alert")).to_contain_text("The database is away.")
    context.unroute("**/api/usage?*")
    page.get_by_role("button", name="Try again").click()
    expect(panel(page, "Usage")).to_contain_text("No model was asked in this time.")
    expect(page.locator(".settings").get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("section", ["users", "projects", "queue"])
def test_what_is_for_admins_is_told_to_others_and_not_asked_for(section: str, mia: Person, pages: Pages) -> None:
    asked: list[str] = []
    context = pages.context(mia)
    context.on("request", lambda request: asked.append(urlsplit(request.url).path))
    page = pages.tab(context, f"{mia.site.url}/settings/{section}")
    expect(page.get_by_text("Only for admins")).to_be_visible()
    expect(page.get_by_role("navigation", name="Settings").get_by_text("For admins")).to_have_count(0)
    assert not [path for path in asked if path.startswith(("/api/admin", "/api/projects"))]
