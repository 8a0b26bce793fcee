"""Nobody reaches what is another's: every route, frame, command and tool, tried by a stranger with the owner's own ids.

The lists come from the router, the frame table, the terminal's commands and the tools' registry. What is in none of the tables here
fails the first tests: whoever adds a way in says here how a stranger fares with it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from core.access import Principal
from core.attachments import Upload
from core.errors import ModelRefused, NotFound, OnethreadError
from core.models import JSON, Task, TurnStatus, Visibility
from core.ports import UnitOfWork
from core.tools import agent as agent_tools
from core.tools import chat as chat_tools
from core.tools import tasks as task_tools
from core.tools.registry import Posting, ToolContext
from onethread.terminal import commands
from onethread.terminal.session import Session
from tests.fakes import Call
from tests.integration.conftest import World
from tests.integration.web.conftest import Site
from tests.integration.web.test_bindings import OPS, follow_in_ops, link
from tests.web_client import Client, Refused, client
from web.frames import FRAMES
from web.routes import ROUTERS

SECRET = "strawberry"
"""Stands in everything that the owner wrote."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A person with one of everything, and its ids."""

    who: Principal
    ids: dict[str, str]


async def owner_of_everything(site: Site) -> Owner:
    """A chat with an answered, a failed, a questioning and an approving turn, each in a conversation of its own, and a private task."""
    world = site.world
    kim = await world.user("kim")
    task = await _private_task(world, kim)
    files = [Upload(name=f"{SECRET}.txt", data=SECRET.encode())]
    chat, failed, asked, parked = [await world.chat(kim, title=f"{SECRET} {number}") for number in range(4)]
    async with world.working():
        world.model.will(f"{SECRET}, yes.")
        answered = await world.post(chat.id, SECRET, kim, uploads=files)
        await world.ended(answered)
        world.model.will(ModelRefused("No.", reason="BAD_REQUEST"))
        broken = await world.post(failed.id, SECRET, kim)
        await world.ended(broken)
        world.model.will(Call("ask_user", {"question": f"Which {SECRET}?", "options": ["red"]}))
        question = await world.post(asked.id, SECRET, kim)
        await world.ended(question)
        world.model.will(Call("delete_task", {"ref": task.ref}))
        waiting = await world.post(parked.id, SECRET, kim)
        await world.comes_to(waiting, TurnStatus.WAITING)
    approval = await world.approval(waiting)
    attachments = await world.read(lambda uow: uow.attachments.of_messages([answered.message_id]))
    await link(world, kim)
    binding_id = await follow_in_ops(world, kim, asked.id, label=SECRET)
    await site.token(kim)
    tokens = await world.read(lambda uow: uow.tokens.of_user(kim.user_id))
    ids = {
        "ref": task.ref,
        "conversation_id": chat.id,
        "failed_conversation_id": failed.id,
        "asked_conversation_id": asked.id,
        "waiting_conversation_id": parked.id,
        "turn_id": answered.turn_id,
        "failed_turn_id": broken.turn_id,
        "waiting_turn_id": waiting.turn_id,
        "message_id": answered.message_id,
        "question_id": question.reply_id,
        "approval_id": approval.id,
        "attachment_id": attachments[0].id,
        "token_id": tokens[0].id,
        "binding_id": binding_id,
    }
    return Owner(kim, {name: str(value) for name, value in ids.items()})


async def _private_task(world: World, who: Principal) -> Task:
    """As one is that came of a private chat."""
    task = await world.task(f"Buy {SECRET}", who, description=SECRET)

    async def hide(uow: UnitOfWork) -> None:
        await uow.conversations.update(task.conversation_id, visibility=Visibility.PRIVATE)

    await world.write(hide)
    return task


# --- routes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Try:
    """A call with the owner's ids: it succeeds for the owner and is refused to a stranger. `ids` renames ids in the path."""

    json: Any = None
    ids: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Own:
    """A call that gives everybody their own: the answer to a stranger has nothing of the owner's in it."""

    json: Any = None
    query: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Admins:
    """A call that is for admins only, whose answer has nothing in it of what the owner wrote. `ids` as in Try."""

    json: Any = None
    ids: dict[str, str] = field(default_factory=dict)


OPEN = "for everybody, signed in or not, and the same for all"
SHELL = "the page, which holds nothing but who is signed in: tests/integration/web/test_page.py"
ACCOUNTS = "about the caller's own chat accounts, for nobody who shows a personal token: tests/integration/web/test_accounts.py"
SIGN_IN = "about the caller's own session only: tests/integration/web/test_sign_in.py"

