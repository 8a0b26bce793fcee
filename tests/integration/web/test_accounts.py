"""Chat accounts over HTTP: the page that confirms a private link, as browsers and attackers come to it; the list, the code, unlinking."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import structlog

from core import identity, linking
from core.models import Account, User
from tests.integration.conftest import World
from tests.integration.web.conftest import Site
from tests.integration.web.test_sign_in import FROM_OUR_PAGE, Browser, browser, person, told

SLACK = Account(surface="slack", id="T1")
ELSEWHERE = {"Sec-Fetch-Site": "cross-site"}


async def met(world: World, name: str = "<mo>", external_id: str = "U1") -> User:
    user, _ = await world.write(lambda uow: linking.meet(uow, SLACK, external_id, name, {}))
    return user


async def link(world: World, external_id: str = "U1") -> str:
    return "/link/" + await world.write(lambda uow: linking.begin(uow, SLACK, external_id, {}))


@asynccontextmanager
async def signed_in(site: Site, name: str) -> AsyncIterator[Browser]:
    async with browser(site) as page:
        await page.sign_in(name)
        yield page


async def accounts(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/api/accounts")).json()["accounts"]
    return found


@pytest.fixture
async def kim(site: Site) -> User:
    return await person(site.world, "kim")


async def test_a_link_is_opened_after_signing_in_and_confirmed_on_the_page(site: Site, kim: User) -> None:
    await met(site.world)
    path = await link(site.world)
    with structlog.testing.capture_logs() as logged:
        await opened_and_confirmed(site, path)
    assert {"request.served", "account.linked"} <= {line["event"] for line in logged}
    assert path.removeprefix("/link/") not in str(logged)


async def opened_and_confirmed(site: Site, path: str) -> None:
    async with browser(site) as page:
        first = await page.visit(path)
        assert (first.status_code, first.headers["location"]) == (303, f"/login?next={path}")
        assert f'value="{path}"' in (await page.visit(first.headers["location"])).text
        assert (await page.sign_in(next=path)).headers["location"] == path
        shown = await page.visit(path)
        await page.visit(path)  # looking uses nothing up
        for text in (
            "Is this you on Slack?",
            "<b>&lt;mo&gt;</b>",
            "Slack account U1, in T1",
            "Yes, link it with kim",
            "If somebody sent you this link",
        ):
            assert text in shown.text
        assert (shown.headers["referrer-policy"], shown.headers["cache-control"]) == ("same-origin", "no-store")
        assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
        assert await accounts(page) == []

        form = re.search(r'<form method="post" action="([^"]+)">', shown.text)
        assert form
        for _ in range(2):  # who presses twice sees the second answer
            done = await page.submit(path + form[1])
            assert (done.status_code, done.headers["location"]) == (303, "/settings/accounts")
        (found,) = await accounts(page)
        assert found.pop("linked_at")
        assert found == {"surface": "slack", "account": "T1", "external_id": "U1", "name": "<mo>", "by_operator": False}
        again = await page.submit(f"{path}?account=slack:T1:U2")
        assert (again.status_code, told(again)) == (401, "This link was used already, or is too old. Ask for a new one.")
        assert (await page.visit(path)).headers["referrer-policy"] == "no-referrer"


async def test_no_other_site_token_or_stranger_confirms_a_link(site: Site, kim: User) -> None:
    world = site.world
    mo = await met(world)
    path = await link(world)
    async with signed_in(site, "kim") as page, site.calling(identity.principal_of(kim)) as program, browser(site) as nobody:
        refused = [
            await page.submit(path, ELSEWHERE),
            await page.submit(path, {"Origin": "https://evil.example"}),
            await page.submit(path, {"Origin": "null"}),
            await page.submit(path, {}),
            await page.submit("/link/guessed"),
            await nobody.submit(path),
            await program.post(path, headers=FROM_OUR_PAGE),
            await program.get(path),
        ]
        assert [answer.status_code for answer in refused] == [403, 403, 403, 403, 401, 401, 401, 401]
        assert await accounts(page) == []
        await world.write(lambda uow: identity.disable(uow, kim))
        assert (await page.submit(path)).status_code == 401
    assert await world.read(lambda uow: uow.users.get(mo.id)) == mo


async def test_accounts_are_listed_linked_by_code_and_unlinked(site: Site, kim: User) -> None:
    world, who = site.world, identity.principal_of(kim)
    await met(world)
    async with site.signed_in(who) as client, site.calling(who) as program, site.signed_in(await world.user("eve")) as eve:
        made = await client.post("/api/accounts/code")
        assert (made.status_code, set(made.json()), made.json()["expires_in"]) == (201, {"code", "expires_at", "expires_in"}, 600)
        await linking.use_code(world.app.storage, SLACK, "U1", made.json()["code"], {}, confirmed=True)
        assert [each["external_id"] for each in await accounts(program)] == ["U1"]
        assert await accounts(eve) == []
        path = "/api/accounts/slack/T1/U1"
        answers = [await program.post("/api/accounts/code"), await program.delete(path), await eve.delete(path), await client.delete(path)]
        assert [answer.status_code for answer in answers] == [401, 401, 404, 204]
        assert await accounts(client) == []
        assert (await client.delete(path)).status_code == 404


async def test_what_the_operator_links_is_marked_and_stays(site: Site, kim: User, monkeypatch: pytest.MonkeyPatch) -> None:
    people = {("slack", "T1", "U1"): "kim"}
    monkeypatch.setattr(site.app.state, "services", replace(site.app.state.services, people_map=people))
    await site.world.write(lambda uow: linking.meet(uow, SLACK, "U1", "mo", people))
    async with site.signed_in(identity.principal_of(kim)) as client:
        assert [each["by_operator"] for each in await accounts(client)] == [True]
        refused = await client.delete("/api/accounts/slack/T1/U1")
        assert (refused.status_code, refused.json()["detail"]) == (
            409,
            "Whoever runs Onethread says whose account this is. Ask them to change it.",
        )
