"""What a client may send over the WebSocket, as one table: each event with its payload and what is done for it. docs/protocol.md tells
it to people."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, StrictInt, StrictStr, ValidationError

from core import approvals, frames, messages, turns
from core.access import Principal
from core.errors import InvalidInput, NotFound
from core.messages import PostingRules
from core.models import JSON, Decision, Posted
from core.ports import UnitOfWork
from core.text import clean, clip
from web.parameters import inbox_key
from web.schemas import MAX_INTEGER, Received

MAX_FRAME_BYTES: Final = 128 * 1024
"""Of what a client sends: a message of 10,000 characters fits, however it is written."""
SOURCE: Final = "web"
"""Where messages come from that were posted here."""


def _storable(text: Any) -> Any:
    return clean(text) if isinstance(text, str) else text


Text = Annotated[StrictStr, BeforeValidator(_storable)]
Short = Annotated[Text, Field(max_length=100)]
Ref = Short | Annotated[StrictInt, Field(ge=-(2**53), le=2**53)]


class Request(Received):
    """A frame from the client. `ref` is its own choice, and comes back with the reply."""

    topic: Short | None = None
    event: Short
    ref: Ref | None = None
    payload: dict[str, Any] = Field(default_factory=dict)


class Nothing(Received):
    pass


class SendMessage(Received):
    content: Text
    client_id: Annotated[StrictStr, Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]
    model: Text | None = None


class GetHistory(Received):
    before: Annotated[StrictInt, Field(ge=1, le=MAX_INTEGER)] | None = None
    limit: Annotated[StrictInt, Field(ge=1, le=100)] = 50


class OfTurn(Received):
    turn_id: UUID


class Decide(Received):
    approval_id: UUID
    decision: Decision


class Answer(Received):
    message_id: UUID
    option: Text


class EditMessage(Received):
    message_id: UUID
    content: Text


class DeleteMessage(Received):
    message_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request acts: one conversation, in one transaction, for one person."""

    uow: UnitOfWork
    principal: Principal
    conversation_id: UUID
    rules: PostingRules

    def check(self, conversation_id: UUID) -> None:
        """What belongs to another conversation is not found in this one. The transaction is undone by it."""
        if conversation_id != self.conversation_id:
            raise NotFound("There is no such thing in this topic.")


_P = TypeVar("_P", bound=BaseModel)
Act = Callable[[Place, Any], Awaitable[JSON]]


