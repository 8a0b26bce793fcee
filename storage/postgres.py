"""Connections to PostgreSQL: how they are opened, what bounds them, and how a dead one is noticed without asking it."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg
from pydantic_core import from_json
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DisconnectionError, NotSupportedError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from core.errors import InvalidInput, StorageUnavailable
from storage.failures import READ_ONLY, sentence_of
from storage.texts import clean_parameters_of, json_text

WRITERS = 10
READERS = 5
CONNECT_SECONDS = 10.0
_POOL_SECONDS = 30
_STATEMENTS_KEPT = 500
_BOUNDS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    # A plan is kept, also one made while a table was small; at the server's own 4 it would go through all of the table for ten ids.
    "random_page_cost": "1.1",
    "jit": "off",  # no statement here runs long enough to be worth compiling
}
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
"""In seconds, the last in milliseconds."""
_CHECK = "Check that it runs, and ONETHREAD_DATABASE_URL."
_SESSION_ENDED = ("08", "57P", READ_ONLY)
"""The beginnings of SQLSTATEs after which only a new connection helps; the last: this server was demoted, another one takes the writes."""


def postgres_writer(url: URL) -> AsyncEngine:
    """A pool for transactions that see what others commit meanwhile (READ COMMITTED) and hold the rows that they change."""
    return _pool(lambda: connect(url, "onethread"), size=WRITERS)


def postgres_reader(url: URL) -> AsyncEngine:
    """A pool for consistent views that cannot write."""

    async def open_view() -> asyncpg.Connection:
        connection = await connect(url, "onethread reader")
        try:
            # Not as settings of the connection: `target_session_attrs=read-write` in the address would refuse it.
            await connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        except BaseException:
            connection.terminate()
            raise
        return connection

    return _pool(open_view, size=READERS)


async def connect(url: URL, name: str) -> asyncpg.Connection:
    """A connection of its own; raises StorageUnavailable, or InvalidInput for an address with parameters that make no sense."""
    # asyncpg reads the address itself: it knows all that libpq allows there, such as several hosts, sslmode, and PGPASSWORD.
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        settings = {"application_name": name, **_BOUNDS}
        connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS, server_settings=settings, statement_cache_size=_STATEMENTS_KEPT)
    except asyncpg.PostgresError as error:
        raise StorageUnavailable(sentence_of(error.sqlstate) or f"The database refuses connections ({error.sqlstate}).") from None
    except asyncpg.TargetServerAttributeNotMatched:
        raise StorageUnavailable(sentence_of(READ_ONLY) or "") from None
    except TimeoutError:
        raise StorageUnavailable(f"The database server does not answer. {_CHECK}") from None
    except OSError as error:
        raise StorageUnavailable(
            f"The database server cannot be reached ({os.strerror(error.errno) if error.errno else 'no answer'}). {_CHECK}"
        ) from None
    except (asyncpg.InterfaceError, ValueError, OverflowError):
        raise InvalidInput("ONETHREAD_DATABASE_URL has parameters that PostgreSQL does not know, or that do not fit together.") from None
    _watch(connection)
    return connection


def _watch(connection: asyncpg.Connection) -> None:
    """Lets the operating system end the connection when the server's machine is gone without a goodbye."""
    line = connection._transport.get_extra_info("socket")  # asyncpg has no setting for it
    if line.family != getattr(socket, "AF_UNIX", None):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # each system knows some of them
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _pool(open_connection: Callable[[], Awaitable[asyncpg.Connection]], *, size: int) -> AsyncEngine:
    opening: dict[asyncpg.Connection, Callable[[], object]] = {}

    async def open_guarded() -> asyncpg.Connection:
        connection = await open_connection()
        task = asyncio.current_task()
        assert task

        def ended(_: object) -> None:
            del opening[connection]
            connection.terminate()

        task.add_done_callback(ended)
        opening[connection] = partial(task.remove_done_callback, ended)
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://",
        hide_parameters=True,
        json_serializer=json_text,
        json_deserializer=from_json,  # three times as fast as the standard library, and more for what is empty
        pool_size=size,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        pool_use_lifo=True,  # those in use have their statements prepared
        connect_args={"async_creator_fn": open_guarded, "prepared_statement_cache_size": _STATEMENTS_KEPT},
    )
    clean_parameters_of(engine.sync_engine)

    @event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # Before this SQLAlchemy sets it up, and forgets it where that is cancelled: then it ends with the task.
        opening.pop(connection.driver_connection)()

    @event.listens_for(engine.sync_engine, "checkout")
    def _on_checkout(connection: Any, _record: object, _proxy: object) -> None:
        # The server's goodbye was heard already, so that no ping on each checkout is needed. The pool opens another connection.
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    @event.listens_for(engine.sync_engine, "handle_error")
    def _on_error(context: ExceptionContext) -> None:
        state = getattr(context.original_exception, "sqlstate", None) or ""
        # After a change of the tables NotSupportedError tells that statements were prepared for the old ones.
        if state.startswith(_SESSION_ENDED) or isinstance(context.sqlalchemy_exception, NotSupportedError):
            context.is_disconnect = True

    return engine
