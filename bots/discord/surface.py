"""Discord as a ChatSurface: one bot in the guilds that it serves, by Discord's API. What comes in is read in `events.py`."""

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import discord
from discord.http import MultipartParameters, Route

from bots.discord import events, files
from bots.discord.access import SignedIn
from bots.discord.client import Client, multipart, text_file
from bots.discord.config import SOURCE, DiscordConfig
from bots.discord.directory import Directory
from bots.discord.failures import NO_DIRECT_MESSAGES, NO_FILES, THREAD_ARCHIVED, THREAD_EXISTS, calling, is_of_reply, thread_error
from bots.discord.message import rendered
from bots.discord.text import to_markdown
from bots.markdown import neutral
from bots.pacing import Budget
from bots.remembered import Remembered
from bots.surface import (
    AccountClosed,
    Busy,
    Call,
    ChatSurface,
    Edited,
    Event,
    Limits,
    MessageGone,
    Part,
    Profile,
    RemoteFile,
    Said,
    Spot,
    SurfaceError,
    Unclear,
    Unreachable,
)
from core.attachments import Upload
from core.models import JSON, Account, AgentStatus, ChannelKind, Identity, Place
from core.text import utf16_cut, utf16_len

_PAGE = 100  # the most that Discord gives at once
_PAGES = 5
_SKEW = timedelta(seconds=60)  # between our clock and Discord's
_TITLE_UNITS = 100
_DIRECT_SECONDS = 3600.0
_HEARD = 5_000
_NONCE_CHARACTERS = 25  # the most that Discord takes
_NO_EMBEDS = discord.MessageFlags(suppress_embeds=True).value
"""Of what is delivered, and of nothing else that we write: by it a post is told from those."""
_NO_PINGS: JSON = {"parse": []}
_DEFAULT, _REPLY, _THREAD_STARTER = 0, 19, 21
_SAID = frozenset({_DEFAULT, _REPLY})
_WORKS = frozenset({AgentStatus.THINKING, AgentStatus.EXECUTING})
Value = TypeVar("Value")


