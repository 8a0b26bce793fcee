"""What is exported comes back as it was, or not at all, from any database into any other."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest
from sqlalchemy import JSON, Boolean, Column, Integer, LargeBinary, String, Table, UniqueConstraint, Uuid, insert, select

from core import conversations, identity, messages, projects
from core.errors import Conflict, InvalidInput, NotAuthenticated
from core.ids import new_id
from core.live import LiveEvents
from core.messages import PostingRules
from core.models import LinkPurpose, WorkerInfo
from core.ports import UnitOfWork
from storage import schema, transfer
from storage.engine import Engine, engines
from storage.migrate import head
from storage.transfer import TABLES, Transfer
from storage.unit_of_work import Database
from tests.databases import BOTH, NewDatabase, databases_of
from tests.fakes import ManualClock, PlainPasswords


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database as Onethread has it after its first start."""

    writer: Engine
    storage: Database
    transfer: Transfer
    clock: ManualClock

    async def exported(self, file: io.BytesIO | None = None) -> list[bytes]:
        """The lines of an export."""
        file = file or io.BytesIO()
        await self.transfer.export_to(file, _unheard)
        return file.getvalue().splitlines(keepends=True)

    async def load(self, lines: list[bytes]) -> int:
        return await self.transfer.import_from(io.BytesIO(b"".join(lines)), _unheard)

    async def rows(self) -> dict[str, list[Any]]:
        """Everything that lasts."""
        async with self.writer.begin() as connection:
            return {table.name: sorted((await connection.execute(select(table))).all(), key=repr) for table in TABLES}


@asynccontextmanager
async def place(new_database: NewDatabase) -> AsyncIterator[Place]:
    async with new_database() as url:
        writer, reader = engines(url)
        clock = ManualClock()
        storage = Database(writer=writer, reader=reader, live=LiveEvents(), clock=clock, process_id=new_id())
        async with storage.write() as uow:
            await projects.default(uow)
            await identity.local_admin(uow)
        carrier = Transfer(writer=writer, reader=reader, clock=clock)
        yield Place(writer=writer, storage=storage, transfer=carrier, clock=clock)
        await storage.close()


@pytest.fixture(params=BOTH)
def source_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    return databases_of(request, tmp_path)


@pytest.fixture(params=BOTH)
def target_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    return databases_of(request, tmp_path_factory.mktemp("target"))


@pytest.fixture
async def source(source_database: NewDatabase) -> AsyncIterator[Place]:
    async with place(source_database) as opened:
        yield opened


@pytest.fixture
async def target(target_database: NewDatabase) -> AsyncIterator[Place]:
    async with place(target_database) as opened:
        yield opened


def _unheard(table: str, done: int, total: int) -> None:
    """For who does not care how far it is."""


# --- rows of all tables, filled with what is seldom there ---

ROWS = 6
TEXTS = ["", "plain", "quotes \"'` and \\ \n\r\t", "Ünïcödé \u2028\u2029\ufeff\ufffd", "👩‍👩‍👧 🇺🇳 \U0010ffff", "{}[]null"]
NUMBERS = [0, 1, -1, 2**31 - 1, -(2**31), 42]
BYTES = [b"", b"\x00", bytes(range(256)), b"\n\r\n", b"x" * 100_000, b"\xff\xfe"]
MONEY = [None, Decimal(0), Decimal("0.0000000001"), Decimal("-1.10"), Decimal("123456789012.3456789"), Decimal("1E-7")]
OBJECTS: list[dict[str, Any]] = [
    {},
    {"": None},
    {"nested": [[[{"deep": [None, True, False]}]], []]},
    {"number": 10**40, "small": 1e-300, "minus": -0.5},
    {"👍": "\ud83d \u2028 ünï", "table": "users", "end": {}},
    {"b": 1, "a": 2},
]
TIMES = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 3, 29, 1, 30, 0, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1900, 1, 1, tzinfo=UTC),
    datetime(2026, 11, 23, 7, 0, 0, 120000, tzinfo=UTC),
]
VALUES: dict[type, list[Any]] = {
    schema.UtcDateTime: TIMES,
    schema.Money: MONEY,
    LargeBinary: BYTES,
    JSON: OBJECTS,
    Boolean: [True, False] * 3,
    Integer: NUMBERS,
    String: TEXTS,
}
GIVEN: dict[tuple[str, str], list[Any]] = {("messages", "role"): ["user", "assistant", "system"] * 2}
"""What a constraint allows."""


