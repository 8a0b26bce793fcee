"""One Discord bot, served: signed in, listened to, and held for as long as this process may."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from bots.account import hold
from bots.commands import Commands
from bots.discord import access
from bots.discord.client import Client, quieten, set_endpoints
from bots.discord.config import SOURCE, DiscordConfig
from bots.discord.gateway import Gateway, GatewayRules
from bots.discord.listening import Listening
from bots.discord.surface import DiscordSurface
from bots.intake import Intake
from bots.people import People
from bots.policy import Policy
from bots.services import Services
from bots.signing_in import signed_in, supervised
from bots.taking import Taking

_log = structlog.get_logger()


@asynccontextmanager
async def running(services: Services, config: DiscordConfig, rules: GatewayRules | None = None) -> AsyncIterator[None]:
    """Serves the bot while the block runs, also where Discord cannot be reached when it begins."""

    async def serve() -> None:
        async with Client(config) as client:
            await _serve(services, config, client, rules or GatewayRules())

    quieten()
    set_endpoints(config)
    async with supervised(SOURCE, serve):
        yield


async def _serve(services: Services, config: DiscordConfig, client: Client, rules: GatewayRules) -> None:
    who = await signed_in(SOURCE, lambda: access.signed_in(client))
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
            commands=Commands(services, surface, people, policy),
            intake=Intake(services, surface, Taking(services, surface, people, policy)),
            tasks=tasks,
        )
        tasks.create_task(hold(services, surface, Gateway(listening, rules), policy), name="discord.account")
        _log.info("discord.serving", bot_user_id=who.bot_user_id)
