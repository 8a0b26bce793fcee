"""Everything in a database as JSON Lines, and back into an empty one: a header, a line for each row, a last line that counts them.

Tables and columns are taken from the schema, so that a new one goes along by itself.
"""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import groupby
from typing import IO, Any
from uuid import UUID

from sqlalchemy import JSON, Column, LargeBinary, Row, Table, Uuid, delete, func, insert, literal, select, tuple_
from sqlalchemy.exc import DataError, IntegrityError

from core import turns
from core.errors import Conflict, InvalidInput
from core.frames import WORKER_SILENT
from core.models import Turn, TurnStatus
from core.ports import Clock
from storage import migrate, schema
from storage.engine import AnyConnection, Engine
from storage.failures import told_in_our_words
from storage.repositories import Workers
from storage.rows import load
from storage.unit_of_work import UnitOfWork

FORMAT = "onethread-export"
VERSION = 1
_EPHEMERAL = frozenset({"account_leases", "changes", "links", "model_pauses", "model_requests", "sessions", "sign_in_attempts", "workers"})
"""What tells of processes and of the last minutes only; and who was signed in, or about to be: an old file must not revive what ended.

How far a platform was heard (`cursors`) goes along: the new installation catches up from there. Nothing is lost where the old one was
stopped before the export.
"""
TABLES = tuple(table for table in schema.metadata.sorted_tables if table.name not in _EPHEMERAL)
"""Each behind those that its rows refer to."""
_MADE_AT_START = {"users": 1, "projects": 1}
"""Rows that every database has: the local admin and the default project."""
_BATCH_ROWS = 200
_CHUNK_BYTES = 1_000_000

Progress = Callable[[str, int, int], None]
"""Told after each batch: its table, the rows done, and the rows in all."""


