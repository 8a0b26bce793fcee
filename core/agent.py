"""The agent's loop: a model round, its tool calls, and again, until the reply is whole. Every effect is stored under the turn's fence."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

import structlog

from core import conversations, turns
from core.access import Principal
from core.compaction import Compaction
from core.drafts import Drafts, ReplyStream
from core.errors import Conflict, LeaseLost, ModelFaltered, ModelRefused, OnethreadError, StorageUnavailable
from core.ids import new_id
from core.limits import ModelLimits
from core.llm import history, images
from core.llm.failures import Reason
from core.logs import place_of
from core.models import JSON, ApprovalStatus, Attachment, Conversation, Step, ToolCall, ToolCallState, ToolRequest, Turn
from core.patience import patiently, when_admitted
from core.ports import ChatModel, Lease, ModelRequest, RoundEnd, Storage, TextChunk, UnitOfWork
from core.tools.registry import Tool, ToolContext, Toolset
from core.usage import total

_T = TypeVar("_T")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRules:
    max_rounds: int = 12
    """In one attempt; the last one is asked for text only."""
    approval_hours: float = 24.0
    limits: ModelLimits = field(default_factory=ModelLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A claimed turn with what stays the same while it is being answered."""

    turn: Turn
    lease: Lease
    began_at: datetime
    too_long: set[int] = field(default_factory=set)
    """The rounds that the provider found too long: the window moves for each once."""
    images: dict[UUID, str] = field(default_factory=dict)
    """As data: URLs, by the attachment's id: those that the model was shown, for its next round."""
    blind: set[int] = field(default_factory=set)
    """The round whose images the provider seemed to refuse: from then on none are shown."""
    claimed_at: float = field(default_factory=time.monotonic)
    first_text_seconds: list[float] = field(default_factory=list)
    """From the claim to the reply's first text; empty until then."""


