"""One Discord bot, served: signed in, listened to, and held for as long as this process may."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from bots.account import hold
from bots.commands import Commands
from bots.discord.access import SignedIn, signed_in
from bots.discord.client import Client, quieten, set_endpoints
from bots.discord.config import DiscordConfig
from bots.discord.gateway import Gateway, GatewayRules
from bots.discord.listening import Listening
from bots.discord.surface import DiscordSurface
from bots.intake import Intake
from bots.people import People
from bots.policy import Policy
from bots.services import Services
from bots.surface import AccountClosed, SurfaceError
from bots.taking import Taking
from core.logs import place_of

_RESTART_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_log = structlog.get_logger()


@asynccontextmanager
async def running(services: Services, config: DiscordConfig, rules: GatewayRules | None = None) -> AsyncIterator[None]:
    """Serves the bot while the block runs, also where Discord cannot be reached when it begins."""
    quieten()
    set_endpoints(config)
    serving = asyncio.create_task(_supervised(services, config, rules or GatewayRules()), name="discord")
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def _supervised(services: Services, config: DiscordConfig, rules: GatewayRules) -> None:
    while True:
        try:
            async with Client(config) as client:
                await _serve(services, config, client, rules)
        except Exception as error:  # noqa: BLE001  # the outermost loop: a defect must not end the surface
            _log.error("discord.restarted", **place_of(error))
            await asyncio.sleep(_RESTART_SECONDS)


async def _serve(services: Services, config: DiscordConfig, client: Client, rules: GatewayRules) -> None:
    who = await _signed_in(client)
    surface = DiscordSurface(config, client, who)
    policy = Policy(channels=config.channels, users=config.users, channel_rules=config.channel_rules)
    people = People(services, surface, policy)
    async with asyncio.TaskGroup() as tasks:
        listening = Listening(
            services=services,
            client=client,
            surface=surface,
            who=who,
            config=config,
            policy=policy,
            people=people,
            commands=Commands(services, surface, people),
            intake=Intake(services, surface, Taking(services, surface, people, policy)),
            tasks=tasks,
        )
        tasks.create_task(hold(services, surface, Gateway(listening, rules), policy), name="discord.account")
        _log.info("discord.serving", bot_user_id=who.bot_user_id)


async def _signed_in(client: Client) -> SignedIn:
    """Who the bot is; asks until Discord says so."""
    pause = _RESTART_SECONDS
    while True:
        try:
            return await signed_in(client)
        except AccountClosed as error:
            _log.error("discord.refused", reason=error.reason, sentence=str(error))
            pause = _LONGEST_PAUSE_SECONDS
        except SurfaceError as error:
            _log.warning("discord.unreachable", error=type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
