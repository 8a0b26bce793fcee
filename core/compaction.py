"""Long conversations: the window moves on, and what falls out of it is kept for the model as a stored summary."""

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from uuid import UUID

import structlog

from core import turns
from core.errors import ModelError, ModelFaltered, ModelRefused
from core.limits import ModelLimits, admit
from core.llm import summary, window
from core.llm.failures import Reason
from core.llm.history import History, Transcript
from core.models import AgentStatus, Message, Summary
from core.patience import patiently, when_admitted
from core.ports import ChatModel, Lease, ModelRequest, RoundEnd, Storage, UnitOfWork
from core.retries import answers_nobody

_log = structlog.get_logger()
_STATUS = "Summarising what was said before …"
_TOO_LONG_ALONE = (
    "This message is too long for {model} even without what was said before, with its files and with what the tools returned for it. "
    "Shorten it, attach less, or choose a model with a larger context window."
)
_INPUT_SHARE = 0.5
"""Of the context window; the rest is for the answer and for errors in counting."""


class Compaction:
    def __init__(self, storage: Storage, model: ChatModel, limits: ModelLimits) -> None:
        self._storage = storage
        self._model = model
        self._limits = limits

    async def keep_within(self, lease: Lease, transcript: Transcript, written: History, request: ModelRequest) -> bool:
        """Moves the window before the request would fill it. True: read the conversation again."""
        present = transcript.conversation.window_from_seq
        first = await window.first_seq(written, request, self._model, present)
        if first != present:
            await self._move(lease, transcript, written, first, window_tokens=await self._model.context_window(request.model))
        return first != present

    async def make_room(self, lease: Lease, transcript: Transcript, written: History, request: ModelRequest) -> None:
        """Moves the window after the provider found the request too long, whatever it was thought to take. Then read again.

        Raises ModelRefused where nothing can be left out.
        """
        sent = await self._model.count_tokens(request)
        fits = min(sent, await self._model.context_window(request.model))
        present = transcript.conversation.window_from_seq
        first = await window.cut(written, request, self._model, present, fits)
        if first == present:
            raise ModelRefused(_TOO_LONG_ALONE.format(model=request.model), reason=Reason.CONTEXT_TOO_LONG)
        await self._move(lease, transcript, written, first, window_tokens=fits)

    async def _move(self, lease: Lease, transcript: Transcript, written: History, first: int, *, window_tokens: int) -> None:
        """Shows the model the conversation from the seq `first` on only, and a summary of what was before.

        Without a summary where the model will not or, in a second attempt, cannot make one. Nothing changes where something in what
        falls out was edited or deleted meanwhile. Raises the ModelError of a model that would not answer anything else either.
        """
        await when_admitted(self._storage.write, lease, partial(_begin, lease=lease, limits=self._limits))
        end = await self._summarise(transcript, written, first, window_tokens)
        await patiently(self._storage.write, lambda uow: _store(uow, lease, transcript, first, end))

    async def _summarise(self, transcript: Transcript, written: History, first: int, window_tokens: int) -> RoundEnd | None:
        request = await self._request(transcript, written, first, int(window_tokens * _INPUT_SHARE))
        try:
            async with aclosing(self._model.stream(request)) as items:
                async for item in items:
                    if isinstance(item, RoundEnd):
                        return item
            raise ModelFaltered("The summary broke off.", reason="STREAM_CUT")
        except ModelError as error:
            if answers_nobody(error) or (isinstance(error, ModelFaltered) and not transcript.turn.failures):
                raise
            _log.warning("summary.failed", turn_id=str(transcript.turn.id), model=request.model, reason=error.reason)
            return None

    async def _request(self, transcript: Transcript, written: History, first: int, most_tokens: int) -> ModelRequest:
        """The most faithful one that has at most so many tokens."""
        earlier = transcript.summary.text if transcript.summary else ""
        for messages in summary.requests(written, first, earlier, characters=most_tokens):
            request = ModelRequest(model=transcript.turn.model, messages=messages)
            if await self._model.count_tokens(request) <= most_tokens:
                break
        return request


async def forget(uow: UnitOfWork, message: Message) -> None:
    """Discards the summaries that tell of this message, and lets the window begin again behind what is still summarised."""
    await uow.conversations.update(message.conversation_id)  # holds its row: see _store
    if not await uow.summaries.discard(message.conversation_id, message.seq):
        return
    left = await uow.summaries.latest(message.conversation_id)
    await uow.conversations.update(message.conversation_id, window_from_seq=left.covers_to + 1 if left else 1)


async def _begin(uow: UnitOfWork, lease: Lease, limits: ModelLimits) -> None:
    turn = await uow.turns.fence(lease)
    await admit(uow, lease, turn.model, limits)
    await turns.set_agent_status(uow, turn.conversation_id, AgentStatus.THINKING, _STATUS)


async def _store(uow: UnitOfWork, lease: Lease, transcript: Transcript, first: int, end: RoundEnd | None) -> None:
    """The summary and the window that goes with it are one write: who finds the one finds the other."""
    turn = await uow.turns.fence(lease)
    latest = await uow.summaries.latest(turn.conversation_id)
    if latest and latest.covers_to == first - 1:
        return  # repeated: the first time was committed, but nobody heard of it
    await uow.model_requests.end(lease, uow.now)
    await turns.say_asking(uow, [turn])
    if end:
        await turns.charge(uow, turn, turn.model, end.usage, transcript.conversation)
    # Who edits or deletes holds the conversation's row too: it is either seen here, or finds the summary and discards it.
    await uow.conversations.update(turn.conversation_id)
    if not await _as_it_was(uow, transcript, first):
        return
    if end:
        await uow.summaries.add(
            Summary(
                conversation_id=turn.conversation_id,
                covers_to=first - 1,
                text=end.text.strip()[: summary.MAX_CHARACTERS],
                model=turn.model,
                tokens=end.usage.tokens_out,
                created_at=uow.now,
            )
        )
    await uow.conversations.update(turn.conversation_id, window_from_seq=first)


async def _as_it_was(uow: UnitOfWork, transcript: Transcript, first: int) -> bool:
    """Whether what falls out, and the summary that the new one begins with, are still what was read."""
    conversation_id = transcript.conversation.id
    present = await uow.messages.since(conversation_id, transcript.conversation.window_from_seq)
    unchanged = _revisions(present, first) == _revisions(transcript.messages, first)
    return unchanged and await uow.summaries.latest(conversation_id) == transcript.summary


def _revisions(messages: Sequence[Message], before_seq: int) -> dict[UUID, int]:
    return {message.id: message.revision for message in messages if message.seq < before_seq}
