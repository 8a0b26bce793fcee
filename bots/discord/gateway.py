"""The bot's connection to Discord's gateway: made again whatever ends it, and caught up every time.

discord.py connects again by itself where a connection ends as Discord describes it. Where one ends otherwise its client is deaf from then
on, while its calls still pass: so here it is replaced as a whole.
"""

import asyncio
import threading
from dataclasses import dataclass, field

import discord
import structlog
from discord.gateway import KeepAliveHandler

from bots.apart import apart
from bots.discord.client import Client
from bots.discord.failures import surface_error
from bots.discord.inbound.catch_up import CatchUp, Pace
from bots.discord.inbound.dispatches import Dispatches
from bots.discord.inbound.ingest import Ingest, IngestRules
from bots.discord.inbound.spots import Spots
from bots.discord.interactions import Interactions
from bots.discord.listening import Listening
from bots.lease import lost_alone
from core.logs import place_of
from core.models import AccountLease

_NO_CONTENT = (
    "Discord does not give Onethread what messages say that do not mention it: it answers mentions and direct messages alone. Switch on "
    "Message Content Intent under Bot in the Developer Portal, and start Onethread again."
)
_CLOSED = {
    4004: "Discord does not accept DISCORD_TOKEN. Make a new token under Bot, Reset Token, in the Developer Portal, and set it.",
    4010: "Discord's gateway refuses this kind of connection.",
    4011: "This bot is in more servers than one connection may serve.",
    4012: "Discord's gateway does not speak this version any more. Update Onethread.",
    4013: "Discord's gateway refuses what Onethread wants to hear. Update Onethread.",
}
"""What the log says where the gateway takes no connection, by its code."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRules:
    restart_seconds: float = 1.0
    """Before a new connection, where one failed; doubled each time until one lasts."""
    longest_pause_seconds: float = 90.0
    """Where there are more than a thousand new sessions in a day, Discord withdraws the token."""
    steady_seconds: float = 60.0
    """So long one must last."""
    identify_seconds: float = 5.0
    """Before another session on the same client, since Discord takes one in five seconds; doubled likewise."""
    sessions: int = 4
    """More of them in a row, none of which lasted, are not begun on one client."""
    ready_seconds: float = 60.0
    """So long nothing may be heard, at the beginning and after an interruption."""
    silent_seconds: float = 60.0
    """Without a word, also none to our heartbeats, a connection is dead."""
    watch_seconds: float = 1.0
    ingest: IngestRules = field(default_factory=IngestRules)
    pace: Pace = field(default_factory=Pace)


class Gateway:
    """Takes in what Discord tells one bot, while this process holds its account."""

    def __init__(self, listening: Listening, rules: GatewayRules) -> None:
        self._listening = listening
        self._interactions = Interactions(listening)
        self._rules = rules
        self._may_read = listening.who.message_content
        """Whether Discord gives what messages say that do not mention the bot."""

    async def run(self, lease: AccountLease) -> None:
        """Until cancelled; raises LeaseLost once another process has taken the account."""
        spots = Spots(self._listening.client, self._listening.who.bot_user_id)
        ingest = Ingest(self._listening, spots, self._rules.ingest)
        await ingest.begin()
        with lost_alone():
            async with asyncio.TaskGroup() as tasks:
                catch_up = CatchUp(self._listening, ingest, spots, tasks, self._rules.pace)
                tasks.create_task(self._listening.intake.run(lease), name="discord.intake")
                tasks.create_task(ingest.run(), name="discord.ingest")
                tasks.create_task(
                    self._stay_connected(Dispatches(self._listening, ingest, spots, catch_up), ingest), name="discord.gateway"
                )

    async def _stay_connected(self, dispatches: Dispatches, ingest: Ingest) -> None:
        patience = _Patience(self._rules)
        while True:
            ingest.reads_content = self._may_read
            if not self._may_read:
                _log.error("discord.no_message_content", sentence=_NO_CONTENT)
            ended = await self._connected(dispatches, patience)
            if self._may_read and isinstance(ended, discord.PrivilegedIntentsRequired):
                self._may_read = False
                continue
            _say_why(ended)
            await patience.wait(self._rules.restart_seconds)

    async def _connected(self, dispatches: Dispatches, patience: "_Patience") -> Exception:
        """What ended one client's connection."""
        try:
            await apart(self._connect(dispatches, patience))
        except Exception as error:  # noqa: BLE001  # the outermost loop: whatever ended it, another may come
            return _first(error)
        raise AssertionError("Its tasks go on until one fails.")

    async def _connect(self, dispatches: Dispatches, patience: "_Patience") -> None:
        async with _Client(self._listening, self._rules, dispatches, patience, may_read=self._may_read) as client:
            await client.enter()
            commands = self._interactions.attach(client)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._interactions.sync(commands), name="discord.sync")
                tasks.create_task(client.stay(), name="discord.connect")
                tasks.create_task(client.watch(), name="discord.watch")


