"""Who a person on a chat platform is here: known, made a user on first contact, or turned away."""

import structlog

from bots.policy import Policy
from bots.services import Services
from bots.surface import ChannelKind, ChatSurface
from core import identity
from core.access import Principal
from core.errors import Conflict, NotAuthenticated
from core.models import Identity, User

_log = structlog.get_logger()
NO_DATABASE = "Onethread cannot reach its database just now. Try again in a moment."
"""What somebody is told who wanted something at once."""
_CHANNEL = "I do not answer in this channel. An admin of Onethread can allow it."
_USER = "I may not talk with you yet. An admin of Onethread can allow it."
_GUEST = "I talk with full members of this workspace only, and you are here as a guest."


class Stranger(Exception):
    """This person is turned away. The text is the sentence that they are told."""


class People:
    """Of one account."""

    def __init__(self, services: Services, surface: ChatSurface, policy: Policy) -> None:
        self._services = services
        self._surface = surface
        self._policy = policy

    async def admit(self, external_id: str, channel: str) -> Principal:
        """As whom somebody acts who does something in this channel. Raises Stranger, and SurfaceError where the platform must be asked."""
        if self._policy.users and external_id not in self._policy.users:
            raise Stranger(_USER)
        if self._policy.channels and channel not in self._policy.channels and await self._surface.kind(channel) is not ChannelKind.DIRECT:
            raise Stranger(_CHANNEL)
        try:
            return identity.principal_of(await self._known(external_id) or await self._met(external_id))
        except NotAuthenticated as error:
            raise Stranger(str(error)) from None

    async def _known(self, external_id: str) -> User | None:
        async with self._services.storage.read() as uow:
            return await identity.of_account(uow, self._surface.account, external_id)

    async def _met(self, external_id: str) -> User:
        profile = await self._surface.profile(external_id)
        if not (profile.member or self._policy.guests):
            raise Stranger(_GUEST)
        try:
            user, met = await self._meet(external_id, profile.name)
        except Conflict:
            user, met = await self._meet(
                external_id, profile.name
            )  # another process met them, or somebody of that name, at the same moment
        self._surface.meet(met)
        _log.info("person.met", user_id=str(user.id), surface=met.surface)
        return user

    async def _meet(self, external_id: str, name: str) -> tuple[User, Identity]:
        async with self._services.storage.write() as uow:
            return await identity.meet(uow, self._surface.account, external_id, name)
