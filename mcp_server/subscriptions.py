"""Who is told when a resource changes: the streams of subscriptions/listen, and the sessions of older revisions.

What happens in any process arrives as a live event. A change is read once for all who listen in this process, and told at most every
quarter of a second; where nobody listens, nothing is read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import structlog
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import ListenHandler, SubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated, ServerEvent
from mcp.shared.uri_template import UriTemplate
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    EmptyResult,
    ListResourcesResult,
    PaginatedRequestParams,
    Resource,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from core import conversations, tasks
from core.access import Principal, require
from core.errors import InvalidInput, StorageUnavailable
from core.events import Event
from core.logs import place_of
from core.ports import UnitOfWork
from mcp_server import resources
from mcp_server.changes import Batch, Topic, topic
from mcp_server.server import Server, connection_of
from mcp_server.services import Services

MAX_URIS = 100
"""Of one stream, or one session."""
MAX_STREAMS = 1_000
"""In this process."""
MAX_STREAMS_EACH = 100
"""Of one person."""
_QUEUE_SIZE = 10_000
_RESTART_SECONDS = 1.0
_BEGIN_SECONDS = 10.0
_AT_ONCE = 200
"""Conversations that are read at once."""
_STOPPING = "Onethread is about to stop. Listen again in a moment."
_log = structlog.get_logger()

_Context = ServerRequestContext[Any, Any]
_Listed = Sequence[tuple[str, str | None]]
"""The URIs and titles of tasks in the list of resources."""
_UNKNOWN: _Listed = (("", None),)
"""No list is like this one."""


def install(server: Server, *, told_seconds: float = 0.25) -> None:
    """Serves subscriptions of both eras, with so much time between two tellings. Comes after `resources.install`."""
    watch = Watch(server, told_seconds)
    lowlevel = server.lowlevel
    listing = lowlevel.get_request_handler("resources/list")
    assert listing is not None

    async def listed(ctx: _Context, params: PaginatedRequestParams) -> ListResourcesResult:
        found = await listing.handler(ctx, params)
        assert isinstance(found, ListResourcesResult)
        await watch.has_listed(ctx, found.resources)
        return found

    lowlevel.add_request_handler("resources/list", PaginatedRequestParams, listed)
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, watch.subscribe)
    lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, watch.unsubscribe)
    lowlevel.add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, watch.listen)
    lowlevel.middleware.append(_honest_capabilities)
    lowlevel.lifespan = _with(watch, lowlevel.lifespan)


# --- who is told -----------------------------------------------------------------------------------------------------


class _Listener:
    """One who is told: which URIs, as they were written when they were asked for, and what each of them names."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.topics: dict[str, Topic | None] = {}
        """None for what others than we tell of."""
        self.listed: _Listed | None = None
        """What the list of resources held when it was last told of; None where nobody asked."""
        self.has_begun = False

    def tell(self, events: Iterable[ServerEvent]) -> None:
        raise NotImplementedError

    def tell_of(self, batch: Batch) -> None:
        changed = batch.topics_for(self.principal.user_id)
        self.tell(ResourceUpdated(uri=uri) for uri, about in self.topics.items() if about in changed)

    def tell_list(self, listed: _Listed) -> None:
        if self.listed is not None and self.listed != listed:
            self.listed = listed
            self.tell([ResourcesListChanged()])

    def miss(self) -> None:
        """Something happened, nobody knows what: all of it may look different."""
        self.tell(ResourceUpdated(uri=uri) for uri, about in self.topics.items() if about)
        if self.listed is not None:
            self.listed = _UNKNOWN
            self.tell([ResourcesListChanged()])


