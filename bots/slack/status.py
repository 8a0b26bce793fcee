"""Slack's line below a thread that says what the agent does: as an agent's session, or where the app may not, as an assistant's status."""

from collections.abc import Awaitable, Callable

import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.failures import code, surface_error
from bots.surface import AccountClosed, Busy, Unclear, Unreachable
from core.models import AgentStatus, Place
from core.text import clip

_log = structlog.get_logger()
Means = Callable[[Place, AgentStatus, str], Awaitable[None]]
_UNABLE = frozenset(
    {
        "not_authorized",
        "unknown_method",
        "missing_scope",
        "method_deprecated",
        "feature_disabled",
        "feature_not_enabled",
        "not_allowed_token_type",
        "no_permission",
        "access_denied",
    }
)
_SESSION = {
    AgentStatus.IDLE: "active",
    AgentStatus.THINKING: "processing",
    AgentStatus.EXECUTING: "processing",
    AgentStatus.WAITING_FOR_USER: "suspended",
    AgentStatus.ERROR: "active",
}


class SessionStatus:
    """What the workspace lets the app use is found out once, by trying."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client
        self._means: list[Means] = [self._as_session, self._as_assistant]

    async def show(self, place: Place, status: AgentStatus, sentence: str) -> None:
        """Raises what an API call raises, where it may pass. A place that takes no status shows none."""
        while place.thread and self._means:
            means = self._means[0]
            try:
                await means(place, status, sentence)
                return
            except SlackApiError as error:
                if code(error) not in _UNABLE:
                    _raise_if_it_matters(error)
                    return
                self._give_up(means, code(error))

    def _give_up(self, means: Means, reason: str) -> None:
        if means in self._means:  # two places may find it out at once
            self._means.remove(means)
            _log.info("slack.status_unavailable", reason=reason, others=len(self._means))

    async def _as_session(self, place: Place, status: AgentStatus, sentence: str) -> None:
        await self._client.agents_sessions_setStatus(channel_id=place.channel, thread_ts=place.thread, status=_SESSION[status])

    async def _as_assistant(self, place: Place, status: AgentStatus, sentence: str) -> None:
        shown = "" if _SESSION[status] == "active" else clip(sentence, 100) or f"is {status.style.label.lower()}…"
        await self._client.assistant_threads_setStatus(channel_id=place.channel, thread_ts=place.thread, status=shown)


def _raise_if_it_matters(error: SlackApiError) -> None:
    if isinstance(surface_error(error), Busy | Unclear | Unreachable | AccountClosed):
        raise error