async def _fill(engine: Engine, turned: int) -> None:
    """Puts ROWS rows into each table; `turned` changes which values meet in a row."""
    async with engine.begin() as connection:
        for table in TABLES:
            await connection.execute(insert(table), [_row(table, number, turned) for number in range(ROWS)])


def _row(table: Table, number: int, turned: int) -> dict[str, Any]:
    return {column.name: _value(table, column, number, turned + place) for place, column in enumerate(table.c)}


def _value(table: Table, column: Column[Any], number: int, turned: int) -> Any:
    distinct = _is_distinct(table, column)
    turn = number if distinct else (number + turned) % ROWS
    if column.nullable and not column.foreign_keys and turn == 0:
        return None
    if column.foreign_keys:
        (key,) = column.foreign_keys
        return _id(key.column.table.name, number if distinct else number // 2)
    if isinstance(column.type, Uuid):
        return _id(table.name if column.primary_key else "anything", number)
    values = GIVEN.get((table.name, column.name)) or next(values for kind, values in VALUES.items() if isinstance(column.type, kind))
    if isinstance(column.type, String):
        return (f"{number} {values[turn]}" if distinct else values[turn])[: column.type.length]
    return values[turn]


def _is_distinct(table: Table, column: Column[Any]) -> bool:
    """Whether no two rows may agree in it; of several columns that must not agree together, only the last one is so."""
    together = [list(table.primary_key.columns), *(list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint))]
    return any(columns and column is columns[-1] for columns in together)


def _id(of: str, number: int) -> UUID:
    return uuid5(UUID(int=0), f"{of} {number}")


# --- there and back ---


