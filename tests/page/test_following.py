"""Where a conversation is followed on chat platforms, on the page: the chip in its header, the dialog, and the notices among what was said.

No platform is there: what one would answer is stored by the tests, as delivery does.
"""

from datetime import timedelta
from uuid import UUID

from playwright.sync_api import Locator, Page, expect

from core import approvals, bindings, messages
from core.access import Principal
from core.ids import new_id
from core.models import NOT_A_READER, Account, ChannelKind, Decision, Identity
from core.ports import UnitOfWork
from tests.page.browser import Pages
from tests.page.conftest import new_name
from tests.page.site import JSON, OFFLINE, Person, Site

SLACK = Account(surface="slack", id="T0FOLLOW1")
MARKUP = "#<b>ops</b> & *more*"


def link_to(channel: str) -> str:
    return f"https://acme.slack.com/archives/{channel}"


def serve(site: Site) -> None:
    """As a process does that is on Slack."""

    async def take(uow: UnitOfWork) -> None:
        await uow.account_leases.take(SLACK, new_id(), until=uow.now + timedelta(hours=1), now=uow.now)

    site.stored(take)


def link(who: Person) -> None:
    async def add(uow: UnitOfWork) -> None:
        about = Identity(
            surface=SLACK.surface,
            account=SLACK.id,
            external_id=f"U{who.name.upper()}",
            user_id=UUID(who.id),
            name=who.name,
            created_at=uow.now,
        )
        await uow.identities.add(about)

    who.site.stored(add)


def answer(site: Site, binding: JSON, *, reads: bool = True, label: str = "") -> None:
    """What the platform says of a place, once it was asked."""

    async def note(uow: UnitOfWork) -> None:
        found = await uow.bindings.get(UUID(binding["id"]))
        assert found
        url, thread = f"https://app.slack.com/client/{SLACK.id}/{found.channel}", f"17{found.id.int % 10**8:08}.000100"
        if reads:
            await bindings.checked(
                uow, found, channel=found.channel, thread=thread, opened=True, kind=ChannelKind.OPEN, label=label, url=url
            )
        else:
            await bindings.end(uow, found, NOT_A_READER)

    site.stored(note)


def binding_of(who: Person, conversation_id: str) -> JSON:
    found: JSON = who.call("GET", f"/api/conversations/{conversation_id}/bindings")["bindings"][-1]
    return found


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Followed in")


def chip(page: Page) -> Locator:
    return page.locator(".chat-head .followed")


def heading(page: Page) -> Locator:
    return dialog(page).get_by_role("heading", name="Followed in")


def row(page: Page) -> Locator:
    return dialog(page).locator(".binding")


def notices(page: Page) -> Locator:
    return page.get_by_role("log").locator(".notice")


