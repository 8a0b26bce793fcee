"""Replies while they are being written: published as deltas at once, stored as drafts once a second."""

import asyncio

import structlog

from core.errors import StorageUnavailable
from core.events import TextDelta
from core.live import Publisher
from core.models import Turn
from core.ports import Draft, Lease, Storage
from core.text import utf16_len

DELTA_SECONDS = 0.05
CHECKPOINT_SECONDS = 1.0
_log = structlog.get_logger()


class ReplyStream:
    """One stream of one reply. Text that comes within 50 ms goes out as one delta."""

    def __init__(self, live: Publisher, turn: Turn, stream_no: int, text: str) -> None:
        self._live = live
        self._turn = turn
        self._stream_no = stream_no
        self._pieces: list[str] = []
        self._offset = utf16_len(text)
        self._timer: asyncio.TimerHandle | None = None
        self.text = text
        self.checkpointed = text

    def write(self, piece: str) -> None:
        self.text += piece
        self._pieces.append(piece)
        if self._timer is None:
            self._publish()
            self._timer = asyncio.get_running_loop().call_later(DELTA_SECONDS, self._on_time)

    def close(self) -> None:
        """Sends what is left."""
        if self._timer:
            self._timer.cancel()
        self._publish()

    def draft(self) -> Draft:
        lease = Lease(turn_id=self._turn.id, token=self._turn.lease_token)
        return Draft(lease=lease, reply_id=self._turn.reply_id, stream_no=self._stream_no, text=self.text)

    def _on_time(self) -> None:
        self._timer = None
        if self._pieces:
            self._publish()
            self._timer = asyncio.get_running_loop().call_later(DELTA_SECONDS, self._on_time)

    def _publish(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if text:
            delta = TextDelta(
                conversation_id=self._turn.conversation_id,
                message_id=self._turn.reply_id,
                stream_no=self._stream_no,
                offset=self._offset,
                text=text,
            )
            self._offset += utf16_len(text)
            self._live.publish(delta)


class Drafts:
    """The replies that this process is writing."""

    def __init__(self, storage: Storage, live: Publisher) -> None:
        self._storage = storage
        self._live = live
        self._streams: dict[Lease, ReplyStream] = {}

    def open(self, turn: Turn, stream_no: int, text: str) -> ReplyStream:
        """The stream of the turn's next model call, which begins behind `text`."""
        lease = Lease(turn_id=turn.id, token=turn.lease_token)
        stream = self._streams[lease] = ReplyStream(self._live, turn, stream_no, text)
        return stream

    def began(self, lease: Lease) -> bool:
        """Whether there is a stream under this lease."""
        return lease in self._streams

    def text(self, lease: Lease) -> str | None:
        """What was written so far, or None where nothing new was."""
        stream = self._streams.get(lease)
        return stream.text if stream else None

    def forget(self, lease: Lease) -> None:
        self._streams.pop(lease, None)

    async def run(self) -> None:
        """Stores what was written, once a second, all in one transaction; until cancelled."""
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            try:
                await self._checkpoint()
            except StorageUnavailable as error:
                _log.warning("drafts.not_stored", reason=str(error))

    async def _checkpoint(self) -> None:
        written = [stream for stream in self._streams.values() if stream.text != stream.checkpointed]
        if not written:
            return
        drafts = [stream.draft() for stream in written]
        async with self._storage.write() as uow:
            saved = {draft.lease for draft in await uow.messages.save_drafts(drafts)}
        for stream, draft in zip(written, drafts, strict=True):
            if draft.lease in saved:
                stream.checkpointed = draft.text
