"""Brings a database to the tables that this version of the program works with, whoever else starts at the same moment."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from core.errors import StorageUnavailable
from storage.failures import told_as_unavailable


async def upgrade(writer: AsyncEngine) -> str | None:
    """Runs the missing migrations in one transaction, under the database's write lock. Gives the revision it found, None for a new one."""
    with told_as_unavailable():
        async with writer.begin() as connection:
            return await connection.run_sync(_upgrade)


def config(connection: Connection) -> Config:
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings


def _upgrade(connection: Connection) -> str | None:
    settings = config(connection)
    scripts = ScriptDirectory.from_config(settings)
    present = MigrationContext.configure(connection).get_current_revision()
    if present is not None and present not in revisions():
        raise StorageUnavailable("The database was made by a newer version of Onethread. Update the program, or use another database.")
    if present != scripts.get_current_head():
        command.upgrade(settings, "head")
    return present


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
