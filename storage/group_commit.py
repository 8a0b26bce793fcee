"""SQLite's transactions of one process, committed together: those that are ready at the same moment wait for the disk once.

Each but the first has a savepoint of its own in the transaction that they share, so that an exception undoes only what belongs to it.
Nobody hears that something is stored before all of it is; see docs/decisions/0008.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from core.errors import StorageUnavailable
from storage.sqlite import SqliteConnection, SqliteEngine, SqliteTransaction, acquired

_Unit = TypeVar("_Unit")
_UNDONE = "Another change that was stored at the same moment took this one with it when it was interrupted. Try again."


class GroupCommit(Generic[_Unit]):
    """`last` is done before each commit, `told` behind it: with the units that were committed, or None where that is unknown."""

    def __init__(
        self,
        engine: SqliteEngine,
        *,
        last: Callable[[SqliteConnection, Sequence[_Unit]], Awaitable[None]],
        told: Callable[[Sequence[_Unit] | None], None],
    ) -> None:
        self._engine = engine
        self._last = last
        self._told = told
        self._group: _Group[_Unit] | None = None
        self._turn = asyncio.Semaphore(1)
        """Of who uses the connection; given in the order of asking."""

    @asynccontextmanager
    async def unit(self, made_on: Callable[[SqliteConnection], _Unit]) -> AsyncIterator[_Unit]:
        """A transaction as its caller sees it: committed at the end, undone by an exception.

        An exception, too, leaves only when the others are stored: it may come of what they wrote.
        """
        refused: Exception | None = None
        await acquired(self._turn)
        try:
            group = self._group = self._group or await self._begin()
            try:
                # What undoes the first one undoes all of the group. A savepoint would cost it a file, once it has changed 64 KiB of pages.
                with group.connection.savepoint() if group.units else nullcontext():
                    unit = made_on(group.connection)
                    yield unit
            except BaseException as error:
                if not (group.units and group.connection.in_transaction):
                    await self._undo(group, error)
                    raise
                if not isinstance(error, Exception):
                    raise
                refused = error
            else:
                group.units.append(unit)
                # It asks for its turn behind all who wait already: they come along.
                group.commit = group.commit or asyncio.create_task(self._commit(group), name="sqlite.commit")
        finally:
            self._turn.release()
        await known(group.outcome)
        if refused:
            raise refused

    async def _begin(self) -> "_Group[_Unit]":
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._engine.connect())
            transaction = await connection.begin()
            return _Group(connection, transaction, stack.pop_all())

    async def _commit(self, group: "_Group[_Unit]") -> None:
        """In its turn. Others wait for it, so not even the end of the program takes it from them."""
        while True:
            with suppress(asyncio.CancelledError):
                await self._turn.acquire()
                break
        try:
            if self._group is group:
                self._group = None
                await self._committed(group)
        finally:
            self._turn.release()

    async def _committed(self, group: "_Group[_Unit]") -> None:
        try:
            await self._last(group.connection, group.units)
            await group.transaction.commit()
        except BaseException as error:  # noqa: BLE001  # raised by those who wait for the outcome
            self._told(None)
            await group.undo(error)
        else:
            self._told(group.units)
            await group.end()

    async def _undo(self, group: "_Group[_Unit]", error: BaseException) -> None:
        """Ends a group in which nothing is left: its only unit failed, or SQLite itself rolled everything back, as on a full disk."""
        self._group = None
        await group.undo(error if isinstance(error, DBAPIError | StorageUnavailable) else StorageUnavailable(_UNDONE))


@dataclass(slots=True)
class _Group(Generic[_Unit]):
    connection: SqliteConnection
    transaction: SqliteTransaction
    opened: AsyncExitStack
    units: list[_Unit] = field(default_factory=list)
    commit: "asyncio.Task[None] | None" = None
    outcome: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def undo(self, error: BaseException) -> None:
        try:
            await self.transaction.rollback()
        finally:
            await self.end(error)

    async def end(self, error: BaseException | None = None) -> None:
        try:
            await self.opened.aclose()
        finally:
            if error is None:
                self.outcome.set_result(None)
            else:
                self.outcome.set_exception(error)
                self.outcome.exception()  # taken, or asyncio would print it where all who waited were cancelled


async def known(outcome: "asyncio.Future[None]") -> None:
    """Waits for a commit. A cancellation waits too: what is stored must also be told."""
    try:
        await asyncio.shield(outcome)
    finally:
        while not outcome.done():
            with suppress(asyncio.CancelledError):  # the second one; the first is on its way
                await asyncio.wait({outcome})
