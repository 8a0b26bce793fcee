"""Slack as a ChatSurface: one workspace, written to with the bot's token. What comes in is read in `events.py` and `app.py`."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.pacing import Budget
from bots.slack import events, files
from bots.slack.access import SignedIn
from bots.slack.blocks import Rendered, plain_text, rendered, without_blocks
from bots.slack.config import SOURCE, SlackConfig
from bots.slack.failures import UNFIT, code, translated
from bots.slack.native import Streams
from bots.slack.status import StatusLine
from bots.slack.text import mentioned, to_markdown
from bots.surface import (
    Call,
    ChannelKind,
    ChatSurface,
    Event,
    Limits,
    MessageGone,
    Part,
    PlaceClosed,
    Profile,
    RemoteFile,
    SurfaceError,
)
from core.attachments import Upload
from core.models import JSON, Account, AgentStatus, Identity, Place

METADATA = "onethread_delivery"
"""The type of the metadata by which a post is found again."""
_PAGE = 200
_SKEW = timedelta(seconds=60)  # between our clock and Slack's
_STREAM_SKEW = timedelta(seconds=5)
_REMEMBERED_SECONDS = 600.0
_REMEMBERED = 5_000
Value = TypeVar("Value")


class SlackSurface(ChatSurface):
    """One workspace. `client` is one of `access.web_client`."""

    def __init__(self, config: SlackConfig, client: AsyncWebClient, who: SignedIn) -> None:
        self._config = config
        self._client = client
        self._who = who
        self._account = Account(surface=SOURCE, id=who.team_id)
        self._people: dict[str, set[str]] = {}
        self._members: dict[str, str] = {}
        self._names = _Remembered[str]()
        self._kinds = _Remembered[ChannelKind]()
        self._streams = Streams(client, wanted=config.native_streams)
        self._status = StatusLine(client)

    @property
    def account(self) -> Account:
        return self._account

    @property
    def call_seconds(self) -> float:
        return self._config.rules.call_seconds

    def limits(self, place: Place) -> Limits:
        rules = self._config.rules
        seconds = rules.stream_seconds if self._streams.fit(place) else None
        return Limits(length=rules.part_characters, live_seconds=seconds, edit_seconds=rules.edit_seconds)

    def budgets(self, call: Call, place: Place) -> Mapping[str, Budget]:
        rules = self._config.rules
        match call:
            case Call.POST:
                starts = {"chat.startStream": rules.stream_starts} if self._streams.fit(place) else {}
                return {f"chat.postMessage:{place.channel}": rules.posts, **starts}
            case Call.EDIT:
                streams = self._streams.run_in(place)
                return {"chat.appendStream": rules.stream_appends} if streams else {"chat.update": rules.edits}
            case Call.STATUS:
                return {"status": rules.statuses}

    # --- what goes out ---

    async def post(self, place: Place, part: Part, nonce: UUID) -> str:
        content = rendered(part, self._members)
        async with self._calling():
            return await self._streams.start(place, part, content.markdown, nonce) or await self._post(place, part, content, nonce)

    async def edit(self, place: Place, remote_id: str, part: Part) -> None:
        content = rendered(part, self._members)
        async with self._calling():
            if await self._streams.grow(remote_id, part, content.markdown):
                return
            nonce = await self._streams.end(place, remote_id) if self._streams.known(remote_id) else None
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

    async def find(self, place: Place, nonce: UUID, since: datetime) -> list[str]:
        async with self._calling():
            messages = [message async for message in self._messages(place, oldest=since - _SKEW)]
        ours = [message for message in messages if message.get("user") == self._who.bot_user_id]
        found = [str(message["ts"]) for message in ours if _nonce(message) == str(nonce)]
        if found or not self._streams.fit(place):
            return found
        # A stream is begun without metadata: the one of whose beginning we have not heard is the one that nobody knows.
        begun = (since - _STREAM_SKEW).timestamp()
        lost = [str(message["ts"]) for message in ours if not _nonce(message) and float(message["ts"]) >= begun]
        return [ts for ts in lost if not self._streams.known(ts)]

    async def open(self, place: Place, root: str) -> str:
        return root  # in Slack every message is the root of a thread

    async def show_status(self, place: Place, status: AgentStatus, sentence: str) -> None:
        async with self._calling():
            await self._status.show(place, status, sentence)

    async def tell(self, place: Place, person: str, sentence: str) -> None:
        text = plain_text(sentence)
        async with self._calling():
            try:
                with translated():
                    await self._client.chat_postEphemeral(channel=place.channel, user=person, text=text, thread_ts=place.thread or None)
            except PlaceClosed:
                opened = await self._client.conversations_open(users=person)
                await self._client.chat_postMessage(channel=opened["channel"]["id"], text=text, unfurl_links=False, unfurl_media=False)

    # --- what comes in ---

    def event(self, payload: JSON) -> Event | None:
        return events.event(payload, self._who.bot_user_id)

    async def markdown(self, text: str) -> str:
        people = mentioned(text)
        names = await asyncio.gather(*(self._name(person) for person in people))
        return to_markdown(text, dict(zip(people, names, strict=True)))

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

    async def kind(self, channel: str) -> ChannelKind:
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
            said = [message async for message in self._messages(place, latest=before) if message["ts"] != before and _tells(message)]
            return [(await self._speaker(message), await self._said(message)) for message in said[-limit:]]

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

    async def _update(self, place: Place, ts: str, part: Part, content: Rendered, nonce: UUID | None) -> None:
        metadata = _metadata(nonce) if nonce else None  # without any it keeps what it has

        async def send(content: Rendered) -> None:
            await self._client.chat_update(channel=place.channel, ts=ts, text=content.text, blocks=content.blocks, metadata=metadata)

        await _understood(send, part, content)

    async def _messages(self, place: Place, *, oldest: datetime | None = None, latest: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """The thread's, oldest first, or the channel's, newest first."""
        first = f"{oldest.timestamp():.6f}" if oldest else None
        asked: dict[str, Any] = {"channel": place.channel, "oldest": first, "latest": latest, "limit": _PAGE, "include_all_metadata": True}
        cursor = None
        while True:
            if place.thread:
                page = await self._client.conversations_replies(ts=place.thread, cursor=cursor, **asked)
            else:
                page = await self._client.conversations_history(cursor=cursor, **asked)
            for message in page["messages"]:
                yield message
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return

    async def _name(self, person: str) -> str:
        """Their id where Slack does not tell: a name is not worth a message that does not arrive."""
        try:
            return self._names.get(person) or (await self.profile(person)).name
        except SurfaceError:
            return person

    async def _speaker(self, message: Mapping[str, Any]) -> str:
        if message.get("user"):
            return await self._name(str(message["user"]))
        return str(message.get("username") or (message.get("bot_profile") or {}).get("name") or "an app")

    async def _said(self, message: Mapping[str, Any]) -> str:
        attached = [f"[file: {each.get('name') or 'file'}]" for each in message.get("files") or []]
        return "\n".join(filter(None, [await self.markdown(str(message.get("text") or "")), *attached]))

    def _is_member(self, user: Mapping[str, Any]) -> bool:
        if user.get("deleted") or user.get("is_bot"):
            return False
        teams = {user.get("team_id"), *((user.get("enterprise_user") or {}).get("teams") or [])}
        guest = user.get("is_restricted") or user.get("is_ultra_restricted") or user.get("is_stranger")
        return not guest and self._who.team_id in teams


class _Remembered(Generic[Value]):
    """What Slack told lately, by id."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[Value, float]] = {}

    def get(self, key: str) -> Value | None:
        value, told_at = self._values.get(key, (None, 0.0))
        return value if time.monotonic() - told_at < _REMEMBERED_SECONDS else None

    def put(self, key: str, value: Value) -> None:
        self._values.pop(key, None)
        self._values[key] = (value, time.monotonic())
        if len(self._values) > _REMEMBERED:
            del self._values[next(iter(self._values))]


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


def _tells(message: Mapping[str, Any]) -> bool:
    return message.get("subtype") != "tombstone" and bool(message.get("text") or message.get("files"))


def _metadata(nonce: UUID) -> dict[str, Any]:
    return {"event_type": METADATA, "event_payload": {"delivery_id": str(nonce)}}


def _nonce(message: Mapping[str, Any]) -> str | None:
    metadata = message.get("metadata") or {}
    return (metadata.get("event_payload") or {}).get("delivery_id") if metadata.get("event_type") == METADATA else None
