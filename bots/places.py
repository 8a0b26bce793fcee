"""Which conversation is shown where, for one account: looked up by the place, or by a message that stands there."""

from bots.policy import Policy
from bots.services import Services
from bots.surface import ChatSurface, Event, Promoted, Said
from core import bindings, conversations
from core.models import TO_ARRANGE, Binding, BindingCheck, BindingMode, ChannelKind, DeliveryState, Place
from core.ports import UnitOfWork


class Places:
    def __init__(self, services: Services, surface: ChatSurface, policy: Policy) -> None:
        self._services = services
        self._surface = surface
        self._policy = policy

    def place(self, channel: str, thread: str) -> Place:
        return Place(account=self._surface.account, channel=channel, thread=thread)

    def of(self, told: Event) -> Place:
        """Where it happened."""
        about = told.said if isinstance(told, Promoted) else told
        return self.place(about.channel, about.thread)

    def below(self, said: Said) -> Place:
        """Its thread, or the one that there is on it or may be made."""
        return self.place(said.channel, said.thread or said.remote_id)

    def is_chat_channel(self, place: Place) -> bool:
        return not place.thread and self._policy.rules(place.channel).mode == "chat"

    def is_chat(self, place: Place, kind: ChannelKind) -> bool:
        """Whether it is a conversation by itself: a direct message, a thread in one, or a channel that is set so."""
        return kind is ChannelKind.DIRECT or self.is_chat_channel(place)

    def is_free(self, place: Place, binding: Binding | None, kind: ChannelKind) -> bool:
        """Whether what is said there begins something: it shows nothing, or is a chat whose conversation was unfollowed."""
        return binding is None or (binding.mode is BindingMode.OFF and self.is_chat(place, kind))

    async def look(self, place: Place) -> Binding | None:
        """What a place shows, as `shown` has it."""
        async with self._services.storage.read() as uow:
            return await self.shown(uow, place)

    async def shown(self, uow: UnitOfWork, place: Place) -> Binding | None:
        """What a place shows, or did; also where its thread stands on a message of ours, and delivery has not noted yet that it is open."""
        if (binding := await _at(uow, place)) or not place.thread:
            return binding
        root = await uow.deliveries.at(place, place.thread)
        is_ours = root is not None and root.state is not DeliveryState.THEIRS
        binding = await uow.bindings.get(root.binding_id) if root and is_ours else None
        return None if binding is None or binding.opened else binding

    async def entered(self, uow: UnitOfWork, place: Place) -> Binding | None:
        """What it shows, for somebody who acts there: then its thread is there, whether delivery noted that or not."""
        binding = await self.shown(uow, place)
        if binding is None or binding.opened:
            return binding
        await conversations.hold(uow, binding.conversation_id)
        return await uow.bindings.open(binding.id, place.thread, TO_ARRANGE if self._surface.makes_threads else "")

    async def answered(self, said: Said) -> Place | None:
        """The place of the conversation to which a message at the channel's top replies."""
        return None if said.thread else await self.of_message(said.channel, said.answers)

    async def of_message(self, channel: str, remote_id: str) -> Place | None:
        """The place of the conversation that this message at the channel's top belongs to: its thread is elsewhere, or not made yet."""
        if not remote_id:
            return None
        async with self._services.storage.read() as uow:
            delivery = await uow.deliveries.at(self.place(channel, ""), remote_id)
            binding = await uow.bindings.get(delivery.binding_id) if delivery and not delivery.thread else None
            binding = binding or await _at(uow, self.place(channel, remote_id))
        return self.place(channel, binding.thread) if binding else None


def hears(binding: Binding) -> bool:
    """Whether what people say at its place comes in; also where delivery had ended, which goes on then."""
    return binding.mode is BindingMode.TWO_WAY and binding.check is BindingCheck.NONE


async def _at(uow: UnitOfWork, place: Place) -> Binding | None:
    """None, too, where something was to be shown and the place was found unfit for it."""
    binding = await bindings.at(uow, place)
    return None if binding and binding.ended and binding.check is not BindingCheck.NONE else binding
