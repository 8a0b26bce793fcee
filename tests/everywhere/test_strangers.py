"""Somebody who is let in, and has no part in a conversation, reaches it on no surface: whatever they ask for by its ids, they are answered
as if these named nothing, and nothing changes.

What is asked for is listed by the surfaces themselves: Slack's commands from their table, Discord's from what the bot registered, routes
from the OpenAPI description, frames and tools from their tables, MCP's templates and prompts from its lists, buttons by their actions.
Who is not let in at all: tests/integration/slack/test_isolation.py and its siblings.
"""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
import pytest

from bots.commands import SUBCOMMANDS
from bots.message_commands import WORDS
from bots.surface import Action
from tests.emulators import discord as discords
from tests.emulators import slack as slacks
from tests.emulators.discord import DiscordEmulator, talk
from tests.emulators.raw_provider import RawProvider, Reply, ToolUse
from tests.emulators.slack import SlackEmulator
from tests.everywhere.world import PASSWORD, SECONDS, Server, World, until, world
from tests.integration.discord.test_isolation import OPTIONS
from tests.integration.web.test_isolation import FRAMES_TRIED, ROUTES, SECRET, TOOLS_TRIED, Own, Send, Try, filled
from tests.mcp_client import HttpWire, McpClient, RpcError
from tests.serving import FROM_OUR_PAGE
from tests.web_client import Refused, client

JSON = dict[str, Any]
Ids = Mapping[str, str]
pytestmark = [pytest.mark.requires("slack-emulator"), pytest.mark.timeout(240)]

BEHIND = {"assign": "me", "model": "openai/gpt-4o", "follow": "confirm"}
"""What Slack's commands take behind a ref."""
OWN = {"list", "new", "help"}
"""Those that take none."""
ENDED = [("succeeded",), ("failed",), ("succeeded",), ("waiting",)]
"""What becomes of what Alice asks."""
NOTED = {
    "changes": "which process did something",
    "workers": "which processes live",
    "account_leases": "who serves a platform",
    "cursors": "how far a platform was heard",
    "inbound": "what a platform told, as it came",
    "sign_in_attempts": "that somebody guessed",
    "tokens": "when the stranger's own was used last",
    "sessions": "when the stranger's own was used last",
}
"""Tables in which it is noted that somebody asked."""
BINDING = 'id, conversation_id, surface, account, channel, thread, mode, ended, followed, bound_by, "check", until'
"""Whoever sends there notes the rest, at a time of their own."""


# --- whose it is -----------------------------------------------------------------------------------------------------


def agent(body: JSON, _: int) -> Reply:
    said = re.sub(
        r"\A\[[\w-]+\] |\s*<context>.*\Z", "", [each for each in body["messages"] if each["role"] == "user"][-1]["content"], flags=re.DOTALL
    )
    match said.split()[0]:
        case "fail":
            return Reply(status=401, error={"error": {"message": "No.", "type": "invalid_request_error", "code": None}})
        case "ask":
            return _calls("ask_user", question=f"Which {SECRET}?", options=["red"])
        case "delete":
            return _calls("delete_task", ref="OT-1")
    return Reply(text=(f"{SECRET}, yes.",))


