"""A real database with its two people, for the services that need no worker."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from core import identity, projects
from core.access import Principal
from core.ids import new_id
from core.live import LiveEvents
from core.messages import PostingRules
from core.models import User
from core.ports import UnitOfWork
from storage.engine import database_url
from storage.schema import metadata
from storage.sqlite import sqlite_reader, sqlite_writer
from storage.unit_of_work import Database
from tests.fakes import ManualClock

_T = TypeVar("_T")


@dataclass(slots=True)
class Desk:
    storage: Database
    clock: ManualClock
    rules: PostingRules
    owner: User
    admin: Principal
    kim: Principal

    async def do(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        async with self.storage.write() as uow:
            return await work(uow)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    url = database_url(f"sqlite+aiosqlite:///{tmp_path / 'onethread.db'}")
    clock = ManualClock()
    storage = Database(
        writer=(writer := sqlite_writer(url)), reader=sqlite_reader(url), live=LiveEvents(), clock=clock, process_id=new_id()
    )
    async with writer.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with storage.write() as uow:
        await projects.default(uow)
        owner = await identity.local_admin(uow)
        kim = identity.principal_of(await identity.add_user(uow, "kim"))
    yield Desk(storage, clock, PostingRules(default_model="one/model"), owner, identity.principal_of(owner), kim)
    await storage.close()
