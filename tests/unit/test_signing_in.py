"""A platform is served again whatever ends it, but for who ends it on purpose."""

import asyncio

import pytest

from bots import signing_in
from bots.signing_in import signed_in, supervised
from bots.surface import AccountClosed, Unreachable


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_in, "_RESTART_SECONDS", 0.0)
    monkeypatch.setattr(signing_in, "_LONGEST_PAUSE_SECONDS", 0.0)


async def test_a_defect_does_not_end_it() -> None:
    began, again = 0, asyncio.Event()

    async def broken() -> None:
        raise KeyError("a defect")

    async def serve() -> None:
        nonlocal began
        began += 1
        if began == 3:
            again.set()
        async with asyncio.TaskGroup() as tasks:  # which leaves its task counted as cancelled, in Python 3.11 and 3.12
            tasks.create_task(broken())

    async with asyncio.timeout(30), supervised("discord", serve):
        await again.wait()


async def test_it_ends_where_it_is_ended_while_something_fails() -> None:
    """A TaskGroup of Python 3.11 and 3.12 raises what failed, and the cancellation is gone."""
    fails, failing, goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def failed() -> None:
        await fails.wait()
        raise ConnectionError

    async def ends_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            failing.set()
            await goes_on.wait()

    async def serve() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(failed())
            tasks.create_task(ends_slowly())

    async with asyncio.timeout(30):
        async with supervised("discord", serve):
            fails.set()
            await failing.wait()
            asyncio.get_running_loop().call_later(0.05, goes_on.set)


async def test_it_asks_until_it_is_let_in() -> None:
    answers: list[Exception | str] = [Unreachable("Away."), AccountClosed("No.", reason="401"), "the bot"]

    async def sign_in() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await signed_in("discord", sign_in) == "the bot"
