"""`onethread mcp`: MCP on standard input and output, for an IDE that waits for the first answer.

So the database, and all that it brings along, is opened right after that answer, or when it is first needed. What goes wrong there does not
end the process: each call that needs it says what is wrong, and tries again.
"""

import asyncio
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NoReturn

import structlog

from core import identity
from core.access import Principal
from core.errors import InvalidInput, OnethreadError
from core.logs import place_of
from mcp_server import server, stdio
from mcp_server.callers import Fixed
from mcp_server.offer import Selection
from mcp_server.services import Services

if TYPE_CHECKING:
    from onethread.bootstrap import App
    from onethread.child_worker import ChildWorker
    from onethread.settings import Settings

CLOSING_SECONDS = 1.0
"""How long it may take to close the database. It loses nothing where that is not enough."""
_HEAVY = ("bootstrap", "child_worker")
_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}
"""What the process ends with after a signal."""


def main(*, read_only: bool, tools: Iterable[str] | None) -> NoReturn:
    """Serves until standard input ends or a signal comes, and ends the process. Raises InvalidInput for tools that there are not, and where
    there is nobody to talk to.
    """
    if sys.stdin is None or sys.stdout is None:
        raise InvalidInput("Standard input and output must be open: an IDE speaks MCP over them. See: onethread mcp config --help")
    selection = Selection.of(read_only=read_only, names=tools)
    asyncio.run(_serve(selection))
    raise AssertionError("It ends with the process.")


async def _serve(selection: Selection) -> NoReturn:
    stopping, answered = asyncio.Event(), asyncio.Event()
    code = _Code(stopping)
    local = _Local(stopping)
    mcp = server.build(local.services, Fixed(local.principal), selection=selection)
    opening = asyncio.create_task(local.open_after(answered), name="mcp.opening")
    try:
        await stdio.serve(mcp, stopping=stopping, answered=answered)
    except Exception as error:  # noqa: BLE001  # the outermost edge; a traceback may quote what somebody wrote
        code.value = 1
        structlog.get_logger().error("mcp.broke", **place_of(error))
        sys.stderr.write("Error: That failed unexpectedly. The log says where.\n")
    opening.cancel()
    try:
        await local.close()
    finally:
        _leave(code.value)


class _Code:
    """What the process ends with; a signal tells, and stops it."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self.value = 0
        for number in _CODES:
            asyncio.get_running_loop().add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        self.value = _CODES[number]
        self._stopping.set()


class _Local:
    """This process's Onethread, opened when it is first asked for."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._opening: asyncio.Task[Services] | None = None
        self._parts = AsyncExitStack()
        self._app: App | None = None
        self._principal: Principal | None = None
        self._child: ChildWorker | None = None

    async def services(self) -> Services:
        """Raises OnethreadError where it cannot be opened; the next call tries again."""
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._open(), name="mcp.open")
            self._opening.add_done_callback(lambda opening: opening.cancelled() or opening.exception())  # taken, whoever waits for it
        return await asyncio.shield(self._opening)

    async def principal(self) -> Principal:
        """Raises NotAuthenticated from when on they are disabled."""
        await self.services()
        assert self._app
        if self._principal is None:
            self._principal = await self._app.principal()
        async with self._app.storage.read() as uow:
            return identity.principal_of(await identity.user_of(uow, self._principal))

    async def open_after(self, answered: asyncio.Event) -> None:
        """While nobody waits. What is wrong is told for whoever reads the client's log."""
        await answered.wait()
        try:
            await self.principal()
        except OnethreadError as error:
            sys.stderr.write(f"Error: {error}\n")

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                if self._child:
                    await self._child.last_look()
                await self._parts.aclose()
        except TimeoutError:
            return

    async def _open(self) -> Services:
        try:
            settings = await asyncio.to_thread(_settings)
            bootstrap, child_worker = [await asyncio.to_thread(importlib.import_module, f"onethread.{name}") for name in _HEAVY]
            async with AsyncExitStack() as parts:
                self._app = app = await parts.enter_async_context(bootstrap.running(settings))
                self._child = child = child_worker.ChildWorker(app.storage, child_worker.starter(settings))
                parts.callback(asyncio.create_task(child.run(), name="child_worker").cancel)
                child.needed()  # what was left behind when the machine lost its power is answered, too
                self._parts = parts.pop_all()
        finally:
            gc.freeze()
            gc.enable()  # the command turned it off
        return Services(storage=app.storage, live=app.live, posting=app.rules, worker_needed=child.needed, stopping=self._stopping)


def _settings() -> "Settings":
    """`.env` is not read: the working directory is the IDE's."""
    from onethread import logs
    from onethread.settings import load, prepare_data_dir

    settings = load(dotenv=False)
    prepare_data_dir(settings)
    logs.to_file(settings.log_file, settings.log_format)
    return settings


def _leave(code: int) -> NoReturn:
    """Ends the process at once. A thread may wait for standard input, or load a library, and an orderly end would wait for it."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
