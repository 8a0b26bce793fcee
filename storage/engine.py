"""Database engines: a writer and a reader for each kind of database. Here also: how connections to SQLite are opened, so that one process
writes in order and many processes share a file."""

from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import event, make_url
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util.concurrency import in_greenlet

from core.errors import InvalidInput, StorageUnavailable
from storage.texts import clean_parameters_of, json_text

BUSY_TIMEOUT_MS = 10_000
READERS = 5


class Engines(NamedTuple):
    writer: AsyncEngine
    reader: AsyncEngine


def database_url(text: str) -> URL:
    """The parsed address; raises InvalidInput for a database that Onethread does not speak to. It never quotes what may be a password."""
    try:
        url = make_url(text)
    except Exception:  # noqa: BLE001  # a port that is no number is a ValueError, which quotes what stands there
        raise InvalidInput(f"ONETHREAD_DATABASE_URL is no database address. {_EXAMPLES}") from None
    match url.drivername:
        case "sqlite" | "sqlite+aiosqlite":
            if not url.database or url.database == ":memory:":
                raise InvalidInput("ONETHREAD_DATABASE_URL must name a file: several connections and processes share the database.")
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgresql+asyncpg" | "postgres":
            if not url.database:
                raise InvalidInput(f"ONETHREAD_DATABASE_URL must name a database on the server. {_EXAMPLES}")
            return url.set(drivername="postgresql+asyncpg")
    raise InvalidInput(f"ONETHREAD_DATABASE_URL names {url.drivername!r}, which is not supported. {_EXAMPLES}")


_EXAMPLES = "Examples: sqlite+aiosqlite:////var/lib/onethread/onethread.db, postgresql+asyncpg://user:password@host/name"


def is_postgres(url: URL) -> bool:
    return url.get_backend_name() == "postgresql"


def engines(url: URL) -> Engines:
    """For an address that `database_url` gave. Connections are opened when they are first needed."""
    if is_postgres(url):
        from storage.postgres import postgres_reader, postgres_writer  # the driver is loaded only where it is used

        return Engines(postgres_writer(url), postgres_reader(url))
    return Engines(sqlite_writer(url), sqlite_reader(url))


def sqlite_writer(url: URL) -> AsyncEngine:
    """One connection for each process: its queue is the order of writing. Every transaction takes the file's write lock when it begins."""
    folder = Path(url.database or "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(
            f"The database's folder {str(folder)!r} cannot be made ({error.strerror}). Set ONETHREAD_DATA_DIR to another."
        ) from None
    return _sqlite(url, begin="BEGIN IMMEDIATE", pragmas=(), pool_size=1, max_overflow=0, pool_timeout=60)


def sqlite_reader(url: URL) -> AsyncEngine:
    """A pool for consistent views that cannot write."""
    return _sqlite(url, begin="BEGIN", pragmas=("query_only=ON",), pool_size=READERS, max_overflow=0, pool_timeout=60)


def _sqlite(url: URL, *, begin: str, pragmas: tuple[str, ...], **pool: Any) -> AsyncEngine:
    engine = create_async_engine(url, hide_parameters=True, json_serializer=json_text, **pool)
    clean_parameters_of(engine)

    @event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        # FULL: what was acknowledged is on the disk, also when the power fails. NORMAL would only survive a killed process.
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "close")
    def _on_close(connection: Any, _record: object) -> None:
        # SQLite keeps a closed connection, with its transaction and the file's write lock, while a statement of it is not finalized.
        # A cancelled one is not, until the garbage collector finds it: nobody could write for minutes.
        if in_greenlet():
            connection.rollback()

    @event.listens_for(engine.sync_engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
