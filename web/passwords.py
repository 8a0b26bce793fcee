"""Passwords as argon2id hashes: about 0.2 s and 64 MiB each, so they have threads of their own, and few at once."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

from core.errors import RateLimited

AT_ONCE = 2
MAX_WAITING = 50
"""About five seconds of work; who comes then is sent away."""
_RETRY_SECONDS = 5.0
_T = TypeVar("_T")


class Argon2:
    """The core's PasswordHasher."""

    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self._argon2 = PasswordHash.recommended()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")
        self._places = threading.BoundedSemaphore(AT_ONCE + max_waiting)

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._argon2.hash(password))

    async def verify(self, password: str, hashed: str | None) -> bool:
        return await self._run(lambda: self._matches(password, hashed))

    def _matches(self, password: str, hashed: str | None) -> bool:
        if hashed is None:
            self._argon2.hash(password)  # costs what a comparison costs
            return False
        try:
            return self._argon2.verify(password, hashed)
        except UnknownHashError:  # whoever wrote that into the database, it is nobody's password
            return False

    async def _run(self, work: Callable[[], _T]) -> _T:
        if not self._places.acquire(blocking=False):
            raise RateLimited("Too many people sign in at this moment. Try again in a few seconds.", retry_after=_RETRY_SECONDS)
        running = self._threads.submit(work)
        running.add_done_callback(lambda _: self._places.release())  # not when the caller gives up: the thread goes on
        return await asyncio.wrap_future(running)