class Transfer:
    def __init__(self, *, writer: Engine, reader: Engine, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def export_to(self, file: IO[bytes], progress: Progress) -> int:
        """Writes everything as it is at one moment, other processes may go on; gives the number of rows."""
        with told_in_our_words():
            async with self._reader.begin() as connection:
                total = await _count(connection)
                header = {"format": FORMAT, "version": VERSION, "revision": migrate.head()}
                await _write(file, [{**header, "exported_at": self._clock.now().isoformat(), "rows": total}])
                written = dict.fromkeys(total, 0)
                for table in TABLES:
                    async for rows in _batches(connection, table):
                        await _write(file, ({"table": table.name, "row": _row_to_json(row)} for row in rows))
                        written[table.name] += len(rows)
                        progress(table.name, sum(written.values()), sum(total.values()))
                await _write(file, [{"end": written}])
        return sum(written.values())

    async def import_from(self, file: IO[bytes], progress: Progress) -> int:
        """Stores all of the file or, when anything is wrong, nothing; gives the number of rows.

        Raises InvalidInput for a file that is damaged or of other tables than these, Conflict for a database that is in use or not empty.
        Turns that ran when they were exported are queued again.
        """
        total = _total(await asyncio.to_thread(file.readline))
        with told_in_our_words():
            async with self._writer.begin() as connection:
                await _require_unused(connection, self._clock.now())
                await _require_empty(connection)
                await _remove_what_start_made(connection)
                loading = _Loading(connection, lambda table, done: progress(table, done, total))
                async for lines in _lines(file):
                    await loading.take(lines)
                loading.require_end()
                await _queue_running_again(connection, self._clock.now())
        return loading.number


# --- out -------------------------------------------------------------------------------------------------------------


async def _count(connection: AnyConnection) -> dict[str, int]:
    found = {table.name: await connection.execute(select(func.count()).select_from(table)) for table in TABLES}
    return {name: int(result.scalar_one()) for name, result in found.items()}


async def _batches(connection: AnyConnection, table: Table) -> AsyncGenerator[Sequence[Row[Any]], None]:
    """All rows by primary key, as many at a time as memory allows: files, which are big, one by one."""
    key = table.primary_key.columns
    big = any(isinstance(column.type, LargeBinary) for column in table.c)
    query = select(table).order_by(*key).limit(1 if big else _BATCH_ROWS)
    rows = (await connection.execute(query)).all()
    while rows:
        yield rows
        last = rows[-1]._mapping
        behind = tuple_(*key) > tuple_(*(literal(last[column], column.type) for column in key))
        rows = (await connection.execute(query.where(behind))).all()


def _row_to_json(row: Row[Any]) -> dict[str, Any]:
    return {name: _value_to_json(value) for name, value in row._mapping.items()}


def _value_to_json(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case _:
            return value


async def _write(file: IO[bytes], contents: Iterable[Mapping[str, Any]]) -> None:
    lines = "".join(f"{json.dumps(content, separators=(',', ':'))}\n" for content in contents)
    await asyncio.to_thread(file.write, lines.encode("ascii"))


# --- in --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    content: dict[str, Any]

    @property
    def table(self) -> str | None:
        """None in the last line."""
        name = self.content.get("table")
        if name is None and "end" not in self.content:
            raise InvalidInput(f"Line {self.number} is no row. The file is damaged.")
        return name


def _total(line: bytes) -> int:
    """The rows that the file promises in its header; raises InvalidInput where the file is none that can be read here."""
    try:
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise ValueError(header["format"])
        version, revision, total = int(header["version"]), str(header["revision"]), sum(header["rows"].values())
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidInput("This is no export of Onethread: its first line does not say so.") from None
    if version > VERSION or revision not in migrate.revisions():
        raise InvalidInput("The file was made by a newer version of Onethread. Update the program.")
    if revision != migrate.head():
        raise InvalidInput(
            f"The file was made by an older version of Onethread, with tables of revision {revision}; these are {migrate.head()}. "
            "Import it with that version into a new database, then start this version on it: that brings it up to date."
        )
    return int(total)


async def _lines(file: IO[bytes]) -> AsyncGenerator[list[_Line], None]:
    """About a megabyte at a time, or one line that is longer."""
    number = 2
    while lines := await asyncio.to_thread(file.readlines, _CHUNK_BYTES):
        yield [_parsed(place, line) for place, line in enumerate(lines, number)]
        number += len(lines)


def _parsed(number: int, line: bytes) -> _Line:
    if not line.endswith(b"\n"):
        raise _cut_off()
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InvalidInput(f"Line {number} is no JSON object. The file is damaged.")
    return _Line(number, content)


class _Loading:
    """What has come of a file so far."""

    def __init__(self, connection: AnyConnection, progress: Callable[[str, int], None]) -> None:
        self._connection = connection
        self._progress = progress
        self._rows: Counter[str] = Counter()
        self._ended = False

    @property
    def number(self) -> int:
        return self._rows.total()

    async def take(self, lines: Sequence[_Line]) -> None:
        for name, group in groupby(lines, key=lambda line: line.table):
            found = list(group)
            if self._ended or (name is None and len(found) > 1):
                raise InvalidInput(f"Line {found[-1].number} comes after the end. The file is damaged.")
            if name is None:
                self._end(found[0])
            else:
                await self._insert(name, found)

    def require_end(self) -> None:
        if not self._ended:
            raise _cut_off()

    async def _insert(self, name: str, lines: Sequence[_Line]) -> None:
        read = _READERS.get(name)
        if read is None:
            raise InvalidInput(f"Line {lines[0].number}: there is no table {name!r}. The file was made by a newer version, or is damaged.")
        rows = [_row(line, read) for line in lines]
        try:
            await self._connection.execute(insert(schema.metadata.tables[name]), rows)
        except (IntegrityError, DataError):
            raise InvalidInput(
                f"Lines {lines[0].number}-{lines[-1].number} do not fit into {name}: something is there twice, or refers to what is not "
                "there. The file is damaged."
            ) from None
        self._rows[name] += len(rows)
        self._progress(name, self.number)

    def _end(self, line: _Line) -> None:
        promised = line.content["end"]
        if not isinstance(promised, dict) or Counter(promised) != self._rows:
            raise InvalidInput(f"Line {line.number} counts other rows than there are. Lines are missing: the file is damaged.")
        self._ended = True


def _row(line: _Line, read: "Mapping[str, _Reader]") -> dict[str, Any]:
    row = line.content.get("row")
    if not isinstance(row, dict):
        raise InvalidInput(f"Line {line.number} is no row. The file is damaged.")
    if unknown := row.keys() - read.keys():
        raise InvalidInput(
            f"Line {line.number}: {line.table} has no column {min(unknown)!r}. The file was made by a newer version, or is damaged."
        )
    if missing := read.keys() - row.keys():
        raise InvalidInput(f"Line {line.number}: the column {min(missing)!r} is missing. The file is damaged.")
    return {name: _read(line, name, value, read[name]) for name, value in row.items()}


def _read(line: _Line, name: str, value: Any, read: "_Reader") -> Any:
    try:
        return None if value is None else read(value)
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        raise InvalidInput(f"Line {line.number}: the value of {name!r} is of another kind. The file is damaged.") from None


_Reader = Callable[[Any], Any]


def _reader(column: Column[Any]) -> _Reader:
    """What makes of a JSON value what the column takes."""
    match column.type:
        case Uuid():
            return UUID
        case schema.UtcDateTime():
            return _aware
        case schema.Money():
            return Decimal
        case LargeBinary():
            return partial(base64.b64decode, validate=True)
        case JSON():
            return lambda value: value
        case plain:
            return partial(_of_type, plain.python_type)


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.astimezone(UTC)


def _of_type(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(kind)
    return value


_READERS: Mapping[str, Mapping[str, _Reader]] = {table.name: {column.name: _reader(column) for column in table.c} for table in TABLES}


async def _require_unused(connection: AnyConnection, now: datetime) -> None:
    if alive := await Workers(connection, now).alive(now - WORKER_SILENT):
        silent = int(WORKER_SILENT.total_seconds())
        raise Conflict(
            f"A worker runs on this database (on {alive[0].host}, process {alive[0].pid}). Stop all of Onethread that uses it and import "
            f"again; a worker that was killed is forgotten after {silent} s."
        )


async def _require_empty(connection: AnyConnection) -> None:
    for table in TABLES:
        one_too_many = select(literal(1)).select_from(table).limit(1).offset(_MADE_AT_START.get(table.name, 0))
        if (await connection.execute(one_too_many)).first():
            raise _not_empty(table.name)
    project, user = schema.projects.c, schema.users.c
    if (await connection.execute(select(project.id).where(project.updated_at != project.created_at))).first():
        raise _not_empty("projects")
    if (await connection.execute(select(user.id).where(user.password_hash.is_not(None)))).first():
        raise _not_empty("users")


async def _remove_what_start_made(connection: AnyConnection) -> None:
    for name in _MADE_AT_START:
        await connection.execute(delete(schema.metadata.tables[name]))


async def _queue_running_again(connection: AnyConnection, now: datetime) -> None:
    running = await connection.execute(select(schema.turns).where(schema.turns.c.status == TurnStatus.RUNNING))
    uow = UnitOfWork(connection, now)
    for row in running.mappings().all():
        await turns.hand_back(uow, load(Turn, row), draft=None)


def _not_empty(table: str) -> Conflict:
    return Conflict(
        f"The database is not empty: there is something in {table}. Import into a new one: set ONETHREAD_DATA_DIR to a new folder or "
        "ONETHREAD_DATABASE_URL to a new database."
    )


def _cut_off() -> InvalidInput:
    return InvalidInput("The file ends too early: it was not written, or not copied, to its end.")
