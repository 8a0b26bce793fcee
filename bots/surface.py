"""What a chat platform has to offer so that the core's conversations can be held on it.

A new platform is one folder beside `slack/` whose `ChatSurface` translates: its events into `Event`s, our `Part`s into its messages. When
somebody is answered, what is sent when, and what happens after a crash is decided once for all of them, in `taking.py` and `delivery/`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol
from uuid import UUID

from bots.pacing import Budget
from core.attachments import Upload
from core.models import JSON, Account, AgentStatus, ChannelKind, Identity, Place

# --- what is shown ---------------------------------------------------------------------------------------------------


class Action(StrEnum):
    """What a button does. Its value says to what."""

    STOP = "stop"
    """Value: the turn's id."""
    RETRY = "retry"
    """Value: the turn's id."""
    APPROVE = "approve"
    """Value: the approval's id."""
    DENY = "deny"
    """Value: the approval's id."""
    ANSWER = "answer"
    """Value: `<id of the reply that asks> <number of the option, from 0>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    action: Action
    label: str
    value: str
    style: Literal["", "primary", "danger"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One remote message: a piece of a message, with what stands around it. Equal parts look equal."""

    text: str
    """Markdown, within the surface's limit, mass mentions neutralised. May be empty."""
    notes: tuple[str, ...] = ()
    """Small lines below the text, markdown each: tool calls, what the agent does, model and cost. What people wrote is escaped in them."""
    buttons: tuple[Button, ...] = ()
    speaker: str = ""
    """Who says it and where, for what people say elsewhere: `alice, on the web`. Plain text; empty for the agent."""
    is_card: bool = False
    """The task's card."""
    live: bool = False
    """Whether it will still be changed."""
    file: TextFile | None = None
    """The whole message, where it has more parts than the surface wants."""


# --- what comes in ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    name: str
    media_type: str
    size: int
    """Bytes."""
    source: JSON
    """What the surface needs to fetch it; no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A person's message."""

    remote_id: str
    channel: str
    thread: str
    """The thread that it stands in; empty at the channel's top."""
    author: str
    """The person's id on the platform."""
    text: str
    """In the platform's own markup, the bot's leading mention left out; `ChatSurface.markdown` translates it."""
    to_bot: bool
    """Whether it mentions the bot, answers it directly, or is written to it alone."""
    to_others: bool
    """Whether it mentions somebody else."""
    files: tuple[RemoteFile, ...] = ()
    answers: str = ""
    """The remote id of the message that it replies to, on platforms where one can."""
    answered: tuple[str, str] | None = None
    """Who wrote that one, and what it says, in the platform's own markup; None where the platform does not tell."""
    at: datetime
    edited_at: datetime | None = None
    """Where this is how it reads since an edit that may have made it one to the bot. By the platform's clock, to the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    remote_id: str
    channel: str
    thread: str
    author: str
    text: str
    at: datetime
    """By the platform's clock, to the second: an older edit may be told after a newer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    remote_id: str
    channel: str
    thread: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """Somebody asked for a task to be made of a message or its conversation."""

    said: Said
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Somebody pressed the platform's own stop."""

    channel: str
    thread: str
    by: str


Event = Said | Edited | Removed | Promoted | Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A person on the platform."""

    external_id: str
    name: str
    member: bool
    """A full member of the account: no guest, nobody of another company's account, no bot."""
    refusal: str = ""
    """Why this person is let in by no means, in a sentence for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """What is where a link leads."""

    channel: str
    thread: str = ""
    """Empty where it leads to a channel, not into one of its threads."""
    kind: ChannelKind
    """Of the thread, or of the channel."""
    label: str = ""
    """The channel's name as people write it, `#ops`; empty where it is open to some only, who alone know it."""
    url: str
    """Where people find it."""
    reads: bool = False
    """Whether the person about whom was asked reads there."""


# --- the platform ----------------------------------------------------------------------------------------------------


class Call(StrEnum):
    """The kinds of calls that platforms limit."""

    POST = "post"
    EDIT = "edit"
    AMEND = "amend"
    """An edit of a message that was posted long ago."""
    DELETE = "delete"
    LOOK = "look"
    """`find` and `look_up`."""
    OPEN = "open"
    ARRANGE = "arrange"
    STATUS = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one place."""

    length: int
    """Of a part's text."""
    measure: Callable[[str], int] = len
    whole: int | None = None
    """Of all that stands in one remote message: text, speaker and notes; None: the notes have room of their own."""
    parts: int | None = None
    """A message of more parts comes as a file; None: it has as many as it needs."""
    edit_seconds: float = 1.0
    """A live message is not changed more often."""
    old_seconds: float | None = None
    """A message that was posted longer ago is changed by `Call.AMEND`."""
    status_seconds: float = 60.0
    """After so long a status is shown again: platforms take it back by themselves."""


