"""`onethread mcp config`: how each client is told of our MCP server, and its file, in which nothing else is changed.

What each client reads is as its documentation had it in November 2026: Claude Code's "Connect Claude Code to tools via MCP", MCP's
"Connect to local MCP servers" (Claude Desktop), Cursor's and Zed's "Model Context Protocol", VS Code's "MCP configuration reference".
"""

import errno
import itertools
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from core.errors import Conflict, InvalidInput, StorageUnavailable
from core.llm.providers import PROVIDERS
from core.models import JSON
from mcp_server.offer import Selection
from onethread import jsonc
from onethread.settings import LOCAL_NAMES, Settings, elsewhere

NAME: Final = "onethread"
"""Of the server, in every client's list."""
TOKEN: Final = "ONETHREAD_TOKEN"  # noqa: S105  # a variable's name
BACKUP: Final = ".before-onethread"
"""Added to the file's name; where there is such a file already, with a number behind it."""
_INPUT: Final = "onethread-token"
_MOST_BYTES: Final = 1_000_000
"""Of a client's file; a long one has 50 thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    label: str
    section: str
    """The member of the file that holds the servers."""
    file: Callable[[Mapping[str, str]], Path]
    kind: str | None
    """What it calls a server that is a command, where it wants to be told."""
    http: Callable[[str], JSON] | None
    """A server at an address, without its headers; None where the file cannot have one."""
    bearer: str = ""
    """What it sends as Authorization."""
    sign_in: str = ""
    """Where it takes the token from, in a sentence."""
    inputs: tuple[JSON, ...] = ()
    """What it asks the person for."""
    note: str = ""


def _home(*parts: str) -> Callable[[Mapping[str, str]], Path]:
    return lambda _: Path.home().joinpath(*parts)


def _here(*parts: str) -> Callable[[Mapping[str, str]], Path]:
    return lambda _: Path.cwd().joinpath(*parts)


def _xdg(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _claude_desktop(environ: Mapping[str, str]) -> Path:
    return _applications(environ, "Library/Application Support") / "Claude" / "claude_desktop_config.json"


def _zed(environ: Mapping[str, str]) -> Path:
    return _applications(environ, ".config") / ("Zed" if sys.platform == "win32" else "zed") / "settings.json"


def _applications(environ: Mapping[str, str], on_macos: str) -> Path:
    """The folder in which applications keep their settings on this system."""
    match sys.platform:
        case "darwin":
            return Path.home() / on_macos
        case "win32":
            return Path(environ.get("APPDATA") or Path.home() / "AppData/Roaming")
    return _xdg(environ)


_SET = f"Set {TOKEN} to the token where {{}} is started."
CLIENTS: Final[Mapping[str, Client]] = {
    "claude-code": Client(
        label="Claude Code",
        section="mcpServers",
        file=_here(".mcp.json"),
        kind="stdio",
        http=lambda url: {"type": "http", "url": url},
        bearer=f"Bearer ${{{TOKEN}}}",
        sign_in=_SET.format("claude"),
        note="Claude Code asks once whether it may start what a project's file names. Others who share the file have other paths.",
    ),
    "claude-desktop": Client(
        label="Claude Desktop",
        section="mcpServers",
        file=_claude_desktop,
        kind=None,
        http=None,
        note="Quit Claude Desktop and start it again.",
    ),
    "cursor": Client(
        label="Cursor",
        section="mcpServers",
        file=_home(".cursor", "mcp.json"),
        kind="stdio",
        http=lambda url: {"url": url},
        bearer=f"Bearer ${{env:{TOKEN}}}",
        sign_in=_SET.format("Cursor"),
        note="Switch it on in Cursor's settings.",
    ),
    "vscode": Client(
        label="VS Code",
        section="servers",
        file=_here(".vscode", "mcp.json"),
        kind="stdio",
        http=lambda url: {"type": "http", "url": url},
        bearer=f"Bearer ${{input:{_INPUT}}}",
        sign_in="VS Code asks for the token once, and keeps it among its secrets.",
        inputs=({"type": "promptString", "id": _INPUT, "description": "Onethread token (ot_...)", "password": True},),
        note="Start it from the line above its entry in the file, or by the command MCP: List Servers.",
    ),
    "zed": Client(
        label="Zed",
        section="context_servers",
        file=_zed,
        kind=None,
        http=lambda url: {"url": url},
        bearer="Bearer ot_PUT_THE_TOKEN_HERE",
        sign_in="Zed takes no token from its environment: put it into the file by hand, which is then as secret as the token.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    client: Client
    path: Path
    """Where the client looks for it."""
    entry: JSON
    inputs: tuple[JSON, ...]
    advice: tuple[str, ...]
    """What must be done beside it, in sentences."""

    @property
    def whole(self) -> JSON:
        """What a file of nothing else holds."""
        return ({"inputs": list(self.inputs)} if self.inputs else {}) | {self.client.section: {NAME: self.entry}}

    @property
    def text(self) -> str:
        return jsonc.text(self.whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    changed: bool
    backup: Path | None
    """Of the file as it was, if it was there."""


def made(name: str, settings: Settings, *, read_only: bool, tools: Sequence[str] | None, url: str | None) -> Configuration:
    """For a client of CLIENTS: a command that it starts, or with `url` the address of a running server.

    Raises InvalidInput where the client has no such thing in its file, and for tools that there are not.
    """
    Selection.of(read_only=read_only, names=tools)
    if url is None:
        return _local(CLIENTS[name], settings, [*(["--read-only"] if read_only else []), *(["--tools", ",".join(tools)] if tools else [])])
    if read_only:
        raise InvalidInput(
            "--read-only is for a server that the client starts. With --url name the --tools, or use a token without tasks:write."
        )
    return _remote(name, CLIENTS[name], settings, url, tools or ())


def write(configuration: Configuration) -> Written:
    """Adds it to the client's file. Does nothing where it is there already.

    Raises InvalidInput for a file that is not as it should be, and Conflict for another entry of our name.
    """
    path = _real(configuration.path)
    before = _read(path)
    with _understood(path):
        text = _added(before.text if before else "", configuration)
    if before and text == before.text:
        return Written(changed=False, backup=None)
    try:
        return Written(changed=True, backup=_replace(path, before, text))
    except OSError as error:
        raise StorageUnavailable(f"{path} cannot be written: {error.strerror}.") from None


def started(client: Client, path: Path) -> str | None:
    """The command of our entry in a client's file; None where there is none, or a file that is not for us to read.

    Raises InvalidInput for a file that is not as it should be.
    """
    try:
        file = _read(path)
    except StorageUnavailable:
        return None
    try:
        with _understood(path):
            command = _parsed(file.text if file else "", path)[client.section][NAME]["command"]
    except (KeyError, TypeError):
        return None
    return command if isinstance(command, str) else None


# --- what stands in it -----------------------------------------------------------------------------------------------


def _local(client: Client, settings: Settings, options: Sequence[str]) -> Configuration:
    command, *arguments = _command()
    given, withheld = elsewhere(settings)
    kind = {"type": client.kind} if client.kind else {}
    entry: JSON = {**kind, "command": command, "args": [*arguments, "mcp", *options]} | ({"env": given} if given else {})
    advice = [_by_hand(variable, client, settings) for variable in withheld]
    return _configured(client, settings, entry, [*advice, *_keys(client, settings)])


def _remote(name: str, client: Client, settings: Settings, url: str, tools: Sequence[str]) -> Configuration:
    if client.http is None:
        raise InvalidInput(
            f"{client.label} takes from its file only commands that it starts itself, and in its own settings only servers with OAuth, "
            f"which Onethread has not. Leave out --url: onethread mcp config {name}"
        )
    from mcp_server.callers import TOOLS_HEADER  # brings the SDK along

    address = _mcp_url(url)
    entry = {**client.http(address), "headers": {"Authorization": client.bearer} | ({TOOLS_HEADER: ",".join(tools)} if tools else {})}
    advice = ["Create a token: onethread token create NAME", client.sign_in]
    if address.startswith("http://") and (urlsplit(address).hostname or "") not in LOCAL_NAMES:
        advice.append("That address is not https, so the token can be read on the way.")
    return _configured(client, settings, entry, advice, client.inputs)


def _command() -> list[str]:
    """This installation's, by its whole path: a client knows neither our PATH nor our folder."""
    script = Path(sys.executable).with_name("onethread.exe" if sys.platform == "win32" else "onethread")
    return [str(script)] if script.is_file() else [sys.executable, "-P", "-m", "onethread"]


