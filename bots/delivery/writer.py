"""The writer of one place: delivers there, one session after another, until there is nothing to deliver. Whatever breaks, it begins anew
from what is stored, and no other place notices.
"""

import asyncio

import structlog

from bots.delivery import checking
from bots.delivery.outlet import Outlet, heed_cancellation
from bots.delivery.picture import Twin
from bots.delivery.session import Session
from bots.services import Services
from bots.surface import SurfaceError
from core.errors import LeaseLost, StorageUnavailable
from core.logs import place_of
from core.models import Binding, BindingCheck

_log = structlog.get_logger()


class Writer:
    def __init__(self, services: Services, outlet: Outlet, binding: Binding) -> None:
        self.has_begun = asyncio.Event()
        """Set when it has read what it looks after, or never will."""
        self.is_over = False
        """Whether nothing will be delivered there any more, unless its binding changes."""
        self._services = services
        self._outlet = outlet
        self._rules = outlet.rules
        self._binding = binding
        self._twins: list[Twin] = []
        self._poked = asyncio.Event()
        self._failures = 0
        self._log = _log.bind(binding_id=str(binding.id), conversation_id=str(binding.conversation_id))

    def poke(self) -> None:
        """Something happened in the conversation: a writer that is about to end looks again."""
        self._poked.set()

    async def run(self) -> None:
        """Until nothing is left to be done. Raises LeaseLost."""
        try:
            while True:
                self._poked.clear()
                if await self._attempt() and not self._poked.is_set():
                    return
        finally:
            self.has_begun.set()

    async def _attempt(self) -> bool:
        """False, after a pause, where something broke."""
        try:
            await self._deliver()
        except LeaseLost:
            raise
        except StorageUnavailable as error:
            self._log.warning("delivery.storage_unavailable", reason=str(error))
            await self._pause(self._rules.storage_seconds)
        except SurfaceError as error:
            self._log.info("delivery.place_unknown", error=type(error).__name__)
            await self._pause_longer()
        except Exception as error:  # noqa: BLE001  # a writer's outermost loop: a defect at one place must not concern the others
            self._log.error("delivery.broke", failures=self._failures + 1, **place_of(error))
            await self._pause_longer()
        else:
            return True
        return False

    async def _deliver(self) -> None:
        binding = await self._present()
        if binding and await self._outlet.serves(binding.channel):
            session = Session(self._services, self._outlet, binding, self._twins, has_begun=self.has_begun, poked=self._poked)
            await session.run()
            self._failures, binding = 0, session.binding
        self.is_over = binding is None or not binding.is_delivered_to

    async def _present(self) -> Binding | None:
        """The binding as it is now, checked where it has to be; None where nothing is delivered there."""
        async with self._services.storage.read() as uow:
            binding = await uow.bindings.get(self._binding.id)
        if binding is None or not binding.is_delivered_to or binding.check is BindingCheck.NONE:
            return binding if binding and binding.is_delivered_to else None
        self.has_begun.set()  # others need not wait for the platform
        return await checking.checked(self._services, self._outlet, binding, is_patient=self._failures < self._rules.refusals)

    async def _pause_longer(self) -> None:
        """Longer each time: what fails for good is not tried, and told, all the time."""
        self._failures += 1
        await self._pause(min(self._rules.defect_seconds * 2 ** min(self._failures - 1, 16), self._rules.backoff_limit_seconds))

    async def _pause(self, seconds: float) -> None:
        heed_cancellation()
        self.has_begun.set()
        await asyncio.sleep(seconds)
