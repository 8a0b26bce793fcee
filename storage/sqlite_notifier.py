"""How a process hears what other processes did to the same SQLite file: it watches the file's version and reads the feed of changes."""

import asyncio
import sqlite3
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any
from uuid import UUID

import aiosqlite
import structlog
from sqlalchemy import bindparam, case, func, select
from sqlalchemy.exc import SQLAlchemyError

from core.events import Event, Lagged, TextDelta, unpacked
from core.live import LiveEvents
from core.logs import place_of
from core.models import TurnStatus
from core.text import utf16_len
from storage import schema
from storage.engine import Engine
from storage.prepared import Prepared, Row

POLL_SECONDS = 0.1
RETRY_SECONDS = 1.0
_BATCH = 500
_log = structlog.get_logger()


class SqliteNotifier:
    """Publishes the events of other processes here. Text of their replies comes from the drafts that they store once a second."""

    def __init__(self, *, path: str, reader: Engine, live: LiveEvents, process_id: UUID) -> None:
        self._path = path
        self._reader = reader
        self._live = live
        self._process_id = process_id
        self._last_id = 0
        self._drafts: dict[UUID, tuple[int, str]] = {}

    async def run(self, started: asyncio.Event) -> None:
        """Watches until cancelled. `started` is set when nothing committed from then on can be missed."""
        self._last_id = await self._newest_id()
        while True:
            try:
                await self._watch(started)
            except (SQLAlchemyError, sqlite3.Error) as error:
                _log.warning("notifier.interrupted", **place_of(error))
                await asyncio.sleep(RETRY_SECONDS)
                self._live.publish(Lagged())

    async def _watch(self, started: asyncio.Event) -> None:
        async with aiosqlite.connect(self._path, isolation_level=None) as connection:
            seen = None
            while True:
                version = await _data_version(connection)
                if version != seen:
                    await self._catch_up()
                    seen = version
                started.set()
                await asyncio.sleep(POLL_SECONDS)

    async def _newest_id(self) -> int:
        async with self._reader.begin() as connection:
            return int((await connection.execute(select(func.coalesce(func.max(schema.changes.c.id), 0)))).scalar_one())

    async def _catch_up(self) -> None:
        while rows := await self._read_changes():
            if rows[0]["id"] != self._last_id + 1:
                _log.warning("notifier.lagged", missed=rows[0]["id"] - self._last_id - 1)
                self._live.publish(Lagged())
            self._last_id = rows[-1]["id"]
            self._live.publish(*(_event(stored) for row in rows for stored in row["events"] or ()))
            if len(rows) < _BATCH:
                break
        await self._follow_drafts(self._live.followed)

    async def _read_changes(self) -> list[Row]:
        async with self._reader.begin() as connection:
            return await _changes().run(connection, {"here": self._process_id, "seen": self._last_id})

    async def _follow_drafts(self, conversations: Collection[UUID]) -> None:
        if not conversations:
            return
        rows = await self._read_drafts(conversations)
        self._drafts = {message: seen for message, seen in self._drafts.items() if message in rows}
        for message_id, row in rows.items():
            delta = self._delta(row, self._drafts.get(message_id, (0, "")))
            self._drafts[message_id] = (row.stream_no, row.content)
            if delta:
                self._live.publish(delta)

    async def _read_drafts(self, conversations: Collection[UUID]) -> Mapping[UUID, Any]:
        turn, message = schema.turns.c, schema.messages.c
        query = (
            select(message.id, message.conversation_id, message.content, turn.stream_no)
            .join(schema.messages, message.id == turn.reply_id)
            .where(turn.status == TurnStatus.RUNNING, turn.lease_owner != self._process_id, turn.conversation_id.in_(conversations))
        )
        async with self._reader.begin() as connection:
            return {row.id: row for row in await connection.execute(query)}

    @staticmethod
    def _delta(row: Any, before: tuple[int, str]) -> TextDelta | None:
        stream_no, text = before
        if (row.stream_no, row.content) == before:
            return None
        kept = _common_prefix(text, row.content) if row.stream_no != stream_no else text
        return TextDelta(
            conversation_id=row.conversation_id,
            message_id=row.id,
            stream_no=row.stream_no,
            offset=utf16_len(kept),
            text=row.content[len(kept) :],
        )


@cache
def _changes() -> Prepared:
    """The events of a process's own changes are left out: it published them itself."""
    change = schema.changes.c
    of_others = case((change.origin != bindparam("here"), change.events)).label("events")
    return Prepared(select(change.id, of_others).where(change.id > bindparam("seen")).order_by(change.id).limit(_BATCH))


def _event(stored: dict[str, Any]) -> Event:
    """Of a kind that a newer version of the program writes, only that something happened is understood."""
    try:
        return unpacked(stored)
    except (KeyError, TypeError, ValueError):
        return Lagged()


async def _data_version(connection: aiosqlite.Connection) -> int:
    async with connection.execute("PRAGMA data_version") as cursor:
        row = await cursor.fetchone()
    return int(row[0]) if row else 0


def _common_prefix(one: str, other: str) -> str:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return one[:length]