@pytest.mark.parametrize("turned", range(3))
async def test_every_row_of_every_table_comes_back_as_it_was(
    source: Place, target: Place, turned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_BATCH_ROWS", 4)  # less than there are
    monkeypatch.setattr(transfer, "_CHUNK_BYTES", 2_000)
    await _fill(source.writer, turned)
    exported = await source.exported()

    number = await target.load(exported)

    assert number == len(exported) - 2 == ROWS * len(TABLES) + 2  # the local admin and the default project
    assert await target.rows() == await source.rows()
    again = await target.exported()
    assert sorted(again[1:]) == sorted(exported[1:])
    if source.writer.dialect.name == target.writer.dialect.name:
        assert again[1:] == exported[1:]


async def _beat(where: Place) -> None:
    now = where.clock.now()
    worker = WorkerInfo(id=new_id(), host="there", pid=77, concurrency=1, unserved=frozenset(), started_at=now, heartbeat_at=now)
    async with where.storage.write() as uow:
        await uow.workers.beat(worker)


async def test_what_lasts_for_minutes_is_left_out(source: Place) -> None:
    await _beat(source)
    tables = {json.loads(line).get("table") for line in await source.exported()}

    assert tables == {None, "users", "projects"}
    assert {table.name for table in schema.metadata.sorted_tables} - {table.name for table in TABLES} <= {
        "account_leases",
        "changes",
        "links",
        "model_pauses",
        "model_requests",
        "sessions",
        "sign_in_attempts",
        "workers",
    }


async def test_passwords_go_along_but_not_who_is_signed_in(source: Place, target: Place) -> None:
    """An old file must not revive what was ended since."""
    passwords = PlainPasswords()
    async with source.storage.write() as uow:
        kim = await identity.add_user(uow, "kim")
        link = await identity.create_link(uow, kim, LinkPurpose.SET_PASSWORD, lifetime=timedelta(hours=1))
    kim = await identity.set_password_by_link(source.storage, passwords, link, "correct horse")
    async with source.storage.write() as uow:
        session = await identity.open_session(uow, kim)
        link = await identity.create_link(uow, kim, LinkPurpose.SIGN_IN, lifetime=timedelta(hours=1))
    with pytest.raises(NotAuthenticated):
        await identity.sign_in(source.storage, passwords, "kim", "wrong", address="10.0.0.1")

    exported = await source.exported()
    await target.load(exported)

    assert {json.loads(line).get("table") for line in exported} == {None, "users", "projects"}
    assert await identity.sign_in(target.storage, passwords, "kim", "correct horse", address="10.0.0.1") == kim
    async with target.storage.write() as uow:
        with pytest.raises(NotAuthenticated):
            await identity.of_session(uow, session)
        with pytest.raises(NotAuthenticated):
            await identity.use_link(uow, link, LinkPurpose.SIGN_IN)


def test_no_table_is_numbered_by_the_database() -> None:
    """Imported rows would not raise PostgreSQL's counters."""
    numbered = [table.name for table in TABLES if table.autoincrement_column is not None]

    assert numbered == []


async def test_an_export_shows_one_moment_and_stops_nobody(source: Place, target: Place) -> None:
    loop = asyncio.get_running_loop()

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            asyncio.run_coroutine_threadsafe(_talk(source), loop).result(timeout=5)
            return super().write(data)

    before = await source.rows()
    await target.load(await source.exported(Slow()))

    assert await target.rows() == before
    assert await source.rows() != before


async def _talk(where: Place) -> None:
    async with where.storage.write() as uow:
        admin = identity.principal_of(await identity.local_admin(uow))
        chat = await conversations.create(uow, admin)
        rules = PostingRules(default_model="a/b", messages_per_minute=1_000)
        await messages.post(uow, admin, chat.id, "Hello", rules=rules, source="test")


# --- what is refused, and leaves nothing behind ---

Change = Callable[[list[bytes]], list[bytes]]


def _header(**changes: Any) -> Change:
    return lambda lines: [_json({**json.loads(lines[0]), **changes}), *lines[1:]]


def _first(table: str, **changes: Any) -> Change:
    """Changes columns of the table's first row."""

    def change(lines: list[bytes]) -> list[bytes]:
        number = next(place for place, line in enumerate(lines) if json.loads(line).get("table") == table)
        content = json.loads(lines[number])
        row = {name: value for name, value in {**content["row"], **changes}.items() if value is not ...}
        return [*lines[:number], _json({**content, "row": row}), *lines[number + 1 :]]

    return change


def _json(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


REFUSED: dict[str, tuple[Change, str]] = {
    "an empty file": (lambda _: [], "no export of Onethread"),
    "another file": (lambda _: [b"Dear reader,\n"], "no export of Onethread"),
    "another list": (lambda _: [b"[1]\n"], "no export of Onethread"),
    "another format": (_header(format="csv"), "no export of Onethread"),
    "a newer format": (_header(version=2), "newer version of Onethread. Update the program"),
    "newer tables": (_header(revision="9999"), "newer version of Onethread. Update the program"),
    "older tables": (_header(revision="0001"), f"tables of revision 0001; these are {head()}"),
    "broken JSON": (lambda lines: [*lines[:4], b"{oops\n", *lines[5:]], "^Line 5 is no JSON object"),
    "a list": (lambda lines: [*lines[:4], b"[]\n", *lines[5:]], "^Line 5 is no JSON object"),
    "bytes that are no text": (lambda lines: [*lines[:4], b'{"a":"\xff"}\n', *lines[5:]], "^Line 5 is no JSON object"),
    "an empty object": (lambda lines: [*lines[:4], b"{}\n", *lines[5:]], "^Line 5 is no row"),
    "a row that is none": (lambda lines: [*lines[:4], b'{"table":"users","row":3}\n', *lines[5:]], "^Line 5 is no row"),
    "an unknown table": (lambda lines: [*lines[:4], b'{"table":"gifts","row":{}}\n', *lines[5:]], "Line 5: there is no table 'gifts'"),
    "an ephemeral table": (lambda lines: [*lines[:4], b'{"table":"workers","row":{}}\n'], "there is no table 'workers'"),
    "an unknown column": (_first("users", colour="red"), r"users has no column 'colour'. The file was made by a newer"),
    "a missing column": (_first("users", name=...), "column 'name' is missing"),
    "no id": (_first("users", id="x"), "value of 'id'"),
    "an id that is a number": (_first("users", id=5), "value of 'id'"),
    "a time without zone": (_first("users", created_at="2026-01-01T00:00:00"), "value of 'created_at'"),
    "a number as text": (_first("messages", seq="1"), "value of 'seq'"),
    "a yes as number": (_first("users", admin=1), "value of 'admin'"),
    "no money": (_first("usage", cost="much"), "value of 'cost'"),
    "no base64": (_first("attachments", data="?"), "value of 'data'"),
    "nothing where something must be": (_first("messages", content=None), "do not fit into messages"),
    "an author who is not there": (_first("messages", author_id=str(UUID(int=9))), "do not fit into messages"),
    "a row twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], "do not fit into"),
    "a line too few": (lambda lines: [*lines[:2], *lines[3:]], "counts other rows|do not fit into"),
    "the last row missing": (lambda lines: [*lines[:-2], lines[-1]], "counts other rows than there are"),
    "a count that is none": (lambda lines: [*lines[:-1], b'{"end":[]}\n'], "counts other rows than there are"),
    "no end": (lambda lines: lines[:-1], "ends too early"),
    "half": (lambda lines: lines[: len(lines) // 2], "ends too early"),
    "half a line": (lambda lines: [*lines[:-3], lines[-3][:20]], "ends too early"),
    "a row after the end": (lambda lines: [*lines, lines[1]], "comes after the end"),
    "two ends": (lambda lines: [*lines, lines[-1]], "comes after the end"),
}


@pytest.mark.parametrize("chunk", [1, 1_000_000])
async def test_a_file_that_is_not_whole_is_refused_and_nothing_of_it_is_stored(
    source: Place, target: Place, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_CHUNK_BYTES", chunk)
    await _fill(source.writer, 0)
    lines, before = await source.exported(), await target.rows()

    for name, (change, told) in REFUSED.items():
        with pytest.raises(InvalidInput, match=told):
            pytest.fail(f"{name} was taken: {await target.load(change(lines))} rows")
        assert await target.rows() == before, name


UsedBy = Callable[[UnitOfWork], Awaitable[object]]


async def _edit_project(uow: UnitOfWork) -> None:
    project = await projects.default(uow)
    await uow.projects.update(project.id, instructions="Be brief.")


async def _set_password(uow: UnitOfWork) -> None:
    admin = await identity.local_admin(uow)
    await uow.users.set_password(admin.id, "a hash", uow.now)


USES: dict[str, tuple[UsedBy, str]] = {
    "a user": (lambda uow: identity.add_user(uow, "kim"), "something in users"),
    "an edited project": (_edit_project, "something in projects"),
    "a local admin with a password": (_set_password, "something in users"),
}


@pytest.mark.parametrize("use", USES)
async def test_a_database_that_is_in_use_is_left_alone(source: Place, target: Place, use: str) -> None:
    work, told = USES[use]
    target.clock.advance(1)
    async with target.storage.write() as uow:
        await work(uow)
    before = await target.rows()

    with pytest.raises(Conflict, match=f"not empty: there is {told}.*ONETHREAD_DATA_DIR"):
        await target.load(await source.exported())

    assert await target.rows() == before


async def test_nothing_is_imported_under_a_living_worker(source: Place, target: Place) -> None:
    await _beat(target)
    exported = await source.exported()

    with pytest.raises(Conflict, match="A worker runs on this database \\(on there, process 77\\)"):
        await target.load(exported)
    target.clock.advance(46)
    assert await target.load(exported) == 2


async def test_an_import_that_is_cancelled_leaves_nothing_behind(source: Place, target: Place) -> None:
    await _fill(source.writer, 0)
    lines, before = await source.exported(), await target.rows()
    halfway = asyncio.Event()

    def reached(table: str, done: int, total: int) -> None:
        halfway.set()

    loading = asyncio.create_task(target.transfer.import_from(io.BytesIO(b"".join(lines)), reached))
    async with asyncio.timeout(30):
        await halfway.wait()
        loading.cancel()
        await asyncio.wait({loading})

    assert loading.cancelled()
    assert await target.rows() == before