def _calls(tool: str, **arguments: Any) -> Reply:
    return Reply(text=(), tools=(ToolUse(name=tool, fragments=(json.dumps(arguments),)),), finish="tool_calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Eve, by a session, a token, and her accounts in Slack and Discord."""

    on: World
    server: Server
    http: httpx.AsyncClient
    token: str
    slack: slacks.Person
    discord: discords.Person
    channel: str
    """In Slack, an open one."""
    own: str
    """A conversation of hers."""
    secrets: Mapping[str, str]
    """A link and a code of Alice's, both used."""

    @property
    def database(self) -> Path:
        return self.on.data_dir / "onethread.db"

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(query).fetchall()

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Each table's rows, but for those in which is noted that somebody asked."""
        tables = [name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'") if not name.startswith("sqlite_")]
        columns = {"bindings": BINDING}
        queries = {table: f"SELECT {columns.get(table, '*')} FROM {table}" for table in tables if table not in NOTED}
        return {table: sorted(self.rows(query), key=repr) for table, query in queries.items()}


@pytest.fixture
async def eve(tmp_path: Path, slack: SlackEmulator, discord: DiscordEmulator) -> AsyncIterator[Stranger]:
    """Four private conversations of Alice's: answered, failed, asking, and waiting for an approval. The first is followed in Discord."""
    async with (
        RawProvider(script=agent) as provider,
        world(tmp_path, slack, discord, model="openai/scripted", model_api_base=provider.api_base("openai")) as on,
    ):
        server = await on.server("one")
        await on.slack_posts_to(server)
        await discord.connected()
        async with _signed_in(on, server, "alice") as alice_http, _signed_in(on, server, "eve") as http:
            bob, there = await slack.person("bob"), await slack.channel()
            secrets = await _alices_doings(on, alice_http)
            stranger = Stranger(
                on=on,
                server=server,
                http=http,
                token=(await on.ask("token", "create", "hers", "--user", "eve")).strip(),
                slack=bob,
                discord=discord.person("eve"),
                channel=there,
                own=(await http.post("/api/tasks", json={"title": "Mine"})).json()["conversation_id"],
                secrets=secrets,
            )
            await _settled(stranger)
            yield stranger


async def _alices_doings(on: World, http: httpx.AsyncClient) -> Ids:
    alice, direct = await on.slack.person("alice"), on.discord.person("alice")
    made = await alice.client.conversations_create(name="secret", is_private=True)
    channel = str(made["channel"]["id"])
    await alice.client.conversations_invite(channel=channel, users=[on.slack.bot_user_id])
    link = re.search(r"/link/([\w-]+)", (await alice.slash("/link", "", channel)).text)
    assert link
    assert (await http.post(link[0])).status_code == 303
    code = (await on.ask("link", "--user", "alice")).strip()
    await direct.command("link", code=code, confirm=True)
    await on.ask("token", "create", "hers", "--user", "alice")
    for number, text in enumerate(("plan", "fail", "ask", "delete"), 1):
        files = [(f"{SECRET}.txt", SECRET.encode())] if text == "plan" else []
        await alice.mention(channel, f"{text} {SECRET}", files=files)
        await on.slack.until(lambda: _tasks(on), number.__eq__)
    followed = await direct.command("task follow", at=await direct.direct(), ref="OT-1")
    assert SECRET in followed.content or "OT-1" in followed.content
    return {"link": link[1], "code": code}


async def _tasks(on: World) -> int:
    with closing(sqlite3.connect(f"file:{on.data_dir / 'onethread.db'}?mode=ro", uri=True, timeout=10)) as database:
        return int(database.execute("SELECT count(*) FROM tasks").fetchone()[0])


async def _settled(stranger: Stranger) -> None:
    """Until all that was asked is answered, and both accounts of the stranger are known."""
    await stranger.slack.slash("/task", "help", stranger.channel)
    await stranger.discord.command("help")

    async def unsettled() -> list[Any]:
        ended = stranger.rows("SELECT status FROM turns ORDER BY id")
        looked_up = stranger.rows("SELECT id FROM bindings WHERE url <> ''")  # when all is said; in the last one a decision is waited for
        open_ones = stranger.rows("SELECT state FROM deliveries WHERE state NOT IN ('final', 'theirs')")
        settled = ended == ENDED and len(looked_up) == len(ENDED) and open_ones == [("live",)]
        return [] if settled else [ended, looked_up, open_ones]

    await until(unsettled, lambda seen: not seen)


@asynccontextmanager
async def _signed_in(on: World, server: Server, name: str) -> AsyncIterator[httpx.AsyncClient]:
    invited = re.search(r"/welcome\?code=(\S+)", await on.ask("user", "add", name))
    assert invited
    async with httpx.AsyncClient(base_url=server.url, headers=FROM_OUR_PAGE, timeout=SECONDS) as http:
        form = {"code": invited[1], "password": PASSWORD, "again": PASSWORD}
        assert (await http.post("/welcome", data=form)).status_code == 303
        yield http


def _ids(eve: Stranger) -> dict[str, str]:
    """Alice's."""
    turns = eve.rows("SELECT conversation_id, id, user_message_id, reply_id FROM turns ORDER BY id")
    answered, failed, asked, waiting = turns
    found = {
        "conversation_id": answered[0],
        "failed_conversation_id": failed[0],
        "asked_conversation_id": asked[0],
        "waiting_conversation_id": waiting[0],
        "turn_id": answered[1],
        "failed_turn_id": failed[1],
        "waiting_turn_id": waiting[1],
        "message_id": answered[2],
        "question_id": asked[3],
        "approval_id": eve.rows("SELECT id FROM approvals")[0][0],
        "attachment_id": eve.rows("SELECT id FROM attachments")[0][0],
        "token_id": eve.rows("SELECT id FROM tokens ORDER BY id")[0][0],
        "binding_id": eve.rows("SELECT id FROM bindings WHERE surface = 'discord'")[0][0],
    }
    return {"ref": "OT-1", "url": eve.server.url, **{name: str(UUID(value)) for name, value in found.items()}, **eve.secrets}


def _nothing(ids: Ids) -> dict[str, str]:
    """Of the same kinds, and of nobody."""
    return {name: str(uuid4()) for name in ids} | {"ref": "OT-999", "url": ids["url"], "link": "x" * len(ids["link"]), "code": "ABCD-EFGH"}


def _named(text: str, ids: Ids) -> str:
    """An answer with the names of ids in their place."""
    for name, value in ids.items():
        text = re.sub(rf"(?<![\w-]){re.escape(value)}(?![\w-])", f"<{name}>", text)
    return text


# --- what she asks ---------------------------------------------------------------------------------------------------

Ask = Callable[[Stranger, Ids], Awaitable[dict[str, str]]]


async def routes(eve: Stranger, ids: Ids) -> dict[str, str]:
    """All that is described and names something; and what the page's addresses and links give."""
    described = (await eve.http.get("/openapi.json")).json()["paths"]
    named = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods if "{" in path}
    assert named <= set(ROUTES), "say in tests/integration/web/test_isolation.py how a stranger fares there"
    tries = {name: probe for name, probe in ROUTES.items() if isinstance(probe, Try)}
    answers = {
        name: await _called(eve, name, probe.json, {**ids, **{into: ids[source] for into, source in probe.ids.items()}})
        for name, probe in tries.items()
    }
    for name in ("GET /tasks/{ref}", "GET /conversations/{conversation_id}", "GET /link/{link}", "POST /link/{link}"):
        answers[name] = await _called(eve, name, None, ids)
    return answers


async def _called(eve: Stranger, name: str, body: Any, ids: Ids) -> str:
    method, path = name.split(" ")
    answer = await eve.http.request(method, path.format(**ids), json=filled(body, ids))
    assert answer.status_code < 500, answer.text
    return f"{answer.status_code} {answer.text}"


async def frames(eve: Stranger, ids: Ids) -> dict[str, str]:
    """All of the WebSocket's, on Alice's topics and on her own; and a task's topic."""
    answers = {}
    async with client(eve.server.url, eve.token) as socket:
        await socket.join(f"conversation:{eve.own}")
        for event, frame in FRAMES_TRIED.items():
            if isinstance(frame, Send):
                payload = filled(frame.payload, ids)
                answers[event] = await _asked(socket.ask(event, f"conversation:{ids[frame.of]}", payload))
                if payload != frame.payload:
                    answers[f"{event} from her own"] = await _asked(socket.ask(event, f"conversation:{eve.own}", payload))
        answers["a task's topic"] = await _asked(socket.join(f"task:{ids['ref']}"))
    return answers


async def _asked(work: Any) -> str:
    try:
        return f"done: {await work}"
    except Refused as refused:
        return str(refused)


async def mcp(eve: Stranger, ids: Ids) -> dict[str, str]:
    """Every tool that is offered, template, prompt and completion."""
    answers: dict[str, str] = {}
    headers = {"Authorization": f"Bearer {eve.token}"}
    async with httpx.AsyncClient(base_url=eve.server.url, headers=headers, timeout=SECONDS) as http:
        ide = await McpClient(HttpWire(http)).start()
        for tool in [each["name"] for each in (await ide.request("tools/list"))["tools"]]:
            if isinstance(arguments := TOOLS_TRIED[tool], dict):
                answers[tool] = json.dumps(await ide.call(tool, **filled(arguments, ids)))
        for template in [each["uriTemplate"] for each in (await ide.request("resources/templates/list"))["resourceTemplates"]]:
            uri = re.sub(r"\{\??[^}]*\}", "", template.replace("{ref}", ids["ref"]))
            answers[template] = await _told(ide.request("resources/read", {"uri": uri}))
            about = {"ref": {"type": "ref/resource", "uri": template}, "argument": {"name": "ref", "value": "OT-"}}
            answers[f"completion of {template}"] = await _told(ide.request("completion/complete", about))
        for prompt in (await ide.request("prompts/list"))["prompts"]:
            if needed := {each["name"]: ids["ref"] for each in prompt.get("arguments", []) if each["name"] == "ref"}:
                answers[prompt["name"]] = await _told(ide.request("prompts/get", {"name": prompt["name"], "arguments": needed}))
    return answers


async def _told(work: Any) -> str:
    try:
        return json.dumps(await work)
    except RpcError as refused:
        return str(refused)


async def in_slack(eve: Stranger, ids: Ids) -> dict[str, str]:
    """Every command that names something, by each name that it may have; every button; every word behind a `!`; a code."""
    answers = {}
    assert {name for name, each in SUBCOMMANDS.items() if "OT-12" not in each.takes} == OWN
    for name in set(SUBCOMMANDS) - OWN:
        for called in _names(ids) if name in ("follow", "where", "unfollow") else [ids["ref"]]:
            answer = await eve.slack.slash("/task", f"{name} {called} {BEHIND.get(name, '')}", eve.channel)
            answers[f"/task {name} {_named(called, ids)}"] = answer.json["text"]
    answers["/link"] = (await eve.slack.slash("/link", f"{ids['code']} confirm", eve.channel)).json["text"]
    for action, value in _values(ids).items():
        answers[action] = await _told_alone(eve, _pressed(eve, f"onethread:{action}", value))
    root = await eve.slack.say(eve.channel, "hello")
    for word in set(WORDS) - {"stop"}:  # which names nothing
        answers[f"!{word}"] = await _told_alone(eve, eve.slack.mention(eve.channel, f"!{word} {ids['ref']}", thread=root))
    return answers


def _names(ids: Ids) -> list[str]:
    return [ids["ref"], ids["conversation_id"], f"{ids['url']}/tasks/{ids['ref']}", f"{ids['url']}/conversations/{ids['conversation_id']}"]


def _values(ids: Ids) -> dict[str, str]:
    """What the buttons would be for."""
    turns = {Action.STOP: "waiting_turn_id", Action.RETRY: "failed_turn_id", Action.APPROVE: "approval_id", Action.DENY: "approval_id"}
    return {str(action): ids[turns[action]] if action in turns else f"{ids['question_id']} 0" for action in Action}


async def _pressed(eve: Stranger, action: str, value: str) -> None:
    team = {"id": eve.on.slack.team_id}
    payload = {
        "type": "block_actions",
        "team": team,
        "user": {"id": eve.slack.id, "team_id": team["id"]},
        "channel": {"id": eve.channel},
        "message": {"ts": "1.2"},
        "actions": [{"type": "button", "action_id": action, "value": value}],
    }
    await eve.on.slack.post_to_app(urlencode({"payload": json.dumps(payload)}), "application/x-www-form-urlencoded")


async def _told_alone(eve: Stranger, work: Any) -> str:
    """The one thing that the app tells her upon it."""

    async def told() -> list[str]:
        calls = await eve.on.slack.calls("chat.postEphemeral")
        return [call["args"]["text"] for call in calls if call["args"]["user"] == eve.slack.id]

    before = len(await told())
    await work
    return (await eve.on.slack.until(told, lambda seen: len(seen) > before))[before]


async def in_discord(eve: Stranger, ids: Ids) -> dict[str, str]:
    """The same, by the commands that the bot registered; and what is offered while she types."""
    answers = {}
    lines = dict(_lines(eve.on.discord.commands))
    for line, options in lines.items():
        if "ref" in options:
            answers[line] = str((await eve.discord.command(line, **{**OPTIONS[line], "ref": ids["ref"]})).texts)
            answers[f"{line}, typing"] = str(await eve.discord.autocomplete(line, "ref", "", **_others(line)))
    for called in _names(ids):
        answers[f"follow {_named(called, ids)}"] = str((await eve.discord.command("task follow", ref=called, confirm=True)).texts)
    answers["link"] = str((await eve.discord.command("link", code=ids["code"], confirm=True)).texts)
    for action, value in _values(ids).items():
        button = {"type": 2, "style": 2, "label": "Press", "custom_id": f"onethread:{action}:{value}"}
        rows = [{"type": 1, "components": [button]}]
        shown = talk.post(eve.on.discord, eve.on.discord.channels[eve.on.discord.general], eve.on.discord.bot, "hello", components=rows)
        answer = await (await eve.discord.press(eve.on.discord.general, shown.id, "Press")).until(lambda seen: seen.followups)
        answers[action] = str([each["content"] for each in answer.followups])
    return answers


def _lines(commands: Iterable[JSON]) -> Iterable[tuple[str, set[str]]]:
    for command in commands:
        inner = [each for each in command.get("options", []) if each["type"] == 1]
        for each in inner:
            yield f"{command['name']} {each['name']}", {option["name"] for option in each.get("options", [])}


def _others(line: str) -> JSON:
    return {name: value for name, value in OPTIONS[line].items() if name != "ref"}


async def shell(eve: Stranger, ids: Ids) -> dict[str, str]:
    """The commands that open a conversation."""
    answers = {}
    for command in ("chat", "bind"):
        process = await eve.on.run(command, ids["ref"], user="eve", stdout=asyncio.subprocess.PIPE)
        assert process.stdout
        said = (await process.stdout.read()).decode()
        answers[command] = (
            f"{await process.wait()} {said} {(eve.on.folder / f'{command}.log').read_text(encoding='utf-8').splitlines()[-1]}"
        )
    return answers


async def lists(eve: Stranger, _: Ids) -> dict[str, str]:
    """Of what there is."""
    gets = {name: probe.query for name, probe in ROUTES.items() if isinstance(probe, Own) and name.startswith("GET") and "{" not in name}
    answers = {name: (await eve.http.get(name.partition(" ")[2], params=query)).text for name, query in gets.items()}
    for name in OWN - {"new"}:
        answers[f"/task {name}"] = (await eve.slack.slash("/task", name, eve.channel)).text
        answers[f"task {name}"] = str((await eve.discord.command(f"task {name}")).texts)
    return answers


ASKS: tuple[Ask, ...] = (routes, frames, mcp, in_slack, in_discord, shell, lists)


async def test_a_stranger_reaches_nothing_on_any_surface(eve: Stranger) -> None:
    ids = _ids(eve)
    nothing = _nothing(ids)
    for ask in ASKS:
        absent = {asked: _named(answer, nothing) for asked, answer in (await ask(eve, nothing)).items()}
        before = eve.everything()
        answers = {asked: _named(answer, ids) for asked, answer in (await ask(eve, ids)).items()}
        after = eve.everything()

        assert absent, ask.__name__
        assert {asked: (answer, absent[asked]) for asked, answer in answers.items() if answer != absent[asked]} == {}
        assert {asked: answer for asked, answer in answers.items() if SECRET in answer} == {}
        assert {table: rows for table, rows in after.items() if rows != before[table]} == {}, ask.__name__
