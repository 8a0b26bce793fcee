"""The chat platforms that `onethread serve` is on: each whose token is set."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bots.services import Services
from bots.slack.config import PATH
from onethread.bootstrap import App
from onethread.settings import discord_config, people_map, slack_config

Endpoint = Callable[..., Any]
"""An ASGI application."""


@asynccontextmanager
async def serving(app: App, url: str) -> AsyncIterator[Mapping[str, Endpoint]]:
    """Serves them while the block runs; gives what they need to be reached by, under its path. `url` is the web surface's.

    Raises InvalidInput where a platform's settings cannot work.
    """
    services = _services(app, url)
    endpoints: dict[str, Endpoint] = {}
    async with AsyncExitStack() as surfaces:
        if config := slack_config(app.settings):
            from bots.slack import serving as slack  # its libraries are loaded only where they are used

            if endpoint := await surfaces.enter_async_context(slack.running(services, config)):
                endpoints[PATH] = endpoint
        if discord := discord_config(app.settings):
            from bots.discord import serving as discord_serving

            await surfaces.enter_async_context(discord_serving.running(services, discord))
        yield endpoints


def _services(app: App, url: str) -> Services:
    return Services(
        storage=app.storage,
        live=app.live,
        clock=app.clock,
        posting=app.rules,
        process_id=app.process_id,
        url=url,
        people_map=people_map(app.settings),
        models=app.models,
    )