def test_a_private_chat_is_followed_by_a_link_once_that_is_meant(site: Site, mia: Person, pages: Pages) -> None:
    """And its place is asked about, found unfit, tried again, changed, left, and gone: the dialog tells each of it as it comes."""
    pages.allow(r"status of 4\d\d")
    serve(site)
    chat = mia.asks("count to 3")["conversation_id"]
    page = pages.open(mia, f"/conversations/{chat}")
    follow = page.get_by_role("button", name="Follow in Slack or Discord")
    follow.click()
    expect(dialog(page)).to_contain_text("Nowhere else yet.")
    expect(dialog(page)).to_contain_text("To choose a place on Slack, link your account first: Settings > Accounts.")
    expect(dialog(page)).to_contain_text(f"/task follow {site.url}/conversations/{chat}")
    expect(dialog(page).get_by_role("textbox")).to_have_count(0)
    pages.shot(page, "following-unlinked")
    dialog(page).get_by_role("link", name="Settings > Accounts").click()
    expect(dialog(page)).to_have_count(0)
    assert page.url == f"{site.url}/settings/accounts"
    page.go_back()

    link(mia)
    follow.click()
    place, send = dialog(page).get_by_role("textbox"), dialog(page).get_by_role("button", name="Follow", exact=True)
    place.fill("#ops")
    send.click()
    expect(dialog(page).get_by_role("alert")).to_contain_text("That is no link to a channel or thread")
    place.fill(link_to("C0FOLLOW01"))
    send.click()
    asks = dialog(page).get_by_role("alertdialog")
    expect(asks).to_contain_text(f"This conversation is private: only {mia.name} reads it.")
    expect(asks).to_contain_text(link_to("C0FOLLOW01"))
    expect(asks.get_by_role("button", name="Cancel")).to_be_focused()
    pages.shot(page, "following-asks")
    asks.get_by_role("button", name="Cancel").click()
    expect(asks).to_have_count(0)
    expect(place).to_have_value(link_to("C0FOLLOW01"))
    assert mia.call("GET", f"/api/conversations/{chat}/bindings")["bindings"] == []
    send.click()
    asks.get_by_role("button", name="Follow", exact=True).click()
    expect(row(page)).to_contain_text("Asking Slack about this place …")
    expect(page.get_by_text("a channel on Slack: asked for, two-way.", exact=True)).to_be_attached()
    expect(send).to_be_focused()
    expect(chip(page)).to_have_text("asked for in a channel on Slack")
    expect(chip(page)).to_have_attribute("data-state", "pending")

    answer(site, binding_of(mia, chat), reads=False)
    expect(row(page)).to_contain_text("Whoever wanted it there does not read that place, or Onethread does not, or it does not exist.")
    expect(chip(page)).to_have_text("not shown in a channel on Slack")
    row(page).get_by_role("button", name="Try again").click()
    expect(asks).to_contain_text("a channel on Slack")
    asks.get_by_role("button", name="Make it two-way").click()
    expect(row(page)).to_contain_text("Asking Slack")
    expect(heading(page)).to_be_focused()  # what was pressed is not there any more
    answer(site, binding_of(mia, chat), label=MARKUP)
    expect(row(page).get_by_role("link", name=f"{MARKUP} on Slack", exact=True)).to_have_attribute("rel", "noopener noreferrer")
    expect(chip(page)).to_have_text(f"also in {MARKUP} on Slack")
    expect(notices(page).last).to_contain_text(f"{mia.name} follows this in {MARKUP} on Slack from now on.")

    mode = row(page).get_by_role("combobox", name=f"What goes on in {MARKUP} on Slack")
    mode.select_option("watch")
    expect(notices(page).last).to_contain_text("read-only")
    mode.select_option("two_way")  # what is said there comes in then: it is asked for once more
    asks.get_by_role("button", name="Cancel").click()
    expect(mode).to_have_value("watch")
    pages.shot(page, "following-live")
    row(page).get_by_role("button", name="Unfollow").click()
    expect(dialog(page)).to_contain_text("Not followed any more (1)")
    expect(notices(page).last).to_contain_text(f"{mia.name} stopped following this")
    expect(chip(page)).to_have_count(0)
    expect(heading(page)).to_be_focused()

    site.stored(lambda uow: uow.bindings.remove(UUID(binding_of(mia, chat)["id"])))
    row(page).get_by_role("button", name="Follow again, read-only").click()
    expect(row(page).get_by_role("alert")).to_contain_text("There is no binding")
    page.keyboard.press("Escape")
    expect(follow).to_be_focused()
    page.route("**/bindings", lambda route: route.abort())
    follow.evaluate("button => { button.click(); button.click(); }")  # twice before the dialog is there, which would take the second
    expect(dialog(page)).to_have_count(1)
    expect(dialog(page).get_by_role("alert")).to_contain_text("The server cannot be reached.")
    page.unroute("**/bindings")
    pages.allow("ERR_FAILED")
    dialog(page).get_by_role("button", name="Try again").click()
    expect(dialog(page)).to_contain_text("Nowhere else yet.")


