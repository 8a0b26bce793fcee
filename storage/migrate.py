"""Brings a database to the tables that this version of the program works with, whoever else starts at the same moment."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from core.errors import StorageUnavailable
from storage.engine import Engine
from storage.failures import told_in_our_words


async def upgrade(writer: Engine) -> str | None:
    """Runs the missing migrations in one transaction, under a lock. Gives the revision it found, None for a new database."""
    with told_in_our_words():
        async with writer.begin() as connection:
            return await connection.run_sync(_upgrade)


def config(connection: Connection) -> Config:
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings


def _upgrade(connection: Connection) -> str | None:
    if connection.dialect.name == "postgresql":
        _lock_postgres(connection)
    settings = config(connection)
    scripts = ScriptDirectory.from_config(settings)
    present = MigrationContext.configure(connection).get_current_revision()
    if present is not None and present not in revisions():
        raise StorageUnavailable("The database was made by a newer version of Onethread. Update the program, or use another database.")
    if present != scripts.get_current_head():
        command.upgrade(settings, "head")
    return present


def _lock_postgres(connection: Connection) -> None:
    """Waits for others that migrate, however long they take. On SQLite the transaction itself is the lock."""
    for bound in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {bound} = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(8029464434711586145)"))  # "onethrea" in ASCII
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise StorageUnavailable(f"The database is encoded in {encoding}, which cannot hold every text. Create one with the encoding UTF8.")


@cache
def head() -> str:
    """The revision that this version of the program works with."""
    return _scripts().get_current_head() or ""


def revisions() -> frozenset[str]:
    """All that this version of the program knows, the older ones too."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


def _scripts() -> ScriptDirectory:
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return ScriptDirectory.from_config(settings)