class _Patience:
    """With connections and sessions that do not last."""

    def __init__(self, rules: GatewayRules) -> None:
        self._rules = rules
        self._failed = 0

    @property
    def is_short(self) -> bool:
        return self._failed >= self._rules.sessions

    async def wait(self, seconds: float) -> None:
        pause = min(seconds * 2.0**self._failed, self._rules.longest_pause_seconds)
        self._failed += 1
        await asyncio.sleep(pause)

    def renew(self) -> None:
        self._failed = 0


class _Client(Client):
    """Of one connection."""

    def __init__(self, listening: Listening, rules: GatewayRules, dispatches: Dispatches, patience: _Patience, *, may_read: bool) -> None:
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=may_read)
        limiter = listening.client.limiter
        super().__init__(listening.config, intents=intents, limiter=limiter, heartbeat_timeout=rules.silent_seconds)
        self._connection.parsers.update(dispatches.listening_before(self._connection.parsers, self.may_read))
        self._rules = rules
        self._dispatches = dispatches
        self._patience = patience
        self._never_came = False

    async def close(self) -> None:
        for thread in threading.enumerate():
            if isinstance(thread, KeepAliveHandler) and thread.ws._connection is self._connection:
                thread.stop()  # discord.py forgets the heartbeat of a connection that ended before there was a session
        await super().close()

    async def stay(self) -> None:
        """Raises what ends the connection."""
        await self.connect(reconnect=True)
        raise ConnectionError("The gateway's connection ended.")

    async def watch(self) -> None:
        """Raises ConnectionError where nothing is heard for too long. In a quiet server at least our heartbeats are answered."""
        loop = asyncio.get_running_loop()
        self._dispatches.deafen()
        changed_at, heard = loop.time(), False
        while True:
            await asyncio.sleep(self._rules.watch_seconds)
            if self._dispatches.hears is not heard:
                changed_at, heard = loop.time(), self._dispatches.hears
            lasted = loop.time() - changed_at
            if heard and lasted > self._rules.steady_seconds:
                self._patience.renew()
            if self._never_came or (not heard and lasted > self._rules.ready_seconds):
                raise ConnectionError("Nothing is heard.")

    def may_read(self, guild: str, channel: str) -> bool:
        """Whether the bot may read the history of a channel or thread; also where nothing is known of it."""
        there = self.get_guild(int(guild))
        found = there.get_channel_or_thread(int(channel)) if there else None
        if there is None or found is None:
            return True
        permissions = found.permissions_for(there.me)
        return permissions.view_channel and permissions.read_message_history

    async def on_disconnect(self) -> None:
        self._dispatches.deafen()
        self._never_came = self.ws is None  # of which discord.py does not get over, once it has waited

    async def before_identify_hook(self, _shard_id: int | None, *, initial: bool = False) -> None:
        if initial:
            return
        if self._patience.is_short:
            raise RuntimeError("No session lasts.")  # of the kinds of errors after which discord.py does not go on by itself
        await self._patience.wait(self._rules.identify_seconds)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _say_why(error: Exception) -> None:
    match error:
        case discord.ConnectionClosed() if error.code in _CLOSED:
            _log.error("discord.refused", reason=error.code, sentence=_CLOSED[error.code])
        case discord.LoginFailure():
            _log.error("discord.refused", sentence=str(surface_error(error)))
        case discord.DiscordException() | OSError() | TimeoutError():
            _log.warning("discord.disconnected", **place_of(error))
        case _:
            _log.error("discord.disconnected", **place_of(error))