def _configured(client: Client, settings: Settings, entry: JSON, advice: Sequence[str], inputs: tuple[JSON, ...] = ()) -> Configuration:
    path = client.file(settings.environ)
    return Configuration(client=client, path=path, entry=entry, inputs=inputs, advice=tuple(filter(None, [*advice, client.note])))


def _by_hand(variable: str, client: Client, settings: Settings) -> str:
    field = variable.removeprefix("ONETHREAD_").lower()
    return (
        f"{variable} holds a secret, which is not written into {client.label}'s file. Put it into {settings.config_file} instead, "
        f"which is read there too: {field} = "
        '"..."'
    )


def _keys(client: Client, settings: Settings) -> list[str]:
    """Clients hand on little of their environment, and keys are not written into their files."""
    names = [name for provider in PROVIDERS for name in provider.key_names if settings.environ.get(name, "").strip()]
    if not names:
        return []
    return [
        f"{', '.join(names)}: not written here. {client.label} may not hand it on to what it starts. Let `onethread serve` or "
        f"`onethread worker` answer, which have it, or add it to `env` yourself."
    ]


def _mcp_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidInput(f"{url!r} is no address of a server. It looks like https://onethread.example.com/mcp")
    return f"{parts.scheme}://{parts.netloc}{parts.path if parts.path.strip('/') else '/mcp'}"


