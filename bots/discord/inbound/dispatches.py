"""What the gateway tells, by the names of its events: who hears it, and in which order.

It is taken as Discord sends it, before discord.py makes anything of it: at once, so that order is kept, and whatever stands in it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog

from bots.discord.inbound.catch_up import CatchUp, MayRead
from bots.discord.inbound.ingest import Ingest, Told
from bots.discord.inbound.spots import Spots
from bots.discord.listening import Listening
from core.logs import place_of
from core.models import JSON

_PERMISSIONS = frozenset({"CHANNEL_UPDATE", "GUILD_UPDATE", "GUILD_ROLE_CREATE", "GUILD_ROLE_UPDATE", "GUILD_ROLE_DELETE"})
"""By these somebody may read along who could not before, or cannot any more."""
Parse = Callable[[Any], None]
_log = structlog.get_logger()


class Dispatches:
    """Of one account, on whichever connection."""

    def __init__(self, listening: Listening, ingest: Ingest, spots: Spots, catch_up: CatchUp) -> None:
        self._listening = listening
        self._ingest = ingest
        self._spots = spots
        self._catch_up = catch_up
        self._guilds: set[str] = set()
        """Those that the bot is in."""
        self._away: set[str] = set()
        """Those among them of which nothing is told: a session begins so, and later Discord has an outage there."""
        self._may_read: MayRead = _unknown
        self.hears = False
        """Whether there is a session: whatever happens now is told."""

    def deafen(self) -> None:
        """The connection is interrupted."""
        self.hears = False

    def listening_before(self, parsers: Mapping[str, Parse], may_read: MayRead) -> dict[str, Parse]:
        """discord.py's parsers, each behind what is heard here; of messages alone that. `may_read` is its client's.

        What they cannot read does not end the connection over it, as it would by itself: nobody would notice.
        """
        self._may_read = may_read
        heard: dict[str, Parse] = {
            "READY": self._ready,
            "RESUMED": self._resumed,
            "GUILD_CREATE": self._guild_is_there,
            "GUILD_DELETE": self._guild_is_away,
            "CHANNEL_CREATE": self._channel_is_there,
            "CHANNEL_UPDATE": self._channel_is_there,
            "THREAD_CREATE": self._channel_is_there,
            "THREAD_UPDATE": self._channel_is_there,
            "THREAD_LIST_SYNC": self._threads_are_there,
        }
        messages: dict[str, Parse] = {
            "MESSAGE_CREATE": self._said,
            "MESSAGE_UPDATE": self._edited,
            "MESSAGE_DELETE": self._deleted,
            "MESSAGE_DELETE_BULK": self._all_deleted,
        }
        both = {name: [heard[name], parse] if name in heard else [parse] for name, parse in parsers.items()}
        for name in _PERMISSIONS & both.keys():
            both[name].insert(0, self._permissions_are_others)
        parsed = {name: _safely(name, *steps) for name, steps in {**both, **{name: [parse] for name, parse in messages.items()}}.items()}
        return {**parsed, "READY": _both(self._ready, parsers["READY"])}  # without which no session is one

    # --- sessions ---

    def _ready(self, data: JSON) -> None:
        self._guilds = {str(guild["id"]) for guild in data["guilds"]}
        self._away = set(self._guilds)
        self._begin(anew=True)

    def _resumed(self, _data: JSON) -> None:
        self._begin(anew=False)

    def _begin(self, *, anew: bool) -> None:
        self.hears = True
        self._listening.surface.forget_kinds()
        _log.info("discord.connected", guilds=len(self._guilds), resumed=not anew)
        self._catch_up.begin(["", *sorted(self._guilds)], self._may_read, anew=anew)

    # --- places ---

    def _guild_is_there(self, data: JSON) -> None:
        guild = str(data["id"])
        if data.get("unavailable"):
            return
        self._spots.learn([*data.get("channels", ()), *data.get("threads", ())], guild)
        self._spots.learn_roles(data.get("roles", ()), guild)
        self._listening.surface.learn(guild, data.get("channels", ()), data.get("roles", ()))
        is_new, was_away = guild not in self._guilds, guild in self._away
        self._guilds.add(guild)
        self._away.discard(guild)
        if is_new or (was_away and self._catch_up.has_looked(guild)):
            self._catch_up.begin([guild], self._may_read, anew=True)

    def _guild_is_away(self, data: JSON) -> None:
        guild = str(data["id"])
        if data.get("unavailable"):
            self._away.add(guild)
        else:
            self._guilds.discard(guild)

    def _channel_is_there(self, data: JSON) -> None:
        if guild := str(data.get("guild_id") or ""):
            self._spots.learn([data], guild)
            self._listening.surface.learn(guild, [data])

    def _threads_are_there(self, data: JSON) -> None:
        self._spots.learn(data.get("threads", ()), str(data["guild_id"]))

    def _permissions_are_others(self, _data: JSON) -> None:
        self._listening.surface.forget_kinds()

    # --- messages ---

    def _said(self, data: JSON) -> None:
        if data["author"]["id"] == self._listening.who.bot_user_id and data.get("nonce") is not None:
            self._listening.surface.heard(str(data["nonce"]), str(data["id"]))
        if data.get("guild_id") and data.get("member"):
            self._listening.surface.met(str(data["author"]["id"]), str(data["guild_id"]), {**data["member"], "user": data["author"]})
        self._hear("said", data, data)

    def _edited(self, data: JSON) -> None:
        if data.get("edited_timestamp"):  # otherwise a link was unfolded, or a thread was made on it
            self._hear("edited", data, data)

    def _deleted(self, data: JSON) -> None:
        self._hear("deleted", data, {"id": data["id"]})

    def _all_deleted(self, data: JSON) -> None:
        for message_id in sorted(data["ids"], key=int):
            self._hear("deleted", data, {"id": message_id})

    def _hear(self, kind: Literal["said", "edited", "deleted"], data: JSON, message: JSON) -> None:
        self._ingest.hear(Told(kind=kind, guild=str(data.get("guild_id") or ""), channel=str(data["channel_id"]), message=message))


def _unknown(_guild: str, _channel: str) -> bool:
    return True


def _both(ours: Parse, theirs: Parse) -> Parse:
    def parse(data: Any) -> None:
        ours(data)
        theirs(data)

    return parse


def _safely(name: str, *steps: Parse) -> Parse:
    def parse(data: Any) -> None:
        for step in steps:
            try:
                step(data)
            except Exception as error:  # noqa: BLE001  # Discord adds to its events, and discord.py trusts in what it knows
                _log.error("discord.event_not_read", event_name=name, **place_of(error))

    return parse
