"""Slack as a ChatSurface: one workspace, written to with the bot's token. What comes in is read in `events.py` and `app.py`."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.pacing import Budget
from bots.remembered import Remembered
from bots.slack import events, files
from bots.slack.access import SignedIn
from bots.slack.blocks import Rendered, plain_text, rendered, without_blocks
from bots.slack.config import SOURCE, SlackConfig
from bots.slack.failures import PLACES, UNFIT, code, translated
from bots.slack.native import Streams
from bots.slack.status import SessionStatus
from bots.slack.text import mentioned, to_markdown
from bots.surface import Call, ChatSurface, Event, Limits, MessageGone, Part, PlaceClosed, Profile, Refused, RemoteFile, Spot, SurfaceError
from core.attachments import Upload
from core.models import JSON, Account, AgentStatus, ChannelKind, Identity, Place

METADATA = "onethread_delivery"
"""The type of the metadata by which a post is found again."""
_PAGE = 999  # the most that Slack gives at once
_SKEW = timedelta(seconds=60)  # between our clock and Slack's
_STREAM_SKEW = timedelta(seconds=5)
_FIRST_SPAN = 3600.0  # seconds of a long thread that are read at first, and how many times more each time after that
_WIDER = 8
_NAME_SECONDS = 600.0
_KIND_SECONDS = 60.0  # a channel may be made private at any time
_NO_THREAD = "thread_not_found"
_TICK = 1e-6  # of Slack's clock, whose `oldest` is left out itself
Message = Mapping[str, Any]
Value = TypeVar("Value")


class SlackSurface(ChatSurface):
    """One workspace. `client` is one of `access.web_client`."""

    def __init__(self, config: SlackConfig, client: AsyncWebClient, who: SignedIn, *, now: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._client = client
        self._who = who
        self._account = Account(surface=SOURCE, id=who.team_id)
        self._people: dict[str, set[str]] = {}
        self._members: dict[str, str] = {}
        self._names = Remembered[str](_NAME_SECONDS, now)
        self._kinds = Remembered[ChannelKind](_KIND_SECONDS, now)
        self._streams = Streams(client, wanted=config.native_streams)
        self._status = SessionStatus(client)

    @property
    def account(self) -> Account:
        return self._account

    @property
    def call_seconds(self) -> float:
        return self._config.rules.call_seconds

    @property
    def makes_threads(self) -> bool:
        return False

    @property
    def guesses(self) -> bool:
        return False

    @property
    def statuses(self) -> Collection[AgentStatus]:
        return frozenset(AgentStatus)

    def limits(self, place: Place) -> Limits:
        return Limits(length=self._config.rules.part_characters, edit_seconds=self._config.rules.edit_seconds)

    def live_seconds(self, place: Place, remote_id: str) -> float | None:
        return self._config.rules.stream_seconds if self._streams.grows(remote_id) else None

    def budgets(self, call: Call, place: Place) -> Mapping[str, Budget]:
        rules = self._config.rules
        match call:
            case Call.POST:
                starts = {"chat.startStream": rules.stream_starts} if self._streams.fit(place) else {}
                return {f"chat.postMessage:{place.channel}": rules.posts, **starts}
            case Call.EDIT | Call.AMEND:
                streams = self._streams.run_in(place)
                return {"chat.appendStream": rules.stream_appends} if streams else {"chat.update": rules.edits}
            case Call.DELETE:
                return {"chat.delete": rules.deletes}
            case Call.LOOK:
                return {"conversations.replies" if place.thread else "conversations.history": rules.looks}
            case Call.STATUS:
                return {"status": rules.statuses}
            case Call.OPEN | Call.ARRANGE:
                return {}

    # --- what goes out ---

    async def post(self, place: Place, part: Part, nonce: UUID, *, answers: str = "") -> str:
        content = rendered(part, self._members)
        async with self._calling():
            return await self._streams.start(place, part, content.markdown) or await self._post(place, part, content, nonce)

    async def edit(self, place: Place, remote_id: str, part: Part, nonce: UUID) -> None:
        content = rendered(part, self._members)
        async with self._calling():
            if await self._streams.grow(remote_id, part, content.markdown):
                return
            if self._streams.known(remote_id):
                await self._streams.end(place, remote_id)
            try:
                await self._update(place, remote_id, part, content, nonce)
            except SlackApiError as error:
                if code(error) != "streaming_state_conflict":
                    raise
                await self._streams.end(place, remote_id)  # begun by a process that is no more
                await self._update(place, remote_id, part, content, nonce)

    async def delete(self, place: Place, remote_id: str) -> None:
        try:
            async with self._calling():
                if self._streams.known(remote_id):
                    await self._streams.end(place, remote_id)
                await self._client.chat_delete(channel=place.channel, ts=remote_id)
        except MessageGone:
            pass  # which is what was wanted

    async def find(self, place: Place, nonce: UUID, since: datetime, known: Collection[str] | None) -> list[str]:
        async with self._calling():
            messages = [message async for message in self._messages(place, oldest=f"{(since - _SKEW).timestamp():.6f}")]
        ours = [message for message in messages if message.get("user") == self._who.bot_user_id]
        found = [str(message["ts"]) for message in ours if _nonce(message) == str(nonce)]
        if found or not self._streams.fit(place):
            return found
        # A stream is begun without metadata: the one of whose beginning we have not heard is the first that nobody knows. Were there
        # several, nobody could tell whose the others are.
        begun = (since - _STREAM_SKEW).timestamp()
        lost = [str(message["ts"]) for message in ours if not _nonce(message) and float(message["ts"]) >= begun]
        return [ts for ts in lost if not self._streams.known(ts)][:1]

    async def open(self, place: Place, root: str, title: str) -> str:
        return root  # in Slack every message is the root of a thread

    async def arrange(self, place: Place, title: str, *, archived: bool) -> None:
        """Slack's threads have neither names nor an archive."""

    async def show_status(self, place: Place, status: AgentStatus, sentence: str) -> None:
        async with self._calling():
            await self._status.show(place, status, sentence)

    async def tell(self, place: Place, person: str, sentence: str, *, otherwise: str = "") -> None:
        text = plain_text(sentence)
        async with self._calling():
            try:
                with translated():
                    await self._client.chat_postEphemeral(channel=place.channel, user=person, text=text, thread_ts=place.thread or None)
            except (PlaceClosed, Refused):
                opened = await self._client.conversations_open(users=person)
                await self._client.chat_postMessage(channel=opened["channel"]["id"], text=text, unfurl_links=False, unfurl_media=False)

    # --- what comes in ---

    def event(self, payload: JSON) -> Event | None:
        return events.event(payload, self._who.bot_user_id)

    async def markdown(self, text: str) -> str:
        return to_markdown(text, await self._names_of(mentioned(text)))

    def meet(self, *people: Identity) -> None:
        for person in people:
            self._people.setdefault(person.name.casefold(), set()).add(person.external_id)
        # Two of one name are not mentioned: it might be the wrong one who is called.
        self._members = {name: next(iter(ids)) for name, ids in self._people.items() if len(ids) == 1}

    async def profile(self, external_id: str) -> Profile:
        async with self._calling():
            try:
                user = (await self._client.users_info(user=external_id))["user"]
            except SlackApiError as error:
                if code(error) not in ("user_not_found", "user_not_visible"):
                    raise
                return Profile(external_id=external_id, name=external_id, member=False)
        shown = user.get("profile") or {}
        name = shown.get("display_name") or user.get("real_name") or shown.get("real_name") or user.get("name") or external_id
        self._names.put(external_id, str(name))
        return Profile(external_id=external_id, name=str(name), member=self._is_member(user))

    async def kind(self, channel: str, thread: str = "") -> ChannelKind:
        if channel.startswith("D"):
            return ChannelKind.DIRECT
        if (known := self._kinds.get(channel)) is not None:
            return known
        async with self._calling():
            found = (await self._client.conversations_info(channel=channel))["channel"]
        kind = _kind(found)
        self._kinds.put(channel, kind)
        return kind

    async def fetch(self, file: RemoteFile) -> Upload:
        async with self._calling():
            return await files.fetched(self._client, file)

    async def earlier(self, place: Place, before: str, *, limit: int) -> Sequence[tuple[str, str]]:
        if not place.thread:
            return []
        async with self._calling():
            said = await self._newest(place, before, limit)
            names = await self._names_of({person for message in said for person in _people(message)})
        return [(_speaker(message, names), _said(message, names)) for message in said]

    async def look_up(self, place: Place, person: str = "") -> Spot:
        async with self._calling():
            found = (await self._client.conversations_info(channel=place.channel))["channel"]
            thread, kind = await self._root(place), _kind(found)
            self._kinds.put(place.channel, kind)
            return Spot(
                channel=place.channel,
                thread=thread,
                kind=kind,
                label=f"#{found['name']}" if kind is ChannelKind.OPEN else "",
                url=self.link(replace(place, thread=thread)),
                reads=bool(person) and await self._reads(found, kind, person),
            )

    def link(self, place: Place) -> str:
        where = f"https://app.slack.com/client/{self._who.team_id}/{place.channel}"
        return f"{where}/thread/{place.channel}-{place.thread}" if place.thread else where

    # --- helpers ---

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[None]:
        """Around the calls that one method makes: together they end in time, and fail as SurfaceErrors."""
        with translated():
            async with asyncio.timeout(self.call_seconds):
                yield

    async def _post(self, place: Place, part: Part, content: Rendered, nonce: UUID) -> str:
        async def send(content: Rendered) -> str:
            posted = await self._client.chat_postMessage(
                channel=place.channel,
                thread_ts=place.thread or None,
                text=content.text,
                blocks=content.blocks,
                metadata=_metadata(nonce),
                unfurl_links=False,
                unfurl_media=False,
            )
            return str(posted["ts"])

        return await _understood(send, part, content)

    async def _update(self, place: Place, ts: str, part: Part, content: Rendered, nonce: UUID) -> None:
        async def send(content: Rendered) -> None:
            # What began as a stream has no metadata yet, whoever began it.
            await self._client.chat_update(
                channel=place.channel, ts=ts, text=content.text, blocks=content.blocks, metadata=_metadata(nonce)
            )

        await _understood(send, part, content)

    async def _newest(self, place: Place, before: str, limit: int) -> list[Message]:
        """What people said in the thread, oldest first. Slack gives a thread from its beginning on: of a long one ever earlier parts."""
        page = await self._page(place, latest=before)
        if not page.next:
            return [message for message in page.messages if _tells(message, 0.0, float(before))][-limit:]
        found: list[Message] = []
        end, span, root = float(before), _FIRST_SPAN, float(place.thread)
        while len(found) < limit and end > root:
            begin = max(end - span, root)
            part = self._messages(place, oldest=f"{begin - _TICK:.6f}", latest=f"{end:.6f}")
            found = [message async for message in part if _tells(message, begin, end)] + found
            end, span = begin, span * _WIDER
        return found[-limit:]

    async def _messages(self, place: Place, *, oldest: str | None = None, latest: str | None = None) -> AsyncIterator[Message]:
        """The thread's, oldest first, or the channel's, newest first."""
        page = await self._page(place, oldest=oldest, latest=latest)
        while True:
            for message in page.messages:
                yield message
            if not page.next:
                return
            page = await self._page(place, oldest=oldest, latest=latest, cursor=page.next)

    async def _page(self, place: Place, *, oldest: str | None = None, latest: str | None = None, cursor: str | None = None) -> "_Page":
        asked: dict[str, Any] = {"channel": place.channel, "oldest": oldest, "latest": latest, "limit": _PAGE, "cursor": cursor}
        if place.thread:
            page = await self._client.conversations_replies(ts=place.thread, include_all_metadata=True, **asked)
        else:
            page = await self._client.conversations_history(include_all_metadata=True, **asked)
        # Slack repeats a thread's root on every page.
        messages = [message for message in page["messages"] if not cursor or message["ts"] != place.thread]
        return _Page(messages, (page.get("response_metadata") or {}).get("next_cursor") or None)

    async def _root(self, place: Place) -> str:
        """Of the thread, where the place names any message of it."""
        if not place.thread:
            return ""
        page = await self._client.conversations_replies(channel=place.channel, ts=place.thread, limit=1)
        if not page["messages"]:
            raise PlaceClosed(PLACES[_NO_THREAD], reason=_NO_THREAD)
        return str(page["messages"][0].get("thread_ts") or place.thread)

    async def _reads(self, channel: Mapping[str, Any], kind: ChannelKind, person: str) -> bool:
        if kind is ChannelKind.DIRECT:
            return channel.get("user") == person
        if kind is ChannelKind.OPEN and (await self.profile(person)).member:
            return True
        cursor = None
        while cursor != "":
            page = await self._client.conversations_members(channel=channel["id"], limit=_PAGE, cursor=cursor)
            if person in page["members"]:
                return True
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
        return False

    async def _names_of(self, people: Iterable[str]) -> Mapping[str, str]:
        asked = tuple(people)
        return dict(zip(asked, await asyncio.gather(*map(self._name, asked)), strict=True))

    async def _name(self, person: str) -> str:
        """Their id where Slack does not tell: a name is not worth a message that does not arrive."""
        try:
            return self._names.get(person) or (await self.profile(person)).name
        except SurfaceError:
            return person

    def _is_member(self, user: Mapping[str, Any]) -> bool:
        if user.get("deleted") or user.get("is_bot"):
            return False
        teams = {user.get("team_id"), *((user.get("enterprise_user") or {}).get("teams") or [])}
        guest = user.get("is_restricted") or user.get("is_ultra_restricted") or user.get("is_stranger")
        return not guest and self._who.team_id in teams


