"""Who a person on a chat platform is here: known, made a user on first contact, or turned away."""

import asyncio
from datetime import datetime, timedelta

import structlog

from bots.places import hears
from bots.policy import Policy
from bots.services import Services
from bots.surface import ChatSurface, Profile, SurfaceError
from core import bindings, conversations, identity, linking
from core.access import Principal
from core.errors import Conflict, NotAuthenticated
from core.models import ChannelKind, Identity, Place, User
from core.ports import UnitOfWork

NO_PLATFORM = "I could not look up who you are just now. Try again in a moment."
"""What somebody is told who wanted something at once."""
_CHANNEL = "I do not answer in this channel. An admin of Onethread can allow it."
_USER = "I may not talk with you yet. An admin of Onethread can allow it."
_GUEST = "I talk with full members of this workspace only, not with guests, apps or people of other workspaces."
_LOOKED_UP = timedelta(minutes=10)
"""So long somebody counts as what the platform said they are."""
_NOT_ANSWERED = timedelta(seconds=30)
"""So long they do where it did not answer."""
_LOOK_SECONDS = 2.0
"""So long somebody who is known waits for it to answer: a platform that is away keeps nobody out who came before."""
_REMEMBERED = 5_000
_log = structlog.get_logger()


class Stranger(Exception):
    """This person is turned away. The text is the sentence that they are told."""


class People:
    """Of one account."""

    def __init__(self, services: Services, surface: ChatSurface, policy: Policy) -> None:
        self._services = services
        self._surface = surface
        self._policy = policy
        self._let_in_until: dict[str, datetime] = {}

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
            found = await linking.known(uow, self._surface.account, external_id, self._services.people_map)
        if found is None:
            return None
        user, known = found
        if self._let_in_until.get(external_id, self._now()) <= self._now():
            await self._look_again(known)
        return user

    async def _look_again(self, known: Identity) -> None:
        """Raises Stranger for somebody who is no full member any more."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                self._let_in(await self._surface.profile(known.external_id))
        except (SurfaceError, TimeoutError) as error:
            _log.warning("person.not_looked_up", user_id=str(known.user_id), error=type(error).__name__)
            self._remember(known.external_id, _NOT_ANSWERED)
        self._surface.meet(known)  # it may have been another process that met them

    async def _met(self, external_id: str) -> User:
        profile = await self._surface.profile(external_id)
        self._let_in(profile)
        try:
            user, met = await self._meet(external_id, profile.name)
        except Conflict:  # another process met them, or somebody of that name, at the same moment
            user, met = await self._meet(external_id, profile.name)
        self._surface.meet(met)
        _log.info("person.met", user_id=str(user.id), surface=met.surface)
        return user

    async def _meet(self, external_id: str, name: str) -> tuple[User, Identity]:
        async with self._services.storage.write() as uow:
            return await linking.meet(uow, self._surface.account, external_id, name, self._services.people_map)

    def _let_in(self, profile: Profile) -> None:
        if profile.refusal:
            raise Stranger(profile.refusal)
        if not (profile.member or self._policy.guests):
            raise Stranger(_GUEST)
        self._remember(profile.external_id, _LOOKED_UP)

    def _remember(self, external_id: str, how_long: timedelta) -> None:
        self._let_in_until.pop(external_id, None)
        self._let_in_until[external_id] = self._now() + how_long
        if len(self._let_in_until) > _REMEMBERED:
            del self._let_in_until[next(iter(self._let_in_until))]

    def _now(self) -> datetime:
        return self._services.clock.now()


async def enter(uow: UnitOfWork, principal: Principal, place: Place, message: str = "") -> None:
    """Makes a member of somebody who was admitted and acts at a place: who is there reads along in what it shows.

    `message` is the remote one there with which they do it: it may belong to a conversation that has its own place elsewhere. Where
    delivery had ended it goes on: what stands there is brought up to date.
    """
    delivery = await uow.deliveries.at(place, message) if message else None
    binding = await (uow.bindings.get(delivery.binding_id) if delivery else bindings.at(uow, place))
    if binding and hears(binding):
        await bindings.revive(uow, binding)
        await conversations.join(uow, principal, binding.conversation_id)
