"""What goes through much of the database leaves room for others, and ends when nobody waits for it: over HTTP, in both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from core.access import Principal
from core.errors import RateLimited
from core.ports import Storage, UnitOfWork
from tests.databases import on_both
from tests.integration.web.conftest import Site
from web.long_reads import AT_ONCE, LongReads

new_database = on_both
PATHS = {"search": "/api/search?query=milk", "usage": "/api/usage"}


@dataclass(slots=True)
class SlowStorage:
    """The site's own, but that going through messages or usage takes until the test lets it end."""

    storage: Storage
    begun: int = 0
    ended: int = 0
    going_on: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        async with self.storage.read() as uow:
            for repository, name in ((uow.messages, "search"), (uow.usage, "sums")):
                vars(repository)[name] = self._held(getattr(repository, name))
            yield uow

    def _held(self, look: Any) -> Any:
        async def held(*arguments: Any, **fields: Any) -> Any:
            await self._count("begun")
            try:
                await self.going_on.wait()
                return await look(*arguments, **fields)
            finally:
                await self._count("ended")

        return held

    async def _count(self, what: str) -> None:
        async with self.changed:
            setattr(self, what, getattr(self, what) + 1)
            self.changed.notify_all()

    async def until(self, *, begun: int, ended: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: (self.begun, self.ended) == (begun, ended))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)


@pytest.fixture
def slow(site: Site) -> SlowStorage:
    services = site.app.state.services
    storage = SlowStorage(services.storage)
    site.app.state.services = replace(services, storage=storage)
    return storage


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_many_at_once_leave_room_for_others(site: Site, slow: SlowStorage, path: str) -> None:
    people = [await site.world.user(f"user-{number}") for number in range(8)]
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(_ask(site, who, path)) for who in people]
        await slow.until(begun=AT_ONCE, ended=0)
        for _ in range(5):  # time for the others to begin, if they could
            async with asyncio.timeout(5):
                assert (await site.client.get("/api/me")).status_code == 200
        assert slow.begun == AT_ONCE
        slow.going_on.set()

    assert [each.result().status_code for each in asking] == [200] * len(people)
    assert slow.begun == len(people)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_what_nobody_waits_for_any_more_ends(site: Site, slow: SlowStorage, path: str) -> None:
    for number in range(1, 7):
        asking = asyncio.create_task(_ask(site, site.world.admin, path))
        await slow.until(begun=number, ended=number - 1)
        asking.cancel()
        await slow.until(begun=number, ended=number)
    slow.going_on.set()

    assert (await site.client.get(path)).status_code == 200


async def test_another_search_of_the_same_person_ends_the_one_before(site: Site, slow: SlowStorage) -> None:
    kim = await site.world.user("kim")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(_ask(site, site.world.admin, PATHS["search"]))
        await slow.until(begun=1, ended=0)
        others = group.create_task(_ask(site, kim, PATHS["search"]))
        await slow.until(begun=2, ended=0)
        second = group.create_task(_ask(site, site.world.admin, "/api/search?query=bread"))
        await slow.until(begun=3, ended=1)
        slow.going_on.set()

    assert (first.result().status_code, first.result().json()["error_code"]) == (429, "RATE_LIMITED")
    assert first.result().headers["retry-after"] == "1"
    assert (second.result().status_code, others.result().status_code) == (200, 200)


async def test_the_two_kinds_of_one_person_do_not_end_each_other(site: Site, slow: SlowStorage) -> None:
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(_ask(site, site.world.admin, path)) for path in PATHS.values()]
        await slow.until(begun=2, ended=0)
        slow.going_on.set()

    assert [each.result().status_code for each in asking] == [200, 200]


async def test_whoever_waits_too_long_for_others_is_told_so() -> None:
    reads, forever = LongReads(at_once=1, wait_seconds=0.02), asyncio.Event()
    running = asyncio.create_task(reads.run("one", forever.wait()))
    await asyncio.sleep(0)
    with pytest.raises(RateLimited, match="Too much is looked for"):
        await reads.run("other", forever.wait())
    forever.set()

    assert await running
    assert await reads.run("other", forever.wait())


async def _ask(site: Site, who: Principal, path: str) -> httpx.Response:
    async with site.calling(who) as client:
        return await client.get(path)