ROUTES: dict[str, Try | Own | Admins | str] = {
    "POST /api/chat": Try({"message": "Hi", "conversation_id": "{conversation_id}"}),
    "GET /api/turns/{turn_id}": Try(),
    "GET /api/turns/{turn_id}/events": Try(),
    "POST /api/approvals/{approval_id}": Try({"decision": "approve"}),
    "POST /api/turns/{turn_id}/cancel": Try(ids={"turn_id": "waiting_turn_id"}),
    "POST /api/turns/{turn_id}/retry": Try(ids={"turn_id": "failed_turn_id"}),
    "POST /api/messages/{message_id}/answer": Try({"option": "red"}, ids={"message_id": "question_id"}),
    "PATCH /api/messages/{message_id}": Try({"content": "Changed"}),
    "DELETE /api/messages/{message_id}": Try(),
    "GET /api/conversations": Own(),
    "GET /api/conversations/{conversation_id}": Try(),
    "PATCH /api/conversations/{conversation_id}": Try({"title": "Mine"}),
    "DELETE /api/conversations/{conversation_id}": Try(),
    "GET /api/conversations/{conversation_id}/messages": Try(),
    "PUT /api/conversations/{conversation_id}/read": Try({"seq": 1}),
    "GET /api/conversations/{conversation_id}/usage": Try(),
    "GET /api/conversations/{conversation_id}/bindings": Try(),
    "POST /api/conversations/{conversation_id}/bindings": Try({"place": OPS, "confirmed": True}),
    "PATCH /api/bindings/{binding_id}": Try({"mode": "watch"}),
    "DELETE /api/bindings/{binding_id}": Try(),
    "GET /api/search": Own(query={"query": SECRET}),
    "GET /api/attachments/{attachment_id}": Try(),
    "GET /api/tasks": Own(),
    "POST /api/tasks": Own({"title": "Another"}),
    "GET /api/tasks/{ref}": Try(),
    "PATCH /api/tasks/{ref}": Try({"status": "done"}),
    "DELETE /api/tasks/{ref}": Try(),
    "GET /api/tasks/{ref}/changes": Try(),
    "GET /api/projects": Own(),
    "GET /api/projects/{key}": Own(),
    "POST /api/projects": Admins({"key": "MINE", "name": "Mine"}),
    "PATCH /api/projects/{key}": Admins({"name": "Mine"}),
    "GET /api/models": Own(),
    "GET /api/usage": Own(),
    "GET /api/me": Own(),
    "GET /api/users": Own(),
    "POST /api/auth/token": SIGN_IN,
    "POST /api/auth/password": SIGN_IN,
    "POST /api/auth/sign-out-everywhere": SIGN_IN,
    "GET /api/tokens": Own(),
    "POST /api/tokens": Own({"name": "mine"}),
    "DELETE /api/tokens/{token_id}": Try(),
    "GET /api/accounts": Own(),
    "POST /api/accounts/code": ACCOUNTS,
    "DELETE /api/accounts/{surface}/{account}/{external_id}": ACCOUNTS,
    "GET /link/{secret}": ACCOUNTS,
    "POST /link/{secret}": ACCOUNTS,
    "GET /": SHELL,
    "GET /conversations/{id}": SHELL,
    "GET /tasks/{ref}": SHELL,
    "GET /board": SHELL,
    "GET /settings": SHELL,
    "GET /settings/{section}": SHELL,
    "GET /static/{path:path}": OPEN,
    "GET /login": SIGN_IN,
    "POST /login": SIGN_IN,
    "GET /welcome": SIGN_IN,
    "POST /welcome": SIGN_IN,
    "POST /logout": SIGN_IN,
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": Admins(),
    "GET /api/admin/users": Admins(),
    "POST /api/admin/users": Admins({"name": "mine"}),
    "POST /api/admin/users/{user_id}/link": Admins(),
    "PATCH /api/admin/users/{user_id}": Admins({"disabled": False}),
    "GET /api/admin/queue": Admins(),
    "GET /api/admin/turns": Admins(),
    "POST /api/admin/turns/{turn_id}/retry": Admins(ids={"turn_id": "failed_turn_id"}),
    "POST /api/admin/turns/{turn_id}/cancel": Admins(ids={"turn_id": "waiting_turn_id"}),
    "WEBSOCKET /ws": "by its frames, below",
}


