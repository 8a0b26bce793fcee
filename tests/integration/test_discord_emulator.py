"""What the tests of the Discord surface rely on: our own double of Discord, used by discord.py itself."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import discord as dpy
import pytest
import yarl
from discord import app_commands

from tests.emulators.discord import DiscordEmulator, discord

__all__ = ["discord"]
JSON = dict[str, Any]
INTENTS = dpy.Intents.default()
INTENTS.message_content = True


class Stop(dpy.ui.DynamicItem[dpy.ui.Button[dpy.ui.View]], template=r"onethread:stop:(?P<turn>\w+)"):
    def __init__(self, turn: str) -> None:
        super().__init__(dpy.ui.Button(label="Stop", custom_id=f"onethread:stop:{turn}"))
        self.turn = turn

    @classmethod
    async def from_custom_id(cls, interaction: Any, item: Any, match: Any, /) -> "Stop":
        return cls(match["turn"])

    async def callback(self, interaction: dpy.Interaction[Any]) -> None:
        await interaction.response.send_message(f"stopped {self.turn}", ephemeral=True)


class Bot(dpy.Client):
    """Remembers every event; answers "ping" with "pong"."""

    def __init__(self, *, intents: dpy.Intents = INTENTS) -> None:
        super().__init__(intents=intents, guild_ready_timeout=0.02, allowed_mentions=dpy.AllowedMentions.none())
        self.heard: list[str] = []
        self.told: list[str] = []
        self.changed = asyncio.Event()
        self.tree = app_commands.CommandTree(
            self,
            allowed_installs=app_commands.AppInstallationType(guild=True),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True),
        )
        self.add_dynamic_items(Stop)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Discord.py's waits 5 s."""

    def dispatch(self, event: str, /, *args: Any, **kwargs: Any) -> None:
        self.told.append(event)
        super().dispatch(event, *args, **kwargs)
        self.touch()

    async def on_message(self, message: dpy.Message) -> None:
        if message.author != self.user and message.type in (dpy.MessageType.default, dpy.MessageType.reply):
            self.heard.append(message.content)
        if message.content == "ping":
            await message.reply("pong")
        self.touch()

    def touch(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await self.changed.wait()


@asynccontextmanager
async def signed_in(discord: DiscordEmulator, bot: Bot | None = None) -> AsyncIterator[Bot]:
    """For REST alone."""
    dpy.http.Route.BASE = discord.api_url
    dpy.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(discord.gateway_url)
    async with bot or Bot() as client:
        await client.login(discord.token)
        yield client


@asynccontextmanager
async def connected(discord: DiscordEmulator, bot: Bot | None = None) -> AsyncIterator[Bot]:
    async with signed_in(discord, bot) as client, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.connect())
        await asyncio.wait_for(client.wait_until_ready(), 5)
        yield client
        await client.close()
        await running


