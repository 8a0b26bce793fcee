"""The gateway: sessions that outlive their connections, several at once, and everything that may go wrong with them."""

import asyncio
import importlib
import json
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import WSMsgType, web

from tests.emulators.discord import shapes
from tests.emulators.discord.state import Intents, World

JSON = dict[str, Any]
DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, VOICE, RESUME, RECONNECT, MEMBERS, INVALID, HELLO, ACK = 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11
UNKNOWN_OPCODE, DECODE_ERROR, NOT_AUTHENTICATED, WRONG_TOKEN, ALREADY, INVALID_SEQ, INVALID_INTENTS, DISALLOWED = (
    *range(4001, 4006),
    4007,
    4013,
    4014,
)
_KNOWN_INTENTS = sum(1 << bit for bit in (*range(17), 20, 21, 24, 25))
_PRIVILEGED = ((1 << 1, 1 << 14 | 1 << 15), (1 << 8, 1 << 12 | 1 << 13), (Intents.MESSAGE_CONTENT, 1 << 18 | 1 << 19))
"""An intent, and the application's flags that allow it."""
_REPLAYED = 1000


@dataclass(slots=True, eq=False)
class Session:
    id: str
    intents: int
    seq: int = 0
    sent: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=_REPLAYED))
    """Number and text of each event."""
    connection: "Connection | None" = None


@dataclass(slots=True, eq=False)
class Connection:
    """One socket. What is to be sent waits in `queue`, for dispatching is synchronous."""

    socket: web.WebSocketResponse
    request: web.Request
    compress: Callable[[bytes], bytes] | None
    queue: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    session: Session | None = None

    def send(self, op: int, data: object = None) -> None:
        """What is no event."""
        self.queue.put_nowait(json.dumps({"op": op, "d": data, "s": None, "t": None}))

    async def write(self) -> None:
        """Sends what waits, until it is told to stop (None)."""
        while (text := await self.queue.get()) is not None:
            try:
                if self.compress:
                    await self.socket.send_bytes(self.compress(text.encode()))
                else:
                    await self.socket.send_str(text)
            except ConnectionError:
                return

    def cut(self) -> None:
        """As if the network had failed."""
        if self.session:
            self.session.connection = None
        if self.request.transport:
            self.request.transport.abort()