def test_every_route_is_in_the_table() -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    found = {f"{method} {route.path}" for route in routes for method in getattr(route, "methods", None) or {"WEBSOCKET"}}  # type: ignore[attr-defined]  # all have a path

    assert {each for each in found if not each.startswith("HEAD ")} == set(ROUTES)


async def test_what_is_served_are_the_routers_and_the_description(site: Site) -> None:
    def paths(routes: Any) -> set[str]:
        return {route.path for route in routes if hasattr(route, "path")}

    assert paths(site.app.routes) <= {path for router in ROUTERS for path in paths(router.routes)} | {"/openapi.json"}


async def test_every_route_answers_a_stranger_as_if_there_were_nothing(site: Site) -> None:
    owner, stranger = await owner_of_everything(site), await site.world.user("stranger")
    tries = {name: probe for name, probe in ROUTES.items() if isinstance(probe, Try)}
    deleting_last = sorted(tries, key=lambda name: name.startswith("DELETE"))
    async with site.calling(owner.who) as kim, site.calling(stranger) as other, httpx.AsyncClient(base_url=site.url) as nobody:
        unknown = {name: await _call(nobody, name, owner, probe) for name, probe in tries.items()}
        before = {name: await _call(other, name, owner, probe) for name, probe in tries.items()}
        good = {name: await _call(kim, name, owner, tries[name]) for name in deleting_last}
        after = {name: await _call(other, name, owner, probe) for name, probe in tries.items()}

    assert {name: answer.text for name, answer in good.items() if not answer.is_success} == {}
    assert {name: answer.text for name, answer in unknown.items() if answer.status_code != 401} == {}
    told = [(name, answer) for answers in (before, after) for name, answer in answers.items()]
    assert {name: answer.text for name, answer in told if answer.status_code != 404 or SECRET in answer.text} == {}


async def test_every_list_tells_a_stranger_nothing_of_others(site: Site) -> None:
    owner, stranger = await owner_of_everything(site), await site.world.user("stranger")
    own = {name: probe for name, probe in ROUTES.items() if isinstance(probe, Own)}
    async with site.calling(stranger) as other, httpx.AsyncClient(base_url=site.url) as nobody:
        unknown = {name: await _call(nobody, name, owner, probe) for name, probe in own.items()}
        told = {name: await _call(other, name, owner, probe) for name, probe in own.items()}

    assert {name: answer.text for name, answer in unknown.items() if answer.status_code != 401} == {}
    assert {name: answer.text for name, answer in told.items() if not answer.is_success} == {}
    secrets = (SECRET, *owner.ids.values())
    assert {name: answer.text for name, answer in told.items() if any(each in answer.text for each in secrets)} == {}


async def test_what_is_for_admins_is_refused_to_members(site: Site) -> None:
    owner, member = await owner_of_everything(site), await site.world.user("member")
    tries = {name: probe for name, probe in ROUTES.items() if isinstance(probe, Admins)}
    async with (
        site.signed_in(member) as other,
        site.calling(site.world.admin) as without_scope,
        site.signed_in(site.world.admin) as admin,
    ):
        refused = [(name, await _call(client, name, owner, probe)) for name, probe in tries.items() for client in (other, without_scope)]
        allowed = {name: await _call(admin, name, owner, probe) for name, probe in tries.items()}

    assert {name: answer.text for name, answer in refused if answer.status_code != 401} == {}
    assert {name: answer.text for name, answer in allowed.items() if not answer.is_success or SECRET in answer.text} == {}


async def _call(client: httpx.AsyncClient, name: str, owner: Owner, probe: Try | Own | Admins) -> httpx.Response:
    method, path = name.split(" ")
    query, renamed = (probe.query, {}) if isinstance(probe, Own) else ({}, probe.ids)
    ids = {"key": "OT", "user_id": str(owner.who.user_id), **owner.ids} | {into: owner.ids[source] for into, source in renamed.items()}
    body = filled(probe.json, ids)
    return await client.request(method, path.format(**ids), params=query, json=body, headers={"Prefer": "respond-async"})


def filled(value: Any, ids: Mapping[str, str]) -> Any:
    """The value with `{name}` replaced by the id of that name, wherever it stands."""
    match value:
        case dict():
            return {name: filled(each, ids) for name, each in value.items()}
        case str():
            return value.format(**ids)
        case _:
            return value