@pytest.fixture(autouse=True)
def _its_own_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discord.py keeps them in classes."""
    monkeypatch.setattr(dpy.http.Route, "BASE", dpy.http.Route.BASE)
    monkeypatch.setattr(dpy.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", dpy.gateway.DiscordWebSocket.DEFAULT_GATEWAY)


Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
async def ask(discord: DiscordEmulator) -> AsyncIterator[Ask]:
    """A call without discord.py: its status and its JSON."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bot {discord.token}"}) as session:

        async def call(method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
            async with session.request(method, discord.api_url + path, json=body, params=query) as response:
                found = await response.json() if response.content_type == "application/json" else {}
                return response.status, found

        yield call


def text(client: Bot, channel: str) -> dpy.TextChannel:
    found = client.get_channel(int(channel))
    assert isinstance(found, dpy.TextChannel)
    return found


# --- messages and threads ---


async def test_a_mention_is_heard_answered_edited_and_deleted(discord: DiscordEmulator) -> None:
    alice = discord.person("alice")
    async with connected(discord) as bot:
        asked = await alice.say(discord.general, "ping")
        seen = await alice.sees(discord.general, lambda messages: messages[-1]["content"] == "pong")
        assert seen[-1]["message_reference"]["message_id"] == asked
        assert (seen[-1]["type"], seen[-1]["mentions"]) == (19, [])
        answer = await text(bot, discord.general).fetch_message(int(seen[-1]["id"]))
        await answer.edit(content="pong!")
        assert [edit.content for edit in discord.edits(str(answer.id))] == ["pong", "pong!"]
        await answer.delete()
        assert discord.deleted == [str(answer.id)]
        await alice.edit(discord.general, asked, "ping?")
        await alice.delete(discord.general, asked)
        await bot.until(lambda: "raw_message_delete" in bot.told and "raw_message_edit" in bot.told)


async def test_what_people_send_arrives_whole(discord: DiscordEmulator) -> None:
    alice, bob = discord.person("alice"), discord.person("bob")
    async with connected(discord) as bot:
        file = ("plan.txt", b"week", "text/plain")
        message_id = await alice.say(discord.general, "look", mention=[bob], files=[file])
        await bot.until(lambda: bot.heard)
        message = await text(bot, discord.general).fetch_message(int(message_id))
        assert (message.author.name, message.mentions[0].name, message.content) == ("alice", "bob", f"<@{bob.id}> look")
        assert (message.attachments[0].content_type, await message.attachments[0].read()) == ("text/plain", b"week")


async def test_a_thread_is_made_on_a_message_once_named_archived_and_brought_back(discord: DiscordEmulator) -> None:
    alice = discord.person("alice")
    root = await alice.say(discord.general, "plan my week")
    async with connected(discord) as bot:
        message = await text(bot, discord.general).fetch_message(int(root))
        thread = await message.create_thread(name="Plan")
        assert str(thread.id) == root
        await bot.until(lambda: "thread_create" in bot.told)
        await thread.send("in the thread")
        assert [one["content"] for one in discord.messages(root)] == ["", "in the thread"]
        assert discord.message(root)["thread"]["name"] == "Plan"
        with pytest.raises(dpy.HTTPException) as twice:
            await message.create_thread(name="Again")
        assert twice.value.code == 160004
        await thread.edit(name="Week", archived=True)
        assert discord.thread(root)["thread_metadata"]["archived"]
        assert discord.messages(root)[-1]["type"] == 4
        with pytest.raises(dpy.HTTPException) as archived:
            await thread.get_partial_message(int(discord.messages(root)[1]["id"])).edit(content="new")
        assert archived.value.code == 50083
        assert [one.name async for one in text(bot, discord.general).archived_threads()] == ["Week"]
        await alice.say(root, "one more")
        await bot.until(lambda: "one more" in bot.heard)
        assert not discord.thread(root)["thread_metadata"]["archived"]
        assert [one.name for one in await text(bot, discord.general).guild.active_threads()] == ["Week"]
        await alice.delete_thread(root)
        await bot.until(lambda: "raw_thread_delete" in bot.told)


async def test_history_comes_newest_first_in_pages(discord: DiscordEmulator, ask: Ask) -> None:
    alice = discord.person("alice")
    ids = [await alice.say(discord.general, str(number)) for number in range(5)]
    path = f"/channels/{discord.general}/messages"
    discord.limits["message.list"] = None

    async def texts(**query: str) -> list[str]:
        _, found = await ask("GET", path, **query)
        return [message["content"] for message in found]

    assert await texts(limit="2") == ["4", "3"]
    assert await texts(after=ids[0], limit="2") == ["2", "1"]
    assert await texts(before=ids[2]) == ["1", "0"]
    assert await texts(around=ids[2], limit="3") == ["3", "2", "1"]
    discord.variant = "other server"
    assert await texts(after=ids[0], limit="2") == ["1", "2"]
    status, refused = await ask("GET", path, limit="101")
    assert (status, refused["errors"]["limit"]["_errors"][0]["code"]) == (400, "NUMBER_TYPE_MAX")


async def test_a_forum_post_a_private_thread_and_a_dm_are_heard(discord: DiscordEmulator) -> None:
    alice, forum = discord.person("alice"), discord.home.channel("ideas", "forum")
    async with connected(discord) as bot:
        post = await alice.post(forum, "Idea", "a first message")
        assert discord.messages(post)[0]["id"] == post
        hidden = await alice.private_thread(discord.general, "secret")
        await alice.say(hidden, "nobody hears this")
        await alice.say(hidden, "but this", mention=[discord.bot_id])
        await alice.say(await alice.direct(), "between us")
        await bot.until(lambda: len(bot.heard) == 3)
        assert bot.heard == ["a first message", f"<@{discord.bot_id}> but this", "between us"]
        user = await bot.fetch_user(int(alice.id))
        await user.send("for you")
        await alice.sees(await alice.direct(), lambda messages: messages[-1]["content"] == "for you")
        alice.takes_no_dms = True
        with pytest.raises(dpy.Forbidden) as refused:
            await user.send("once more")
        assert refused.value.code == 50007


async def test_a_repeated_nonce_gives_the_same_message_for_some_minutes(discord: DiscordEmulator, ask: Ask) -> None:
    body = {"content": "once", "nonce": "n" * 22, "enforce_nonce": True}
    path = f"/channels/{discord.general}/messages"
    _, first = await ask("POST", path, body)
    _, second = await ask("POST", path, {**body, "content": "twice"})
    assert (first["id"], first["nonce"], second["id"], second["content"]) == (second["id"], "n" * 22, first["id"], "once")
    _, history = await ask("GET", path)
    assert "nonce" not in history[0]
    discord.age(first["id"], discord.nonce_seconds)
    _, third = await ask("POST", path, body)
    assert third["id"] != first["id"]
    discord.variant = "other server"
    assert (await ask("POST", path, body))[1]["id"] != third["id"]


async def test_files_are_uploaded_and_replaced(discord: DiscordEmulator) -> None:
    async with connected(discord) as bot:
        sent = await text(bot, discord.general).send(file=dpy.File(io.BytesIO(b"whole"), "answer.md"))
        found = discord.message(str(sent.id))["attachments"][0]
        assert (found["filename"], found["content_type"], found["size"]) == ("answer.md", "text/markdown", 5)
        assert discord.called("message.create")[0].files == ["answer.md"]
        await sent.edit(content="shorter", attachments=[dpy.File(io.BytesIO(b"new"), "new.md")])
        assert [one["filename"] for one in discord.message(str(sent.id))["attachments"]] == ["new.md"]
        await sent.edit(attachments=[])
        with pytest.raises(dpy.HTTPException) as empty:
            await sent.edit(content="")
        assert empty.value.code == 50006
        discord.max_upload = 3
        with pytest.raises(dpy.HTTPException) as large:
            await sent.edit(attachments=[dpy.File(io.BytesIO(b"large"), "new.md")])
        assert large.value.code == 40005


# --- buttons and commands ---


async def test_a_dynamic_button_is_pressed(discord: DiscordEmulator) -> None:
    alice = discord.person("alice")
    async with connected(discord) as bot:
        view = dpy.ui.View(timeout=None)
        view.add_item(Stop("t1"))
        sent = await text(bot, discord.general).send("working", view=view)
        answer = await alice.press(discord.general, str(sent.id), "Stop")
        assert (answer.type, answer.ephemeral, answer.content) == (4, True, "stopped t1")
        assert [message["content"] for message in discord.messages(discord.general)] == ["working"]


async def test_commands_are_registered_completed_and_answered(discord: DiscordEmulator) -> None:
    alice = discord.person("alice")
    bot = Bot()
    task = app_commands.Group(name="task", description="Tasks")

    @task.command(name="show", description="Show a task")
    async def show(interaction: dpy.Interaction[Any], ref: str) -> None:
        await interaction.response.defer(ephemeral=True)
        await interaction.followup.send(f"task {ref}")
        await interaction.followup.send("and more", ephemeral=True)

    @show.autocomplete("ref")
    async def refs(interaction: dpy.Interaction[Any], typed: str) -> list[app_commands.Choice[str]]:
        return [app_commands.Choice(name=f"{typed}-1 Plan", value=f"{typed}-1")]

    async def promote(interaction: dpy.Interaction[Any], message: dpy.Message) -> None:
        await interaction.response.send_message(f"a task of {message.content}")

    bot.tree.add_command(task)
    bot.tree.add_command(app_commands.ContextMenu(name="Make a task", callback=promote))
    async with connected(discord, bot):
        await bot.tree.sync()
        assert [command["name"] for command in discord.commands] == ["task", "Make a task"]
        assert [command.name for command in await bot.tree.fetch_commands()] == ["task", "Make a task"]
        assert await alice.autocomplete("task show", "ref", "OT") == [{"name": "OT-1 Plan", "value": "OT-1"}]
        answer = await alice.command("task show", ref="OT-1")
        await answer.until(lambda seen: len(seen.followups) == 1)
        assert (answer.type, answer.ephemeral, answer.texts) == (5, True, ["task OT-1", "and more"])
        in_dm = await alice.command("task show", at=await alice.direct(), ref="OT-2")
        assert in_dm.content == "task OT-2"
        message = await alice.say(discord.general, "buy milk")
        made = await alice.menu("Make a task", discord.general, message)
        assert (made.type, made.ephemeral, made.content) == (4, False, "a task of buy milk")
        assert discord.messages(discord.general)[-1]["interaction_metadata"]["user"]["id"] == alice.id


async def test_an_interaction_is_answered_once_and_in_time(discord: DiscordEmulator, ask: Ask) -> None:
    alice = discord.person("alice")
    row = {"type": 1, "components": [{"type": 2, "style": 2, "label": "Go", "custom_id": "go"}]}
    _, sent = await ask("POST", f"/channels/{discord.general}/messages", {"content": "x", "components": [row]})
    pressed = (await alice.press(discord.general, sent["id"], "Go", wait=False)).interaction
    path, hook = f"/interactions/{pressed.id}/{pressed.token}/callback", f"/webhooks/{discord.application_id}/{pressed.token}"
    assert (await ask("POST", hook, {"content": "too early"}))[1]["code"] == 10015
    assert (await ask("POST", path, {"type": 4, "data": {"content": "", "flags": 64}}))[1]["code"] == 50006
    status, answer = await ask("POST", path, {"type": 7, "data": {"content": "y", "components": []}}, with_response="true")
    assert (status, answer["resource"]["message"]["content"]) == (200, "y")
    assert discord.message(sent["id"])["content"] == "y"
    assert (await ask("POST", path, {"type": 6}))[1]["code"] == 40060
    assert (await ask("POST", hook, {"content": "for you", "flags": 64}))[1]["content"] == "for you"
    discord.interaction_seconds = 0
    _, other = await ask("POST", f"/channels/{discord.general}/messages", {"content": "x", "components": [row]})
    late = await alice.press(discord.general, other["id"], "go")
    assert late.failed
    path = f"/interactions/{late.interaction.id}/{late.interaction.token}/callback"
    assert await ask("POST", path, {"type": 6}) == (404, {"message": "Unknown interaction", "code": 10062})


# --- the gateway ---


async def test_a_dropped_connection_is_resumed_with_what_was_missed(discord: DiscordEmulator) -> None:
    alice = discord.person("alice")
    async with connected(discord) as bot:
        await alice.say(discord.general, "before")
        await bot.until(lambda: bot.heard == ["before"])
        discord.drop()
        await alice.say(discord.general, "meanwhile")
        await bot.until(lambda: "resumed" in bot.told and "meanwhile" in bot.heard)
        assert (bot.heard, discord.identifies, discord.resumes) == (["before", "meanwhile"], 1, 1)
        discord.replay(1)
        discord.ask_reconnect()
        await bot.until(lambda: bot.told.count("resumed") == 2)
        assert (discord.identifies, discord.resumes) == (1, 2)


async def test_an_invalid_session_is_begun_anew_and_what_was_said_is_lost(discord: DiscordEmulator) -> None:
    alice = discord.person("alice")
    async with connected(discord) as bot:
        discord.invalidate()
        await alice.say(discord.general, "lost")
        await bot.until(lambda: bot.told.count("ready") == 2)
        discord.can_resume = False
        discord.drop()
        await bot.until(lambda: bot.told.count("ready") == 3)
        await alice.say(discord.general, "heard")
        await bot.until(lambda: bot.heard)
        assert (bot.heard, discord.identifies, discord.resumes) == (["heard"], 3, 1)


async def test_events_are_replayed_held_reversed_and_lost(discord: DiscordEmulator) -> None:
    alice = discord.person("alice")
    async with connected(discord) as bot:
        await alice.say(discord.general, "one")
        discord.replay(1)
        discord.hold()
        await alice.say(discord.general, "two")
        await alice.say(discord.general, "three")
        discord.release("reversed")
        discord.lose()
        await alice.say(discord.general, "four")
        discord.keep()
        discord.unavailable(discord.home)
        await alice.say(discord.general, "five")
        discord.available(discord.home)
        await alice.say(discord.general, "six")
        await bot.until(lambda: "six" in bot.heard)
        assert bot.heard == ["one", "one", "three", "two", "six"]
        assert "guild_unavailable" in bot.told
        assert "guild_available" in bot.told


async def test_two_connections_with_one_token_hear_the_same(discord: DiscordEmulator) -> None:
    async with connected(discord) as one, connected(discord) as other:
        await discord.person("alice").say(discord.general, "hello")
        await one.until(lambda: one.heard)
        await other.until(lambda: other.heard)
        assert discord.connections == 2
    await discord.gone()


async def test_without_the_privileged_intent_contents_are_withheld(discord: DiscordEmulator) -> None:
    discord.message_content = False
    with pytest.raises(dpy.PrivilegedIntentsRequired):
        async with signed_in(discord) as bot:
            await bot.connect()
    alice = discord.person("alice")
    async with connected(discord, Bot(intents=dpy.Intents.default())) as bot:
        unheard = await alice.say(discord.general, "not to you")
        await alice.say(discord.general, "to you", mention=[discord.bot_id])
        await alice.say(await alice.direct(), "in private")
        await bot.until(lambda: len(bot.heard) == 3)
        assert bot.heard == ["", f"<@{discord.bot_id}> to you", "in private"]
        assert (await text(bot, discord.general).fetch_message(int(unheard))).content == ""


async def test_a_wrong_token_is_refused(discord: DiscordEmulator) -> None:
    dpy.http.Route.BASE = discord.api_url
    async with Bot() as bot:
        with pytest.raises(dpy.LoginFailure):
            await bot.login("wrong")


async def test_unacknowledged_heartbeats_end_the_connection(discord: DiscordEmulator) -> None:
    discord.heartbeat_seconds = 0.05
    bot = Bot()
    bot._connection.heartbeat_timeout = 0.2
    async with connected(discord, bot):
        discord.silent()
        await bot.until(lambda: "disconnect" in bot.told)
        discord.silent(on=False)
        await bot.until(lambda: "resumed" in bot.told)


async def test_changes_of_guilds_channels_and_roles_are_told(discord: DiscordEmulator) -> None:
    alice, bob = discord.person("alice"), discord.person("bob")
    root = await alice.say(discord.general, "plan")
    await bob.thread(discord.general, root, "Plan")
    async with connected(discord) as bot:
        discord.deny(discord.general, ["VIEW_CHANNEL"])
        await alice.say(discord.general, "unseen")
        await alice.say(root, "unseen as well")
        discord.deny(discord.general, [])
        other = discord.guild("Other", owner=bob)
        channel = other.channel("talk")
        other.role("planners", people=[alice])
        ids = [await alice.say(channel, str(number)) for number in range(2)]
        await alice.purge(channel, ids)
        discord.webhook_says(channel, "built")
        discord.delete_channel(channel)
        other.remove_bot()
        await bot.until(lambda: "guild_remove" in bot.told and "built" in bot.heard)
        assert bot.heard == ["0", "1", "built"]
        expected = ["guild_channel_update", "guild_join", "guild_channel_create", "guild_role_create", "raw_bulk_message_delete"]
        assert [told for told in expected if told not in bot.told] == []


async def test_connections_are_refused_and_strange_events_sent(discord: DiscordEmulator) -> None:
    discord.refuse_connections(1)
    async with signed_in(discord) as bot:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await bot.connect(reconnect=False)
    async with signed_in(discord) as bot:
        running = asyncio.create_task(bot.connect())
        await discord.connected()
        discord.dispatch("MESSAGE_CREATE", {"id": "1"})
        with pytest.raises(KeyError):
            await running
    await discord.gone()


async def test_discord_closes_and_its_clock_differs(discord: DiscordEmulator) -> None:
    discord.clock_offset = 3600
    message_id = await discord.person("alice").say(discord.general, "from the future")
    ahead = dpy.utils.snowflake_time(int(message_id)) - dpy.utils.utcnow()
    assert 3590 < ahead.total_seconds() < 3610
    async with signed_in(discord) as bot:
        running = asyncio.create_task(bot.connect())
        await discord.connected()
        await discord.close(4004)
        with pytest.raises(dpy.ConnectionClosed):
            await running


# --- rate limits and failures ---


async def spent(call: Awaitable[object]) -> float:
    started = time.monotonic()
    await call
    return time.monotonic() - started


async def test_discord_py_waits_inside_the_fifth_edit_but_never_at_a_spare_pace(discord: DiscordEmulator) -> None:
    discord.speed = 5  # five edits a second
    async with signed_in(discord) as bot:
        message = await bot.get_partial_messageable(int(discord.general)).send("0")
        fast = [await spent(message.edit(content=str(number))) for number in range(1, 7)]
        assert max(fast[:4] + fast[5:]) < 0.3
        assert fast[4] > 0.5
        calls = discord.called("message.edit")
        assert {call.status for call in calls} == {200}
        assert calls[4].at - calls[0].at < 0.5, "the fifth is at Discord at once"
        message = await bot.get_partial_messageable(int(discord.home.channel("calm"))).send("0")
        paced = []
        for number in range(6):
            paced.append(await spent(message.edit(content=f"paced {number}")))
            await asyncio.sleep(0.25 - paced[-1])
        assert max(paced) < 0.2


async def test_limits_are_told_by_headers_and_refused_with_429(discord: DiscordEmulator, ask: Ask) -> None:
    path = f"/channels/{discord.general}/messages"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bot {discord.token}"}) as session:
        for left in (4, 3, 2, 1, 0):
            async with session.post(discord.api_url + path, json={"content": "x"}) as response:
                assert (response.status, response.headers["X-RateLimit-Remaining"]) == (200, str(left))
        async with session.post(discord.api_url + path, json={"content": "x"}) as response:
            body, headers = await response.json(), response.headers
    assert (response.status, headers["X-RateLimit-Scope"], headers["X-RateLimit-Limit"]) == (429, "user", "5")
    assert "Via" in headers
    assert (body["message"], body["global"]) == ("You are being rate limited.", False)
    assert 4 < body["retry_after"] <= 5
    discord.limits["message.create"] = None
    _, message = await ask("POST", path, {"content": "old"})
    discord.age(message["id"], 3601)
    edits = [await ask("PATCH", f"{path}/{message['id']}", {"content": str(number)}) for number in range(4)]
    assert [status for status, _ in edits] == [200, 200, 200, 429]
    assert edits[-1][1]["code"] == 30046
    discord.limits["global"] = (0, 1)
    assert (await ask("GET", "/users/@me"))[1]["global"] is True


async def test_threads_are_renamed_twice_in_ten_minutes(discord: DiscordEmulator, ask: Ask) -> None:
    root = await discord.person("alice").say(discord.general, "x")
    await ask("POST", f"/channels/{discord.general}/messages/{root}/threads", {"name": "a"})
    statuses = [(await ask("PATCH", f"/channels/{root}", {"name": name}))[0] for name in ("b", "c", "d")]
    status, _ = await ask("PATCH", f"/channels/{root}", {"archived": True})
    assert (statuses, status) == ([200, 200, 429], 200)


async def test_calls_fail_as_bidden(discord: DiscordEmulator, ask: Ask) -> None:
    path = f"/channels/{discord.general}/messages"
    discord.fail("POST", "message.create", status=500)
    discord.fail("POST", "message.create", code=50013, status=403)
    discord.fail("POST", "message.create", status=502, after=True)
    discord.fail("POST", "/messages", status=429, retry_after=0.5, via=False)
    discord.fail("POST", "/messages", after=True)
    assert (await ask("POST", path, {"content": "1"}))[0] == 500
    assert (await ask("POST", path, {"content": "2"}))[1]["code"] == 50013
    assert (await ask("POST", path, {"content": "3"})) == (429, {})
    assert (await ask("POST", path, {"content": "4"}))[0] == 502
    with pytest.raises(aiohttp.ClientError):
        await ask("POST", path, {"content": "5"})
    assert [message["content"] for message in discord.messages(discord.general)] == ["4", "5"]
    assert [call.status for call in discord.called("message.create")] == [500, 403, 429, 502, 0]
    discord.slow("GET", "message.list", 0.2)
    assert await spent(ask("GET", path)) > 0.2


# --- strictness ---


@pytest.mark.parametrize(
    ("body", "where", "code"),
    [
        ({"content": "x" * 2001}, ("content",), "BASE_TYPE_MAX_LENGTH"),
        ({"content": "x", "nonce": "n" * 26}, ("nonce",), "BASE_TYPE_MAX_LENGTH"),
        ({"content": "x", "components": [{"type": 1, "components": []}]}, ("components", "0", "components"), "BASE_TYPE_BAD_LENGTH"),
        ({"content": "x", "components": [{"type": 99}]}, ("components", "0", "type"), "BASE_TYPE_CHOICES"),
        ({"content": "x", "allowed_mentions": {"parse": ["all"]}}, ("allowed_mentions", "parse", "0"), "BASE_TYPE_CHOICES"),
        ({"content": "x", "message_reference": {"message_id": "1"}}, ("message_reference",), "MESSAGE_REFERENCE_UNKNOWN_MESSAGE"),
    ],
)
async def test_a_wrong_message_is_refused(discord: DiscordEmulator, ask: Ask, body: JSON, where: tuple[str, ...], code: str) -> None:
    status, refused = await ask("POST", f"/channels/{discord.general}/messages", body)
    found = refused["errors"]
    for key in where:
        found = found[key]
    assert (status, refused["code"], found["_errors"][0]["code"]) == (400, 50035, code)


async def test_wrong_buttons_are_refused(discord: DiscordEmulator, ask: Ask) -> None:
    buttons = [{"type": 2, "style": 1, "label": "a", "custom_id": "x" * 101}, {"type": 2, "style": 1, "custom_id": "y"}]
    row = {"type": 1, "components": buttons}
    _, refused = await ask("POST", f"/channels/{discord.general}/messages", {"content": "x", "components": [row]})
    assert set(refused["errors"]["components"]["0"]["components"]) == {"0", "1"}
    six = {"type": 1, "components": [{**buttons[0], "custom_id": str(number)} for number in range(6)]}
    _, refused = await ask("POST", f"/channels/{discord.general}/messages", {"content": "x", "components": [six]})
    assert refused["errors"]["components"]["0"]["components"]["_errors"][0]["code"] == "BASE_TYPE_BAD_LENGTH"


async def test_what_the_bot_may_not_do_is_refused(discord: DiscordEmulator, ask: Ask) -> None:
    alice = discord.person("alice")
    theirs = await alice.say(discord.general, "mine")
    path = f"/channels/{discord.general}/messages"

    async def code(method: str, path: str, body: Any = None) -> int:
        return int((await ask(method, path, body))[1]["code"])

    assert await code("PATCH", f"{path}/{theirs}", {"content": "ours"}) == 50005
    assert await code("DELETE", f"{path}/{theirs}") == 50013
    assert await code("POST", path, {"content": ""}) == 50006
    assert await code("GET", f"{path}/1") == 10008
    assert await code("GET", "/channels/1") == 10003
    assert await code("GET", "/guilds/1") == 10004
    assert await code("GET", f"/guilds/{discord.home.id}/members/{discord.stranger('mallory').id}") == 10007
    assert await code("POST", f"{path}/{theirs}/threads", {"name": ""}) == 50035
    voice = discord.home.channel("talk", "voice")
    spoken = await alice.say(voice, "hello")
    assert await code("POST", f"/channels/{voice}/messages/{spoken}/threads", {"name": "x"}) == 50024
    assert await code("POST", f"/channels/{discord.home.channel('f', 'forum')}/messages", {"content": "x"}) == 50008
    discord.deny(discord.general, ["SEND_MESSAGES", "CREATE_PUBLIC_THREADS"])
    assert await code("POST", path, {"content": "x"}) == 50013
    assert await code("POST", f"{path}/{theirs}/threads", {"name": "x"}) == 50013
    discord.deny(discord.general, ["READ_MESSAGE_HISTORY"])
    assert (await ask("GET", path))[1] == []
    assert await code("POST", path, {"content": "x", "message_reference": {"message_id": theirs}}) == 160002
    discord.deny(discord.general, ["VIEW_CHANNEL"])
    assert await code("GET", path) == 50001
    private = discord.home.channel("board", private=True, people=[alice], deny=["ATTACH_FILES"])
    assert await code("POST", f"/channels/{private}/messages", {"content": ""}) == 50006
    with pytest.raises(AssertionError):
        await discord.person("bob").say(private, "let me in")


async def test_a_locked_thread_is_the_moderators(discord: DiscordEmulator, ask: Ask) -> None:
    alice = discord.person("alice")
    root = await alice.say(discord.general, "x")
    await alice.thread(discord.general, root, "Plan")
    await alice.lock(root)
    assert (await ask("POST", f"/channels/{root}/messages", {"content": "x"}))[1]["code"] == 160005
    await alice.archive(root)
    assert (await ask("POST", f"/channels/{root}/messages", {"content": "x"}))[1]["code"] == 50083
    discord.home.allow_bot(["MANAGE_THREADS"])
    assert (await ask("POST", f"/channels/{root}/messages", {"content": "x"}))[0] == 200


async def test_other_servers_refuse_commands_with_null_contexts(discord: DiscordEmulator, ask: Ask) -> None:
    discord.variant = "other server"
    command = {"name": "help", "description": "Help", "contexts": None, "integration_types": None}
    path = f"/applications/{discord.application_id}/commands"
    status, refused = await ask("PUT", path, [command])
    assert (status, refused["code"]) == (400, 50035)
    assert (await ask("PUT", path, [{**command, "contexts": [0], "integration_types": [0]}]))[0] == 200
    assert (await ask("POST", path, {"name": "Not A Name", "description": "x"}))[1]["code"] == 50035


async def test_other_servers_leave_out_what_is_optional_and_discord_py_reads_the_rest(discord: DiscordEmulator) -> None:
    discord.variant = "other server"
    alice = discord.person("alice")
    root = await alice.say(discord.general, "plan")
    discord.home.channel("ideas", "forum")
    discord.home.channel("talk", "voice")
    async with connected(discord) as bot:
        thread = await (await text(bot, discord.general).fetch_message(int(root))).create_thread(name="Plan")
        await alice.say(root, "in it")
        await bot.until(lambda: bot.heard)
        assert {message.content async for message in thread.history()} == {"", "in it"}
        discord.drop()
        await bot.until(lambda: bot.told.count("ready") == 2)
