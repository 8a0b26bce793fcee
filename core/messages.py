"""What people do with messages: post, retry, edit, delete, read."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from core import approvals, attachments, compaction, conversations, turns
from core.access import Principal, require
from core.attachments import Upload
from core.errors import Conflict, InvalidInput, NotFound, RateLimited
from core.events import ConversationChanged, MessageAdded, MessageChanged, TurnChanged
from core.ids import new_id
from core.llm import providers
from core.models import JSON, Conversation, InboxEntry, InboxKey, Message, MessageStatus, Posted, Role, Turn, TurnStatus
from core.ports import UnitOfWork
from core.text import clean, clip

MAX_KEPT = 100_000
"""Characters of a message from a chat platform."""
MAX_IMPORTED = 30_000
"""Characters of what was said elsewhere before."""
_MINUTE = timedelta(minutes=1)
_KEPT = "This message was kept; it is read together with the next one."
_REST_LEFT_OUT = "\n(The rest was left out: the message was too long to be stored.)"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PostingRules:
    default_model: str
    max_characters: int = 10_000
    messages_per_minute: int = 60
    """For each user."""
    max_unfinished_turns: int = 20
    """In one conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """What became of a message from a chat platform."""

    posted: Posted
    unanswered: str = ""
    """The sentence that says why no answer comes; empty where one comes, or none was wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePage:
    messages: tuple[Message, ...]
    has_more: bool
    """Whether there are earlier ones."""


async def post(
    uow: UnitOfWork,
    principal: Principal,
    conversation_id: UUID | None,
    content: str,
    *,
    rules: PostingRules,
    source: str,
    key: InboxKey | None = None,
    model: str | None = None,
    uploads: Sequence[Upload] = (),
) -> Posted:
    """Stores a message and queues its answer, in a new private chat where no conversation is given.

    The same `key` again gives what the first post made. Raises InvalidInput, NotFound, RateLimited, and Conflict where the key came
    with another body.
    """
    require(principal, "chat")
    text = checked(content, rules)
    model = providers.checked(model, any_provider=principal.admin) if model else None
    given = await conversations.get(uow, principal, conversation_id) if conversation_id else None
    unfinished = await uow.turns.unfinished(given.id) if given else []
    refusal = await _over_limit(uow, principal, unfinished, rules)
    posted = _made(conversation_id or new_id(), answered=True)
    if earlier := await _taken_in(uow, principal, key, source, posted, body=_body(conversation_id, text, uploads, model)):
        return earlier
    if refusal:
        raise refusal
    conversation = given or await conversations.create(uow, principal, conversation_id=posted.conversation_id)
    model = providers.qualified(model or _model_of(conversation, rules))
    await _ask(uow, principal, conversation, posted, text, model=model, unfinished=unfinished, source=source, uploads=uploads)
    return posted


async def note(uow: UnitOfWork, principal: Principal, conversation_id: UUID, content: str, *, rules: PostingRules, source: str) -> Posted:
    """Stores a message that asks for no answer; the model reads it with the next one."""
    text = checked(content, rules)
    conversation = await conversations.get(uow, principal, conversation_id)
    refusal = await _over_limit(uow, principal, await uow.turns.unfinished(conversation_id), rules)
    posted = _made(conversation_id, answered=False)
    await _taken_in(uow, principal, None, source, posted, body=_body(conversation_id, text, (), None))
    if refusal:
        raise refusal
    await _keep(uow, principal, conversation, posted, text, source=source)
    return posted


async def take_in(
    uow: UnitOfWork,
    principal: Principal,
    conversation_id: UUID,
    content: str,
    *,
    rules: PostingRules,
    source: str,
    key: InboxKey,
    uploads: Sequence[Upload] = (),
    wants_answer: bool = True,
) -> TakenIn:
    """Stores what was said on a chat platform, which cannot be refused: it stands there already.

    Where an answer is wanted and the limits allow it, one is queued. Otherwise the model reads the message with the next one, and why is
    said in `unanswered` and in the message's metadata. Files that cannot be stored are named in the text instead. The same `key` again
    gives what the first call made, whatever it says by then. Raises InvalidInput where nothing was said at all.
    """
    conversation = await conversations.get(uow, principal, conversation_id)
    files, text = _with_files(content, uploads)
    unfinished = await uow.turns.unfinished(conversation_id)
    refusal = (_too_long(text, rules) or await _over_limit(uow, principal, unfinished, rules)) if wants_answer else None
    posted = _made(conversation_id, answered=wants_answer and refusal is None)
    if earlier := await _taken_in(uow, principal, key, source, posted, body=""):
        return TakenIn(posted=earlier, unanswered=await _unanswered(uow, earlier))
    if posted.turn_id:
        model = providers.qualified(_model_of(conversation, rules))
        await _ask(uow, principal, conversation, posted, text, model=model, unfinished=unfinished, source=source, uploads=files)
        return TakenIn(posted=posted)
    why = f"{refusal} {_KEPT}" if refusal else ""
    about = {"unanswered": {"code": refusal.code, "message": why}} if refusal else {}
    await _keep(uow, principal, conversation, posted, _cut(text), source=source, uploads=files, metadata=about)
    return TakenIn(posted=posted, unanswered=why)


async def import_note(uow: UnitOfWork, principal: Principal, conversation_id: UUID, content: str, *, source: str, key: InboxKey) -> Posted:
    """Stores what was said elsewhere before, for the model to read with the next message: its last MAX_IMPORTED characters.

    No limit counts. The same `key` again gives what the first call made.
    """
    conversation = await conversations.get(uow, principal, conversation_id)
    text = _spoken(content)[-MAX_IMPORTED:]
    posted = _made(conversation_id, answered=False)
    if earlier := await _taken_in(uow, principal, key, source, posted, body=""):
        return earlier
    await _keep(uow, principal, conversation, posted, text, source=source)
    return posted


async def notice(uow: UnitOfWork, conversation_id: UUID, text: str, *, author: UUID | None, source: str, metadata: JSON) -> Message:
    """Says in a conversation what happened to it. It asks nothing, answers nothing, and wakes nobody; the model reads it with the rest."""
    posted = _made(conversation_id, answered=False)
    seq = await uow.conversations.take_seqs(conversation_id, 1)
    told = _message(uow, posted, seq, role=Role.SYSTEM, author_id=author, content=text, source=source, metadata=metadata)
    told = replace(told, status=MessageStatus.COMPLETED)
    await uow.messages.add(told)
    uow.emit(MessageAdded(conversation_id=conversation_id, message_id=told.id))
    return told


async def answer(uow: UnitOfWork, principal: Principal, question_id: UUID, option: str, *, rules: PostingRules, source: str) -> Posted:
    """Answers the question that a reply ended with. The first answer wins; a second one is a Conflict that says who was first."""
    reply = await get(uow, principal, question_id)
    if "question" not in reply.metadata:
        raise Conflict("This message asks nothing.")
    if answers := [each for each in await uow.messages.since(reply.conversation_id, reply.seq + 1) if each.role is Role.USER]:
        names = await uow.users.names([each.author_id for each in answers[:1] if each.author_id])
        raise Conflict(f"{next(iter(names.values()), 'Somebody')} answered this question already.")
    key = InboxKey(source="question", scope=str(reply.conversation_id), event_id=str(question_id))
    return await post(uow, principal, reply.conversation_id, option, rules=rules, source=source, key=key)


async def retry(uow: UnitOfWork, principal: Principal, turn_id: UUID, *, rules: PostingRules, source: str) -> Posted:
    """Answers a failed or cancelled message again: the conversation's last one in place, an earlier one by posting it anew.

    What was posted anew is so once, however often this is asked for; until the message is edited, which makes another one of it.
    """
    require(principal, "chat")
    turn = await uow.turns.lock(turn_id)
    if turn is None or await uow.conversations.get(turn.conversation_id, principal) is None:
        raise NotFound(f"There is no turn {turn_id}.")
    question = await retryable(uow, turn)
    if await turns.is_last(uow, turn):
        await turns.retry_in_place(uow, turn)
        return Posted(conversation_id=turn.conversation_id, message_id=question.id, reply_id=turn.reply_id, turn_id=turn.id)
    copies = await attachments.copies(uow, question)
    key = InboxKey(source="retry", scope=str(turn.conversation_id), event_id=f"{turn_id} {question.revision}")
    return await post(uow, principal, turn.conversation_id, question.content, rules=rules, source=source, key=key, uploads=copies)


async def retryable(uow: UnitOfWork, turn: Turn) -> Message:
    """The message that a turn did not answer. Raises Conflict where it cannot be answered again."""
    if turn.status not in (TurnStatus.FAILED, TurnStatus.CANCELLED):
        raise Conflict(f"Only a failed or stopped answer can be retried; this one is {turn.status}.")
    question = await uow.messages.get(turn.user_message_id)
    if question is None or question.deleted_at:
        raise Conflict("The message was deleted, so it cannot be answered again.")
    return question


async def edit(uow: UnitOfWork, principal: Principal, message_id: UUID, content: str, *, rules: PostingRules) -> Message:
    """Changes what somebody wrote. A turn that has not begun answers the new text; otherwise the message is only marked as edited."""
    text = checked(content, rules)
    return await _edit(uow, await _own(uow, principal, message_id), text)


async def take_in_edit(uow: UnitOfWork, principal: Principal, message_id: UUID, content: str) -> Message:
    """Like `edit`, for what was changed on a chat platform, which cannot be refused: however long it is."""
    message = await _own(uow, principal, message_id)
    files = await uow.attachments.of_messages([message_id])
    return await _edit(uow, message, _cut(_spoken(content, [file.name for file in files])))


async def delete(uow: UnitOfWork, principal: Principal, message_id: UUID) -> Message:
    """Erases what a message says and stops its answer. Its place in the conversation stays."""
    message = await _own(uow, principal, message_id)
    if message.deleted_at:
        return message
    turn = await uow.turns.lock(message.turn_id) if message.turn_id else None
    if turn and not turn.status.finished:
        await turns.cancel(uow, principal, turn.id)
    await uow.messages.update(message_id, content="", deleted_at=uow.now)
    await attachments.remove(uow, message_id)
    await compaction.forget(uow, message)
    return await _told(uow, message)


async def get(uow: UnitOfWork, principal: Principal, message_id: UUID) -> Message:
    require(principal, "chat")
    message = await uow.messages.get(message_id)
    if message is None or await uow.conversations.get(message.conversation_id, principal) is None:
        raise NotFound(f"There is no message {message_id}.")
    return message


async def page(uow: UnitOfWork, principal: Principal, conversation_id: UUID, *, before: int | None = None, limit: int = 50) -> MessagePage:
    """The last messages, or the last below the seq `before`; ascending."""
    await conversations.get(uow, principal, conversation_id)
    found = await uow.messages.page(conversation_id, before=before, limit=limit + 1)
    return MessagePage(messages=tuple(found[-limit:]), has_more=len(found) > limit)


def checked(content: str, rules: PostingRules) -> str:
    """The text as it is stored; raises InvalidInput for one that is blank or too long."""
    text = _spoken(content)
    if refusal := _too_long(text, rules):
        raise refusal
    return text


def _spoken(content: str, files: Sequence[str] = ()) -> str:
    """The text; the names of what came with it where it says nothing itself."""
    text = clean(content)
    if text.strip():
        return text
    if not files:
        raise InvalidInput("The message is empty. Write something first.")
    return f"({', '.join(files)})"


def _too_long(text: str, rules: PostingRules) -> InvalidInput | None:
    if len(text) <= rules.max_characters:
        return None
    return InvalidInput(
        f"A message has at most {rules.max_characters:,} characters; this one has {len(text):,}. Shorten it or attach a file."
    )


def _cut(text: str) -> str:
    return text if len(text) <= MAX_KEPT else text[: MAX_KEPT - len(_REST_LEFT_OUT)] + _REST_LEFT_OUT


def _with_files(content: str, uploads: Sequence[Upload]) -> tuple[list[Upload], str]:
    """The files that can be stored, and the text with a line for each of the others."""
    files, problems = attachments.sifted(uploads)
    text = _spoken(content, [attachments.name_of(file) for file in uploads])
    return files, "\n".join([text, *(f"({problem})" for problem in problems)])


async def _taken_in(
    uow: UnitOfWork, principal: Principal, key: InboxKey | None, source: str, posted: Posted, *, body: str
) -> Posted | None:
    """Notes that this event leads to `posted`; gives what it led to when it came before. `body` tells it from others."""
    key = key or InboxKey(source=source, scope=str(principal.user_id), event_id=str(new_id()))
    entry = InboxEntry(key=key, body_sha256=body, result=_to_json(posted))
    earlier = await uow.inbox.add(entry, user_id=principal.user_id, at=uow.now)
    if earlier is None:
        return None
    if earlier.body_sha256 != body:
        raise Conflict("This key was used before for another message. Use a new key.")
    return _from_json(earlier.result)


async def _unanswered(uow: UnitOfWork, posted: Posted) -> str:
    message = await uow.messages.get(posted.message_id)
    told = message.metadata.get("unanswered") if message else None
    return str(told["message"]) if told else ""


async def _over_limit(uow: UnitOfWork, principal: Principal, unfinished: Sequence[Turn], rules: PostingRules) -> RateLimited | None:
    """Why one more message would be too much."""
    earlier = await uow.inbox.nth_last(principal.user_id, rules.messages_per_minute, since=uow.now - _MINUTE)
    if earlier:
        wait = (earlier + _MINUTE - uow.now).total_seconds()
        return RateLimited(
            f"More than {rules.messages_per_minute} messages in a minute. Try again in {wait:.0f} s.", retry_after=max(wait, 1.0)
        )
    if len(unfinished) >= rules.max_unfinished_turns:
        return RateLimited(f"{rules.max_unfinished_turns} messages here wait for an answer. Wait for one or stop some.", retry_after=5.0)
    return None


def _made(conversation_id: UUID, *, answered: bool) -> Posted:
    reply_id, turn_id = (new_id(), new_id()) if answered else (None, None)
    return Posted(conversation_id=conversation_id, message_id=new_id(), reply_id=reply_id, turn_id=turn_id)


def _model_of(conversation: Conversation, rules: PostingRules) -> str:
    return conversation.model or conversation.project_model or rules.default_model


async def _ask(
    uow: UnitOfWork,
    principal: Principal,
    conversation: Conversation,
    posted: Posted,
    text: str,
    *,
    model: str,
    unfinished: Sequence[Turn],
    source: str,
    uploads: Sequence[Upload],
) -> None:
    """Stores a message with the turn that answers it."""
    await approvals.deny_waiting(uow, unfinished, principal.user_id)
    titled = {} if conversation.title else {"title": clip(text, 80)}
    seq = await uow.conversations.take_seqs(conversation.id, 2, **titled)
    message = _message(uow, posted, seq, role=Role.USER, author_id=principal.user_id, content=text, source=source)
    reply = _message(uow, posted, seq + 1, role=Role.ASSISTANT, content="", metadata={"model": model}, source="agent")
    await uow.messages.add(message, reply)
    await attachments.add(uow, message, uploads)
    await _queue(uow, message, reply, model)
    if titled:
        uow.emit(ConversationChanged(conversation_id=conversation.id))
    await conversations.bring_back(uow, conversation)
    _log.info("message.posted", turn_id=str(posted.turn_id), conversation_id=str(conversation.id), source=source)


async def _keep(
    uow: UnitOfWork,
    principal: Principal,
    conversation: Conversation,
    posted: Posted,
    text: str,
    *,
    source: str,
    uploads: Sequence[Upload] = (),
    metadata: JSON | None = None,
) -> None:
    """Stores a message that nothing answers."""
    seq = await uow.conversations.take_seqs(conversation.id, 1)
    about = metadata or {}
    message = _message(uow, posted, seq, role=Role.USER, author_id=principal.user_id, content=text, source=source, metadata=about)
    await uow.messages.add(replace(message, status=MessageStatus.COMPLETED))
    await attachments.add(uow, message, uploads)
    await conversations.bring_back(uow, conversation)
    uow.emit(MessageAdded(conversation_id=conversation.id, message_id=message.id))


async def _queue(uow: UnitOfWork, message: Message, reply: Message, model: str) -> None:
    assert message.turn_id is not None
    assert message.author_id is not None
    turn = Turn(
        id=message.turn_id,
        conversation_id=message.conversation_id,
        seq=message.seq,
        user_message_id=message.id,
        reply_id=reply.id,
        author_id=message.author_id,
        model=model,
        status=TurnStatus.QUEUED,
        failures=0,
        rescues=0,
        stream_no=0,
        first_step=0,
        run_after=uow.now,
        lease_owner=None,
        lease_token=0,
        lease_until=None,
        error_code=None,
        error=None,
        created_at=uow.now,
        started_at=None,
        finished_at=None,
    )
    await uow.turns.add(turn)
    conversation_id = message.conversation_id
    uow.emit(
        MessageAdded(conversation_id=conversation_id, message_id=message.id),
        MessageAdded(conversation_id=conversation_id, message_id=reply.id),
        TurnChanged(conversation_id=conversation_id, turn_id=turn.id, status=TurnStatus.QUEUED, lease_token=0),
    )


def _message(uow: UnitOfWork, posted: Posted, seq: int, *, role: Role, content: str, source: str, **fields: Any) -> Message:
    message_id = posted.reply_id if role is Role.ASSISTANT else posted.message_id
    assert message_id is not None
    given = {"author_id": None, "metadata": {}, **fields}
    return Message(
        id=message_id,
        conversation_id=posted.conversation_id,
        turn_id=posted.turn_id,
        seq=seq,
        role=role,
        content=content,
        status=MessageStatus.PENDING,
        revision=1,
        source=source,
        created_at=uow.now,
        updated_at=uow.now,
        **given,
    )


async def _edit(uow: UnitOfWork, message: Message, text: str) -> Message:
    if message.role is not Role.USER or message.deleted_at:
        raise Conflict("Only a person's message that was not deleted can be edited.")
    turn = await uow.turns.lock(message.turn_id) if message.turn_id else None
    begun = turn is None or turn.status is not TurnStatus.QUEUED or bool(await uow.steps.of_turns([turn.id]))
    await uow.messages.update(message.id, content=text, **({"edited_at": uow.now} if begun else {}))
    await compaction.forget(uow, message)
    return await _told(uow, message)


async def _own(uow: UnitOfWork, principal: Principal, message_id: UUID) -> Message:
    message = await get(uow, principal, message_id)
    if message.role is Role.SYSTEM:
        raise Conflict("What tells of the conversation itself stays as it is.")
    author = message.author_id
    if message.role is Role.ASSISTANT and message.turn_id:
        turn = await uow.turns.get(message.turn_id)
        author = turn.author_id if turn else None
    if author != principal.user_id:
        raise Conflict("Only the person who wrote a message, or asked for a reply, may change it.")
    return message


async def _told(uow: UnitOfWork, message: Message) -> Message:
    uow.emit(MessageChanged(conversation_id=message.conversation_id, message_id=message.id))
    changed = await uow.messages.get(message.id)
    assert changed is not None
    return changed


def _body(conversation_id: UUID | None, text: str, uploads: Sequence[Upload], model: str | None) -> str:
    """What tells one post from another; without files and model as it was before these were told apart."""
    parts = [str(conversation_id), text, *(hashlib.sha256(upload.data).hexdigest() for upload in uploads)]
    about = [model, *(upload.name for upload in uploads)]
    return hashlib.sha256(json.dumps([*parts, about] if any(about) else parts).encode()).hexdigest()


def _to_json(posted: Posted) -> dict[str, Any]:
    ids = {name: getattr(posted, name) for name in ("conversation_id", "message_id", "reply_id", "turn_id")}
    return {name: str(found) if found else None for name, found in ids.items()}


def _from_json(stored: dict[str, Any]) -> Posted:
    ids: dict[str, Any] = {name: UUID(value) if value else None for name, value in stored.items()}
    return Posted(**ids)
