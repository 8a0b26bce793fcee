"""Words that tell when they were said, so that whoever hears one knows how long it took."""

import asyncio
import time
from uuid import UUID

from core.access import Principal
from core.events import TextDelta, TurnChanged
from core.live import Subscription
from core.models import TurnStatus
from onethread.bootstrap import App
from tests.benchmarks.subject import TurnFailed, new_conversations, post


def stamp() -> str:
    """A word that tells when it was said; the clock is the same in all processes of a machine."""
    return f"{time.monotonic():.6f} "


async def stamped_lags(events: Subscription) -> list[float]:
    """Follows one conversation's next turn: for each word made by `stamp`, the seconds that it took to arrive here."""
    lags: list[float] = []
    while True:
        match await events.get():
            case TextDelta(text=text):
                now = time.monotonic()
                lags += [now - float(word) for word in text.split()]
            case TurnChanged(status=TurnStatus.SUCCEEDED):
                return lags
            case TurnChanged(status=TurnStatus.FAILED | TurnStatus.CANCELLED) as changed:
                raise TurnFailed(str(changed.turn_id))


async def lags_at_once(app: App, principal: Principal, count: int, *, model: str | None = None) -> list[float]:
    """Posts into so many new conversations; the lag of every stamp of their answers."""

    async def one(conversation_id: UUID) -> list[float]:
        with app.live.subscribe(conversation_id) as events:
            await post(app, principal, conversation_id, "Talk.", model=model)
            return await stamped_lags(events)

    ids = await new_conversations(app, principal, count)
    async with asyncio.timeout(300):
        lags = await asyncio.gather(*(one(each) for each in ids))
    return [lag for each in lags for lag in each]
