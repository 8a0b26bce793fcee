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
from bots.slack.access import SignedIn, check_app_token, signed_in, web_client
from bots.slack.app import Endpoint, Listening, listen_by_socket, quieten, slack_app
from bots.slack.config import SlackConfig
from bots.slack.surface import SlackSurface
from bots.surface import AccountClosed, SurfaceError
from bots.taking import Taking
from core.logs import place_of

_RESTART_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_log = structlog.get_logger()


@asynccontextmanager
async def running(services: Services, config: SlackConfig) -> AsyncIterator[Endpoint | None]:
    """Serves the workspace while the block runs, also where Slack cannot be reached when it begins.

    Gives the ASGI application for the Request URL; None in Socket Mode.
    """
    quieten()
    endpoint = None if config.app_token else Endpoint(config.signing_secret)
    serving = asyncio.create_task(_supervised(services, config, endpoint), name="slack")
    try:
        yield endpoint
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def _supervised(services: Services, config: SlackConfig, endpoint: Endpoint | None) -> None:
    while True:
        try:
            async with web_client(config) as client:
                await _serve(services, config, client, endpoint)
        except Exception as error:  # noqa: BLE001  # the outermost loop: a defect must not end the surface
            _log.error("slack.restarted", **place_of(error))
            await asyncio.sleep(_RESTART_SECONDS)


async def _serve(services: Services, config: SlackConfig, client: AsyncWebClient, endpoint: Endpoint | None) -> None:
    who = await _signed_in(config, client)
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
            commands=Commands(services, surface, people),
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


async def _signed_in(config: SlackConfig, client: AsyncWebClient) -> SignedIn:
    """Whose workspace it is; asks until Slack says so."""
    pause = _RESTART_SECONDS
    while True:
        try:
            who = await signed_in(client)
            if config.app_token:
                await check_app_token(client, config.app_token)
            if not config.workspaces or who.team_id in config.workspaces:
                return who
            _log.error("slack.refused", reason="workspace_not_allowed", team_id=who.team_id)
            pause = _LONGEST_PAUSE_SECONDS
        except AccountClosed as error:
            _log.error("slack.refused", reason=error.reason, sentence=str(error))
            pause = _LONGEST_PAUSE_SECONDS
        except SurfaceError as error:
            _log.warning("slack.unreachable", error=type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
