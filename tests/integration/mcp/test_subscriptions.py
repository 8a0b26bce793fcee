"""Subscriptions of both eras: who is told of what, who is not, how often the database is asked, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from mcp.client import Client
from mcp.client.session import IncomingMessage, MessageHandlerFnT
from mcp.client.subscriptions import PromptsListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp.types import ResourceUpdatedNotification
from structlog.testing import capture_logs

from core import identity, tasks
from core.access import Principal
from core.events import Lagged, TaskChanged
from core.models import Visibility
from core.ports import Storage, UnitOfWork
from mcp_server import changes, subscriptions
from mcp_server.server import Server
from tests.databases import NewDatabase, on_both
from tests.integration.conftest import World, onethread
from tests.integration.mcp.conftest import ERAS, Office, office_of
from tests.integration.mcp.reading import (
    LIST,
    News,
    Watched,
    equipped,
    listening,
    only,
    over_http,
    serving,
    subscribe,
    unsubscribe,
)

__all__ = ["on_both"]
EARLIER, NEWEST = ERAS
TASK, MESSAGES, BOARD, STATUS = "task://OT-1", "task://OT-1/messages", "tasks://board", "agent://status"
ALL = (TASK, MESSAGES, BOARD, STATUS)
LAST = "task://OT-2/messages"
"""Of a task in which a test says something in order to know that all that it did before was told."""
Deed = Callable[[World], Coroutine[Any, Any, object]]


@asynccontextmanager
async def audience(office: Office, era: str, *uris: str, of_list: bool = False) -> AsyncIterator[News]:
    """A client that listens to these, and to LAST."""
    for title in ("Buy milk", "The last word"):
        await office.world.task(title)
    async with listening(equipped(office), era, *uris, LAST, of_list=of_list) as news:
        yield news


async def told_after(news: News, world: World, deed: Deed) -> set[str]:
    """What somebody is told who listens while this is done."""
    await deed(world)
    await say(world, "OT-2", "The end")
    return await news.until(LAST) - {LAST}


async def say(world: World, ref: str, text: str) -> None:
    task = await world.read(lambda uow: tasks.get(uow, world.admin, ref))
    await world.note(task.conversation_id, text)


async def change(world: World, **changes: Any) -> None:
    await world.write(lambda uow: tasks.update(uow, world.admin, "OT-1", changes))


async def ask(world: World) -> None:
    task = await world.read(lambda uow: tasks.get(uow, world.admin, "OT-1"))
    await world.post(task.conversation_id, "Hello")


async def delete(world: World) -> None:
    await world.write(lambda uow: tasks.delete(uow, world.admin, "OT-1"))


async def work(world: World) -> None:
    async with world.working():
        task = await world.read(lambda uow: tasks.get(uow, world.admin, "OT-1"))
        await world.ask(task.conversation_id, "Hello")


async def talk(world: World) -> None:
    """In a chat that belongs to no task."""
    async with world.working():
        await world.ask((await world.chat()).id, "Hello")


# --- who is told of what ---


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        pytest.param(lambda world: change(world, title="Buy bread"), {TASK, MESSAGES, BOARD, STATUS}, id="changed"),
        pytest.param(lambda world: say(world, "OT-1", "Hello"), {MESSAGES}, id="noted"),
        pytest.param(ask, {MESSAGES, STATUS}, id="asked"),
        pytest.param(work, {TASK, MESSAGES, BOARD, STATUS}, id="answered"),
        pytest.param(delete, {TASK, MESSAGES, BOARD, STATUS}, id="deleted"),
        pytest.param(lambda world: world.task("Another"), {BOARD, STATUS}, id="another task"),
        pytest.param(talk, {STATUS}, id="elsewhere"),
    ],
)
async def test_who_listens_is_told_what_looks_different(office: Office, era: str, deed: Deed, told: set[str]) -> None:
    async with audience(office, era, *ALL) as news:
        assert await told_after(news, office.world, deed) == told


async def test_nobody_is_told_of_what_they_did_not_ask_for(office: Office, era: str) -> None:
    async with audience(office, era, TASK) as news:
        assert await told_after(news, office.world, delete) == {TASK}


async def test_a_resource_is_named_as_it_was_when_it_was_asked_for(office: Office, era: str) -> None:
    async with audience(office, era, "task://ot-1", "task://ot-1/messages?before=7") as news:
        told = await told_after(news, office.world, lambda world: change(world, title="Buy bread"))
    assert told == {"task://ot-1", "task://ot-1/messages?before=7"}


async def test_after_missed_events_everything_is_told(office: Office, era: str) -> None:
    async with audience(office, era, *ALL, of_list=True) as news:
        office.world.app.live.publish(Lagged())
        assert await news.until(LAST, LIST) == {*ALL, LAST, LIST}


async def test_what_cannot_be_read_counts_as_missed(office: Office, era: str) -> None:
    storage = Watched(office.world.app.storage)
    async with audience(with_storage(office, storage), era, *ALL, of_list=True) as news:
        storage.failures = 1
        await change(office.world, title="Buy bread")
        assert await news.until(LAST, LIST) == {*ALL, LAST, LIST}


# --- the list ---


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        pytest.param(lambda world: world.task("Another"), {LIST}, id="new"),
        pytest.param(lambda world: change(world, status="done"), {LIST}, id="finished"),
        pytest.param(lambda world: change(world, title="Buy bread"), {LIST}, id="another title"),
        pytest.param(delete, {LIST}, id="deleted"),
        pytest.param(lambda world: change(world, priority="urgent", description="More"), set(), id="no title"),
        pytest.param(lambda world: world.task("Old", status="done"), set(), id="finished from the beginning"),
        pytest.param(work, set(), id="talked about"),
    ],
)
async def test_the_list_changes_when_a_task_appears_or_goes(office: Office, era: str, deed: Deed, told: set[str]) -> None:
    async with audience(office, era, of_list=True) as news:
        assert await told_after(news, office.world, deed) == told


async def test_a_change_while_the_list_is_being_read_is_not_missed(office: Office, era: str) -> None:
    world, storage = office.world, Watched(office.world.app.storage)

    async def meanwhile() -> None:
        await world.task("Another")
        await settled()

    storage.afterwards = meanwhile
    async with listening(equipped(with_storage(office, storage)), era, of_list=True) as news:
        await news.until(LIST)
    assert storage.afterwards is None


async def test_what_comes_back_after_it_was_missed_is_told(office: Office, era: str) -> None:
    storage = Watched(office.world.app.storage)
    async with audience(with_storage(office, storage), era, of_list=True) as news:
        storage.failures = 1
        await change(office.world, status="done")
        await news.until(LIST, LAST)
        assert await told_after(news, office.world, lambda world: change(world, status="todo")) == {LIST}


async def test_each_change_of_the_list_is_told(office: Office, era: str) -> None:
    async with audience(office, era, of_list=True) as news:
        for _ in range(2):
            assert await told_after(news, office.world, lambda world: change(world, status="done")) == {LIST}
            assert await told_after(news, office.world, lambda world: change(world, status="todo")) == {LIST}


async def test_a_list_that_was_not_asked_for_is_not_told(office: Office, era: str) -> None:
    async with audience(office, era) as news:
        assert await told_after(news, office.world, delete) == set()


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_both_eras_say_that_they_tell_of_changes(office: Office, mode: str) -> None:
    async with Client(equipped(office), mode=mode) as client:
        assert client.protocol_version == (EARLIER if mode == "legacy" else NEWEST)
        assert client.server_capabilities.resources
        assert client.server_capabilities.resources.subscribe
        assert client.server_capabilities.resources.list_changed


async def test_what_is_unsubscribed_is_not_told(office: Office) -> None:
    news, world = News(), office.world
    for title in ("Buy milk", "The last word"):
        await world.task(title)
    async with Client(equipped(office), mode="legacy", message_handler=hears(news)) as client:
        for uri in (TASK, BOARD, LAST):
            await subscribe(client, uri)
        await unsubscribe(client, TASK)
        await unsubscribe(client, "task://OT-7")  # never subscribed to
        assert await told_after(news, world, delete) == {BOARD}


# --- who may listen ---


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("task://OT-9", "No task 'OT-9'. Closest: OT-1."),
        ("task://OT-9/messages", "No task 'OT-9'. Closest: OT-1."),
        ("tasks://other", "There is no resource 'tasks://other'. There are tasks://board, task://{ref}"),
        ("other://place", "There is no resource 'other://place'."),
    ],
)
async def test_what_is_not_there_cannot_be_listened_to(office: Office, era: str, uri: str, sentence: str) -> None:
    await office.world.task("Buy milk")
    assert (await turned_away(equipped(office), era, BOARD, uri)).startswith(f"-32602 {sentence}")


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [(("tasks:read",), {TASK, BOARD}), (("chat",), {STATUS}), (("tasks:read", "chat"), {*ALL}), (("tasks:write",), set())],
)
async def test_what_a_token_is_not_good_for_cannot_be_listened_to(
    office: Office, era: str, scopes: tuple[str, ...], allowed: set[str]
) -> None:
    await office.world.task("Buy milk")
    who = only(office.world.admin, *scopes)
    async with listening(equipped(office, who), era, *allowed, of_list=True):
        pass
    for uri in {*ALL} - allowed:
        assert (await turned_away(equipped(office, who), era, uri)).startswith("-32602 This token lacks the scope ")


async def test_what_a_person_may_not_see_is_not_told(office: Office, era: str) -> None:
    world = office.world
    kim = await world.user("kim")
    for title in ("Buy milk", "The last word"):
        await world.task(title)
    async with (
        listening(equipped(office, kim), era, TASK, MESSAGES, BOARD, LAST, of_list=True) as stranger,
        listening(equipped(office), era, TASK, MESSAGES, BOARD, LAST, of_list=True) as owner,
    ):
        task = await world.read(lambda uow: tasks.get(uow, world.admin, "OT-1"))
        await world.write(lambda uow: uow.conversations.update(task.conversation_id, visibility=Visibility.PRIVATE))
        for deed in (lambda world: change(world, title="Secret"), lambda world: say(world, "OT-1", "Secret"), delete):
            await deed(world)
        await say(world, "OT-2", "The end")
        assert await stranger.until(LAST) == {LAST, LIST}  # it is gone from their list, and that once
        assert stranger.told.count(LIST) == 0
        assert await owner.until(LAST) == {TASK, MESSAGES, BOARD, LAST, LIST}
    assert (await turned_away(equipped(office, kim), era, TASK)).startswith("-32602 No task 'OT-1'.")


# --- how much ---


async def test_a_stream_or_session_holds_a_hundred_resources(office: Office, era: str) -> None:
    async def make(uow: UnitOfWork) -> None:
        for number in range(101):
            await tasks.create(uow, office.world.admin, f"Task {number}")

    await office.world.write(make)
    uris = [f"task://OT-{number}" for number in range(1, 102)]
    async with listening(equipped(office), era, *uris[:100], uris[0]):
        pass
    assert (await turned_away(equipped(office), era, *uris)).startswith("-32602 At most 100 resources can be subscribed to at once")


@pytest.mark.parametrize("bound", ["MAX_STREAMS", "MAX_STREAMS_EACH"])
async def test_streams_are_bounded_in_all_and_for_each_person(office: Office, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, bound, 2)
    async with Client(equipped(office), mode=NEWEST) as client, client.listen():
        async with client.listen():
            with pytest.raises(MCPError, match="Too many streams are open"):
                await client.listen().__aenter__()
        async with client.listen():
            pass  # one went, so there is room for another


async def test_nothing_is_read_while_nobody_listens(office: Office, era: str) -> None:
    world, storage = office.world, Watched(office.world.app.storage)
    server = equipped(with_storage(office, storage))
    await world.task("Buy milk")
    async with Client(server, mode=NEWEST):
        with world.app.live.subscribe() as events:
            for _ in range(2):
                async with listening(server, era, TASK, of_list=True) as news:
                    await change(world, title=f"Buy {storage.reads}")
                    await news.until(TASK, LIST)
                reads = storage.reads
                await change(world, title="Buy bread")
                while not isinstance(await events.get(), TaskChanged):
                    pass
                await settled()
                assert storage.reads == reads


async def test_nothing_is_read_of_what_nobody_listens_to(office: Office, era: str) -> None:
    world, storage = office.world, Watched(office.world.app.storage)
    task = await world.task("Buy milk")
    async with listening(equipped(with_storage(office, storage)), era, BOARD):
        reads = storage.reads
        with world.app.live.subscribe() as events:
            await world.note(task.conversation_id, "Hello")
            await events.get()
            await settled()
        assert storage.reads == reads


async def test_many_changes_at_once_are_read_once(office: Office, era: str) -> None:
    world, storage = office.world, Watched(office.world.app.storage)
    async with audience(with_storage(office, storage), era, *ALL) as news:
        reads = storage.reads

        async def much(uow: UnitOfWork) -> None:
            for number in range(50):
                await tasks.update(uow, world.admin, "OT-1", {"title": f"Buy {number}"})

        await world.write(much)
        assert await news.until(TASK, MESSAGES, BOARD) == {TASK, MESSAGES, BOARD}
        assert storage.reads == reads + 1


async def test_what_changes_soon_after_a_telling_waits_for_the_next_one(office: Office) -> None:
    world, storage = office.world, Watched(office.world.app.storage)
    server = equipped(with_storage(office, storage), told_seconds=3_600)
    await world.task("Buy milk")
    async with listening(server, NEWEST, TASK) as news:
        await change(world, title="Buy bread")
        await news.until(TASK)
        reads = storage.reads
        for number in range(3):
            await change(world, title=f"Buy {number}")
        await settled()
        assert (storage.reads, news.told) == (reads, [])


async def test_who_does_not_read_holds_up_nobody(office: Office) -> None:
    world, server, stuck, gate = office.world, equipped(office), asyncio.Event(), asyncio.Event()

    async def hears_nothing(message: IncomingMessage) -> None:
        stuck.set()
        await gate.wait()

    await world.task("Buy milk")
    async with Client(server, mode="legacy", message_handler=hears_nothing) as client:
        await subscribe(client, TASK)
        await client.list_resources()
        async with listening(server, EARLIER, TASK) as earlier, listening(server, NEWEST, TASK) as newest:
            for number in range(10):
                await change(world, title=f"Buy {number}")
                await earlier.until(TASK)
                await newest.until(TASK)
            assert stuck.is_set()
            gate.set()


# --- how it ends ---


async def test_streams_end_as_the_protocol_wants_it_when_the_process_is_about_to_end(office: Office) -> None:
    await office.world.task("Buy milk")
    server = equipped(office)
    async with Client(server, mode=NEWEST) as client, client.listen(resource_subscriptions=[TASK]) as told:
        office.services.stopping.set()
        async with asyncio.timeout(30):
            assert [event async for event in told] == []
    for era in ERAS:
        assert (await turned_away(equipped(office), era, TASK)).startswith("-32603 Onethread is about to stop.")
    async with Client(server, mode="legacy") as client:
        assert (await client.list_resources()).resources


async def test_who_stays_is_told_on_when_others_leave(office: Office, era: str) -> None:
    server, world, begun, leave = equipped(office), office.world, asyncio.Event(), asyncio.Event()
    await world.task("Buy milk")

    async def stay_a_while() -> None:
        async with listening(server, era, TASK) as news:
            begun.set()
            await news.until(TASK)
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        first = group.create_task(stay_a_while())
        await begun.wait()
        async with listening(server, era, TASK) as news:
            await change(world, title="Buy bread")
            await news.until(TASK)
            leave.set()
            await first
            await news.until(TASK)  # what happened while nobody watched is not known
            await change(world, title="Buy beer")
            await news.until(TASK)


async def test_a_defect_is_logged_and_what_was_missed_is_told(office: Office, era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "_RESTART_SECONDS", 0)
    whole, broken = changes.changed_by, iter([True])

    def breaks_once(event: Any) -> Any:
        if next(broken, False):
            raise ZeroDivisionError("a secret")
        return whole(event)

    async with audience(office, era, TASK) as news:
        with capture_logs() as logs:
            monkeypatch.setattr(changes, "changed_by", breaks_once)
            await change(office.world, title="Buy bread")
            assert await news.until(TASK, LAST) == {TASK, LAST}
    assert [each["event"] for each in logs] == ["mcp.watch_restarted"]
    assert "secret" not in str(logs)


async def test_what_others_publish_on_the_servers_bus_reaches_the_streams(office: Office) -> None:
    server = equipped(office)

    @server.resource("other://place")
    def place() -> str:
        return "Here"

    async with (
        Client(server, mode=NEWEST) as client,
        client.listen(resource_subscriptions=["other://place"], prompts_list_changed=True) as told,
    ):
        for event in (ResourceUpdated("another://place"), PromptsListChanged(), ResourceUpdated("other://place")):
            await server.bus.publish(event)
        async with asyncio.timeout(30):
            assert [await anext(told) for _ in range(2)] == [PromptsListChanged(), ResourceUpdated("other://place")]


# --- over processes and wires ---


async def test_what_another_process_does_is_told(on_both: NewDatabase, tmp_path: Path, era: str) -> None:
    async with on_both() as url:
        database = url.render_as_string(hide_password=False)
        async with onethread(tmp_path, database=database) as here, onethread(tmp_path, database=database) as there:
            office = office_of(here)
            async with audience(office, era, *ALL, of_list=True) as news:
                assert await told_after(news, there, lambda there: change(there, title="Buy bread")) == {*ALL, LIST}
                assert await told_after(news, there, ask) == {MESSAGES, STATUS}
                assert await told_after(news, there, delete) == {*ALL, LIST}


async def test_over_http_both_eras_are_told(office: Office, era: str) -> None:
    world = office.world
    for title in ("Buy milk", "The last word"):
        await world.task(title)
    kim, secret = await holder(office)
    async with (
        over_http(office, equipped(office, kim), secret) as way,
        listening(way(), era, TASK, BOARD, LAST, of_list=True) as news,
    ):
        assert await told_after(news, world, lambda world: change(world, title="Buy bread")) == {TASK, BOARD, LIST}
        assert await told_after(news, world, delete) == {TASK, BOARD, LIST}


async def test_over_http_a_stream_ends_with_the_process(office: Office) -> None:
    kim, secret = await holder(office)
    async with (
        over_http(office, equipped(office, kim), secret) as way,
        Client(way(), mode=NEWEST) as client,
        client.listen(resource_subscriptions=[BOARD]) as told,
    ):
        office.services.stopping.set()
        async with asyncio.timeout(30):
            assert [event async for event in told] == []


async def test_without_a_session_earlier_revisions_are_promised_nothing(office: Office) -> None:
    app = equipped(office).streamable_http_app(stateless_http=True)
    async with serving(app) as url, app.router.lifespan_context(app), Client(f"{url}/mcp", mode="legacy") as client:
        assert client.server_capabilities.resources
        assert not client.server_capabilities.resources.subscribe
        assert not client.server_capabilities.resources.list_changed
        assert (await client.list_resources()).resources
        with pytest.raises(MCPError, match="This connection has no session"):
            await subscribe(client, BOARD)


# --- shorthand ---


async def holder(office: Office) -> tuple[Principal, str]:
    """Kim, who has a personal token."""
    world = office.world
    kim = await world.user("kim")
    user = await world.read(lambda uow: identity.user_named(uow, "kim"))
    _, secret = await world.write(
        lambda uow: identity.create_token(uow, user, "ide", scopes=frozenset({"tasks:read", "chat"}), lifetime=None)
    )
    return kim, secret


async def turned_away(server: Server, era: str, *uris: str) -> str:
    """The code and the sentence with which somebody is who wants to listen."""
    async with Client(server, mode="legacy" if era == EARLIER else era) as client:
        try:
            if era == NEWEST:
                await client.listen(resource_subscriptions=uris).__aenter__()
            else:
                for uri in uris:
                    await subscribe(client, uri)
        except MCPError as error:
            return f"{error.code} {error.message}"
    pytest.fail("it listens")


def with_storage(office: Office, storage: Watched) -> Office:
    return replace(office, services=replace(office.services, storage=cast(Storage, storage)))


def hears(news: News) -> MessageHandlerFnT:
    async def heard(message: IncomingMessage) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            news.add(message.params.uri)

    return heard


async def settled() -> None:
    """Lets everything go on that can."""
    for _ in range(200):
        await asyncio.sleep(0)