class DiscordSurface(ChatSurface):
    """`client` is signed in. It needs no gateway, but whoever hears it tells what was `heard` there."""

    def __init__(self, config: DiscordConfig, client: Client, who: SignedIn) -> None:
        self._config = config
        self._rules = config.rules
        self._client = client
        self._who = who
        self._account = Account(surface=SOURCE, id=who.bot_user_id)
        self._directory = Directory(config, client, who)
        self._people: dict[str, set[str]] = {}
        self._members: dict[str, str] = {}
        self._heard: OrderedDict[str, list[str]] = OrderedDict()
        self._direct = Remembered[str](_DIRECT_SECONDS)

    @property
    def account(self) -> Account:
        return self._account

    @property
    def call_seconds(self) -> float:
        return self._rules.call_seconds

    @property
    def makes_threads(self) -> bool:
        return True

    @property
    def guesses(self) -> bool:
        return True

    @property
    def statuses(self) -> Collection[AgentStatus]:
        return _WORKS

    def limits(self, place: Place) -> Limits:
        return Limits(
            length=self._rules.part_units,
            measure=utf16_len,
            whole=self._rules.whole_units,
            parts=self._rules.parts,
            edit_seconds=self._rules.edit_seconds,
            old_seconds=self._rules.old_seconds,
            status_seconds=self._rules.status_seconds,
        )

    def live_seconds(self, place: Place, remote_id: str) -> float | None:
        return self._rules.live_seconds

    def budgets(self, call: Call, place: Place) -> Mapping[str, Budget]:
        return {"all": self._rules.everything, **dict(self._budgets(call, place))}

    def _budgets(self, call: Call, place: Place) -> Iterator[tuple[str, Budget]]:
        rules, there = self._rules, _channel(place)
        match call:
            case Call.POST:
                yield f"post:{there}", rules.posts
            case Call.EDIT:
                yield f"edit:{there}", rules.edits
            case Call.AMEND:
                yield f"edit:{there}", replace(rules.edits, shared=True)
                yield f"amend:{there}", rules.amends
            case Call.DELETE:
                yield f"delete:{there}", rules.deletes
            case Call.LOOK:
                yield f"look:{there}", rules.looks
            case Call.OPEN:
                yield f"open:{place.channel}", rules.opens
            case Call.ARRANGE:
                yield f"arrange:{there}", rules.arranges
            case Call.STATUS:
                yield f"status:{there}", rules.statuses

    # --- what goes out ---

    async def post(self, place: Place, part: Part, nonce: UUID, *, answers: str = "") -> str:
        payload = {**self._payload(part), "nonce": _nonce(nonce), "enforce_nonce": True}
        there = _channel(place)

        async def send(params: MultipartParameters) -> JSON:
            return {**await self._client.http.send_message(there, params=params)}

        async with self._calling():
            if not answers or place.thread:  # whom it answers is plain there
                return str((await _sent(payload, part, send))["id"])
            reference = {"message_id": answers, "fail_if_not_exists": False}
            try:
                return str((await _sent({**payload, "message_reference": reference}, part, send))["id"])
            except discord.HTTPException as error:
                if not is_of_reply(error):
                    raise
                return str((await _sent(payload, part, send))["id"])

    async def edit(self, place: Place, remote_id: str, part: Part, nonce: UUID) -> None:
        payload = {**self._payload(part), "attachments": []}

        async def send(params: MultipartParameters) -> JSON:
            return {**await self._client.http.edit_message(_channel(place), remote_id, params=params)}

        async with self._calling():
            await self._brought_back(place, lambda: _sent(payload, part, send), puts_away=not part.live)

    async def delete(self, place: Place, remote_id: str) -> None:
        try:
            async with self._calling():
                await self._brought_back(place, lambda: self._client.http.delete_message(_channel(place), remote_id))
        except MessageGone:
            pass  # which is what was wanted

    def heard(self, nonce: str, remote_id: str) -> None:
        """Discord told of a message of ours that it has the nonce which it was posted with; nothing else is as certain."""
        ids = self._heard.setdefault(nonce, [])
        if remote_id not in ids:
            ids.append(remote_id)
        self._heard.move_to_end(nonce)
        if len(self._heard) > _HEARD:
            self._heard.popitem(last=False)

    async def find(self, place: Place, nonce: UUID, since: datetime, known: Collection[str] | None) -> list[str]:
        if heard := self._heard.get(_nonce(nonce)):
            return sorted(heard, key=int)
        async with self._calling():
            ours = [message for message in await self._since(place, since - _SKEW) if message["author"]["id"] == self._who.bot_user_id]
        certain = [str(message["id"]) for message in ours if str(message.get("nonce") or "") == _nonce(nonce)]
        if certain or known is None:
            return certain
        # Discord keeps nonces to itself: it is the first that nobody knows. Were there several, nobody could tell whose the others are.
        known = {*known, *(remote_id for heard in self._heard.values() for remote_id in heard)}
        lost = [str(message["id"]) for message in ours if _may_be_lost(message)]
        return [remote_id for remote_id in lost if remote_id not in known][:1]

    async def open(self, place: Place, root: str, title: str) -> str:
        # discord.py's own function always says after how long Discord archives it, which is the channel's to say.
        route = Route("POST", "/channels/{channel_id}/messages/{message_id}/threads", channel_id=place.channel, message_id=root)
        async with self._calling():
            try:
                thread = await self._client.http.request(route, json={"name": _name(title)})
            except discord.HTTPException as error:
                if error.code == THREAD_EXISTS:
                    return root  # which has no more than one, of the same id
                raise thread_error(error) from None
        return str(thread["id"])

    async def arrange(self, place: Place, title: str, *, archived: bool) -> None:
        name = _name(title)
        async with self._calling():
            thread = {**await self._client.http.get_channel(place.thread)}
            if str(thread.get("owner_id")) != self._who.bot_user_id:
                return  # people made it
            try:
                await self._client.http.edit_channel(place.thread, name=name, archived=archived)
            except discord.HTTPException as error:
                if error.code != THREAD_ARCHIVED:
                    raise
                # Whoever put it away: in the archive it cannot be named.
                await self._client.http.edit_channel(place.thread, name=name, archived=False)
                if archived:
                    await self._client.http.edit_channel(place.thread, archived=True)

    async def show_status(self, place: Place, status: AgentStatus, sentence: str) -> None:
        if status not in self.statuses:
            return  # what Discord shows ends by itself
        try:
            async with self._calling():
                await self._client.http.send_typing(_channel(place))
        except (Busy, Unclear, Unreachable, AccountClosed):
            raise
        except SurfaceError:
            pass  # a place that takes no status shows none

    async def tell(self, place: Place, person: str, sentence: str, *, otherwise: str = "") -> None:
        async with self._calling():
            try:
                await self._say(await self._direct_channel(person), sentence)
            except discord.HTTPException as error:
                if error.code not in NO_DIRECT_MESSAGES:
                    raise
                await self._say(_channel(place), f"<@{person}> {otherwise or sentence}", pings={"users": [person]})

    async def notice(self, place: Place, sentence: str, key: str) -> None:
        """Says something that belongs to no conversation, to everybody there; with the same `key` within minutes it is said once."""
        nonce = base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest())[:_NONCE_CHARACTERS].decode()
        async with self._calling():
            await self._say(_channel(place), sentence, nonce=nonce)

    # --- what comes in ---

    def event(self, payload: JSON) -> Event | None:
        told = events.event(payload, self._who.bot_user_id)
        if told is not None:
            for channel in filter(None, (payload["channel"], payload["thread"])):
                self._directory.learn(channel, payload["guild"])
            self._directory.learn_names((payload.get("message") or {}).get("names") or {})
            if isinstance(told, Said | Edited):
                self.met(told.author, payload["guild"])
        return told

    def met(self, person: str, guild: str, member: JSON | None = None) -> None:
        """Somebody did something in a guild: they are looked for there first. `member`: as Discord described them there just now."""
        if guild:
            self._directory.met(person, guild, member)

    def forget_kinds(self) -> None:
        """Who may read which channel has changed, or may have."""
        self._directory.forget_kinds()

    def learn(self, guild: str, channels: Sequence[JSON], roles: Sequence[JSON] = ()) -> None:
        """What there is in a guild, as Discord describes it."""
        for channel in channels:
            self._directory.learn(str(channel["id"]), guild)
        self._directory.learn_names({str(each["id"]): str(each.get("name") or "") for each in (*channels, *roles)})

    async def markdown(self, text: str) -> str:
        return to_markdown(text, await self._directory.names_in(text))

    def meet(self, *people: Identity) -> None:
        for person in people:
            self._people.setdefault(person.name.casefold(), set()).add(person.external_id)
        # Two of one name are not mentioned: it might be the wrong one who is called.
        self._members = {name: next(iter(ids)) for name, ids in self._people.items() if len(ids) == 1}

    async def profile(self, external_id: str) -> Profile:
        return await self._directory.profile(external_id)

    async def kind(self, channel: str, thread: str = "") -> ChannelKind:
        return await self._directory.kind(channel, thread)

    async def fetch(self, file: RemoteFile) -> Upload:
        async with self._calling():
            return await files.fetched(self._client, file)

    async def earlier(self, place: Place, before: str, *, limit: int) -> Sequence[tuple[str, str]]:
        if not place.thread or before == place.thread:  # the root, on which the thread is made
            return []
        async with self._calling():
            page = await self._client.http.logs_from(_channel(place), _PAGE, before=before)
        said = [message for message in (_as_said({**each}) for each in page) if message][:limit]
        lines = [(await self._speaker(message, place), await self._said(message)) for message in reversed(said)]
        return [(name, text) for name, text in lines if text]

    async def look_up(self, place: Place, person: str = "") -> Spot:
        found, parent = await self._directory.found(_channel(place))
        channel, thread = str(parent["id"]), str(found["id"]) if found is not parent else ""
        kind = await self.kind(channel, thread)
        return Spot(
            channel=channel,
            thread=thread,
            kind=kind,
            label=f"#{parent['name']}" if kind is ChannelKind.OPEN else "",
            url=self.link(Place(account=self._account, channel=channel, thread=thread)),
            reads=bool(person) and await self._directory.reads(found, parent, person),
        )

    def link(self, place: Place) -> str:
        there = _channel(place)
        guild = self._directory.guild_of(there) or self._directory.guild_of(place.channel)
        return f"https://discord.com/channels/{guild or '@me'}/{there}"

    # --- helpers ---

    def _calling(self) -> AbstractAsyncContextManager[None]:
        return calling(self.call_seconds)

    def _payload(self, part: Part) -> JSON:
        shown = rendered(part, self._members, self._rules.whole_units)
        return {
            "content": shown.content,
            "components": list(shown.components),
            "flags": _NO_EMBEDS,
            "allowed_mentions": _NO_PINGS,
        }

    async def _brought_back(self, place: Place, call: Callable[[], Awaitable[Value]], *, puts_away: bool = True) -> Value:
        """In a thread that was put away nothing can be changed: then it is brought back for that."""
        try:
            return await call()
        except discord.HTTPException as error:
            if error.code != THREAD_ARCHIVED or not place.thread:
                raise
            try:
                await self._client.http.edit_channel(place.thread, archived=False)
            except discord.Forbidden:
                raise error from None  # it is locked
        done = await call()
        if puts_away:
            with suppress(discord.HTTPException):  # it is not ours to put away: Discord will
                await self._client.http.edit_channel(place.thread, archived=True)
        return done

    async def _since(self, place: Place, since: datetime) -> list[JSON]:
        """The place's messages since then, oldest first."""
        found: list[JSON] = []
        after = events.id_at(since)
        for _ in range(_PAGES):
            page = await self._client.http.logs_from(_channel(place), _PAGE, after=after)
            found += sorted(({**message} for message in page), key=lambda message: int(message["id"]))
            if len(page) < _PAGE:
                break
            after = int(found[-1]["id"])
        return found

    async def _direct_channel(self, person: str) -> str:
        known = self._direct.get(person)
        if known is None:
            known = str((await self._client.http.start_private_message(person))["id"])
            self._direct.put(person, known)
        return known

    async def _say(self, channel: str, sentence: str, *, pings: Mapping[str, Any] = _NO_PINGS, nonce: str = "") -> None:
        content = utf16_cut(neutral(sentence), self._rules.whole_units)
        once = {"nonce": nonce, "enforce_nonce": True} if nonce else {}
        await self._client.http.send_message(channel, params=multipart({"content": content, "allowed_mentions": pings, **once}))

    async def _speaker(self, message: JSON, place: Place) -> str:
        author = message["author"]
        shown = str(author.get("global_name") or author.get("username") or "somebody")
        if author.get("bot") or message.get("webhook_id"):
            return shown
        self.met(str(author["id"]), self._directory.guild_of(place.channel))
        return await self._directory.name(str(author["id"])) or shown

    async def _said(self, message: JSON) -> str:
        self._directory.learn_names(events.names_in(message))
        attached = [f"[file: {each.get('filename') or 'file'}]" for each in message.get("attachments") or []]
        return "\n".join(filter(None, [await self.markdown(str(message.get("content") or "")), *attached]))


