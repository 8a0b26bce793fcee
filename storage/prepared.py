"""Statements of every turn's way: written with SQLAlchemy as all are, but compiled once and handed to the driver as they are.

What SQLAlchemy does around each execution costs several times what the driver does; see docs/decisions/0007.
"""

from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, TypeVar, cast
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import ARRAY, ColumnElement, Connection, Dialect, Executable, String, Text, TypeDecorator, Uuid, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from core.text import clean
from storage.engine import AnyConnection
from storage.rows import converters
from storage.schema import UtcDateTime
from storage.sqlite import SqliteConnection

_T = TypeVar("_T")
Row = Mapping[str, Any]
_Convert = Callable[[Any], Any]


class Prepared:
    """A statement whose parameters have names, without lists whose length changes. `columns` are those that it sets from parameters."""

    def __init__(self, statement: Executable, *columns: str) -> None:
        self._statement = statement
        self._columns = columns
        self._by_dialect: dict[str, _Compiled] = {}
        """By name: the engines of one process differ in nothing that is compiled."""

    async def run(self, connection: AnyConnection, values: Row) -> list[Row]:
        """The rows that it gives, where it gives any."""
        compiled = self._compiled(connection.dialect)
        found = await on_driver(connection, compiled.sql, compiled.arguments(values))
        return [compiled.row(each) for each in found]

    async def load(self, connection: AnyConnection, kind: type[_T], values: Row) -> list[_T]:
        """The rows as values of the dataclass `kind`, which has a field for each column."""
        compiled = self._compiled(connection.dialect)
        found = await on_driver(connection, compiled.sql, compiled.arguments(values))
        return [compiled.value(kind, each) for each in found]

    async def run_many(self, connection: AnyConnection, rows: Sequence[Row]) -> None:
        compiled = self._compiled(connection.dialect)
        await _many_on_driver(connection, compiled.sql, [compiled.arguments(values) for values in rows])

    def _compiled(self, dialect: Dialect) -> "_Compiled":
        compiled = self._by_dialect.get(dialect.name)
        if compiled is None:
            compiled = self._by_dialect[dialect.name] = _Compiled(self._statement, self._columns, dialect)
        return compiled


class _Compiled:
    """A statement in one dialect's words, and what its values become on their way in and out."""

    def __init__(self, statement: Any, columns: Sequence[str], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=columns or None)
        self.sql = str(compiled)
        self._parameters = [(name, _to_driver(compiled.binds[name].type, dialect)) for name in compiled.positiontup]
        self._fixed = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        given = getattr(statement, "exported_columns", ())
        self._columns = [(column.key, _from_driver(column.type, dialect)) for column in given]
        self._fields: dict[type[Any], list[tuple[str, int, _Convert | None]]] = {}

    def arguments(self, values: Row) -> tuple[Any, ...]:
        values = {**self._fixed, **values}
        return tuple([convert(values[name]) if convert else values[name] for name, convert in self._parameters])

    def row(self, found: Sequence[Any]) -> Row:
        return {name: convert(value) if convert else value for (name, convert), value in zip(self._columns, found, strict=True)}

    def value(self, kind: type[_T], found: Sequence[Any]) -> _T:
        fields = self._fields.get(kind) or self._fields_of(kind)
        return kind(**{name: convert(found[place]) if convert else found[place] for name, place, convert in fields})

    def _fields_of(self, kind: type[Any]) -> list[tuple[str, int, _Convert | None]]:
        """Of each field its name, the place of its column and the way from the driver to it, all at one go."""
        places = {name: place for place, (name, _) in enumerate(self._columns)}
        ways = ((name, places[name], _both(self._columns[places[name]][1], convert)) for name, convert in converters(cast(Hashable, kind)))
        self._fields[kind] = list(ways)
        return self._fields[kind]


def _to_driver(kind: TypeEngine[Any], dialect: Dialect) -> _Convert | None:
    convert: _Convert | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return convert or (_cleaned if isinstance(kind, String) else None)


