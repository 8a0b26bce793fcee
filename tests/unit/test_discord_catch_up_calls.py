"""How fast it is caught up, and who waits for whom."""

import asyncio

from bots.discord.inbound.catch_up_calls import CatchUpCalls, Pace
from bots.surface import Busy


async def test_all_calls_together_keep_their_pace() -> None:
    calls, loop = CatchUpCalls(Pace(calls_per_second=100, burst=5)), asyncio.get_running_loop()
    times: list[float] = []

    async def call() -> None:
        times.append(loop.time())

    async def ask() -> None:
        async with calls.listing() as seat:
            await calls.patiently(call, seat)

    began = loop.time()
    await asyncio.gather(*(ask() for _ in range(15)))
    assert times[4] - began < 0.05
    assert times[14] - began >= 0.09


async def test_who_waits_long_lets_others_read_meanwhile() -> None:
    calls = CatchUpCalls(Pace(channels=1, aside_seconds=0.0))
    ended: list[str] = []

    async def read(name: str, failures: int) -> None:
        async def call() -> None:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise Busy(0.1)

        async with calls.reading() as seat:
            await calls.patiently(call, seat)
            ended.append(name)

    await asyncio.gather(read("busy", 2), read("free", 0))
    assert ended == ["free", "busy"]


async def test_who_is_cancelled_while_it_steps_aside_gives_nothing_back_twice() -> None:
    calls = CatchUpCalls(Pace(channels=1, aside_seconds=0.0))

    async def wait() -> None:
        async with calls.reading() as seat:
            await seat.wait(60)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    async with calls.reading():
        waiting.cancel()
        await asyncio.wait({waiting})
        other = asyncio.create_task(wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert calls._histories.locked()
        other.cancel()
        await asyncio.wait({other})
