"""How far each channel of one bot's was heard: by the ids of messages, which grow with time.

What has no cursor of its own was heard as far as its guild, whose cursor moves with what is told live there, and by nothing else: neither
with other guilds nor while it is being caught up. So it survives a restart, and whoever catches a guild up begins where it was heard last.
"""

from collections.abc import Mapping

from core.models import Account
from core.ports import Storage

_MINUTE = 60_000 << 22
"""As a difference of ids. By so much at most one channel's message may be told after another one's that is younger."""


class Cursors:
    def __init__(self, storage: Storage, account: Account) -> None:
        self._storage = storage
        self._account = account
        self._heard: dict[str, int] = {}
        self._unwritten: set[str] = set()

    def of(self, guild: str, channel: str) -> int:
        """Of a channel or thread, by its id; 0 where nothing is known."""
        return self._heard.get(channel) or self.of_guild(guild)

    def of_guild(self, guild: str) -> int:
        return self._heard.get(_name(guild), 0)

    def begin(self, guild: str) -> bool:
        """Makes sure that this guild has a cursor: a new one was heard as far as anything. False where nothing ever was."""
        if _name(guild) not in self._heard and self._heard:
            self.advance(_name(guild), max(self._heard.values()) - _MINUTE)
        return _name(guild) in self._heard

    def begin_at(self, guild: str, newest: int) -> None:
        """Nothing was ever heard: what is said from now on counts."""
        self.advance(_name(guild), newest)

    def pin(self, guild: str, channel: str) -> None:
        """From now on what else is heard of the guild does not move where this channel begins."""
        if guild:
            self.advance(channel, self.of(guild, channel))

    def advance(self, channel: str, heard: int) -> None:
        if heard > self._heard.get(channel, 0):
            self._heard[channel] = heard
            self._unwritten.add(channel)

    def advance_guild(self, guild: str, heard: int) -> None:
        """This was told live, and everything before it."""
        if guild:
            self.advance(_name(guild), heard - _MINUTE)

    async def read(self) -> None:
        async with self._storage.read() as uow:
            self._heard = await uow.cursors.all(self._account)

    async def write(self) -> None:
        """All that moved, at once: a guild's never without those that were pinned before it moved."""
        if not self._unwritten:
            return
        heard: Mapping[str, int] = {channel: self._heard[channel] for channel in self._unwritten}
        async with self._storage.write() as uow:
            await uow.cursors.advance(self._account, heard)
        self._unwritten -= {channel for channel, message_id in heard.items() if self._heard[channel] == message_id}


def _name(guild: str) -> str:
    """Old guilds have a channel of the same id."""
    return f"guild:{guild}"