class ChatSurface(Protocol):
    """A platform's API for one account. Every call ends within `call_seconds`, and raises a `SurfaceError` where it fails."""

    @property
    def account(self) -> Account: ...
    @property
    def call_seconds(self) -> float: ...
    @property
    def makes_threads(self) -> bool:
        """Whether a thread must be made before anything can be said in it. Otherwise every message is the root of one."""
        ...

    @property
    def guesses(self) -> bool:
        """Whether `find` may take what nobody knows for the lost post, as the platform keeps nonces to itself: it is told what is known."""
        ...

    @property
    def statuses(self) -> Collection[AgentStatus]:
        """What `show_status` shows. Without `IDLE` the platform takes it back by itself, soon."""
        ...

    def limits(self, place: Place) -> Limits: ...
    def live_seconds(self, place: Place, remote_id: str) -> float | None:
        """How long after it was posted this remote message can be changed; None: for as long as anybody wants."""
        ...

    def budgets(self, call: Call, place: Place) -> Mapping[str, Budget]:
        """What such a call is counted in, by name: all of them must have room."""
        ...

    async def post(self, place: Place, part: Part, nonce: UUID, *, answers: str = "") -> str:
        """The new message's remote id. At a place without a thread: into the channel. As a reply to the message `answers` there, where the
        platform has replies."""
        ...

    async def edit(self, place: Place, remote_id: str, part: Part, nonce: UUID) -> None:
        """`nonce` is the one that it was posted with."""
        ...

    async def delete(self, place: Place, remote_id: str) -> None:
        """Nothing happens where it is gone already."""
        ...

    async def find(self, place: Place, nonce: UUID, since: datetime, known: Collection[str] | None) -> list[str]:
        """The remote ids of the messages that were posted with this nonce; more than one where a post happened twice.

        None of them was posted before `since`, by our clock: the platform's may be another one. `known` belong to other posts; where it is
        None nothing is to be guessed.
        """
        ...

    async def open(self, place: Place, root: str, title: str) -> str:
        """Makes the thread on the message `root` where the platform wants that, and gives its id; the same again where it was made.

        Raises NoThread where there can be none, and MessageGone without its root.
        """
        ...

    async def arrange(self, place: Place, title: str, *, archived: bool) -> None:
        """Names the place's thread, and puts it away or brings it back. One that people made stays as it is."""
        ...

    async def show_status(self, place: Place, status: AgentStatus, sentence: str) -> None:
        """Says what the agent does, beside the messages: one of `statuses`. `IDLE` takes it back."""
        ...

    async def tell(self, place: Place, person: str, sentence: str, *, otherwise: str = "") -> None:
        """To one person alone: there, or where that cannot be, in a direct message. Who takes none is told in front of everybody there:
        `otherwise`, or where that is empty the sentence, which everybody may read then.
        """
        ...

    def event(self, payload: JSON) -> Event | None:
        """What a stored payload tells; None for what needs nothing done. Calls nobody."""
        ...

    async def markdown(self, text: str) -> str:
        """An event's text as markdown, with the names of those whom it mentions."""
        ...

    def meet(self, *people: Identity) -> None:
        """Tells who is who: the agent's `@name` mentions them from now on."""
        ...

    async def profile(self, external_id: str) -> Profile: ...
    async def kind(self, channel: str, thread: str = "") -> ChannelKind:
        """Of a channel, or of one of its threads, which may be open to fewer people."""
        ...

    async def fetch(self, file: RemoteFile) -> Upload:
        """Raises InvalidInput with a sentence for people where it cannot be had."""
        ...

    async def earlier(self, place: Place, before: str, *, limit: int) -> Sequence[tuple[str, str]]:
        """What was said in the place's thread before the message `before`, oldest first: the newest `limit`, each as (name, text)."""
        ...

    async def look_up(self, place: Place, person: str = "") -> Spot:
        """What is there, and whether a person reads there, by their id. Raises PlaceClosed where nothing is, or the bot does not see it.

        The place may be as a link says it: with a thread in place of its channel, or a reply in place of its thread.
        """
        ...

    def link(self, place: Place) -> str:
        """Where people find it."""
        ...


# --- failures --------------------------------------------------------------------------------------------------------


class SurfaceError(Exception):
    """A call of a platform failed. Its text is for people and holds nothing of the platform's answer."""


class Busy(SurfaceError):
    """Too many calls. Nothing was done."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("The platform asked to wait.")
        self.retry_after = retry_after
        """Seconds."""


class Unclear(SurfaceError):
    """No answer, or one that does not tell whether it was done: it may be, or may still happen."""


class Unreachable(SurfaceError):
    """The platform cannot be reached. Nothing was done."""


class TooLong(SurfaceError):
    """The part does not fit, whatever its limits promised. Nothing was done."""


class NoThread(SurfaceError):
    """A thread cannot be made there: people have not allowed it, or the channel has none. Nothing was done."""

    def __init__(self, sentence: str, *, because_of: Literal["channel", "root", "title"] = "channel") -> None:
        super().__init__(sentence)
        self.because_of = because_of
        """With another root, or another title, there could be one in the channel."""


class MessageGone(SurfaceError):
    """The remote message is not there any more, or cannot be changed any more."""


class Refused(SurfaceError):
    """The platform did not take it, for a reason that is not known here: it may pass. `reason` is the platform's code."""

    def __init__(self, sentence: str, *, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class PlaceClosed(SurfaceError):
    """Nothing can be sent to this place until a person changes something there; `reason` is a stable code."""

    def __init__(self, sentence: str, *, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class AccountClosed(SurfaceError):
    """The bot is not let in any more: its token was revoked, the app removed."""

    def __init__(self, sentence: str, *, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class PermissionMissing(AccountClosed):
    """The bot lacks a permission for everything of this kind. It can still say so."""
