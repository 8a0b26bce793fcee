"""Ending all of one's sessions at once: in this browser, in others, and on their WebSockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

import httpx
import pytest
from websockets.asyncio.client import connect

from core import identity
from core.access import Principal
from core.errors import NotAuthenticated
from core.models import LinkPurpose, User
from core.ports import UnitOfWork
from tests.databases import on_both
from tests.integration.conftest import World
from tests.integration.web.conftest import Site, site_of
from web.credentials import issue_jwt

new_database = on_both
FROM_OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}
PATH = "/api/auth/sign-out-everywhere"


async def user_of(site: Site, who: Principal) -> User:
    user = await site.world.read(lambda uow: uow.users.get(who.user_id))
    assert user
    return user


@asynccontextmanager
async def browser(site: Site, who: Principal) -> AsyncIterator[httpx.AsyncClient]:
    """One that is signed in."""
    user = await user_of(site, who)
    secret = await site.world.write(lambda uow: identity.open_session(uow, user))
    async with httpx.AsyncClient(base_url=site.url, headers=FROM_OUR_PAGE, timeout=20) as page:
        page.cookies.set("onethread_sid", secret, domain="127.0.0.1")
        yield page


async def statuses(*pages: httpx.AsyncClient) -> list[int]:
    return [(await page.get("/api/me")).status_code for page in pages]


async def test_all_sessions_of_the_caller_end_and_nobody_elses(site: Site) -> None:
    kim, lee = await site.world.user("kim"), await site.world.user("lee")
    async with AsyncExitStack() as stack:
        here, there, others = [await stack.enter_async_context(browser(site, who)) for who in (kim, kim, lee)]
        by_token = await stack.enter_async_context(site.calling(kim))
        secret = there.cookies["onethread_sid"]
        before = await statuses(here, there, others, by_token)

        answer = await here.post(PATH)

        assert (answer.status_code, answer.content) == (204, b"")
        assert 'onethread_sid=""' in answer.headers["set-cookie"]
        assert "onethread_sid" not in here.cookies
        here.cookies.set("onethread_sid", secret, domain="127.0.0.1")
        assert (before, await statuses(here, there, others, by_token)) == ([200] * 4, [401, 401, 200, 200])


async def test_links_that_were_not_used_are_taken_back(site: Site) -> None:
    """Whoever made one at a session that was left open would come in again."""
    kim, lee = [await user_of(site, await site.world.user(name)) for name in ("kim", "lee")]
    links = {
        user.name: [
            await site.world.write(partial(identity.create_link, user=user, purpose=purpose, lifetime=timedelta(days=1)))
            for purpose in LinkPurpose
        ]
        for user in (kim, lee)
    }
    async with browser(site, identity.principal_of(kim)) as page:
        assert (await page.post(PATH)).status_code == 204

    for name, secrets in links.items():
        for secret, purpose in zip(secrets, LinkPurpose, strict=True):
            peeked = site.world.read(partial(identity.peek_link, secret=secret, purpose=purpose))
            if name == "lee":
                assert await peeked == lee
            else:
                with pytest.raises(NotAuthenticated):
                    await peeked


async def test_an_open_page_elsewhere_is_shown_out(world: World) -> None:
    async with site_of(world, recheck_seconds=0.05) as site, browser(site, world.admin) as here:
        cookie = {"Cookie": f"onethread_sid={here.cookies['onethread_sid']}", "Origin": site.url}
        async with connect(f"{site.url.replace('http', 'ws', 1)}/ws", additional_headers=cookie) as live:
            assert (await here.post(PATH)).status_code == 204
            async with asyncio.timeout(5):
                await live.wait_closed()

    assert live.close_code == 4401


async def test_it_is_for_who_is_signed_in_on_our_own_page(site: Site) -> None:
    async with browser(site, site.world.admin) as page, httpx.AsyncClient(base_url=site.url) as nobody:
        from_elsewhere = await page.post(PATH, headers={"Sec-Fetch-Site": "cross-site"})
        refused = [(await each.post(PATH)).status_code for each in (nobody, site.client)]
        signed_in = await statuses(page)

    assert (from_elsewhere.status_code, refused, signed_in) == (403, [401, 401], [200])


async def test_a_program_that_signed_in_by_password_may_do_it_too(site: Site) -> None:
    user = await user_of(site, site.world.admin)
    token = issue_jwt(user, site.app.state.services.rules, site.app.state.services.clock.now())
    async with browser(site, site.world.admin) as page, httpx.AsyncClient(base_url=site.url) as program:
        done = await program.post(PATH, headers={"Authorization": f"Bearer {token}"})
        assert (done.status_code, await statuses(page)) == (204, [401])


async def test_a_session_that_is_opened_later_counts(site: Site) -> None:
    async def again(uow: UnitOfWork) -> None:
        await identity.sign_out_everywhere(uow, site.world.admin)

    await site.world.write(again)
    async with browser(site, site.world.admin) as page:
        assert await statuses(page) == [200]