class _Stream(_Listener):
    """A stream of subscriptions/listen, and the bus that the SDK's handler of it listens to. What is published on the server's own bus
    goes through it, too."""

    def __init__(self, principal: Principal, bus: SubscriptionBus) -> None:
        super().__init__(principal)
        self.handler = ListenHandler(self)
        self._bus = bus
        self._early: list[ServerEvent] = []
        self._listener: Callable[[ServerEvent], None] = self._early.append

    async def publish(self, event: ServerEvent) -> None:
        self._listener(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        self._listener = listener
        for event in self._early:
            listener(event)
        return self._bus.subscribe(listener)

    def tell(self, events: Iterable[ServerEvent]) -> None:
        for event in events:
            self._listener(event)


class _Session(_Listener):
    """A connection of the revisions before 2026-07-28."""

    def __init__(self, principal: Principal, session: ServerSession) -> None:
        super().__init__(principal)
        self._session = session
        self._waiting: dict[ServerEvent, None] = {}
        self._telling: asyncio.Task[None] | None = None

    def tell(self, events: Iterable[ServerEvent]) -> None:
        self._waiting.update(dict.fromkeys(events))
        if self._waiting and self._telling is None:
            self._telling = asyncio.create_task(self._send(), name="mcp.session")

    def end(self) -> None:
        self._waiting.clear()
        if self._telling:
            self._telling.cancel()

    async def _send(self) -> None:
        try:
            while self._waiting:
                event = next(iter(self._waiting))
                del self._waiting[event]
                if isinstance(event, ResourceUpdated):
                    await self._session.send_resource_updated(event.uri)
                else:
                    await self._session.send_resource_list_changed()
        finally:
            self._telling = None


# --- watching --------------------------------------------------------------------------------------------------------


class Watch:
    """Those who listen in this process, and the task that tells them."""

    def __init__(self, server: Server, told_seconds: float) -> None:
        self._server = server
        self._told_seconds = told_seconds
        self._listeners: set[_Listener] = set()
        self._sessions: dict[Connection, _Session] = {}
        self._wanted, self._ready = asyncio.Event(), asyncio.Event()
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Tells who listens; until cancelled. Where several run at once, one of them does the work."""
        async with self._one:
            while True:
                try:
                    await self._wanted.wait()  # before, nobody needs the services
                    await self._serve(await self._server.services())
                except Exception as error:  # noqa: BLE001  # the outermost loop: a defect must not leave the listeners without news
                    _log.error("mcp.watch_restarted", **place_of(error))
                    await asyncio.sleep(_RESTART_SECONDS)
                finally:
                    self._ready.clear()

    async def _serve(self, services: Services) -> None:
        with services.live.subscribe(size=_QUEUE_SIZE) as events:
            self._miss(each for each in self._listeners if each.has_begun)  # what happened while nobody watched
            self._ready.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._end(services), name="mcp.end")
                while True:
                    await self._tell(services, [await events.get(), *events.waiting()])
                    await asyncio.sleep(self._told_seconds)

    async def _end(self, services: Services) -> None:
        """Ends all streams when the process is about to end, as the protocol wants it: with a result."""
        await services.stopping.wait()
        for stream in self._streams:
            stream.handler.close()

    @property
    def _streams(self) -> list[_Stream]:
        return [each for each in self._listeners if isinstance(each, _Stream)]

    # --- telling ---

    async def _tell(self, services: Services, events: Sequence[Event]) -> None:
        batch = Batch.of(events, {about for listener in self._listeners for about in listener.topics.values()})
        if batch.missed:
            self._miss(self._listeners)
            return
        try:
            if batch.of_list:
                await self._tell_lists(services)
            if not batch.is_empty:
                await self._tell_resources(services, batch)
        except StorageUnavailable:
            self._miss(self._listeners)

    async def _tell_resources(self, services: Services, batch: Batch) -> None:
        async with services.storage.read() as uow:
            await _learn(uow, batch)
        for listener in list(self._listeners):
            listener.tell_of(batch)

    async def _tell_lists(self, services: Services) -> None:
        """Reads the list once for each person who listens, and tells those who were told of another one."""
        listeners = [each for each in self._listeners if each.listed is not None]
        if not listeners:
            return
        async with services.storage.read() as uow:
            listed = {
                each.user_id: await _list(uow, each) for each in {each.principal.user_id: each.principal for each in listeners}.values()
            }
        for listener in listeners:
            listener.tell_list(listed[listener.principal.user_id])

    def _miss(self, listeners: Iterable[_Listener]) -> None:
        for listener in list(listeners):
            listener.miss()

    # --- subscriptions/listen ---

    async def listen(self, ctx: _Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """One stream, which ends with its client or with the process."""
        wanted = params.notifications
        stream = _Stream(await self._server.caller(ctx), self._server.bus)
        await self._begin(stream, wanted.resource_subscriptions or (), of_list=bool(wanted.resources_list_changed))
        try:
            return await stream.handler(ctx, params)
        finally:
            self._listeners.discard(stream)

    # --- the revisions before it ---

    async def subscribe(self, ctx: _Context, params: SubscribeRequestParams) -> EmptyResult:
        session = await self._session_of(ctx)
        if session is None:
            raise MCPError(INVALID_REQUEST, "This connection has no session, so nobody could be told. Begin with initialize.")
        await self._begin(session, [params.uri])
        return EmptyResult()

    async def unsubscribe(self, ctx: _Context, params: UnsubscribeRequestParams) -> EmptyResult:
        if session := self._sessions.get(connection_of(ctx)):
            session.topics.pop(params.uri, None)
        return EmptyResult()

    async def has_listed(self, ctx: _Context, shown: Sequence[Resource]) -> None:
        """Who was shown the list is told when it changes: these revisions have no other way to ask for it."""
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return
        session, services = await self._session_of(ctx), await self._server.services()
        if session is None or services.stopping.is_set() or "tasks:read" not in session.principal.scopes:
            return
        await self._begin(session, ())
        session.listed = [(each.uri, each.title) for each in shown if each.uri.startswith(resources.TASKS)]
        async with services.storage.read() as uow:
            session.tell_list(await _list(uow, session.principal))  # it may have changed meanwhile

    async def _session_of(self, ctx: _Context) -> _Session | None:
        """None where nothing can be sent but answers. The SDK shows a handler neither its connection nor when that ends."""
        connection, principal = connection_of(ctx), await self._server.caller(ctx)
        if not connection.has_standalone_channel:
            return None
        session = self._sessions.get(connection)
        if session is None:
            session = self._sessions[connection] = _Session(principal, ctx.session)
            connection.exit_stack.callback(self._forget, connection)
        session.principal = principal
        return session

    def _forget(self, connection: Connection) -> None:
        session = self._sessions.pop(connection)
        self._listeners.discard(session)
        session.end()

    # --- both ---

    async def _begin(self, listener: _Listener, uris: Iterable[str], *, of_list: bool = False) -> None:
        """From its end on nothing is missed. Raises what the caller is to be told."""
        services = await self._server.services()
        topics = await self._topics(services, listener, list(dict.fromkeys(uris)))
        self._admit(listener)
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                await self._ready.wait()
            if of_list and "tasks:read" in listener.principal.scopes:
                async with services.storage.read() as uow:
                    listener.listed = await _list(uow, listener.principal)
            if services.stopping.is_set():
                raise MCPError(INTERNAL_ERROR, _STOPPING)
        except BaseException:
            if not listener.has_begun:
                self._listeners.discard(listener)
            raise
        listener.topics |= topics
        listener.has_begun = True

    def _admit(self, listener: _Listener) -> None:
        if isinstance(listener, _Stream):
            own = [each for each in self._streams if each.principal.user_id == listener.principal.user_id]
            if len(self._streams) >= MAX_STREAMS or len(own) >= MAX_STREAMS_EACH:
                raise MCPError(INTERNAL_ERROR, "Too many streams are open. Close one, or subscribe to several resources with one stream.")
        self._listeners.add(listener)
        self._wanted.set()

    async def _topics(self, services: Services, listener: _Listener, uris: Sequence[str]) -> dict[str, Topic | None]:
        if not uris:
            return {}
        if (number := len(listener.topics.keys() | uris)) > MAX_URIS:
            raise InvalidInput(f"At most {MAX_URIS} resources can be subscribed to at once; these are {number}.")
        async with services.storage.read() as uow:
            return {uri: await self._topic(uow, listener.principal, uri) for uri in uris}

    async def _topic(self, uow: UnitOfWork, principal: Principal, uri: str) -> Topic | None:
        if resources.is_ours(uri):
            return await _topic(uow, principal, uri)
        others = {each.uri for each in await self._server.list_resources()}
        templates = [UriTemplate.parse(each.uri_template) for each in await self._server.list_resource_templates()]
        if uri not in others and all(template.match(uri) is None for template in templates):
            raise resources.unknown(uri)
        return None


async def _topic(uow: UnitOfWork, principal: Principal, uri: str) -> Topic:
    """Raises NotFound and NotAuthenticated for what this person may not see."""
    address = resources.address_of(uri)
    require(principal, address.scope)
    if address.kind in ("board", "status"):
        return address.kind, None
    task = await tasks.get(uow, principal, address.ref)
    return topic(address.kind, task.conversation_id)


async def _learn(uow: UnitOfWork, batch: Batch) -> None:
    """Who may see what changed."""
    unread = batch.unread
    for begin in range(0, len(unread), _AT_ONCE):
        for conversation in await uow.conversations.of_ids(unread[begin : begin + _AT_ONCE]):
            readers = await conversations.readers(uow, conversation)
            who = None if readers is None else frozenset(readers)
            batch.learn(conversation.id, who, has_task=conversation.task_id is not None)


async def _list(uow: UnitOfWork, principal: Principal) -> _Listed:
    """What the list of resources shows of tasks: when it is another one, the list has changed."""
    return [(resources.task_uri(each), each.title) for each in await resources.unfinished(uow, principal, resources.LISTED)]


# --- the SDK's ends --------------------------------------------------------------------------------------------------


async def _honest_capabilities(ctx: _Context, call_next: CallNext) -> HandlerResult:
    """What older revisions can be told of: the SDK always says that no list changes, and that subscribing works without a session."""
    result = await call_next(ctx)
    if ctx.method == "initialize" and isinstance(result, dict):
        told = connection_of(ctx).has_standalone_channel
        result["capabilities"]["resources"] |= {"subscribe": told, "listChanged": told}
    return result


_Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def _with(watch: Watch, lifespan: _Lifespan) -> _Lifespan:
    """The same lifespan, while which the watch runs."""

    @asynccontextmanager
    async def watched(server: Any) -> AsyncIterator[Any]:
        async with lifespan(server) as state:
            watching = asyncio.create_task(watch.run(), name="mcp.watch")
            try:
                yield state
            finally:
                watching.cancel()
                await asyncio.wait({watching})

    return watched