# --- the client's file -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _File:
    text: str
    """As it is, line ends included."""
    mode: int


def _real(path: Path) -> Path:
    """People keep such files elsewhere, and link to them. In a project's folder it may be others who did: there none leads out of it."""
    real = _without_links(path)
    project, home = _without_links(Path.cwd()), _without_links(Path.home())
    is_theirs = any(_without_links(folder).is_relative_to(project) for folder in path.parents) and not home.is_relative_to(project)
    if is_theirs and not real.is_relative_to(project):
        raise InvalidInput(
            f"{path} is behind a link that leads out of this folder, to {real}. Remove the link, or add there by hand what is printed "
            f"without --write. Nothing was changed."
        )
    return real


def _without_links(path: Path) -> Path:
    return Path(os.path.realpath(path))  # resolve() raises a RuntimeError for links in a circle, up to Python 3.12


def _read(path: Path) -> _File | None:
    """None where there is none."""
    try:
        return _opened(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidInput(f"{path} is a link that leads back to itself. Remove it, then do this again.") from None
        raise StorageUnavailable(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is no text in UTF-8. It was left as it is.") from None


def _opened(path: Path) -> _File:
    _must_be_a_file(path, path.stat())  # before it is opened: some devices do something then
    with open(path, "rb", opener=_without_waiting) as file:  # Path.open takes no opener
        found = os.fstat(file.fileno())
        _must_be_a_file(path, found)
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InvalidInput(
            f"{path} is larger than {_MOST_BYTES // 1_000_000} MB, so it is hardly a client's file. Move it away, then do this again."
        )
    return _File(content.decode("utf-8"), stat.S_IMODE(found.st_mode) & 0o777)


def _must_be_a_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise InvalidInput(f"{path} is {what} where a file should be. Move it away, then do this again.")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    try:
        yield
    except jsonc.NoJSON as error:
        raise InvalidInput(f"{path} cannot be understood ({error}). Mend it first; it was left as it is.") from None


def _added(text: str, configuration: Configuration) -> str:
    if jsonc.is_blank(text):
        return jsonc.filled(text, configuration.whole)
    path, section = configuration.path, configuration.client.section
    whole = _parsed(text, path)
    servers = _member(whole, section, {}, path)
    if NAME not in servers:
        text = jsonc.with_member(text, section, NAME, configuration.entry)
    elif servers[NAME] != configuration.entry:
        raise Conflict(
            f"{path} has another {NAME!r} among its {section!r}. Change it by hand, or remove it and do this again. It was left as it is."
        )
    there = [item.get("id") for item in _member(whole, "inputs", [], path) if isinstance(item, dict)] if configuration.inputs else []
    for item in configuration.inputs:
        text = text if item["id"] in there else jsonc.with_item(text, "inputs", item)
    return text


def _parsed(text: str, path: Path) -> JSON:
    whole = {} if jsonc.is_blank(text) else jsonc.read(text)
    if not isinstance(whole, dict):
        raise InvalidInput(f"{path} should hold an object, as {{...}}. It was left as it is.")
    return whole


def _member(whole: JSON, name: str, empty: Any, path: Path) -> Any:
    found = whole.get(name, empty)
    if type(found) is not type(empty):
        raise InvalidInput(f"{name!r} in {path} should be {'an object' if empty == {} else 'a list'}. It was left as it is.")
    return found


def _replace(path: Path, before: _File | None, text: str) -> Path | None:
    """All of it or nothing, whatever happens meanwhile; gives the name under which it is kept as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        ours = [Path(file.name)]
        try:
            _fill(file, text, before)
            if before:
                with _beside(path) as copy:
                    ours.append(Path(copy.name))
                    _fill(copy, before.text, before)
            ours[0].replace(path)
        except BaseException:
            for each in ours:
                each.unlink(missing_ok=True)
            raise
    return ours[1] if before else None


def _beside(path: Path) -> IO[bytes]:
    """A file that was not there. Whoever made the folder may have put links under such names: none is followed, nothing is changed."""
    names = (f"{path}{BACKUP}{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
    while True:
        try:
            return open(next(names), "xb", opener=_for_us_alone)
        except FileExistsError:
            continue


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _fill(file: IO[bytes], text: str, like: _File | None) -> None:
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())
    if like and sys.platform != "win32":
        os.fchmod(file.fileno(), like.mode)