def _from_driver(kind: TypeEngine[Any], dialect: Dialect) -> _Convert | None:
    if dialect.name == "sqlite" and isinstance(kind, Uuid | UtcDateTime):
        return _uuid if isinstance(kind, Uuid) else _time
    if dialect.name == "postgresql" and isinstance(kind, UtcDateTime):
        return None  # asyncpg's times are aware, and in UTC
    convert: _Convert | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return convert


# A turn reads what the one before it read: more than half of what it takes to make values of SQLite's texts goes into ids and times.


@lru_cache(maxsize=20_000)
def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


@lru_cache(maxsize=20_000)
def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def _both(first: _Convert | None, then: _Convert | None) -> _Convert | None:
    return (lambda value: then(first(value))) if first and then else first or then


def _cleaned(text: str | None) -> str | None:
    """The sieve of `storage.texts`."""
    return None if text is None else clean(text)


async def on_driver(connection: AnyConnection, sql: str, arguments: Sequence[Any]) -> Sequence[Any]:
    """The rows of a statement in the driver's own words, if it gives any. One at a time on each connection."""
    if isinstance(connection, SqliteConnection):
        return connection.on_driver(sql, arguments)
    rows: Sequence[Any] = await _on_asyncpg(connection, sql, lambda driver: driver.fetch(sql, *arguments))
    return rows


async def _many_on_driver(connection: AnyConnection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    if isinstance(connection, SqliteConnection):
        for row in rows:
            connection.on_driver(sql, row)
        return
    await _on_asyncpg(connection, sql, lambda driver: driver.executemany(sql, rows))


async def _on_asyncpg(connection: AsyncConnection, sql: str, work: Callable[[Any], Awaitable[_T]]) -> _T:
    """Lets asyncpg do it as it is, which keeps what the server prepared. SQLAlchemy begins the transaction, and hears of errors."""
    assert connection.sync_connection is not None
    adapter: Any = connection.sync_connection.connection.dbapi_connection
    try:
        if adapter._transaction is None:
            await adapter._start_transaction()
        return await work(adapter.driver_connection)
    except BaseException as error:  # also a cancellation: SQLAlchemy gives up the connection
        await connection.run_sync(partial(_refuse, error, sql, adapter))
        raise


def _refuse(error: BaseException, sql: str, adapter: Any, connection: Connection) -> None:
    """Raises what SQLAlchemy makes of a driver's error, after it gave up a connection that is lost."""
    try:
        if isinstance(error, Exception):
            adapter._handle_exception(error)  # raises it by SQLAlchemy's name
        raise error
    except BaseException as raised:  # noqa: BLE001  # SQLAlchemy asks the interpreter for the exception that this greenlet handles
        connection._handle_dbapi_exception(raised, sql, None, None, None)


class _Ids(TypeDecorator[Collection[UUID]]):
    """Any number of ids as one parameter."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(Uuid) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Collection[UUID] | None, dialect: Dialect) -> Any:
        ids = list(value or ())
        return ids if dialect.name == "postgresql" else to_json([each.hex for each in ids]).decode()


class _Among(ColumnElement[bool]):
    inherit_cache = False

    def __init__(self, column: ColumnElement[UUID]) -> None:
        self.column = column
        self.ids = bindparam("keys", type_=_Ids)


def among(column: ColumnElement[UUID]) -> ColumnElement[bool]:
    """Whether it is one of the `keys`: a single parameter, where IN would be another statement for each number of them."""
    return _Among(column)


@compiles(_Among)
def _in_json(element: _Among, compiler: SQLCompiler, **how: Any) -> str:
    ids = func.json_each(element.ids).table_valued("value")
    return compiler.process(element.column.in_(select(ids.c.value)), **how)


@compiles(_Among, "postgresql")
def _in_array(element: _Among, compiler: SQLCompiler, **how: Any) -> str:
    return compiler.process(element.column == func.any(element.ids), **how)