async def _sent(payload: JSON, part: Part, send: Callable[[MultipartParameters], Awaitable[JSON]]) -> JSON:
    """With the part's file; without it where Discord does not take it."""
    if part.file is not None:
        try:
            return await send(multipart(payload, text_file(part.file.name, part.file.text)))
        except discord.HTTPException as error:
            if error.code not in NO_FILES and error.status != 413:
                raise
    return await send(multipart(payload))


def _channel(place: Place) -> str:
    """What Discord calls the channel: a thread is one by itself."""
    return place.thread or place.channel


def _name(title: str) -> str:
    return utf16_cut(" ".join(title.split()), _TITLE_UNITS) or "Task"


def _nonce(nonce: UUID) -> str:
    return base64.urlsafe_b64encode(nonce.bytes).rstrip(b"=").decode()


def _may_be_lost(message: JSON) -> bool:
    """Whether it may be a post whose outcome nobody knows: not what was posted with another nonce, or is no delivery."""
    is_delivered = message["type"] in _SAID and int(message.get("flags") or 0) & _NO_EMBEDS
    return bool(is_delivered) and not (message.get("nonce") or message.get("interaction_metadata") or message.get("webhook_id"))


def _as_said(message: JSON) -> JSON | None:
    """The message in which somebody said something; of a thread's first line what it was made of."""
    if message["type"] == _THREAD_STARTER:
        root: JSON | None = message.get("referenced_message")
        return root
    return message if message["type"] in _SAID else None
