"""What is said last at a place: that it shows its conversation no longer, or that the conversation is no more."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import structlog

from bots.delivery.notes import Notes
from bots.delivery.outlet import Need, Outlet
from bots.delivery.picture import Over, Picture
from bots.delivery.plan import Remote
from bots.delivery.status import StatusLine
from bots.pacing import Rank
from bots.surface import Busy, Part, PlaceClosed, SurfaceError, Unclear, Unreachable
from core.models import DeliveryState

_log = structlog.get_logger()


async def place_closed(outlet: Outlet, picture: Picture, status: StatusLine, notes: Notes, error: PlaceClosed) -> None:
    """Nothing can be sent there any more: the turn goes on, and who asked is told where to read it."""
    _log.warning("delivery.place_closed", binding_id=str(picture.binding.id), reason=error.reason)
    await status.take_back()
    try:
        asker = await notes.ended(error.reason)
    except Over:
        return
    if asker is None:
        return
    with suppress(SurfaceError):
        await outlet.ready()
        await outlet.finish(outlet.surface.tell(picture.place, asker, f"{error} The conversation goes on here: {picture.url}"))


async def gone(outlet: Outlet, picture: Picture, status: StatusLine) -> None:
    """The last frame of what was live when the conversation was deleted, or the place began to show another one: nothing can be noted of it
    any more."""
    for item in picture.items:
        for remote in item.remotes:
            if remote.row.state is DeliveryState.LIVE and remote.row.remote_id and not remote.lost and not item.settled:
                need = Need(picture.call_to_edit(item, remote), picture.place_of(item))
                await _last_words(outlet, need, remote, remote.row.remote_id, picture.gone)
    await status.take_back()


async def _last_words(outlet: Outlet, need: Need, remote: Remote, remote_id: str, sentence: str) -> None:
    part = replace(remote.part or Part(text=""), notes=(sentence,), buttons=(), live=False)
    for _ in range(outlet.rules.last_words):
        await outlet.granted(*need, Rank.FINAL)
        await outlet.ready()
        try:
            await outlet.finish(outlet.surface.edit(need.place, remote_id, part, remote.row.nonce))
        except Busy as error:
            outlet.busy(*need, error)
        except (Unclear, Unreachable):
            await asyncio.sleep(outlet.rules.settle_seconds)
        except SurfaceError:
            return
        else:
            return
