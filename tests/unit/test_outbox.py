"""What waits to be sent over a WebSocket: in order, merged where it may be, and never more than a bound."""

import asyncio
import json
from typing import Any

import pytest

from core.frames import Frame
from core.text import utf16_len
from web import outbox as module
from web.outbox import Outbox

JSON = dict[str, Any]
TOPIC = "conversation:1"


def delta(text: str, offset: int, *, message: str = "m", stream_no: int = 1) -> Frame:
    return Frame("llm_delta", {"message_id": message, "stream_no": stream_no, "offset": offset, "delta": text})


STATE = Frame("agent_status", {"status": "idle", "message": ""})


async def taken(outbox: Outbox) -> list[JSON]:
    async with asyncio.timeout(30):
        return [json.loads(text) for text in await outbox.take()]


async def test_deltas_of_one_reply_that_wait_become_one() -> None:
    outbox = Outbox()
    offset = 0
    for text in ("a", "🥛", "é"):
        await outbox.put(TOPIC, delta(text, offset))
        offset += utf16_len(text)

    (frame,) = await taken(outbox)
    assert frame["payload"] == {"message_id": "m", "stream_no": 1, "offset": 0, "delta": "a🥛é"}


async def test_what_is_not_the_same_stream_of_the_same_reply_in_the_same_topic_stays_apart() -> None:
    outbox = Outbox()
    await outbox.put(TOPIC, delta("a", 0))
    await outbox.put(TOPIC, delta("b", 0, stream_no=2))
    await outbox.put(TOPIC, delta("c", 0, message="n"))
    await outbox.put("task:OT-1", delta("d", 0))
    await outbox.put("task:OT-1", delta("e", 1))

    assert [frame["payload"]["delta"] for frame in await taken(outbox)] == ["a", "b", "c", "de"]


async def test_a_delta_never_passes_a_state_frame_of_its_topic() -> None:
    outbox = Outbox()
    await outbox.put(TOPIC, delta("a", 0))
    await outbox.put(TOPIC, STATE)
    await outbox.put(TOPIC, delta("b", 1))
    await outbox.put("task:OT-1", STATE)
    await outbox.put(TOPIC, delta("c", 2))

    told = [frame["payload"].get("delta", frame["topic"]) for frame in await taken(outbox)]
    assert told == ["a", TOPIC, "bc", "task:OT-1"]


async def test_text_waits_for_a_moment_after_text_and_state_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELTA_SECONDS", 60)
    outbox = Outbox()
    await outbox.put(TOPIC, delta("a", 0))
    await taken(outbox)
    await outbox.put(TOPIC, delta("b", 1))
    waiting = asyncio.create_task(taken(outbox))
    await asyncio.sleep(0)
    await outbox.put(TOPIC, delta("c", 2))
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.put(TOPIC, STATE)
    assert [frame["event"] for frame in await waiting] == ["llm_delta", "agent_status"]


async def test_text_alone_is_sent_when_the_moment_is_over() -> None:
    outbox = Outbox()
    await outbox.put(TOPIC, delta("a", 0))
    await taken(outbox)
    await outbox.put(TOPIC, delta("b", 1))
    assert [frame["payload"]["delta"] for frame in await taken(outbox)] == ["b"]


@pytest.mark.parametrize("frame", [delta("x" * 1_000, 0), Frame("agent_status", {"status": "idle", "message": "x" * 1_000})])
async def test_who_has_more_to_send_than_fits_waits_until_it_is_taken(monkeypatch: pytest.MonkeyPatch, frame: Frame) -> None:
    monkeypatch.setattr(module, "MAX_CHARACTERS", 3_000)
    outbox = Outbox()

    async def fill() -> None:
        for _ in range(10):
            await outbox.put(TOPIC, frame)

    filling = asyncio.gather(fill(), fill())
    sizes = []
    while not filling.done():
        await asyncio.sleep(0)
        sizes.append(outbox._size)
        if outbox._size >= 3_000:
            await outbox.take()
    assert 3_000 <= max(sizes) <= 4_200
    await filling


async def test_a_lone_surrogate_becomes_what_can_be_sent() -> None:
    outbox = Outbox()
    await outbox.reply("\ud800", None, "ok", {})
    (text,) = await outbox.take()
    assert "\ufffd" in text
    text.encode()
