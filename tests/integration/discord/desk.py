"""A bot that people ask by commands, menus and buttons alone: nothing that they say is heard, and nothing is delivered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import discord as discord_py

from bots.commands import Commands
from bots.discord.access import signed_in
from bots.discord.client import Client, set_endpoints
from bots.discord.command_tree import Tree
from bots.discord.interactions import InteractionRules, Interactions
from bots.discord.listening import Listening
from bots.discord.surface import DiscordSurface
from bots.intake import Intake
from bots.people import People
from bots.policy import Policy
from bots.surface import Action, Button, Part
from bots.taking import Taking
from core.ids import new_id
from core.models import Binding, InboundEvent, Place
from tests.emulators.discord import Answer, DiscordEmulator
from tests.integration.conftest import World
from tests.integration.discord.conftest import config_of, services_of
from tests.integration.office import Interruptible

QUICK = InteractionRules(choice_seconds=0.5, sync_seconds=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    world: World
    discord: DiscordEmulator
    listening: Listening
    interactions: Interactions
    tree: Tree

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Client]:
        """A connection that brings what people ask."""
        config = self.listening.config
        intents = discord_py.Intents(guilds=True, guild_messages=True, dm_messages=True)
        async with Client(config, intents=intents, limiter=self.listening.client.limiter) as client:
            await client.enter()
            self.interactions.attach(client)
            connecting = asyncio.create_task(client.connect(), name="desk")
            try:
                await client.wait_until_ready()
                yield client
            finally:
                connecting.cancel()
                await asyncio.wait({connecting})

    def place(self, channel: str, thread: str = "") -> Place:
        return self.listening.place(channel, thread)

    async def button(self, channel: str, action: Action | str, value: str) -> str:
        """A message of the bot's with this button, which is labelled `Press`."""
        button = Button(action=action, label="Press", value=value)  # type: ignore[arg-type]  # also one that is none
        return await self.listening.surface.post(self.place(channel), Part(text="hello", buttons=(button,)), new_id())

    async def bindings(self) -> list[Binding]:
        account = self.listening.surface.account
        return await self.world.read(lambda uow: uow.bindings.of_account(account))

    async def stored(self) -> list[InboundEvent]:
        """What waits to be taken in."""
        account = self.listening.surface.account
        return await self.world.read(lambda uow: uow.inbound.waiting(account, uow.now, limit=10))

    async def status(self, message_id: UUID | None) -> str:
        return (await self.world.message(message_id)).status

    async def tells(self, answer: Answer, sentence: str) -> None:
        """Waits until a pressed button's answer says this, to the person alone."""
        seen = await answer.until(lambda each: each.followups)
        assert [each["content"] for each in seen.followups] == [sentence]
        assert all(each["flags"] & 64 for each in seen.followups)


@asynccontextmanager
async def desk_of(world: World, discord: DiscordEmulator, **config: Any) -> AsyncIterator[Desk]:
    given, services = config_of(discord, **config), services_of(world, Interruptible(world.app.storage))
    set_endpoints(given)
    policy = Policy(channels=given.channels, users=given.users, channel_rules=given.channel_rules)
    async with Client(given) as client, asyncio.TaskGroup() as tasks:
        who = await signed_in(client)
        surface = DiscordSurface(given, client, who)
        people = People(services, surface, policy)
        listening = Listening(
            services=services,
            client=client,
            surface=surface,
            who=who,
            config=given,
            policy=policy,
            people=people,
            commands=Commands(services, surface, people, policy),
            intake=Intake(services, surface, Taking(services, surface, people, policy)),
            tasks=tasks,
        )
        interactions = Interactions(listening, QUICK)
        tree = interactions.attach(client)
        await interactions.sync(tree)
        yield Desk(world=world, discord=discord, listening=listening, interactions=interactions, tree=tree)
