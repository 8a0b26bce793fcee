"""Discord for tests: REST and gateway on 127.0.0.1 in the test's own event loop, and people who use it.

    from tests.emulators.discord import DiscordEmulator, discord

    __all__ = ["discord"]  # a fixture, for a conftest.py or a module of tests

    async def test_a_mention_is_answered_in_its_thread(discord: DiscordEmulator) -> None:
        app = start(token=discord.token, api_url=discord.api_url, gateway_url=discord.gateway_url)
        alice, channel = discord.person("alice"), discord.home.channel("plans")
        discord.fail("PATCH", "message.edit", status=429, retry_after=1)  # the next one
        asked = await alice.say(channel, "plan my week", mention=[discord.bot_id])
        await alice.sees(asked, lambda messages: messages[-1]["content"] == "Your week")  # a thread on a message has its id
        answer = await alice.press(asked, discord.messages(asked)[-1]["id"], "Stop")
        assert answer.ephemeral and answer.content == "Stopped."
        assert [edit.content for edit in discord.edits(message_id)] == ["◐", "Your", "Your week"]

`discord` is fresh for each test. discord.py is pointed at it by `discord.http.Route.BASE = api_url` and
`discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway_url)`. All ids are strings. Times are the loop's.

The server: `api_url`, `gateway_url`, `token`, `bot_id`, `application_id`, `application` (name, flags, bot_public, owner_id; mutable),
`message_content` (is the privileged intent on? on at first), `clock_offset` (seconds by which Discord's clock is ahead),
`heartbeat_seconds` (45), `interaction_seconds` (3), `nonce_seconds` (180), `nonce_in_history` (False), `max_upload` (bytes), `variant`
("" or "other server": history(after=) comes oldest first, no RESUME, null integration_types and contexts refused, optional fields left
out, nonces not compared).

Places: `home` (the default guild; alice owns it), `general` (its channel), `guild(name, owner=alice)` (that guild, made if it is new);
`guild.channel(name, kind="text", private=False, people=None, deny=[permissions that the bot lacks there])`,
`guild.role(name, allow=[permissions], people=[...])`, `guild.join(person)`, `guild.leave(person)`, `guild.give(person, role)`,
`guild.take(person, role)`, `guild.allow_bot([...])` (the permissions of the bot's own role), `guild.forbid_everyone([...])`,
`guild.add_bot()`, `guild.remove_bot()`; `deny(channel, [...])` (anew, for the bot; [] gives all back),
`delete_channel(id)`, `webhook_says(channel, text)`.

People: `person(name, bot=False)` (alice, bob, carol are members of `home`; a new name joins it), `stranger(name)` (of no guild); see
people.Person for what they do: say, edit, delete, purge, direct, thread, private_thread, post, press, command, autocomplete, menu,
archive, unarchive, lock, rename, delete_thread, sees; `person.takes_no_dms = True`.

Looking: `messages(channel)` (as people see them, oldest first), `message(id)`, `edits(message_id)` (at, content, components; the first
is the message as it was posted), `thread(id)`, `calls` (state.Call: method, name, route, path, channel, at, ended_at, status, code,
json, query, files), `called(name)`, `commands`, `typing` [(at, channel)], `deleted` [message ids], `identifies`, `resumes`,
`connections` (open ones), `until(look, condition, seconds=20)`, `connected()` (until a gateway session is ready).

Limits: `limits[name] = (calls, seconds)`, None switches it off, `limits.off()` all of them; names: global, message.create,
message.edit, message.delete, message.list, thread.create, channel.rename, edit.old, typing, other. `speed` (2: windows are half as long).
`age(message_id, seconds)` makes a message older without touching its id.

Misbehaviour of REST: `fail(method, route, status=None, code=0, message="", retry_after=None, via=True, times=1, after=False)` where
`route` is a call's name or a part of its path or route; a `status` of None cuts the connection; `after`: it is done and the answer is
lost (aiohttp repeats a cut GET or DELETE by itself: give them times=2). `slow(method, route, seconds, times=1, after=False)`.
A Cloudflare ban: `fail("", "", status=429, via=False, times=n)`.

Misbehaviour of the gateway: `drop()`, `close(code)`, `ask_reconnect()`, `invalidate(resumable=False)`, `can_resume = False`,
`silent(on=True)`, `refuse_connections(n)`, `replay(n)`, `hold()` and `release(order="as held" | "reversed")`, `lose()` and `keep()` (what
happens between them is never told), `unavailable(guild)` and `available(guild)`, `dispatch(type, data)` (anything).

Not modelled: reactions, embeds beyond storing them, components other than buttons, selects and text displays, stickers, polls, voice,
webhooks of one's own, slow mode, categories, audit logs, sharding, commands of a single guild.
"""

from tests.emulators.discord.emulator import DiscordEmulator, discord, discord_running
from tests.emulators.discord.guilds import Channel, Guild
from tests.emulators.discord.interactions import Answer
from tests.emulators.discord.people import Person
from tests.emulators.discord.state import Call, Edit

__all__ = ["Answer", "Call", "Channel", "DiscordEmulator", "Edit", "Guild", "Person", "discord", "discord_running"]
