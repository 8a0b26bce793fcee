"""`onethread serve` in a process of its own, on SQLite, and the people who use it: by HTTP, and in the browser by their cookie."""

import asyncio
import json
import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from core import identity
from core.ids import new_id
from core.live import LiveEvents
from core.ports import UnitOfWork
from onethread.bootstrap import SystemClock
from storage.engine import database_url, engines
from storage.unit_of_work import Database
from tests import forking
from tests.emulators.raw_provider import RawProvider, Reply
from tests.serving import FROM_OUR_PAGE, environment

OFFLINE = "demo/offline"
SCRIPTED = "openai/scripted"
"""Answers what the test says: see `Model`."""
COOKIE = "onethread_sid"
_SECONDS = 60
_STREAM_SECONDS = 0.03
JSON = dict[str, Any]
_T = TypeVar("_T")


class Model:
    """What `openai/scripted` answers, from a thread of its own. A test says it anew; before that every answer is the same."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model", daemon=True)
        self._thread.start()
        self._provider = RawProvider(script=lambda body, _: self._answer(body))
        self._call(self._provider.__aenter__())
        self.api_base = self._provider.api_base("openai")
        self.requests: list[JSON] = []
        """Since the test began."""
        self.forget()

    def forget(self) -> None:
        self.requests.clear()
        self.says(Reply(text=("Hello", " there.")))

    def says(self, *replies: Reply) -> None:
        """The n-th request from now on gets the n-th reply, the last of them for ever."""
        left = list(replies)
        self.answers(lambda _: left.pop(0) if len(left) > 1 else left[0])

    def answers(self, script: Callable[[JSON], Reply]) -> None:
        """From now on, whatever `script` makes of a request's body."""
        self._script = script

    def close(self) -> None:
        self._call(self._provider.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    def _answer(self, body: JSON) -> Reply:
        self.requests.append(body)
        return self._script(body)

    def _call(self, work: Awaitable[_T]) -> _T:
        async def awaited() -> _T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(_SECONDS)


class Halting:
    """A reply that stops before each part until the test lets it go on:

    halting = Halting("Half of", " it."); model.says(halting.reply()); ...; halting.go_on()
    """

    def __init__(self, *parts: str) -> None:
        self._parts = parts
        self._free = 1

    def go_on(self, parts: int = 1) -> None:
        self._free += parts

    def finish(self) -> None:
        self._free = len(self._parts)

    def reply(self, **fields: Any) -> Reply:
        return Reply(text=self._pieces(), gap_seconds=_STREAM_SECONDS, **fields)

    def _pieces(self) -> Iterable[str]:
        for number, part in enumerate(self._parts):
            while number >= self._free:
                yield ""  # the stream goes on, and says nothing
            yield part


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a session. The shorthand acts for them by HTTP, as another page of theirs would."""

    site: "Site"
    id: str
    name: str
    secret: str
    """In their cookie."""

    def call(self, method: str, path: str, json: Any = None, **fields: Any) -> Any:
        """The answer's JSON, or None where it has none; an error fails the test."""
        answer = self.request(method, path, json=json, **fields)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        own = {"Cookie": f"{COOKIE}={self.secret}", **FROM_OUR_PAGE}
        return self.site.http.request(method, self.site.url + path, headers={**own, **(headers or {})}, **fields)

    def task(self, title: str, **fields: Any) -> JSON:
        task: JSON = self.call("POST", "/api/tasks", {"title": title, **fields})
        return task

    def says(self, message: str, **fields: Any) -> JSON:
        """Writes it in a new chat, or where `conversation_id` or `task_id` says. Does not wait for the answer."""
        posted: JSON = self.call("POST", "/api/chat", {"message": message, **fields}, headers={"Prefer": "respond-async"})
        return posted

    def asks(self, message: str, **fields: Any) -> JSON:
        """Likewise, and waits for the answer."""
        posted: JSON = self.call("POST", "/api/chat", {"message": message, **fields})
        return posted

    def messages(self, conversation_id: str) -> list[JSON]:
        found: list[JSON] = self.call("GET", f"/api/conversations/{conversation_id}/messages?limit=100")["messages"]
        return found


class Site:
    """A server that can be killed, stopped and started again on the same port and data. Use `start()` first, `close()` at the end."""

    def __init__(self, folder: Path, *, api_base: str = "", arguments: tuple[str, ...] = (), **variables: str) -> None:
        self._folder = folder
        self._data_dir = folder / "data"
        self._arguments = arguments
        self._environ = {"ONETHREAD_MODEL": OFFLINE, "ONETHREAD_LOG_FORMAT": "json", "ONETHREAD_MODEL_API_BASE": api_base, **variables}
        self._process: forking.Background | None = None
        self.port = 0
        self.link = ""
        """Signs in as the local admin, once."""
        self.http = httpx.Client(timeout=60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Site":
        ours, theirs = os.pipe()
        with (self._folder / "log").open("a", encoding="utf-8") as log, os.fdopen(ours, encoding="utf-8") as out:
            arguments = ("serve", "--port", str(self.port), *self._arguments)
            environ = environment(self._data_dir, **self._environ)
            try:
                self._process = forking.begin(arguments, env=environ, cwd=self._folder, stdout=theirs, stderr=log.fileno())
            finally:
                os.close(theirs)
            line = out.readline()
        opened = re.fullmatch(r"Open (http://127\.0\.0\.1:(\d+)/login\?code=\S+)\n", line)
        assert opened, f"onethread serve said {line!r}\n{(self._folder / 'log').read_text(encoding='utf-8')}"
        self.link, self.port = opened[1], int(opened[2])
        return self

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Returns when the process is gone."""
        assert self._process
        self._process.send_signal(number)
        self._process.wait(_SECONDS)

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        self.http.close()
        if self._process:
            self.kill()

    def entries(self, event: str) -> Iterator[JSON]:
        """What it logged so far."""
        for line in (self._folder / "log").read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and (entry := json.loads(line))["event"] == event:
                yield entry

    def person(self, name: str, *, admin: bool = False) -> Person:
        """A new person, signed in."""

        async def add(uow: UnitOfWork) -> Person:
            user = await identity.add_user(uow, name, admin=admin)
            return Person(self, str(user.id), name, await identity.open_session(uow, user))

        return self.stored(add)

    def sign_in_again(self, person: Person) -> Person:
        """The same person with another session, as in another browser."""

        async def enter(uow: UnitOfWork) -> Person:
            return Person(self, person.id, person.name, await identity.open_session(uow, await identity.user_named(uow, person.name)))

        return self.stored(enter)

    def stored(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        """What `work` gives, done in one transaction on the server's database: for what takes long by HTTP, or has no way there."""
        with ThreadPoolExecutor(1) as beside:  # Playwright's loop counts as running in the test's own thread
            return beside.submit(asyncio.run, self._stored(work)).result(_SECONDS)

    async def _stored(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        writer, reader = engines(database_url(f"sqlite+aiosqlite:///{self._data_dir / 'onethread.db'}"))
        storage = Database(writer=writer, reader=reader, live=LiveEvents(), clock=SystemClock(), process_id=new_id())
        try:
            async with storage.write() as uow:
                return await work(uow)
        finally:
            await storage.close()
