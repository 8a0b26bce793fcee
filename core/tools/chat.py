"""The toolset `chat`: how MCP clients talk to the agent and see what it does. Nothing here waits: a surface follows what was posted."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from core import approvals, conversations, frames, messages, tasks, turns, wording
from core.errors import InvalidInput, NotFound
from core.llm import providers
from core.models import JSON, AgentStatus, Conversation, Decision, InboxKey, Turn, TurnStatus
from core.ports import UnitOfWork
from core.text import clip, utf16_len
from core.tools.registry import Arguments, Hints, Posting, Result, ToolContext, advising, tool
from core.tools.sizes import ROOM, behind, cut, size_of, text_size, that_fit
from core.tools.tasks import LIST_THEM, places_of

State = Literal["queued", "running", "waiting_for_approval", "completed", "failed", "cancelled"]
_STATES: Mapping[TurnStatus, State] = {
    TurnStatus.QUEUED: "queued",
    TurnStatus.RUNNING: "running",
    TurnStatus.WAITING: "waiting_for_approval",
    TurnStatus.SUCCEEDED: "completed",
    TurnStatus.FAILED: "failed",
    TurnStatus.CANCELLED: "cancelled",
}
_WRITTEN = ("text", "phase", "question", "approvals[].arguments")
_SENTENCES = 400
"""Bytes that are kept free for what comes last: how to go on."""
_LEAST_SHARE = 300
"""Bytes of a long message that are shown at least; where that is too much for all of them, the oldest are left out."""
_AGENTS = 20
_CALLS = 20
_NAME = 40
_LINE = 200
_QUESTION = 1_000
_ERROR = 1_000
_ARGUMENTS_BYTES = 2_000


# --- arguments ---


class Placed(Arguments):
    ref: str | None = Field(None, description="A task's ref: its conversation.")
    conversation_id: UUID | None = None


class Following(Arguments):
    """Of a tool that follows a turn."""

    wait_s: int = Field(45, ge=0, le=55, description="Seconds to wait for the reply.")

    @property
    def offset(self) -> int:
        """Where the text begins that is asked for, in UTF-16 code units."""
        return 0


class SendMessage(Following, Placed):
    text: Annotated[str, StringConstraints(strip_whitespace=False, min_length=1)]
    model: str | None = None
    idempotency_key: str | None = Field(None, description="The same again gives the turn of before.", min_length=1, max_length=255)


class GetReply(Following):
    turn_id: UUID
    after: int = Field(0, ge=0, description="more_after of the result before.")
    wait_s: int = Field(25, ge=0, le=55)

    @property
    def offset(self) -> int:
        return self.after


class ListMessages(Placed):
    before: int | None = Field(None, ge=1, description="Only those below this seq.")
    limit: int = Field(20, ge=1, le=100)
    after: int = Field(0, ge=0, description="With limit 1: where its content begins that is shown.")


class CancelTurn(Arguments):
    turn_id: UUID


class Decide(Arguments):
    approval_id: UUID
    decision: Literal["approve", "deny"]


# --- results ---


class Question(Result):
    text: str
    options: list[str]


class Waiting(Result):
    approval_id: str
    tool: str
    arguments: JSON


class CalledTool(Result):
    name: str
    state: str
    decided: str | None = None
    """Who allowed it, where somebody was asked."""


class Failure(Result):
    code: str
    message: str


class ReplyText(Result):
    """The part of a Reply that all tools document which give one: the whole is long."""

    turn_id: str
    state: State
    ref: str | None = None
    conversation_id: str
    message_id: str
    text: str | None = None
    more_after: int | None = None
    """Where the rest of a text begins that was too long."""
    next: str | None = None
    """What to do next, in a sentence."""


class Reply(ReplyText):
    text_from: int | None = None
    position: int | None = None
    phase: str | None = None
    no_worker: bool | None = None
    model: str | None = None
    fallback_from: str | None = None
    question: Question | None = None
    approvals: list[Waiting] | None = None
    tool_calls: list[CalledTool] | None = None
    error: Failure | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: str | None = None


class ShownMessage(Result):
    seq: int
    message_id: str
    role: str
    author: str | None = None
    status: str
    content: str
    clipped: bool | None = None
    turn_id: str | None = None
    at: str
    edited: bool | None = None
    deleted: bool | None = None
    tool_calls: list[CalledTool] | None = None
    question: Question | None = None
    files: list[str] | None = None


class Messages(Result):
    conversation_id: str
    ref: str | None = None
    messages: list[ShownMessage]
    has_more: bool
    next_before: int | None = None
    next: str | None = None


class ShownAgent(Result):
    ref: str | None = None
    conversation_id: str
    title: str
    status: str
    message: str | None = None
    followed: str | None = None
    turn_id: str | None = None
    approvals: list[Waiting] | None = None
    question: Question | None = None


class Agents(Result):
    agents: list[ShownAgent]
    has_more: bool
    queued: int
    running: int
    workers: int
    default_model: str | None = None
    next: str | None = None


# --- tools ---


@tool(toolset="chat", title="Send a message", hints=Hints(open_world=True), follows=True, untrusted=_WRITTEN)
async def send_message(context: ToolContext, arguments: SendMessage) -> Reply:
    """Writes to Onethread's agent in a task's conversation, in another one, or in a new private chat where neither is given, and waits for
    the reply. It goes on where it takes longer: follow next. Writing while an approval waits denies it."""
    posting = _posting(context)
    conversation = await _conversation(context, arguments)
    user_id, key = str(context.principal.user_id), arguments.idempotency_key
    posted = await messages.post(
        context.uow,
        context.principal,
        conversation.id if conversation else None,
        arguments.text,
        rules=posting.rules,
        source=posting.source,
        key=InboxKey(source=posting.source, scope=user_id, event_id=key) if key else None,
        model=arguments.model,
    )
    assert posted.turn_id is not None
    return await reply_of(context.uow, await turns.get(context.uow, context.principal, posted.turn_id))


@tool(toolset="chat", title="Get a reply", hints=Hints(read_only=True, idempotent=True), follows=True, untrusted=_WRITTEN)
async def get_reply(context: ToolContext, arguments: GetReply) -> ReplyText:
    """The reply of a turn, waited for where it is still being written; text is what there is of it so far.
    Returns what send_message returns."""
    with advising(_TURNS):
        turn = await turns.get(context.uow, context.principal, arguments.turn_id)
    return await reply_of(context.uow, turn, after=arguments.after)


@tool(
    toolset="chat",
    title="List messages",
    hints=Hints(read_only=True, idempotent=True),
    untrusted=("messages[].content", "messages[].question", "messages[].files"),
)
async def list_messages(context: ToolContext, arguments: ListMessages) -> Messages:
    """The last messages of a conversation, oldest first. Long ones are clipped when there are many."""
    if arguments.after and arguments.limit != 1:
        raise InvalidInput("after goes with limit 1 only.")
    conversation = await _conversation(context, arguments)
    if conversation is None:
        raise InvalidInput("Say which conversation: pass ref (list_tasks shows refs) or conversation_id.")
    page = await messages.page(context.uow, context.principal, conversation.id, before=arguments.before, limit=arguments.limit)
    whole = [_shown(each, arguments.after) for each in await frames.messages_json(context.uow, page.messages)]
    shown = _in_equal_shares(whole, ROOM - _SENTENCES)
    has_more = page.has_more or len(shown) < len(whole)
    return Messages(
        conversation_id=str(conversation.id),
        ref=conversation.task_ref,
        messages=shown,
        has_more=has_more,
        next_before=shown[0].seq if has_more else None,
        next=" ".join(_to_go_on(whole, shown, arguments.after)) or None,
    )


@tool(toolset="chat", title="Stop a reply", hints=Hints(idempotent=True), untrusted=_WRITTEN)
async def cancel_turn(context: ToolContext, arguments: CancelTurn) -> ReplyText:
    """Stops a turn, queued or running; what was written stays. One that has ended stays as it is. Returns what send_message returns."""
    with advising(_TURNS):
        turn = await turns.cancel(context.uow, context.principal, arguments.turn_id)
    return await reply_of(context.uow, turn)


@tool(toolset="chat", title="Decide on an approval", hints=Hints(destructive=True), untrusted=_WRITTEN)
async def decide(context: ToolContext, arguments: Decide) -> ReplyText:
    """Lets the agent run the tool that it waits for, or denies it. Only a person may decide: ask first. Returns what
    send_message returns."""
    with advising("agent_status shows what waits."):
        approval = await approvals.decide(context.uow, context.principal, arguments.approval_id, Decision(arguments.decision))
    return await reply_of(context.uow, await turns.get(context.uow, context.principal, approval.turn_id))


@tool(
    toolset="chat",
    title="Agent status",
    hints=Hints(read_only=True, idempotent=True),
    untrusted=("agents[].title", "agents[].message", "agents[].followed", "agents[].approvals[].arguments", "agents[].question"),
)
async def agent_status(context: ToolContext, arguments: Placed) -> Agents:
    """What the agent does: in one conversation, or in all where it is not idle. Shows approvals and questions that wait for a person, and
    where on chat platforms people follow it."""
    asked = await _conversation(context, arguments)
    found = [asked] if asked else await conversations.active(context.uow, context.principal, limit=_AGENTS + 1)
    shown = that_fit(await _agents(context.uow, found[:_AGENTS]), ROOM - _SENTENCES)
    has_more = len(shown) < len(found)
    numbers = (await context.uow.turns.state()).numbers
    workers = await context.uow.workers.alive(context.uow.now - frames.WORKER_SILENT)
    return Agents(
        agents=shown,
        has_more=has_more,
        queued=numbers.get(TurnStatus.QUEUED, 0),
        running=numbers.get(TurnStatus.RUNNING, 0),
        workers=len(workers),
        default_model=providers.qualified(context.posting.rules.default_model) if context.posting else None,
        next=" ".join(filter(None, ["" if workers else _NO_WORKER, _MORE_AGENTS if has_more else ""])) or None,
    )


TOOLS = (send_message, get_reply, list_messages, cancel_turn, decide, agent_status)


async def reply_of(uow: UnitOfWork, turn: Turn, *, after: int = 0, text: str | None = None) -> Reply:
    """What there is of a turn's reply, its text from the UTF-16 code unit `after` on.

    `text` is all that was written so far, where that is more than is stored.
    """
    conversation = await uow.conversations.find(turn.conversation_id)
    message = await uow.messages.get(turn.reply_id)
    if conversation is None or message is None:
        raise NotFound("The conversation was deleted.")
    (shown,) = await frames.messages_json(uow, [message])
    about, error = shown["metadata"], shown["metadata"].get("error")
    reply = Reply(
        turn_id=str(turn.id),
        state=_STATES[turn.status],
        ref=conversation.task_ref,
        conversation_id=str(turn.conversation_id),
        message_id=str(turn.reply_id),
        **await _waits(uow, turn, conversation),
        **{name: about.get(name) for name in ("model", "fallback_from", "tokens_in", "tokens_out", "cost")},
        question=_question(shown),
        approvals=_waiting(shown) or None,
        tool_calls=_called(shown) or None,
        error=Failure(code=error["code"], message=_short(error["message"], _ERROR)) if error else None,
    )
    written = text if text is not None and not turn.status.finished else shown["content"]
    return _with_text(reply.model_copy(update={"next": _next(reply)}), written, after)


# --- a reply ---


async def _waits(uow: UnitOfWork, turn: Turn, conversation: Conversation) -> JSON:
    """What a turn that has not ended waits for."""
    if turn.status.finished:
        return {}
    if turn.status is not TurnStatus.QUEUED:
        return {"phase": clip(conversation.agent_status_message, _LINE) or None}
    state = await frames.turn_json(uow, turn)
    told: JSON = {"position": state["position"] or None, "no_worker": state.get("no_worker")}
    is_about_it = not state["position"] and conversation.agent_status in (AgentStatus.IDLE, AgentStatus.THINKING)
    said = conversation.agent_status_message if is_about_it else ""
    return {**told, "phase": clip(said or turn.error or "", _LINE) or None}


def _next(reply: Reply) -> str | None:
    match reply.state:
        case "queued" | "running":
            return _NO_WORKER if reply.no_worker else f"Not finished: call get_reply with turn_id {reply.turn_id}."
        case "waiting_for_approval":
            return "Ask the person whether the tool may run, then call decide with approval_id."
        case "completed" if reply.question:
            return "The answer to the question is the next send_message here."
        case "failed":
            return "To try again, send the message again."
        case _:
            return None


def _with_text(reply: Reply, text: str, after: int) -> Reply:
    begins, rest = behind(text, after)
    piece = cut(rest, ROOM - _SENTENCES - size_of(reply))
    changes: JSON = {"text": piece or None, "text_from": begins if after else None}
    if len(piece) < len(rest):
        goes_on = begins + utf16_len(piece)
        changes |= {"more_after": goes_on, "next": f"There is more: call get_reply with turn_id {reply.turn_id} and after {goes_on}."}
    return reply.model_copy(update=changes)


# --- messages ---


def _shown(message: JSON, after: int) -> ShownMessage:
    return ShownMessage(
        seq=message["seq"],
        message_id=message["id"],
        role=message["role"],
        author=None if message["metadata"].get("notice") else message["author"],
        status=message["status"],
        content=behind(message["content"], after)[1] if after else message["content"],
        turn_id=message["turn_id"],
        at=message["created_at"],
        edited=message["edited_at"] is not None or None,
        deleted=message["deleted_at"] is not None or None,
        tool_calls=_called(message) or None,
        question=_question(message),
        files=[_short(each["name"], _NAME) for each in message["attachments"]] or None,
    )


def _in_equal_shares(whole: Sequence[ShownMessage], room: int) -> list[ShownMessage]:
    """As many of the last as fit with the beginning of their texts; what short ones leave is for the long ones."""
    bare = [size_of(each.model_copy(update={"content": "", "clipped": True})) + 1 for each in whole]
    texts = [text_size(each.content[:room]) for each in whole]
    first, left = len(whole), room
    while first and (first == len(whole) or left >= bare[first - 1] + min(texts[first - 1], _LEAST_SHARE)):
        first -= 1
        left -= bare[first] + min(texts[first], _LEAST_SHARE)
    shares = _shares(texts[first:], room - sum(bare[first:]))
    return [_clipped(message, share) for message, share in zip(whole[first:], shares, strict=True)]


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """Everybody the same, and what some do not want among the others."""
    shares, left = [0] * len(wanted), room
    for place, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[index] = min(wanted[index], left // (len(wanted) - place))
        left -= shares[index]
    return shares


def _clipped(message: ShownMessage, share: int) -> ShownMessage:
    content = cut(message.content, share)
    return message if len(content) == len(message.content) else message.model_copy(update={"content": content, "clipped": True})


def _to_go_on(whole: Sequence[ShownMessage], shown: Sequence[ShownMessage], after: int) -> Iterator[str]:
    """How to get what was left out."""
    if len(shown) < len(whole):
        yield "Too much for one result: call list_messages with before next_before for earlier ones."
    clipped = [message for message in shown if message.clipped]
    if clipped and len(whole) == 1:
        (message,) = clipped
        goes_on = after + utf16_len(message.content)
        yield f"The rest: call list_messages with before {message.seq + 1}, limit 1 and after {goes_on}."
    elif clipped:
        yield "A clipped message: call list_messages with before its seq + 1 and limit 1."


# --- the agent ---


async def _agents(uow: UnitOfWork, found: Sequence[Conversation]) -> list[ShownAgent]:
    current = {each.id: await _current(uow, each) for each in found}
    followed = await places_of(uow, [each.id for each in found])
    replies = await uow.messages.of_ids([turn.reply_id for turn in current.values() if turn])
    shown = {message["turn_id"]: message for message in await frames.messages_json(uow, replies)}
    return [_agent(each, followed.get(each.id), shown.get(str(turn.id)) if (turn := current[each.id]) else None) for each in found]


async def _current(uow: UnitOfWork, conversation: Conversation) -> Turn | None:
    """The turn that the agent's status is about."""
    unfinished = await uow.turns.unfinished(conversation.id)
    return unfinished[0] if unfinished else await uow.turns.last(conversation.id)