# --- frames ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """A frame with the owner's ids. The owner has joined the conversation that `of` names; a stranger tries to."""

    payload: JSON = field(default_factory=dict)
    of: str = "conversation_id"


FRAMES_TRIED: dict[str, Send | str] = {
    "join": Send(),
    "leave": "ends only what the connection itself follows",
    "ping": "is answered to everybody, with nothing",
    "send_message": Send({"content": "Hi", "client_id": "one"}),
    "get_history": Send(),
    "decide": Send({"approval_id": "{approval_id}", "decision": "deny"}, of="waiting_conversation_id"),
    "cancel": Send({"turn_id": "{waiting_turn_id}"}, of="waiting_conversation_id"),
    "retry": Send({"turn_id": "{failed_turn_id}"}, of="failed_conversation_id"),
    "answer": Send({"message_id": "{question_id}", "option": "red"}, of="asked_conversation_id"),
    "edit_message": Send({"message_id": "{message_id}", "content": "Changed"}),
    "delete_message": Send({"message_id": "{message_id}"}),
}


def test_every_frame_is_in_the_table() -> None:
    assert set(FRAMES) == set(FRAMES_TRIED)


async def test_every_frame_answers_a_stranger_as_if_there_were_nothing(site: Site) -> None:
    owner, stranger = await owner_of_everything(site), await site.world.user("stranger")
    mine = f"conversation:{(await site.world.chat(stranger)).id}"
    tries = {event: frame for event, frame in FRAMES_TRIED.items() if isinstance(frame, Send)}
    async with client(site.url, await site.token(owner.who)) as kim, client(site.url, await site.token(stranger)) as other:
        await other.join(mine)
        refused = [(event, await _asked(other, event, owner, frame)) for event, frame in tries.items()]
        with_ids = {event: frame for event, frame in tries.items() if any(str(value).startswith("{") for value in frame.payload.values())}
        refused += [(event, await _asked(other, event, owner, frame, topic=mine)) for event, frame in with_ids.items()]
        for frame in tries.values():
            await kim.join(f"conversation:{owner.ids[frame.of]}")
        good = [(event, await _asked(kim, event, owner, frame)) for event, frame in tries.items()]
        refused += [(event, await _asked(other, event, owner, frame)) for event, frame in tries.items()]

        assert [each for each in good if each[1]] == []
        assert [each for each in refused if each[1] != "NOT_FOUND"] == []
        assert SECRET not in json.dumps([frame for shown in other.topics.values() for frame in shown.frames])


@pytest.mark.parametrize("topic", ["tasks", "conversations", "task:{ref}"])
async def test_a_topic_tells_a_stranger_nothing_of_others(site: Site, topic: str) -> None:
    owner, stranger = await owner_of_everything(site), await site.world.user("stranger")
    topic = topic.format(**owner.ids)
    async with client(site.url, await site.token(owner.who)) as kim, client(site.url, await site.token(stranger)) as other:
        if topic.startswith("task:"):
            assert (await _refused(other, "join", topic)).code == "NOT_FOUND"
        else:
            assert not (await other.join(topic)).things
        await kim.join(topic)
        async with site.calling(owner.who) as calling:
            assert (await calling.patch(f"/api/tasks/{owner.ids['ref']}", json={"status": "done"})).is_success
            assert (await calling.delete(f"/api/tasks/{owner.ids['ref']}")).is_success
            assert (await calling.delete(f"/api/conversations/{owner.ids['conversation_id']}")).is_success
        await kim.until(lambda: kim.topics[topic].events("task_deleted") or kim.topics[topic].events("conversation_deleted"))
        await other.ask("ping")  # what was sent before has come

        told = json.dumps([frame for shown in other.topics.values() for frame in shown.frames])
        assert not [each for each in (SECRET, *owner.ids.values()) if each in told]


async def _asked(who: Client, event: str, owner: Owner, frame: Send, *, topic: str = "") -> str:
    """The code with which it is refused; empty where it is done."""
    try:
        await who.ask(event, topic or f"conversation:{owner.ids[frame.of]}", filled(frame.payload, owner.ids))
    except Refused as refused:
        return refused.code
    return ""


async def _refused(who: Client, event: str, topic: str, payload: JSON | None = None) -> Refused:
    with pytest.raises(Refused) as refused:
        await who.ask(event, topic, payload)
    return refused.value


