"""One Slack workspace, served: signed in to, listened to, and held for as long as this process may."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from slack_sdk.web.async_client import AsyncWebClient

from bots.account import hold
from bots.commands import Commands
from bots.intake import Intake
from bots.people import People
from bots.policy import Policy
from bots.services import Services
from bots.signing_in import signed_in, supervised
from bots.slack import access
from bots.slack.app import Endpoint, Listening, listen_by_socket, quieten, slack_app
from bots.slack.config import SOURCE, SlackConfig
from bots.slack.surface import SlackSurface
from bots.surface import AccountClosed
from bots.taking import Taking

_log = structlog.get_logger()


@asynccontextmanager
async def running(services: Services, config: SlackConfig) -> AsyncIterator[Endpoint | None]:
    """Serves the workspace while the block runs, also where Slack cannot be reached when it begins.

    Gives the ASGI application for the Request URL; None in Socket Mode.
    """

    async def serve() -> None:
        async with access.web_client(config) as client:
            await _serve(services, config, client, endpoint)

    quieten()
    endpoint = None if config.app_token else Endpoint(config.signing_secret)
    async with supervised(SOURCE, serve):
        yield endpoint


async def _serve(services: Services, config: SlackConfig, client: AsyncWebClient, endpoint: Endpoint | None) -> None:
    who = await signed_in(SOURCE, lambda: _sign_in(config, client))
    surface = SlackSurface(config, client, who)
    policy = Policy(channels=config.channels, users=config.users, guests=config.guests, channel_rules=config.channel_rules)
    people = People(services, surface, policy)
    intake = Intake(services, surface, Taking(services, surface, people, policy))
    async with asyncio.TaskGroup() as tasks:
        listening = Listening(
            services=services,
            surface=surface,
            who=who,
            policy=policy,
            people=people,
            commands=Commands(services, surface, people, policy),
            intake=intake,
            tasks=tasks,
        )
        app = slack_app(listening)
        if endpoint:
            endpoint.serve(app)
        else:
            tasks.create_task(listen_by_socket(app, client, config.app_token), name="slack.socket")
        tasks.create_task(hold(services, surface, intake, policy), name="slack.account")
        _log.info("slack.serving", team_id=who.team_id)


async def _sign_in(config: SlackConfig, client: AsyncWebClient) -> access.SignedIn:
    """Whose workspace it is."""
    who = await access.signed_in(client)
    if config.app_token:
        await access.check_app_token(client, config.app_token)
    if config.workspaces and who.team_id not in config.workspaces:
        raise AccountClosed(f"The workspace {who.team_id} is not among slack.workspaces.", reason="workspace_not_allowed")
    return who
