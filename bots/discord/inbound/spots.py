"""Which channel of Discord's is what: a channel, a thread of one, or a direct message; and by which roles a guild calls the bot."""

from collections import OrderedDict
from collections.abc import Collection, Iterable

from bots.discord.client import Client
from bots.discord.events import Spot, spot_of
from bots.discord.failures import translated
from core.models import JSON

_REMEMBERED = 50_000


class Spots:
    def __init__(self, client: Client, bot_user_id: str) -> None:
        self._client = client
        self._bot = bot_user_id
        self._known: OrderedDict[str, Spot] = OrderedDict()
        self._roles: dict[str, frozenset[str]] = {}

    def learn(self, channels: Iterable[JSON], guild: str) -> None:
        """From channels and threads as Discord describes them."""
        for channel in channels:
            spot = spot_of(channel, guild)
            self._known[spot.id] = spot
            self._known.move_to_end(spot.id)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def learn_roles(self, roles: Iterable[JSON], guild: str) -> None:
        """The bot's own is given with its tags."""
        self._roles[guild] = frozenset(str(role["id"]) for role in roles if (role.get("tags") or {}).get("bot_id") == self._bot)

    def roles(self, guild: str) -> Collection[str]:
        return self._roles.get(guild, frozenset())

    def at(self, channel: str, guild: str) -> Spot | None:
        """None for what is not known yet."""
        return self._known.get(channel) if guild else Spot(guild="", channel=channel)

    def knows(self, channel: str) -> bool:
        """Whether it is a guild's."""
        return channel in self._known

    async def find(self, channel: str) -> Spot:
        """Asks Discord where nothing is known; raises a SurfaceError."""
        if known := self._known.get(channel):
            return known
        found = await self.ask(channel)
        spot = spot_of(found, "")
        if spot.guild:
            self.learn([found], spot.guild)
        return spot

    async def ask(self, channel: str) -> JSON:
        """As Discord describes it now; raises a SurfaceError."""
        with translated():
            return {**await self._client.http.get_channel(int(channel))}