class Agent:
    def __init__(self, *, storage: Storage, model: ChatModel, tools: Toolset, drafts: Drafts, rules: AgentRules) -> None:
        self._storage = storage
        self._model = model
        self._tools = tools
        self._drafts = drafts
        self._rules = rules
        self._compaction = Compaction(storage, model, rules.limits)

    async def answer(self, turn: Turn) -> None:
        """Works on a claimed turn until it has ended or waits for a person.

        Raises ModelError when the model failed, LeaseLost when the turn belongs to somebody else, StorageUnavailable.
        """
        job = _Job(turn=turn, lease=Lease(turn_id=turn.id, token=turn.lease_token), began_at=turn.started_at or turn.created_at)
        while not await self._advance(job):
            pass

    async def _advance(self, job: _Job) -> bool:
        """The tool calls that are open, else a model round. True when there is nothing more to do for now."""
        transcript = await self._read(lambda uow: _transcript(uow, job.turn))
        steps = transcript.steps_of(job.turn)
        open_calls = _open(steps[-1], transcript.tool_calls) if steps else []
        for call in open_calls:
            if await self._persist(partial(self._call, job=job, steps=steps, call=call)):
                return True
        return not open_calls and await self._round(job, await self._with_images(job, transcript), steps)

    # --- model rounds ---

    async def _round(self, job: _Job, transcript: history.Transcript, steps: list[Step]) -> bool:
        written = history.build(transcript, job.began_at)
        request = self._request(job, transcript, written, rounds=len(steps) - job.turn.first_step)
        if await self._compaction.keep_within(job.lease, transcript, written, request):
            return False
        said = history.joined(step.content for step in steps)
        stream = self._drafts.open(job.turn, await self._stream_no(job, transcript, said), said)
        try:
            end = await self._listen(job, request, stream)
        except ModelRefused as error:
            await self._make_acceptable(job, transcript, written, request, error)
            return False
        finally:
            stream.close()
        if end.tool_requests and not request.tools_allowed:
            raise ModelRefused(_TOO_MANY_ROUNDS.format(rounds=self._rules.max_rounds), reason="TOO_MANY_ROUNDS")
        finished = await self._persist(lambda uow: self._store_round(uow, job, transcript.conversation, steps, end))
        self._drafts.forget(job.lease)
        return finished

    async def _make_acceptable(
        self, job: _Job, transcript: history.Transcript, written: history.History, request: ModelRequest, error: ModelRefused
    ) -> None:
        """Leaves out of the next request for this round what the provider may have refused; raises what it said where nothing can be.

        Without that, one image that a provider cannot read would end every further turn of the conversation.
        """
        step = len(transcript.steps_of(job.turn))
        if error.reason == Reason.CONTEXT_TOO_LONG and step not in job.too_long:
            job.too_long.add(step)
            try:
                await self._compaction.make_room(job.lease, transcript, written, request)
            except ModelRefused as alone:
                error = alone
            else:
                return
        if not transcript.images or error.reason not in _MAY_MEAN_IMAGES:
            raise error
        _log.warning("images.refused", turn_id=str(job.turn.id), model=job.turn.model, reason=error.reason)
        job.blind.add(step)

    async def _with_images(self, job: _Job, transcript: history.Transcript) -> history.Transcript:
        """With the images that the model can see; only those are read whole, and once for all rounds."""
        files = [transcript.files.get(message.id, ()) for message in transcript.messages if not message.deleted_at]
        if not any(images.of(head) for each in files for _, head in each):
            return transcript
        choice = images.choose(files, await self._model.image_types(job.turn.model), refused=bool(job.blind))
        if missing := {each: media_type for each, media_type in choice.shown.items() if each not in job.images}:
            job.images.update(await self._read(lambda uow: _image_urls(uow, missing)))
        shown = {each: job.images[each] for each in choice.shown if each in job.images}
        gone = {each: images.GONE for each in choice.shown if each not in shown}
        return replace(transcript, images=shown, hidden={**choice.hidden, **gone})

    async def _stream_no(self, job: _Job, transcript: history.Transcript, said: str) -> int:
        """The number of the stream that follows; waits until the model may be asked."""
        untouched = transcript.reply is not None and not transcript.reply.content and not transcript.steps_of(job.turn)
        if untouched and not self._drafts.began(job.lease) and self._rules.limits.of(job.turn.model) is None:
            return job.turn.stream_no
        begin = partial(turns.begin_stream, lease=job.lease, text=said, limits=self._rules.limits)
        return await when_admitted(self._storage.write, job.lease, begin)

    async def _listen(self, job: _Job, request: ModelRequest, stream: ReplyStream) -> RoundEnd:
        separator = "\n\n" if stream.text else ""
        async with aclosing(self._model.stream(request)) as items:
            async for item in items:
                match item:
                    case TextChunk(text=text) if text:
                        if not stream.text:
                            job.first_text_seconds[:] = [round(time.monotonic() - job.claimed_at, 3)]
                        stream.write(separator + text)
                        separator = ""
                    case RoundEnd():
                        return item
        raise ModelFaltered("The model's answer broke off. It is tried again.", reason="STREAM_CUT")

    async def _store_round(self, uow: UnitOfWork, job: _Job, conversation: Conversation, steps: list[Step], end: RoundEnd) -> bool:
        step = Step(
            turn_id=job.turn.id,
            number=len(steps),
            content=end.text,
            tool_requests=end.tool_requests,
            finish_reason=end.finish_reason,
            model=job.turn.model,
            usage=end.usage,
            thinking=end.thinking,
            created_at=uow.now,
        )
        calls = [_noted(step, index, request, uow.now) for index, request in enumerate(step.tool_requests)]
        all_steps = [*steps, step]
        text = history.joined(each.content for each in all_steps)
        turn = await turns.store_step(uow, job.lease, step, calls, conversation=conversation, text=text)
        if not calls:
            await turns.finish(uow, turn, text=text, metadata=_metadata(job, turn, all_steps, uow.now))
        return not calls

    def _request(self, job: _Job, transcript: history.Transcript, written: history.History, rounds: int) -> ModelRequest:
        return ModelRequest(
            model=job.turn.model,
            messages=written.messages(transcript.conversation.window_from_seq),
            tools=self._tools.functions,
            tools_allowed=rounds < self._rules.max_rounds - 1,
        )

    # --- tool calls ---

    async def _call(self, uow: UnitOfWork, job: _Job, steps: list[Step], call: ToolCall) -> bool:
        """Carries out one tool call, exactly once: its effect and the note that it happened are one transaction."""
        request = steps[-1].tool_requests[call.index]
        turn = await uow.turns.fence(job.lease)
        stored = await uow.tool_calls.get(turn.id, call.step, call.index)
        if stored and stored.state in (ToolCallState.DONE, ToolCallState.FAILED):
            return False
        try:
            tool = self._tools.get(call.name)
            if tool.needs_approval and not (stored and stored.approval_id):
                tool.parse(_arguments(request))
                await turns.park(uow, turn, call, expires_at=uow.now + timedelta(hours=self._rules.approval_hours))
                return True
            await _check_approved(uow, stored)
            result = await self._run(uow, turn, tool, request)
        except (LeaseLost, StorageUnavailable):
            raise
        except OnethreadError as error:
            return await self._note(uow, turn, steps, call, _failure(error))
        if tool.ends_turn:
            await self._note(uow, turn, steps, call, result)
            await self._skip_following(uow, turn, steps[-1], call)
            await self._finish_with_question(uow, job, turn, steps, result)
            return True
        return await self._note(uow, turn, steps, call, result)

    async def _run(self, uow: UnitOfWork, turn: Turn, tool: Tool, request: ToolRequest) -> JSON:
        arguments = _arguments(request)
        context = await _tool_context(uow, turn)
        try:
            async with uow.savepoint():
                return await tool.run(context, arguments)
        except OnethreadError:
            raise
        except Exception as error:  # noqa: BLE001  # a defect in a tool must not cost the person the answer
            reference = str(new_id())
            _log.error("tool.failed", tool=tool.name, turn_id=str(turn.id), reference=reference, **place_of(error))
            raise _ToolBroke(f"The tool failed unexpectedly (reference {reference}). Nothing was changed.") from None

    async def _note(self, uow: UnitOfWork, turn: Turn, steps: list[Step], call: ToolCall, result: JSON) -> bool:
        state = ToolCallState.FAILED if "error" in result else ToolCallState.DONE
        await turns.put_tool_call(uow, turn, replace(call, state=state, result=json.dumps(result, ensure_ascii=False)))
        following = steps[-1].tool_requests[call.index + 1 :]
        if following:
            await turns.say_running(uow, turn, following[0].name)
        return False

    async def _skip_following(self, uow: UnitOfWork, turn: Turn, step: Step, call: ToolCall) -> None:
        for index in range(call.index + 1, len(step.tool_requests)):
            skipped = _noted(step, index, step.tool_requests[index], uow.now)
            await turns.put_tool_call(uow, turn, replace(skipped, state=ToolCallState.FAILED, result=history.UNANSWERED))

    async def _finish_with_question(self, uow: UnitOfWork, job: _Job, turn: Turn, steps: list[Step], question: JSON) -> None:
        text = history.joined([*(step.content for step in steps), question["question"]])
        asked = {"question": {"text": question["question"], "options": question["options"]}}
        await turns.finish(uow, turn, text=text, metadata={**_metadata(job, turn, steps, uow.now), **asked})

    # --- storage ---

    async def _read(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        return await patiently(self._storage.read, work)

    async def _persist(self, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
        return await patiently(self._storage.write, work)


class _ToolBroke(OnethreadError):
    """A tool has a defect."""


_MAY_MEAN_IMAGES = frozenset({Reason.BAD_REQUEST, Reason.CONTENT_POLICY, Reason.CONTEXT_TOO_LONG, Reason.MODEL_UNKNOWN})
"""Of providers that refuse an image some say only "bad request", or that no such model takes images."""
_TOO_MANY_ROUNDS = "The agent used its tools {rounds} times without coming to an answer. Retry, or ask for less at once."


def _open(step: Step, calls: Sequence[ToolCall]) -> list[ToolCall]:
    unfinished = (ToolCallState.RUNNING, ToolCallState.AWAITING_APPROVAL)
    return [call for call in calls if call.turn_id == step.turn_id and call.step == step.number and call.state in unfinished]


def _noted(step: Step, index: int, request: ToolRequest, now: datetime) -> ToolCall:
    try:
        arguments = _arguments(request)
    except OnethreadError:
        arguments = {}
    return ToolCall(
        turn_id=step.turn_id,
        step=step.number,
        index=index,
        name=request.name[:128],
        arguments=arguments,
        state=ToolCallState.RUNNING,
        result="",
        created_at=now,
    )


def _arguments(request: ToolRequest) -> JSON:
    arguments = history.arguments_of(request)
    if arguments is None:
        raise Conflict("The arguments are no JSON object. Call the tool again with complete arguments.")
    return arguments


def _failure(error: OnethreadError) -> JSON:
    return {"error": str(error), "code": error.code}


async def _check_approved(uow: UnitOfWork, stored: ToolCall | None) -> None:
    if stored is None or stored.approval_id is None:
        return
    approval = await uow.approvals.get(stored.approval_id)
    match approval.status if approval else ApprovalStatus.EXPIRED:
        case ApprovalStatus.APPROVED:
            return
        case ApprovalStatus.DENIED:
            raise Conflict("The user denied this. Do not do it and do not ask for it again.")
        case _:
            raise Conflict("Nobody allowed this in time, so it was not done.")


async def _tool_context(uow: UnitOfWork, turn: Turn) -> ToolContext:
    conversation = await uow.conversations.find(turn.conversation_id)
    author = await uow.users.get(turn.author_id)
    assert conversation is not None
    assert author is not None
    reading_along = await conversations.audience(uow, conversation)
    principal = Principal(user_id=author.id, admin=author.admin, reading_along=reading_along)
    return ToolContext(uow=uow, principal=principal, conversation=conversation)


async def _transcript(uow: UnitOfWork, turn: Turn) -> history.Transcript:
    conversation = await uow.conversations.find(turn.conversation_id)
    if conversation is None:
        raise LeaseLost(str(turn.id))
    project = await uow.projects.get(conversation.project_id)
    assert project is not None
    summary = await uow.summaries.latest(conversation.id) if conversation.window_from_seq > 1 else None
    since = await uow.messages.since(conversation.id, conversation.window_from_seq)
    shown = [message for message in since if message.seq <= turn.seq or message.id == turn.reply_id]
    turn_ids = [message.turn_id for message in shown if message.turn_id]
    steps = await uow.steps.of_turns(turn_ids, plain=False)
    task = await uow.tasks.of_conversation(conversation.id) if conversation.task_id else None
    people = {message.author_id for message in shown if message.author_id} | {turn.author_id}
    names = await uow.users.names(people | ({task.assignee_id} if task and task.assignee_id else set()))
    files = await uow.attachments.of_messages([message.id for message in shown])
    contents = [(each, await _head(uow, each)) for each in files]
    return history.Transcript(
        conversation=conversation,
        project=project,
        turn=turn,
        messages=shown,
        steps=steps,
        tool_calls=await uow.tool_calls.of_turns(turn_ids) if any(step.tool_requests for step in steps) else [],
        files={message.id: [pair for pair in contents if pair[0].message_id == message.id] for message in shown},
        names=names,
        task=task,
        assignee=names.get(task.assignee_id) if task and task.assignee_id else None,
        summary=summary,
    )


async def _head(uow: UnitOfWork, file: Attachment) -> bytes:
    head = await uow.attachments.head(file.id, history.MAX_FILE_BYTES)
    return await uow.attachments.head(file.id, images.MAX_HEADER_BYTES) if images.wants_more(head) else head


async def _image_urls(uow: UnitOfWork, types: Mapping[UUID, str]) -> dict[UUID, str]:
    """Of those that are still there."""
    there = [each for each in types if await uow.attachments.get(each)]
    return {each: images.url(types[each], await uow.attachments.data(each)) for each in there}


def _metadata(job: _Job, turn: Turn, steps: list[Step], now: datetime) -> JSON:
    usage = total(step.usage for step in steps)
    return {
        **turns.told_model(turn),
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "tokens_cached": usage.tokens_cached,
        "cost": None if usage.cost is None else format(usage.cost, "f"),
        "estimated": usage.estimated,
        "finish_reason": steps[-1].finish_reason,
        "rounds": len(steps),
        "seconds": round((now - (turn.started_at or now)).total_seconds(), 1),
        **({"first_text_seconds": job.first_text_seconds[0]} if job.first_text_seconds else {}),
    }
