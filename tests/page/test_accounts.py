"""Accounts on chat platforms, on the page: linked while one looks, by the page that a private link opens, and unlinked."""

import re
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from core import linking
from core.access import Principal
from core.models import Account
from core.ports import UnitOfWork
from tests.page.browser import Pages
from tests.page.conftest import new_name
from tests.page.site import Person

SLACK, DISCORD = Account(surface="slack", id="T1"), Account(surface="discord", id="9")


async def begun(uow: UnitOfWork, account: Account, name: str) -> str:
    """Somebody writes on a platform for the first time, and types /link there."""
    _, met = await linking.meet(uow, account, name, name, {})
    return await linking.begin(uow, account, met.external_id, {})


def test_accounts_are_linked_by_code_and_by_link_and_unlinked(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/settings/accounts")
    expect(page.get_by_text("None is linked.")).to_be_visible()
    page.clock.set_fixed_time(datetime.now(UTC) + timedelta(hours=2))  # a clock that is wrong hides no code
    page.get_by_role("button", name="Make a code").click()
    expect(page.get_by_text("It works once, within 10 minutes.")).to_be_visible()
    expect(page.get_by_label("The command", exact=True)).to_have_value(re.compile(r"/link [A-Z2-9]{4}-[A-Z2-9]{4}"))

    async def typed(uow: UnitOfWork) -> None:
        mia_here = await uow.users.by_name(mia.name)
        assert mia_here
        await linking.confirm(uow, Principal(user_id=mia_here.id), await begun(uow, DISCORD, discord), {})

    slack, discord = new_name("slack"), new_name("discord")
    mia.site.stored(typed)
    expect(page.get_by_text(f"{discord} on Discord is you from now on.")).to_be_visible()
    expect(page.get_by_role("button", name="Make a code")).to_be_visible()

    secret = mia.site.stored(lambda uow: begun(uow, SLACK, slack))
    page.goto(f"{mia.site.url}/link/{secret}")
    expect(page.get_by_role("heading", name="Is this you on Slack?")).to_be_visible()
    expect(page.get_by_role("note")).to_contain_text("If somebody sent you this link, close this page.")
    pages.shot(page, "link")
    page.get_by_role("button", name=f"Yes, link it with {mia.name}").click()
    expect(page).to_have_url(f"{mia.site.url}/settings/accounts")
    rows = page.locator(".rows > li")
    expect(rows).to_contain_text([f"{discord} on Discord", f"{slack} on Slack"])
    pages.shot(page, "accounts")

    page.get_by_role("button", name=f"Unlink {slack} on Slack").click()
    page.get_by_role("dialog").get_by_role("button", name="Unlink").click()
    expect(rows).to_contain_text([f"{discord} on Discord"])
    expect(rows).to_have_count(1)
