"""`onethread serve`: one process that holds the web, `/mcp`, a worker and the bots."""

import asyncio
import errno
import hmac
import ipaddress
import os
import secrets
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import structlog
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

import mcp_server.server
from core import identity
from core.access import Principal
from core.errors import InvalidInput, StorageUnavailable
from core.llm.client import load
from core.models import LinkPurpose
from mcp_server import http as mcp_http
from mcp_server.callers import Bearer
from mcp_server.services import Services as McpServices
from onethread import surfaces
from onethread.bootstrap import App, working
from onethread.links import read_place
from onethread.settings import LOCAL_NAMES, Settings, people_map
from web.app import mount, web_app
from web.credentials import of_bearer
from web.frames import MAX_FRAME_BYTES
from web.passwords import Argon2
from web.services import MIN_SECRET, Services, WebRules

SIGN_IN_LIFETIME = timedelta(days=1)
"""Of the link that is printed at the start."""
MAX_UNREAD_BYTES = 256 * 1024
"""Of pongs."""
PING_SECONDS = 20.0
SHUTDOWN_SECONDS = 4
"""How long answers that are on their way may take at the end; then the worker hands back. `docker stop` kills after 10."""
KEEP_ALIVE_SECONDS = 75
"""Longer than a reverse proxy keeps an idle connection: it must not find one closed that it is about to use."""
MAKE_KEY = 'python3 -c "import secrets; print(secrets.token_urlsafe(48))"'
_NO_ADMIN = "Let an admin set a password. This prints the link for it: onethread user link admin, or onethread user add NAME --admin"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the web surface listens. Who connects before the server is up waits."""

    sockets: list[socket.socket]
    url: str
    """What people type to get here, without a slash at its end."""
    hosts: frozenset[str]
    local: bool
    """Whether only this machine comes: it listens on loopback, and no public address leads to it."""


def services_of(app: App, rules: WebRules) -> Services:
    """What the web works with in this process."""
    return Services(
        storage=app.storage,
        live=app.live,
        clock=app.clock,
        posting=app.rules,
        passwords=Argon2(),
        models=app.models,
        rules=rules,
        read_place=read_place,
        people_map=people_map(app.settings),
    )


def mcp_endpoint(app: App, rules: WebRules, stopping: asyncio.Event) -> mcp_http.Endpoint:
    """MCP for whoever has a token or a JWT of the API."""
    services = McpServices(
        storage=app.storage,
        live=app.live,
        posting=app.rules,
        worker_needed=_no_worker,
        stopping=stopping,
    )

    async def opening() -> McpServices:
        return services

    async def authenticate(credential: str) -> Principal:
        async with app.storage.read() as uow:
            return await of_bearer(uow, credential, rules)

    server = mcp_server.server.build(opening, Bearer(), state_keys=[_derived(rules.secret_key, "mcp request state")])
    how = mcp_http.HttpRules(public_url=rules.public_url, hosts=rules.hosts, recheck_seconds=rules.recheck_seconds)
    return mcp_http.Endpoint(server, authenticate=authenticate, rules=how, stopping=stopping)


def _no_worker() -> None:
    """This process has one, or was told to leave answering to others."""


def _derived(key: str, purpose: str) -> str:
    """A key of its own for each purpose, the same in every process."""
    return hmac.digest(key.encode(), purpose.encode(), "sha256").hex()


@contextmanager
def listening(settings: Settings, host: str, port: int) -> Iterator[Door]:
    """Opens the door while the block runs; raises InvalidInput that says why it cannot be opened."""
    addresses = _addresses(host, port)
    sockets = _bound(addresses, host, port)
    on_loopback = all(ipaddress.ip_address(address[4][0].partition("%")[0]).is_loopback for address in addresses)
    port = sockets[0].getsockname()[1]
    url = settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    named = urlsplit(url).hostname or ""
    hosts = {named, *settings.allowed_hosts} | (LOCAL_NAMES | {host.lower()} if on_loopback else set())
    try:
        yield Door(sockets=sockets, url=url, hosts=frozenset(hosts), local=on_loopback and not is_public(settings))
    finally:
        for each in sockets:
            each.close()


async def serve(app: App, door: Door, *, worker: bool, open_page: bool) -> None:
    """Until SIGTERM or SIGINT; a second one ends the process at once. Raises InvalidInput where it would not be safe."""
    if missing := await unsafe(app, local=door.local):
        reason = "" if door.local else f"Others than this machine come to {door.url}. "
        raise InvalidInput(f"{reason}Before `onethread serve` starts:\n" + "\n".join(f"- {each}" for each in missing))
    rules = WebRules(public_url=door.url, hosts=door.hosts, secret_key=secret_key(app.settings))
    web = web_app(services_of(app, rules))
    mcp = mcp_endpoint(app, rules, web.state.stopping)
    mount(web, mcp_http.PATH, mcp)
    server = server_of(web, app.settings)
    async with AsyncExitStack() as parts:
        parts.enter_context(_ended_by_signals(server, web.state.stopping))
        if worker:
            await parts.enter_async_context(_warmed_up())
            await parts.enter_async_context(working(app))
        await parts.enter_async_context(mcp.running())
        for path, endpoint in (await parts.enter_async_context(surfaces.serving(app, door.url))).items():
            mount(web, path, endpoint)
        await _announce(app, door, open_page=open_page)
        _log.info("serve.started", url=door.url, worker=worker)
        await server.serve(door.sockets)
        _log.info("serve.stopping")


async def unsafe(app: App, *, local: bool) -> list[str]:
    """What must be done first, in sentences; empty where it is safe to serve."""
    missing = unsafe_settings(app.settings, local=local)
    if local:
        return missing
    async with app.storage.read() as uow:
        if not await identity.can_anybody_administer(uow):
            missing.append(_NO_ADMIN)
    return missing


def unsafe_settings(settings: Settings, *, local: bool) -> list[str]:
    key, missing = settings.secret_key.get_secret_value(), []
    if key and len(key) < MIN_SECRET:
        missing.append(f"ONETHREAD_SECRET_KEY has {len(key)} characters and needs {MIN_SECRET} or more. This makes one: {MAKE_KEY}")
    if not key and not local:
        missing.append(f"Set ONETHREAD_SECRET_KEY, the same for every process. This makes one: {MAKE_KEY}")
    if not settings.public_url and not local:
        missing.append("Set ONETHREAD_PUBLIC_URL to what people type to get there, such as https://onethread.example.com")
    return missing


def secret_key(settings: Settings) -> str:
    """The one that is set, or the one that is kept in the data directory: made at first use, the same for every process there."""
    if given := settings.secret_key.get_secret_value():
        return given
    path = settings.data_dir / "secret_key"
    try:
        if not path.exists():
            _keep(path, secrets.token_urlsafe(48))
        kept = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageUnavailable(f"{path} cannot be read or written: {getattr(error, 'strerror', 'it is no text')}.") from None
    if len(kept) < MIN_SECRET:
        raise InvalidInput(f"{path} is damaged. Remove it, and another one is made; who got a token by password signs in again.")
    return kept


def _keep(path: Path, key: str) -> None:
    """All of it or nothing, and the first of several processes wins."""
    with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=path.parent, prefix=".secret_key-") as file:
        file.write(key)
        file.flush()
        try:
            os.link(file.name, path)
        except FileExistsError:
            return


def is_public(settings: Settings) -> bool:
    """Whether ONETHREAD_PUBLIC_URL is an address by which others than this machine come."""
    return bool(settings.public_url) and not _is_local(urlsplit(settings.public_url).hostname or "")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def _warmed_up() -> AsyncIterator[None]:
    """Imports what the first answer needs while nobody waits for it yet: it takes seconds."""
    loading = asyncio.create_task(asyncio.to_thread(load), name="warm-up")
    try:
        yield
    finally:
        await asyncio.wait({loading})
        if loading.exception():
            _log.warning("serve.not_warmed_up")  # the first turn tells why


# --- the door --------------------------------------------------------------------------------------------------------

_Address = tuple[int, int, int, str, tuple[str, int]]


def _addresses(host: str, port: int) -> list[_Address]:
    """What the host's name means, as socket.getaddrinfo tells it, each once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        found = []
    if not found or not host:
        raise InvalidInput(f"{host!r} is no address of this machine. Use --host 127.0.0.1, or --host 0.0.0.0 for all its addresses.")
    return list(dict.fromkeys(found))  # type: ignore[arg-type]  # the stubs allow for addresses that are no IP


