"""How processes on one PostgreSQL database hear one another: by NOTIFY. State events are sent by the transactions that they report
(`storage.unit_of_work`); here are the connection that sends the text of replies, and the one that listens."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy.engine import URL

from core.errors import StorageUnavailable
from core.events import Event, Lagged, TextDelta
from core.live import LiveEvents
from core.logs import place_of
from storage.payloads import CHANNEL, NOTIFY, is_from, pack, ping, unpack
from storage.postgres import connect

SEND_SECONDS = 0.05
PING_SECONDS = 5.0
ANSWER_SECONDS = 5.0
"""A connection that has not answered by then is dead."""
_RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
_MAX_WAITING = 10_000
_LISTENER = "onethread listener"
# InternalClientError: the server's goodbye was read, the connection's end not yet.
_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, StorageUnavailable, OSError, TimeoutError)
_log = structlog.get_logger()


class PostgresNotifier:
    """Publishes the events of other processes here, and sends them the text of the replies that are written here."""

    def __init__(self, *, url: URL, live: LiveEvents, process_id: UUID) -> None:
        self._url = url
        self._live = live
        self._process_id = process_id
        self._ping = ping(process_id)
        self._answered = asyncio.Event()
        self._sender = _DeltaSender(process_id)

    def publish(self, *events: Event) -> None:
        """Tells subscribers here at once, and those in other processes as soon as may be; never waits."""
        self._live.publish(*events)
        self._sender.put(each for each in events if isinstance(each, TextDelta))

    async def run(self, started: asyncio.Event) -> None:
        """Listens and sends until cancelled. `started` is set when nothing committed from then on can be missed; raises
        StorageUnavailable if it does not come to that."""

        async def listen(connection: asyncpg.Connection) -> None:
            await self._listen(connection, started)

        first = await connect(self._url, _LISTENER)
        sending = asyncio.create_task(_keep(self._url, "onethread deltas", self._sender.send), name="notifier.deltas")
        try:
            await _keep(self._url, _LISTENER, listen, first)
        finally:
            sending.cancel()
            await asyncio.wait({sending})

    async def _listen(self, connection: asyncpg.Connection, started: asyncio.Event) -> None:
        """Until the connection is lost, which its end tells, or a notification to itself that does not arrive."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        await connection.add_listener(CHANNEL, self._hear)
        if started.is_set():
            self._live.publish(Lagged())
        started.set()
        while not ended.is_set():
            self._answered.clear()
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.fetch(NOTIFY, [self._ping])
                await self._answered.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_SECONDS):
                    await ended.wait()
        raise ConnectionError("the server ended the connection")

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        if text == self._ping:
            self._answered.set()
        elif not is_from(self._process_id, text):
            self._live.publish(*unpack(text))


class _DeltaSender:
    """Sends what has gathered, every 50 ms. What comes while there is no connection is dropped: readers see the gap and read the draft."""

    def __init__(self, process_id: UUID) -> None:
        self._process_id = process_id
        self._waiting: deque[TextDelta] = deque(maxlen=_MAX_WAITING)
        self._ready = asyncio.Event()
        self._connected = False

    def put(self, deltas: Iterable[TextDelta]) -> None:
        if self._connected:
            self._waiting.extend(deltas)
            self._ready.set()

    async def send(self, connection: asyncpg.Connection) -> None:
        self._connected = True
        try:
            while True:
                await self._ready.wait()
                self._ready.clear()
                payloads = pack(self._process_id, self._waiting)
                self._waiting.clear()
                async with asyncio.timeout(ANSWER_SECONDS):
                    await connection.fetch(NOTIFY, payloads)
                await asyncio.sleep(SEND_SECONDS)
        finally:
            self._connected = False
            self._waiting.clear()


async def _keep(url: URL, name: str, use: Callable[[asyncpg.Connection], Awaitable[None]], first: asyncpg.Connection | None = None) -> None:
    """Uses a connection, and another one whenever it is lost; until cancelled."""
    failures = 0
    while True:
        try:
            connection, first = first or await connect(url, name), None
            failures = 0
            try:
                await use(connection)
            finally:
                connection.terminate()
        except _LOST as error:
            _log.warning("notifier.interrupted", connection=name, **place_of(error))
        await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)] * random.uniform(0.5, 1.0))
        failures += 1