@dataclass(slots=True, eq=False)
class Gateway:
    world: World
    can_resume: bool = True
    silent: bool = False
    identifies: int = 0
    resumes: int = 0
    refusals: int = 0
    """How many more connections are refused."""
    lost: bool = False
    """Whether events are lost, as where the platform itself fails."""
    held: list[tuple[str, JSON, int, JSON | None]] | None = None
    sessions: dict[str, Session] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    _ids: int = 0

    # --- events ---

    def dispatch(self, kind: str, data: JSON, *, intents: int = 0, stripped: JSON | None = None) -> None:
        """To every session that asked for one of `intents` (0: to all); `stripped` to those without the intent for contents."""
        if self.lost:
            return
        if self.held is not None:
            self.held.append((kind, data, intents, stripped))
            return
        for session in self.sessions.values():
            if intents and not session.intents & intents:
                continue
            may_read = session.intents & Intents.MESSAGE_CONTENT
            self._send(session, kind, data if may_read or stripped is None else stripped)

    def hold(self) -> None:
        self.held = self.held if self.held is not None else []

    def release(self, order: Literal["as held", "reversed"] = "as held") -> None:
        held, self.held = self.held or [], None
        for kind, data, intents, stripped in held if order == "as held" else reversed(held):
            self.dispatch(kind, data, intents=intents, stripped=stripped)

    def replay(self, count: int) -> None:
        """The last events once more, under their old numbers."""
        for session in self.sessions.values():
            for _, text in list(session.sent)[-count:]:
                self._to(session, text)

    def broadcast(self, op: int, data: object = None) -> None:
        for connection in self.connections:
            connection.send(op, data)

    def invalidate(self, *, resumable: bool = False) -> None:
        if not resumable:
            self.sessions.clear()
        self.broadcast(INVALID, resumable)

    @property
    def ready(self) -> bool:
        return any(session.connection for session in self.sessions.values())

    def _send(self, session: Session, kind: str, data: JSON) -> None:
        session.seq += 1
        text = json.dumps({"op": DISPATCH, "t": kind, "s": session.seq, "d": data})
        if kind not in ("READY", "RESUMED"):
            session.sent.append((session.seq, text))
        self._to(session, text)

    def _to(self, session: Session, text: str) -> None:
        if session.connection:
            session.connection.queue.put_nowait(text)

    # --- connections ---

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=503)
        socket = web.WebSocketResponse(max_msg_size=2**20)
        await socket.prepare(request)
        connection = Connection(socket, request, _compressor(request.query.get("compress", "")))
        self.connections.append(connection)
        writer = asyncio.create_task(connection.write(), name="discord-gateway-writer")
        connection.send(HELLO, {"heartbeat_interval": round(self.world.heartbeat_seconds * 1000), "_trace": []})
        try:
            await self._read(connection)
        finally:
            self._gone(connection)
            connection.queue.put_nowait(None)
            await writer
            self.world.touch()
        return socket

    async def _read(self, connection: Connection) -> None:
        async for message in connection.socket:
            if message.type is not WSMsgType.TEXT:
                break
            try:
                payload = json.loads(message.data)
            except ValueError:
                await connection.socket.close(code=DECODE_ERROR)
                return
            code = self._receive(connection, payload)
            self.world.touch()
            if code:
                await connection.socket.close(code=code)
                return

    def _receive(self, connection: Connection, payload: JSON) -> int:
        """The code to close with; 0: go on."""
        op, data = payload.get("op"), payload.get("d")
        if op == HEARTBEAT:
            if not self.silent:
                connection.send(ACK)
            return 0
        if op == IDENTIFY:
            return ALREADY if connection.session else self._identify(connection, data or {})
        if op == RESUME:
            return ALREADY if connection.session else self._resume(connection, data or {})
        if op not in (PRESENCE, VOICE, MEMBERS):
            return UNKNOWN_OPCODE
        if connection.session is None:
            return NOT_AUTHENTICATED
        if op == MEMBERS and data:
            self._members(connection.session, data)
        return 0

    def _identify(self, connection: Connection, data: JSON) -> int:
        self.identifies += 1
        if data.get("token") != self.world.token:
            return WRONG_TOKEN
        intents = data.get("intents")
        if not isinstance(intents, int) or intents & ~_KNOWN_INTENTS:
            return INVALID_INTENTS
        if any(intents & intent and not self.world.application.flags & flags for intent, flags in _PRIVILEGED):
            return DISALLOWED
        self._ids += 1
        session = connection.session = Session(f"session-{self._ids}", intents, connection=connection)
        guilds = [guild for guild in self.world.guilds.values() if self.world.bot.id in guild.members]
        self._send(session, "READY", self._ready(session, [guild.id for guild in guilds]))
        for guild in guilds if intents & Intents.GUILDS else ():
            if guild.available:
                self._send(session, "GUILD_CREATE", shapes.guild_create(self.world, guild))
        self.sessions[session.id] = session
        return 0

    def _ready(self, session: Session, guilds: list[str]) -> JSON:
        return {
            "v": 10,
            "user_settings": {},
            "user": shapes.own_user(self.world),
            "session_type": "normal",
            "session_id": session.id,
            "resume_gateway_url": self.world.root.replace("http", "ws", 1) + "/gateway",
            "relationships": [],
            "private_channels": [],
            "presences": [],
            "guilds": [{"id": guild, "unavailable": True} for guild in guilds],
            "guild_join_requests": [],
            "geo_ordered_rtc_regions": [],
            "auth": {},
            "application": {"id": self.world.application.id, "flags": self.world.application.flags},
            "_trace": [],
        }

    def _resume(self, connection: Connection, data: JSON) -> int:
        self.resumes += 1
        if data.get("token") != self.world.token:
            return WRONG_TOKEN
        session = self.sessions.get(str(data.get("session_id")))
        seq = data.get("seq")
        if not self.can_resume or self.world.other_server or session is None or not isinstance(seq, int):
            self.sessions.pop(str(data.get("session_id")), None)
            connection.send(INVALID, False)
            return 0
        if seq > session.seq:
            return INVALID_SEQ
        if session.connection:
            old, session.connection = session.connection, None
            old.cut()
            old.session = None
        connection.session, session.connection = session, connection
        for _, text in [one for one in session.sent if one[0] > seq]:
            self._to(session, text)
        self._send(session, "RESUMED", {"_trace": []})
        return 0

    def _members(self, session: Session, data: JSON) -> None:
        guild = self.world.guilds.get(str(data.get("guild_id")))
        if guild is None:
            return
        wanted = data.get("user_ids") or []
        found = [one for one in guild.members.values() if not wanted or one.user.id in map(str, wanted)]
        chunk = {"guild_id": guild.id, "members": [shapes.member(self.world, one) for one in found], "chunk_index": 0, "chunk_count": 1}
        self._send(session, "GUILD_MEMBERS_CHUNK", {**chunk, **({"nonce": data["nonce"]} if "nonce" in data else {})})

    def _gone(self, connection: Connection) -> None:
        self.connections.remove(connection)
        session = connection.session
        if session and session.connection is connection:
            session.connection = None
            if connection.socket.close_code in (1000, 1001):
                self.sessions.pop(session.id, None)


def _compressor(wanted: str) -> Callable[[bytes], bytes] | None:
    """One for a whole connection: its state is shared by all messages."""
    if wanted == "zlib-stream":
        deflate = zlib.compressobj()
        return lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
    if wanted == "zstd-stream":
        return _zstd()
    return None


def _zstd() -> Callable[[bytes], bytes]:
    """Asked for by a client that has it itself, in the same process."""
    try:
        zstd = importlib.import_module("compression.zstd")  # Python 3.14
    except ImportError:
        stream = importlib.import_module("zstandard").ZstdCompressor().compressobj()
        return lambda data: bytes(stream.compress(data) + stream.flush(1))
    compressor = zstd.ZstdCompressor()
    return lambda data: bytes(compressor.compress(data, compressor.FLUSH_BLOCK))