class Peer(Protocol):
    """The connection, as far as the events need it."""

    async def join(self, request: Request) -> None:
        """The snapshot is the reply, when it has been read."""
        ...

    async def leave(self, topic: str | None) -> None: ...
    async def act(self, topic: str | None, act: Act, payload: BaseModel, *, writes: bool) -> JSON:
        """In the conversation of a topic that was joined."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEvent:
    payload: type[Received]
    handle: Callable[[Peer, Request, Any], Awaitable[JSON | None]]
    """Gives the response; None where the reply comes later."""


async def _join(peer: Peer, request: Request, _: Nothing) -> None:
    await peer.join(request)


async def _leave(peer: Peer, request: Request, _: Nothing) -> JSON:
    await peer.leave(request.topic)
    return {}


async def _ping(_peer: Peer, _request: Request, _: Nothing) -> JSON:
    return {}


async def _send_message(place: Place, asked: SendMessage) -> JSON:
    key = inbox_key(place.principal, asked.client_id)
    conversation_id, uow = place.conversation_id, place.uow
    posted = await messages.post(
        uow, place.principal, conversation_id, asked.content, rules=place.rules, source=SOURCE, key=key, model=asked.model
    )
    return _posted(posted)


async def _get_history(place: Place, asked: GetHistory) -> JSON:
    page = await messages.page(place.uow, place.principal, place.conversation_id, before=asked.before, limit=asked.limit)
    return {"messages": await frames.messages_json(place.uow, page.messages), "has_more": page.has_more}


async def _cancel(place: Place, asked: OfTurn) -> JSON:
    turn = await turns.cancel(place.uow, place.principal, asked.turn_id)
    place.check(turn.conversation_id)
    return await frames.turn_json(place.uow, turn)


async def _retry(place: Place, asked: OfTurn) -> JSON:
    posted = await messages.retry(place.uow, place.principal, asked.turn_id, rules=place.rules, source=SOURCE)
    place.check(posted.conversation_id)
    return _posted(posted)


async def _decide(place: Place, asked: Decide) -> JSON:
    approval = await approvals.decide(place.uow, place.principal, asked.approval_id, asked.decision)
    place.check(approval.conversation_id)
    return {"approval_id": str(approval.id), "approval": approval.status.value}


async def _answer(place: Place, asked: Answer) -> JSON:
    posted = await messages.answer(place.uow, place.principal, asked.message_id, asked.option, rules=place.rules, source=SOURCE)
    place.check(posted.conversation_id)
    return _posted(posted)


async def _edit_message(place: Place, asked: EditMessage) -> JSON:
    message = await messages.edit(place.uow, place.principal, asked.message_id, asked.content, rules=place.rules)
    place.check(message.conversation_id)
    return (await frames.messages_json(place.uow, [message]))[0]


async def _delete_message(place: Place, asked: DeleteMessage) -> JSON:
    message = await messages.delete(place.uow, place.principal, asked.message_id)
    place.check(message.conversation_id)
    return (await frames.messages_json(place.uow, [message]))[0]


def _in_conversation(payload: type[Received], act: Act, *, writes: bool = True) -> ClientEvent:
    async def handle(peer: Peer, request: Request, asked: BaseModel) -> JSON:
        return await peer.act(request.topic, act, asked, writes=writes)

    return ClientEvent(payload=payload, handle=handle)


FRAMES: Final[Mapping[str, ClientEvent]] = {
    "join": ClientEvent(payload=Nothing, handle=_join),
    "leave": ClientEvent(payload=Nothing, handle=_leave),
    "ping": ClientEvent(payload=Nothing, handle=_ping),
    "send_message": _in_conversation(SendMessage, _send_message),
    "get_history": _in_conversation(GetHistory, _get_history, writes=False),
    "cancel": _in_conversation(OfTurn, _cancel),
    "retry": _in_conversation(OfTurn, _retry),
    "decide": _in_conversation(Decide, _decide),
    "answer": _in_conversation(Answer, _answer),
    "edit_message": _in_conversation(EditMessage, _edit_message),
    "delete_message": _in_conversation(DeleteMessage, _delete_message),
}
"""By the event's name."""


def parsed(text: str) -> Any:
    """The JSON in a frame; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def request_of(found: Any) -> Request:
    """Raises InvalidInput."""
    if not isinstance(found, dict):
        raise InvalidInput(f"The frame is not a JSON object. {_SHAPE}")
    return checked(Request, found, "A frame")


def checked(kind: type[_P], found: dict[str, Any], what: str) -> _P:
    """Raises InvalidInput, which says what is wrong where without repeating what was sent."""
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise InvalidInput(" ".join(_sentence(kind, each, what) for each in error.errors()[:5])) from None


def address_of(found: Any) -> tuple[str | None, str | int | None]:
    """Topic and ref of a frame that is wrong, as far as they can be told, so that its sender knows the reply."""
    if not isinstance(found, dict):
        return None, None
    try:
        request = Request.model_validate({"event": "?", **{key: found[key] for key in ("topic", "ref") if key in found}})
    except ValidationError:
        return None, None
    return request.topic, request.ref


def _sentence(kind: type[BaseModel], error: Any, what: str) -> str:
    named = error["type"] == "extra_forbidden"  # by whoever sent it; otherwise pydantic's own words stand among the names
    at = ".".join(str(each) for each in error["loc"] if named or isinstance(each, int) or each.isidentifier())
    if error["type"] == "extra_forbidden":
        return f"{what} has no member {clip(clean(at), 50)!r}; it has: {', '.join(kind.model_fields) or 'none'}."
    return f"{what}'s {clip(clean(at), 50)!r}: {error['msg']}."


def _posted(posted: Posted) -> JSON:
    return {name: str(getattr(posted, name)) for name in ("message_id", "reply_id", "turn_id")}


_SHAPE = 'Send {"topic": "...", "event": "...", "ref": "...", "payload": {...}} as text.'