@dataclass(frozen=True, slots=True)
class _Page:
    messages: Sequence[Message]
    next: str | None
    """The cursor of the one that follows."""


async def _understood(send: Callable[[Rendered], Awaitable[Value]], part: Part, content: Rendered) -> Value:
    """Sends what was rendered; where Slack does not understand the blocks, their text."""
    try:
        return await send(content)
    except SlackApiError as error:
        if code(error) not in UNFIT:
            raise
        return await send(without_blocks(part, content))


def _kind(channel: Mapping[str, Any]) -> ChannelKind:
    if channel.get("is_im"):
        return ChannelKind.DIRECT
    closed = channel.get("is_private") or channel.get("is_mpim") or channel.get("is_group")
    return ChannelKind.PRIVATE if closed else ChannelKind.OPEN


def _tells(message: Message, begin: float, end: float) -> bool:
    """Whether something was said by it, from `begin` until before `end`."""
    is_said = message.get("subtype") != "tombstone" and bool(message.get("text") or message.get("files"))
    return is_said and begin <= float(message["ts"]) < end


def _people(message: Message) -> Iterable[str]:
    return {*mentioned(str(message.get("text") or "")), *filter(None, [message.get("user")])}


def _speaker(message: Message, names: Mapping[str, str]) -> str:
    if message.get("user"):
        return names[message["user"]]
    return str(message.get("username") or (message.get("bot_profile") or {}).get("name") or "an app")


def _said(message: Message, names: Mapping[str, str]) -> str:
    attached = [f"[file: {each.get('name') or 'file'}]" for each in message.get("files") or []]
    return "\n".join(filter(None, [to_markdown(str(message.get("text") or ""), names), *attached]))


def _metadata(nonce: UUID) -> dict[str, Any]:
    return {"event_type": METADATA, "event_payload": {"delivery_id": str(nonce)}}


def _nonce(message: Mapping[str, Any]) -> str | None:
    metadata = message.get("metadata") or {}
    return (metadata.get("event_payload") or {}).get("delivery_id") if metadata.get("event_type") == METADATA else None