def _bound(addresses: list[_Address], host: str, port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    failed: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((address[0], sockets[0].getsockname()[1] if sockets and not port else address[1], *address[2:]))
            listening.listen(2048)
        except OSError as error:
            listening.close()
            failed = error
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                break
        else:
            sockets.append(listening)
    if failed and (not sockets or failed.errno in (errno.EADDRINUSE, errno.EACCES)):
        for each in sockets:
            each.close()
        raise InvalidInput(_reason(failed, host, port))
    return sockets


def _reason(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {port} of {host} is taken, perhaps by another `onethread serve`. Stop that one, or choose another with --port."
        case errno.EACCES:
            return f"Port {port} is kept for the system. Choose one above 1023, such as --port 8420, with a reverse proxy in front of it."
        case errno.EADDRNOTAVAIL:
            return f"{host!r} is no address of this machine. Use --host 127.0.0.1, or --host 0.0.0.0 for all its addresses."
    return f"It cannot listen on port {port} of {host}: {error.strerror}."


async def _announce(app: App, door: Door, *, open_page: bool) -> None:
    """Tells where it is. On this machine alone with a link that signs in, once: without it any program here could come in."""
    url = door.url
    if door.local:
        person = await app.person()
        async with app.storage.write() as uow:
            code = await identity.create_link(uow, person, LinkPurpose.SIGN_IN, lifetime=SIGN_IN_LIFETIME)
        url = f"{url}/login?code={code}"
        click.echo("The link signs you in once, within a day. Ctrl-C stops Onethread.", err=True)
    elif not url.startswith("https://"):
        click.echo(f"Warning: {url} is not https, so passwords and what people write can be read on the way.", err=True)
    click.echo(f"Open {url}")
    if open_page:
        # A browser for terminals would hold the thread, and the end of the process waits for none of these.
        threading.Thread(target=webbrowser.open, args=(url,), name="browser", daemon=True).start()


# --- the server ------------------------------------------------------------------------------------------------------


class _Sockets(WebSocketsSansIOProtocol):
    """Ends the connection of who sends pings and does not read the pongs, which uvicorn would keep without bound."""

    def handle_ping(self) -> None:
        super().handle_ping()
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()


class _Server(uvicorn.Server):
    """Leaves the signals to `_ended_by_signals`: uvicorn would raise them again when it is done, before turns are handed back."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(web: Callable[..., Any], settings: Settings) -> uvicorn.Server:
    config = uvicorn.Config(
        web,
        lifespan="on",
        log_config=None,
        access_log=False,  # web.middleware writes its own, without what stands in an address
        server_header=False,
        ws=_Sockets,
        ws_max_size=MAX_FRAME_BYTES,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        ws_per_message_deflate=False,  # memory for each socket, for frames of 100 bytes
        proxy_headers=True,
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return _Server(config)


@contextmanager
def _ended_by_signals(server: uvicorn.Server, stopping: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True
        stopping.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        stop()
