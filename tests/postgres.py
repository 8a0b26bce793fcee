"""A real PostgreSQL server that the tests start, stop and break themselves, and databases on it."""

import asyncio
import itertools
import os
import pwd
import random
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy.engine import URL

from storage.engine import database_url
from storage.migrate import upgrade
from storage.postgres import postgres_writer

ADMIN = "postgres"
_OWNER = "onethread"
_EMPTY = "empty"
_STRANGER = "host all stranger 127.0.0.1/32 scram-sha-256\n"
"""The only one who is asked for a password."""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
}
_IN_MEMORY = {"fsync": "off", "full_page_writes": "off"}
"""A server that is killed loses nothing by it, only a machine without power does, and no test can take that away."""
_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 2 * 1024**3
_PORTS = range(10_000, 30_000)
"""Those that no system gives to outgoing connections: one of these could take the port while the server is down."""


def programs() -> Path | None:
    """The folder of the newest server programs. Debian keeps them off the PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.name)])
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class Server:
    """A server on 127.0.0.1 with a template of a database that has all tables. A durable one is on a real disk and waits for it."""

    def __init__(self, *, durable: bool = False) -> None:
        folder = programs()
        assert folder
        self._programs = folder
        self._settings = _SETTINGS if durable else {**_SETTINGS, **_IN_MEMORY}
        self._directory = Path(tempfile.mkdtemp(prefix="onethread-postgres-", dir=None if durable else _memory()))
        self._data = self._directory / "data"
        # It refuses to run as root.
        self._user = _another_user() if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._directory, self._user)
        self._numbers = itertools.count(1)
        self.port = _free_port()

    def make(self) -> None:
        self._run("initdb", "-D", self._data, "-U", ADMIN, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        rules = self._data / "pg_hba.conf"
        rules.write_text(_STRANGER + rules.read_text(encoding="utf-8"), encoding="utf-8")
        settings = "".join(f"{name} = '{value}'\n" for name, value in self._settings.items())
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"{settings}port = {self.port}\n")
        self.start()
        asyncio.run(self._make_template())

    def start(self, options: str = "") -> None:
        """`options` as of the program postgres, such as `-c default_transaction_read_only=on`."""
        self._run("pg_ctl", "-D", self._data, "-o", options, "-l", self._directory / "log", "-w", "-t", "30", "start")

    def stop(self, how: str = "fast") -> None:
        """`fast` ends connections first; `immediate` is what a power failure does."""
        self._run("pg_ctl", "-D", self._data, "-m", how, "-w", "-t", "30", "stop")

    def restart(self, how: str = "fast", options: str = "") -> None:
        self.stop(how)
        self.start(options)

    def remove(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._directory)

    def url(self, name: str, user: str = _OWNER) -> URL:
        return database_url(f"postgresql+asyncpg://{user}@127.0.0.1:{self.port}/{name}")

    @asynccontextmanager
    async def database(self, template: str = _EMPTY) -> AsyncIterator[URL]:
        """A database of its own with all tables; removed at the end. `template0` gives one without tables."""
        name = f"test_{next(self._numbers)}"
        # Copying files takes half as long as what servers do by themselves from version 15 on.
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {_OWNER} STRATEGY FILE_COPY")
        yield self.url(name)
        await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def execute(self, sql: str, *arguments: object, database: str = "postgres") -> list[Any]:
        connection = await asyncpg.connect(self.url(database, ADMIN).set(drivername="postgresql").render_as_string())
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    async def _make_template(self) -> None:
        await self.execute(f"CREATE ROLE {_OWNER} LOGIN")
        await self.execute("CREATE ROLE stranger LOGIN PASSWORD 'right'")
        await self.execute(f"CREATE DATABASE {_EMPTY} OWNER {_OWNER}")
        writer = postgres_writer(self.url(_EMPTY))
        await upgrade(writer)
        await writer.dispose()

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        # Its own standard streams would keep pytest's open after the end.
        with (self._directory / "output").open("a+b") as output:
            done = subprocess.run(
                command,
                user=self._user,
                group=self._user and "nogroup",
                extra_groups=self._user and [],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=60,
                check=False,
            )
            output.seek(0)
            assert done.returncode == 0, output.read().decode()


def _another_user() -> str:
    users = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"


def _memory() -> Path | None:
    """A folder in memory, where it has room for many databases: making one, which is a thousand files, takes a tenth of the time there."""
    there = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES
    return _MEMORY if there else None


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