def _agent(conversation: Conversation, followed: str | None, reply: JSON | None) -> ShownAgent:
    return ShownAgent(
        ref=conversation.task_ref,
        conversation_id=str(conversation.id),
        title=conversation.title,
        status=conversation.agent_status,
        message=clip(conversation.agent_status_message, _LINE) or None,
        followed=followed,
        turn_id=reply["turn_id"] if reply else None,
        approvals=_waiting(reply) or None if reply else None,
        question=_question(reply) if reply else None,
    )


# --- parts ---


def _question(message: JSON) -> Question | None:
    asked = message["metadata"].get("question")
    if not asked:
        return None
    return Question(text=_short(asked["text"], _QUESTION), options=[_short(option, _LINE) for option in asked["options"]])


def _waiting(message: JSON) -> list[Waiting]:
    waiting = (call for call in message["tool_calls"] if call["state"] == "awaiting_approval")
    return [Waiting(approval_id=call["approval_id"], tool=call["name"], arguments=_brief(call["arguments"])) for call in waiting]


def _called(message: JSON) -> list[CalledTool]:
    calls = message["tool_calls"][-_CALLS:]
    return [CalledTool(name=_short(call["name"], _NAME), state=call["state"], decided=wording.decided(call) or None) for call in calls]


def _brief(arguments: JSON) -> JSON:
    if text_size(json.dumps(arguments, ensure_ascii=False)) <= _ARGUMENTS_BYTES:
        return arguments
    texts = ((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) for name, value in arguments.items())
    return {_short(name, _NAME): _short(text, 100) for name, text in list(texts)[:8]}


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


# --- where ---


async def _conversation(context: ToolContext, at: Placed) -> Conversation | None:
    if at.ref and at.conversation_id:
        raise InvalidInput("Pass ref or conversation_id, not both.")
    conversation_id = at.conversation_id
    if at.ref:
        with advising(LIST_THEM):
            conversation_id = (await tasks.get(context.uow, context.principal, at.ref)).conversation_id
    if conversation_id is None:
        return None
    with advising("For a task's conversation pass its ref; list_tasks shows refs."):
        return await conversations.get(context.uow, context.principal, conversation_id)


def _posting(context: ToolContext) -> Posting:
    assert context.posting is not None, "only surfaces that post offer this tool"
    return context.posting


_NO_WORKER = f"{wording.NO_WORKER} What was sent is stored, and answered as soon as one does: call get_reply later."
_MORE_AGENTS = "For one that is not shown, call agent_status with its ref or conversation_id."
_TURNS = "agent_status shows the turns that go on."