# --- commands of the terminal ----------------------------------------------------------------------------------------

OPEN_ONE = "acts on the conversation that is open, into which only `open` and `new` lead"
COMMANDS_TRIED: dict[str, str] = {
    **dict.fromkeys(("archive", "unarchive", "retry", "stop", "edit", "delete", "note", "attach", "model", "usage", "where"), OPEN_ONE),
    "new": "makes something of one's own",
    "open": "tried below",
    "tasks": "tried below",
    "chats": "tried below",
    "status": "tells who one is",
    "help": "tells the same to all",
    "quit": "leaves",
}


def test_every_command_is_in_the_table() -> None:
    assert {command.name for command in commands.COMMANDS} == set(COMMANDS_TRIED)


async def test_the_terminal_leads_a_stranger_nowhere(site: Site) -> None:
    owner = await owner_of_everything(site)
    await site.world.user("stranger")
    app = site.world.app
    kim, other = [Session(app, await app.person(name), commands.run, commands.Completions(app)) for name in ("kim", "stranger")]

    for line in (f"/open {owner.ids['ref']}", "/open 1"):
        await commands.run(kim, "/chats")
        await commands.run(kim, line)
        assert kim.conversation_id
        await kim.leave()
        await commands.run(other, "/chats")
        with pytest.raises(OnethreadError):
            await commands.run(other, line)
        assert other.conversation_id is None
    assert not other.chats


# --- tools -----------------------------------------------------------------------------------------------------------

TOOLS_TRIED: dict[str, JSON | str] = {
    "list_tasks": {},
    "get_task": {"ref": "{ref}"},
    "create_task": "makes something of one's own",
    "update_task": {"ref": "{ref}", "status": "done"},
    "delete_task": {"ref": "{ref}"},
    "ask_user": "reads nothing",
    "search": {"query": SECRET},
    "send_message": {"conversation_id": "{conversation_id}", "text": SECRET},
    "get_reply": {"turn_id": "{turn_id}"},
    "list_messages": {"conversation_id": "{conversation_id}"},
    "cancel_turn": {"turn_id": "{turn_id}"},
    "decide": {"approval_id": "{approval_id}", "decision": "deny"},
    "agent_status": {"conversation_id": "{asked_conversation_id}"},
}
TOOLS = {tool.name: tool for tool in (*task_tools.TOOLS, *agent_tools.TOOLS, *chat_tools.TOOLS)}
ABSENT = {
    "ref": "No task",
    "conversation_id": "There is no conversation",
    "turn_id": "There is no turn",
    "approval_id": "There is no approval",
}
"""How the sentence begins that says of each id that it names nothing."""


def test_every_tool_is_in_the_table() -> None:
    assert set(TOOLS) == set(TOOLS_TRIED)


async def test_no_tool_finds_anything_of_others(site: Site) -> None:
    owner, stranger = await owner_of_everything(site), await site.world.user("stranger")
    tried = [name for name, arguments in TOOLS_TRIED.items() if isinstance(arguments, dict)]

    before = {name: await _run(site.world, name, owner, stranger) for name in tried}
    good = {name: await _run(site.world, name, owner, owner.who) for name in tried if name != "delete_task"}
    good["delete_task"] = await _run(site.world, "delete_task", owner, owner.who)
    after = {name: await _run(site.world, name, owner, stranger) for name in tried}

    own = (SECRET, *owner.ids.values())
    assert [name for name, result in good.items() if not any(each in result for each in own)] == []
    told = [(name, result) for results in (before, after) for name, result in results.items() if not _says_that_it_is_absent(name, result)]
    assert [each for each in told if any(secret in each[1] for secret in own)] == []


def _says_that_it_is_absent(name: str, result: str) -> bool:
    (field,) = [field for field in ABSENT if field in TOOLS_TRIED[name]] or ["ref"]
    return result.startswith(ABSENT[field]) and SECRET not in result


async def _run(world: World, name: str, owner: Owner, who: Principal) -> str:
    """What the tool gives, or the sentence with which it refuses."""
    arguments = filled(TOOLS_TRIED[name], owner.ids)

    async def run(uow: UnitOfWork) -> str:
        context = ToolContext(uow=uow, principal=who, conversation=None, posting=Posting(rules=world.app.rules, source="test"))
        return json.dumps(await TOOLS[name].run(context, arguments))

    try:
        return await world.write(run)
    except NotFound as refused:
        return str(refused)