def test_what_is_done_elsewhere_shows_at_once_with_who_did_it(site: Site, mia: Person, pages: Pages) -> None:
    """A channel that ann follows it in, her answer and her decision from there."""
    serve(site)
    pages.allow("ERR_FAILED")
    ann = site.person(new_name("ann"), admin=True)
    link(ann)
    known, task = mia.task("Known"), mia.task("Ship it")
    conversation = task["conversation_id"]
    for place, name in enumerate(("admin", "beta", "chess", "design", "events", "food", "market", "shipping")):
        there = {"place": link_to(f"C0KNOWN{place:03}"), "mode": "watch"}
        answer(site, ann.call("POST", f"/api/conversations/{known['conversation_id']}/bindings", there), label=f"#{name}")
    asked = mia.asks("ask me whether to use tea or coffee", task_id=task["ref"])
    phone = pages.open(mia, f"/tasks/{task['ref']}", phone=True, dark=True)
    question = phone.get_by_role("region", name="The agent asks")
    expect(question.get_by_role("button", name="tea")).to_be_enabled()

    page = pages.open(ann, f"/tasks/{task['ref']}")
    page.get_by_role("button", name="Follow in Slack or Discord").click()
    channels = dialog(page).get_by_role("group", name="Channels").get_by_role("button")
    expect(channels).to_have_count(6)
    dialog(page).get_by_role("textbox").fill("ship")
    channels.filter(has_text="#shipping").click()
    expect(channels.filter(has_text="#shipping")).to_have_attribute("aria-pressed", "true")
    expect(channels.filter(has_text="#shipping")).to_be_focused()
    dialog(page).get_by_role("button", name="Read-only").click()
    dialog(page).get_by_role("button", name="Follow", exact=True).click()
    expect(row(page)).to_contain_text("Asking Slack")
    page.route("**/bindings", lambda route: route.abort())
    dialog(page).get_by_role("textbox").fill("mark")
    channels.filter(has_text="#market").click()
    answer(site, binding_of(ann, conversation), label="#shipping")
    expect(dialog(page).get_by_role("alert")).to_contain_text("The server cannot be reached.")
    expect(channels.filter(has_text="#market")).to_have_attribute("aria-pressed", "true")  # what one does there stays
    page.unroute("**/bindings")
    known_by_now = [{"key": f"slack:T0FOLLOW1:C0KNOWN{place:03}", "surface": "slack", "label": f"#a-mark-{place}"} for place in range(8)]
    known_by_now[6]["label"] = "#market"
    told = {"bindings": [], "also": "", "places": known_by_now, "platforms": [{"surface": "slack", "linked": True}]}
    page.route("**/bindings", lambda route: route.fulfill(json=told))
    dialog(page).get_by_role("button", name="Try again").click()
    expect(dialog(page).get_by_role("alert")).to_have_count(0)
    expect(channels).to_have_count(7)
    expect(channels.last).to_have_text("#market")
    expect(channels.last).to_have_attribute("aria-pressed", "true")  # behind those that there is room for
    page.unroute("**/bindings")
    expect(chip(phone)).to_have_text("also in #shipping on Slack")
    expect(notices(phone)).to_contain_text(f"{ann.name} follows this in #shipping on Slack from now on, read-only.")
    expect(question.get_by_role("button", name="tea")).to_be_enabled()  # a notice answers nothing
    pages.shot(page, "following-known")

    who = Principal(user_id=UUID(ann.id), admin=True)
    rules = messages.PostingRules(default_model=OFFLINE)
    site.stored(lambda uow: messages.answer(uow, who, UUID(asked["message"]["id"]), "tea", rules=rules, source="slack"))
    expect(question).to_contain_text(f"Answered by {ann.name} in Slack.")
    expect(phone.get_by_role("article").nth(2)).to_contain_text(f"{ann.name}Slack")
    mia.says(f"delete {known['ref']}", task_id=task["ref"])
    expect(phone.get_by_role("region", name="Waits for your decision")).to_be_visible()
    call = mia.messages(conversation)[-1]["tool_calls"][0]
    site.stored(lambda uow: approvals.decide(uow, who, UUID(call["approval_id"]), Decision.DENY))
    expect(phone.locator(".tool-problem")).to_have_text(f"denied by {ann.name}")

    chip(phone).tap()
    expect(row(phone)).to_contain_text(f"By {ann.name}")
    expect(dialog(phone)).to_contain_text("link your account first")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    pages.shot(phone, "following-phone")
    phone.keyboard.press("Escape")
    pages.shot(phone, "following-phone-thread")
    phone.route("**/bindings", lambda route: route.fulfill(json={"bindings": [], "also": "", "places": [], "platforms": []}))
    chip(phone).tap()
    expect(dialog(phone)).to_contain_text("Neither Slack nor Discord is set up here. An admin can do that on the server")
