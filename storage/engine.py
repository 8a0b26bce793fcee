"""Which database an address means, and the engines for it: one that writes and one that reads."""

from typing import NamedTuple

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from core.errors import InvalidInput
from storage.sqlite import SqliteConnection, SqliteEngine, sqlite_reader, sqlite_writer

Engine = AsyncEngine | SqliteEngine
AnyConnection = AsyncConnection | SqliteConnection


class Engines(NamedTuple):
    writer: Engine
    reader: Engine


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
