"""`onethread mcp config`: what it prints works in a real client, and what stood in a client's file stays."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from core.errors import InvalidInput
from onethread import cli, jsonc, mcp_config
from tests.e2e.conftest import Prompt, Ran, Shell
from tests.serving import ONETHREAD, served

CLIENTS = list(cli.CLIENTS)
SECTIONS = {"vscode": "servers", "zed": "context_servers"}
FILES = {
    "claude-code": "project/.mcp.json",
    "claude-desktop": "home/.config/Claude/claude_desktop_config.json",
    "cursor": "home/.cursor/mcp.json",
    "vscode": "project/.vscode/mcp.json",
    "zed": "home/.config/zed/settings.json",
}
"""On Linux, seen from the test's folder."""
TOOLS = 11
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc elsewhere")


class Place:
    """A person's home and their project."""

    def __init__(self, prompt: Prompt, root: Path) -> None:
        self.root = root
        self.home, self.project = root / "home", root / "project"
        self.home.mkdir()
        self.project.mkdir()
        self._prompt = Prompt(prompt.data_dir, self.project, prompt.patch, prompt.capture)

    @property
    def data_dir(self) -> Path:
        return self._prompt.data_dir

    def run(self, *arguments: str, **variables: str) -> Ran:
        home: dict[str, Any] = {"HOME": str(self.home), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": "", **variables}
        return self._prompt.run(*arguments, **home)

    def config(self, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> Ran:
        """`options` are those of `onethread mcp` itself."""
        return self.run("mcp", *options, "config", *arguments, **variables)

    def file(self, client: str, text: str | None = None) -> Path:
        """Where the client looks; with this in it."""
        path = self.root / FILES[client]
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        return path


@pytest.fixture
def place(prompt: Prompt, tmp_path: Path) -> Place:
    return Place(prompt, tmp_path)


def entry_of(client: str, text: str) -> dict[str, Any]:
    """As the client reads its file."""
    found: dict[str, Any] = jsonc.read(text)[SECTIONS.get(client, "mcpServers")]["onethread"]
    return found


# --- what is printed works ---


@pytest.mark.parametrize("client", CLIENTS)
def test_client_starts_what_is_printed_and_lists_the_tools(place: Place, shell: Shell, client: str) -> None:
    entry = entry_of(client, place.config(client).out)

    async def listed() -> list[str]:
        program = StdioServerParameters(command=entry["command"], args=entry["args"], env=entry["env"], cwd=str(place.home))
        async with asyncio.timeout(60), Client(program, mode="legacy") as session:
            return [tool.name for tool in (await session.list_tools()).tools]

    assert set(entry) - {"type"} == {"command", "args", "env"}
    assert entry.get("type") == ("stdio" if client in ("claude-code", "cursor", "vscode") else None)
    assert entry["command"] == ONETHREAD
    assert entry["env"] == {"ONETHREAD_DATA_DIR": str(shell.data_dir)}
    assert len(asyncio.run(listed())) == TOOLS


@pytest.mark.parametrize("client", [each for each in CLIENTS if each != "claude-desktop"])
def test_client_reaches_the_address_that_is_printed(place: Place, shell: Shell, client: str) -> None:
    async def listed() -> list[str]:
        async with served(shell.data_dir) as site:
            token = shell.run("token", "create", client).out.strip()
            printed = place.config(client, "--url", site.url)
            entry = entry_of(client, printed.out)
            headers = {name: _with_token(value, token) for name, value in entry["headers"].items()}
            async with AsyncExitStack() as stack:
                web = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=30))
                session = await stack.enter_async_context(Client(streamable_http_client(entry["url"], http_client=web), mode="legacy"))
                return [tool.name for tool in (await session.list_tools()).tools]

    assert len(asyncio.run(listed())) == TOOLS


def _with_token(value: str, token: str) -> str:
    """As each client fills it in; Zed leaves it to the person."""
    return re.sub(r"\$\{(env:)?ONETHREAD_TOKEN\}|\$\{input:onethread-token\}|ot_PUT_THE_TOKEN_HERE", token, value)


def test_only_the_configuration_is_printed_and_the_rest_is_said(place: Place) -> None:
    printed = place.config("cursor")

    assert printed.code == 0
    assert list(json.loads(printed.out)) == ["mcpServers"]
    assert printed.err.splitlines()[0] == f"It belongs into {place.home}/.cursor/mcp.json, where --write would put it."


def test_editors_asks_for_the_token_where_it_keeps_secrets(place: Place) -> None:
    printed = json.loads(place.config("vscode", "--url", "https://onethread.example.com").out)

    assert printed == {
        "inputs": [{"type": "promptString", "id": "onethread-token", "description": "Onethread token (ot_...)", "password": True}],
        "servers": {
            "onethread": {
                "type": "http",
                "url": "https://onethread.example.com/mcp",
                "headers": {"Authorization": "Bearer ${input:onethread-token}"},
            }
        },
    }


def test_client_that_takes_no_address_or_no_variable_is_told_so(place: Place) -> None:
    refused = place.config("claude-desktop", "--url", "https://onethread.example.com/mcp")
    zed = place.config("zed", "--url", "https://onethread.example.com/mcp")

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("Error: Claude Desktop takes from its file only commands that it starts itself")
    assert "not https" not in zed.err
    assert "That address is not https" in place.config("zed", "--url", "http://onethread.example.com").err
    assert "not https" not in place.config("zed", "--url", "http://localhost:8420").err
    assert entry_of("zed", zed.out)["headers"] == {"Authorization": "Bearer ot_PUT_THE_TOKEN_HERE"}
    assert "put it into the file by hand" in zed.err


@pytest.mark.parametrize(
    "url",
    [
        "onethread.example.com",
        "ftp://x.example.com",
        "https://",
        "https://a:b@x.example.com",
        "https://x.example.com/?q",
        "http://x:99999999",
    ],
)
def test_address_that_is_none_is_refused(place: Place, url: str) -> None:
    assert place.config("cursor", "--url", url).err == (
        f"Error: {url!r} is no address of a server. It looks like https://onethread.example.com/mcp\n"
    )


def test_selection_of_tools_becomes_part_of_it(place: Place) -> None:
    options = ("--read-only", "--tools", "list_tasks, get_task")

    assert entry_of("zed", place.config("zed", options=options).out)["args"] == ["mcp", "--read-only", "--tools", "list_tasks,get_task"]
    headers = entry_of("cursor", place.config("cursor", "--url", "http://x", options=options[1:]).out)["headers"]
    assert headers["X-MCP-Tools"] == "list_tasks,get_task"
    assert place.config("cursor", options=("--tools", "nonsense")).err.startswith("Error: There is no tool 'nonsense'. Tools: ")
    assert place.config("cursor", "--url", "http://x", options=("--read-only",)).err.startswith("Error: --read-only is for a server that")


def test_secrets_are_never_part_of_it(place: Place) -> None:
    variables: dict[str, Any] = {
        "ONETHREAD_DATABASE_URL": "postgresql+asyncpg://onethread:hunter2@db.example.com/onethread",
        "ONETHREAD_SECRET_KEY": "a secret key of more than thirty-two characters",
        "ONETHREAD_MODEL_API_BASE": "https://kim:hunter2@proxy.example.com",
        "ANTHROPIC_API_KEY": "sk-ant-hunter2",
        "ONETHREAD_USER": "kim@example.com",
        "ONETHREAD_PUBLIC_URL": "https://onethread.example.com",
    }

    printed = place.config("claude-code", **variables)

    assert entry_of("claude-code", printed.out)["env"] == {
        "ONETHREAD_DATA_DIR": str(place.data_dir),
        "ONETHREAD_USER": "kim@example.com",
    }
    assert "hunter2" not in printed.out + printed.err
    assert "a secret key" not in printed.out + printed.err
    said = printed.err.splitlines()
    assert [line.partition(" ")[0] for line in said if line.startswith("ONETHREAD_")] == [
        "ONETHREAD_DATABASE_URL",
        "ONETHREAD_MODEL_API_BASE",
    ]
    assert f'Put it into {place.data_dir}/onethread.toml instead, which is read there too: database_url = "..."' in printed.err
    assert any(line.startswith("ANTHROPIC_API_KEY: not written here.") for line in said)


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("ONETHREAD_DATABASE_URL", "postgresql+asyncpg://kim:hun/ter2@db.example.com/onethread"),
        ("ONETHREAD_DATABASE_URL", "postgresql+asyncpg://db.example.com/onethread?user=kim&password=hunter2"),
        ("ONETHREAD_MODEL_API_BASE", "https://proxy.example.com/v1?api_key=hunter2"),
        ("ONETHREAD_MODEL_API_BASE", "https://proxy.example.com/v1?version=1&Access-Token=hunter2"),
    ],
)
def test_secret_in_an_address_is_found_wherever_it_stands(place: Place, variable: str, address: str) -> None:
    variables: dict[str, Any] = {variable: address}

    printed = place.config("claude-code", **variables)

    assert variable not in entry_of("claude-code", printed.out)["env"]
    assert "hun" not in printed.out + printed.err


def test_paths_are_whole_and_settings_of_the_folder_go_along(place: Place) -> None:
    (place.project / ".env").write_text(
        "ONETHREAD_DATABASE_URL=sqlite+aiosqlite:///team.db\nONETHREAD_MODEL=openai/gpt-4o\n", encoding="utf-8"
    )

    printed = place.config("cursor", ONETHREAD_DATA_DIR="data")

    assert "From the file .env in this folder: ONETHREAD_DATABASE_URL, ONETHREAD_MODEL. " in printed.err
    assert entry_of("cursor", printed.out)["env"] == {
        "ONETHREAD_DATA_DIR": f"{place.project}/data",
        "ONETHREAD_DATABASE_URL": f"sqlite+aiosqlite:///{place.project}/team.db",
        "ONETHREAD_MODEL": "openai/gpt-4o",
    }


def test_data_directory_that_comes_from_the_desktop_is_told(place: Place) -> None:
    found = entry_of("cursor", place.config("cursor", ONETHREAD_DATA_DIR="", XDG_DATA_HOME=str(place.root / "xdg")).out)
    default = entry_of("cursor", place.config("cursor", ONETHREAD_DATA_DIR="").out)

    assert found["env"] == {"ONETHREAD_DATA_DIR": f"{place.root}/xdg/onethread"}
    assert "env" not in default


# --- what is written ---


@pytest.mark.parametrize("client", CLIENTS)
def test_file_is_made_where_the_client_looks(place: Place, client: str) -> None:
    printed = place.config(client).out

    written = place.config(client, "--write")

    assert (written.code, written.out) == (0, "")
    assert written.err.splitlines()[0] == f"Made {place.file(client)}."
    assert place.file(client).read_text(encoding="utf-8") == printed
    assert sorted(path.name for path in place.file(client).parent.iterdir()) == [place.file(client).name]


OTHERS = """// My settings.
{
  "theme": "One Dark", // dark
  %s: {
    /* mine */
    "git": { "command": "git-mcp", "args": ["--stdio",], "env": {"A": "// no comment"} }, // keep
  },
  "last": [1, 2,]
}
"""


@pytest.mark.parametrize("client", CLIENTS)
def test_what_stands_there_stays_to_the_letter_and_is_kept_beside_it(place: Place, client: str) -> None:
    before = OTHERS % json.dumps(SECTIONS.get(client, "mcpServers"))
    path = place.file(client, before)
    path.chmod(0o640)

    written = place.config(client, "--write")

    backup = path.with_name(f"{path.name}.before-onethread")
    after = path.read_text(encoding="utf-8")
    assert written.err.splitlines()[0] == f"Added it to {path}; as it was: {backup}"
    assert backup.read_text(encoding="utf-8") == before
    head, tail = before.split("// keep\n")
    assert after.startswith(f"{head}// keep\n")
    assert after.endswith(tail)
    assert entry_of(client, after) == entry_of(client, place.config(client).out)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("client", CLIENTS)
def test_second_time_nothing_is_done(place: Place, client: str) -> None:
    place.config(client, "--write")
    path = place.file(client)
    as_it_was = path.stat().st_ino, path.read_bytes()

    again = place.config(client, "--write")

    assert again.err.splitlines()[0] == f"{path} has it already."
    assert (path.stat().st_ino, path.read_bytes()) == as_it_was


def test_addresses_token_is_asked_for_once(place: Place) -> None:
    place.file("vscode", '{"inputs": [{"id": "other"}], "servers": {}}')
    for _ in range(2):
        place.config("vscode", "--write", "--url", "https://onethread.example.com/mcp")

    found = jsonc.read(place.file("vscode").read_text(encoding="utf-8"))
    assert [item["id"] for item in found["inputs"]] == ["other", "onethread-token"]
    assert list(found["servers"]) == ["onethread"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"mcpServers": {"onethread": {"command": "mine"}}}',
            "has another 'onethread' among its 'mcpServers'. Change it by hand, or remove it",
        ),
        (
            '{"mcpServers": {"a": 1}',
            "cannot be understood (line 1, column 24: Expecting ',' delimiter). Mend it first; it was left as it is.",
        ),
        ('{"mcpServers": []}', "should be an object. It was left as it is."),
        ("[1]", "should hold an object, as {...}. It was left as it is."),
        ("null", "should hold an object, as {...}. It was left as it is."),
        ("// mine\nnull\n", "should hold an object, as {...}. It was left as it is."),
    ],
)
def test_file_that_is_not_as_it_should_be_is_left_alone(place: Place, text: str, said: str) -> None:
    path = place.file("cursor", text)

    refused = place.config("cursor", "--write")

    assert refused.code == 1
    assert said in refused.err
    assert [each.name for each in path.parent.iterdir()] == ["mcp.json"]
    assert path.read_text(encoding="utf-8") == text


def test_file_that_is_no_text_is_left_alone(place: Place) -> None:
    path = place.file("cursor", "")
    path.write_bytes(b"\xff\xfe{}")

    assert place.config("cursor", "--write").err == f"Error: {path} is no text in UTF-8. It was left as it is.\n"


def test_empty_file_and_one_of_comments_alone_are_filled(place: Place) -> None:
    for text in ("", " \r\n", "// My settings.\n", "// My settings."):
        path = place.file("zed", text)

        assert place.config("zed", "--write").code == 0

        after = path.read_bytes().decode()
        assert after.startswith(text)
        assert entry_of("zed", after)["command"] == ONETHREAD


# --- what a repository may have put there ---


@pytest.mark.parametrize("client", ["claude-code", "vscode"])
def test_backup_follows_no_link_of_a_repository(place: Place, client: str) -> None:
    theirs, absent = place.home / ".bashrc", place.home / ".bash_login"
    theirs.write_text("alias ll='ls -l'\n", encoding="utf-8")
    path = place.file(client, "{}")
    path.chmod(0o664)
    path.with_name(f"{path.name}.before-onethread").symlink_to(theirs)
    path.with_name(f"{path.name}.before-onethread-2").symlink_to(absent)
    path.with_name(f"{path.name}.before-onethread-3").mkdir()

    written = place.config(client, "--write")

    backup = path.with_name(f"{path.name}.before-onethread-4")
    assert written.err.splitlines()[0] == f"Added it to {path}; as it was: {backup}"
    assert (backup.read_text(encoding="utf-8"), backup.stat().st_mode & 0o777) == ("{}", 0o664)
    assert theirs.read_text(encoding="utf-8") == "alias ll='ls -l'\n"
    assert not absent.exists()


def test_earlier_backup_is_kept(place: Place) -> None:
    path = place.file("cursor", "{}")
    place.config("cursor", "--write")
    path.write_text('{"mcpServers": {}}', encoding="utf-8")

    written = place.config("cursor", "--write")

    first = path.with_name("mcp.json.before-onethread")
    assert written.err.splitlines()[0] == f"Added it to {path}; as it was: {first}-2"
    assert first.read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("target", ["../home/settings.json", "../home/absent.json"])
@pytest.mark.parametrize("client", ["claude-code", "vscode"])
def test_link_that_leads_out_of_the_project_is_refused(place: Place, client: str, target: str) -> None:
    (place.home / "settings.json").write_text("{}", encoding="utf-8")
    path = place.file(client)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(place.project / target)

    refused = place.config(client, "--write")

    assert (refused.code, refused.err) == (1, _leads_out(path, place.home / Path(target).name))
    assert [(each.name, each.read_text(encoding="utf-8")) for each in place.home.iterdir()] == [("settings.json", "{}")]


def test_folder_that_leads_out_of_the_project_is_refused(place: Place) -> None:
    (place.project / ".vscode").symlink_to(place.home)

    refused = place.config("vscode", "--write")

    assert (refused.code, refused.err) == (1, _leads_out(place.file("vscode"), place.home / "mcp.json"))
    assert list(place.home.iterdir()) == []


@pytest.mark.parametrize("folder", [".", "conf", pytest.param("/proc/self/cwd/conf", marks=LINUX)])
def test_projects_dotenv_cannot_move_a_persons_file_behind_its_link(place: Place, folder: str) -> None:
    (place.project / ".env").write_text(f"XDG_CONFIG_HOME={folder}\n", encoding="utf-8")
    for each in (place.project, place.project / "conf"):
        each.mkdir(exist_ok=True)
        (each / "zed").symlink_to(place.home)

    refused = place.config("zed", "--write")

    assert refused.code == 1
    assert f"is behind a link that leads out of this folder, to {place.home}/settings.json." in refused.err
    assert list(place.home.iterdir()) == []


def _leads_out(path: Path, target: Path) -> str:
    return (
        f"Error: {path} is behind a link that leads out of this folder, to {target}. Remove the link, or add there by hand what is printed "
        "without --write. Nothing was changed.\n"
    )


def test_link_within_the_project_is_followed(place: Place) -> None:
    (place.project / "conf").mkdir()
    (place.project / ".vscode").symlink_to("conf")

    assert place.config("vscode", "--write").code == 0

    assert entry_of("vscode", (place.project / "conf/mcp.json").read_text(encoding="utf-8"))["command"] == ONETHREAD


def _a_long_number(path: Path) -> None:
    path.write_text('{"mcpServers": ' + "1" * 5_000 + "}", encoding="utf-8")


def _a_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000)


UNREADABLE: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "a long number": (
        _a_long_number,
        "cannot be understood (it holds a number of too many digits). Mend it first; it was left as it is.",
    ),
    "a circle": (lambda path: path.symlink_to(path), "is a link that leads back to itself. Remove it, then do this again."),
    "a pipe": (os.mkfifo, "is a pipe, a socket or a device where a file should be. Move it away, then do this again."),
    "a folder": (Path.mkdir, "is a folder where a file should be. Move it away, then do this again."),
    "a large file": (_a_large_file, "is larger than 1 MB, so it is hardly a client's file. Move it away, then do this again."),
    "null": (lambda path: path.write_bytes(b"null"), "should hold an object, as {...}. It was left as it is."),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_said_by_the_command_and_by_doctor(place: Place, name: str) -> None:
    put, said = UNREADABLE[name]
    path = place.file("claude-code")
    put(path)

    refused, examined = place.config("claude-code", "--write"), place.run("doctor")

    assert (refused.code, refused.err) == (1, f"Error: {path} {said}\n")
    assert examined.code == 0  # it may be no file of ours
    assert f"MCP: {path} {said}\n" in examined.out
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_depth_is_no_surprise_wherever_it_becomes_too_much(tmp_path: Path) -> None:
    ended = set()
    for depth in range(sys.getrecursionlimit() - 250, sys.getrecursionlimit()):
        path = tmp_path / f"{depth}.json"
        path.write_text('{"mcpServers": {"x": ' + "[" * depth + "]" * depth + "}}", encoding="utf-8")
        client = mcp_config.CLIENTS["cursor"]
        try:
            mcp_config.write(mcp_config.Configuration(client=client, path=path, entry={}, inputs=(), advice=()))
        except InvalidInput as refused:
            ended.add(str(refused).removeprefix(str(path)))

    assert ended <= {" cannot be understood (it is nested too deeply). Mend it first; it was left as it is."}


def test_doctor_passes_over_what_is_not_for_it_to_read(place: Place) -> None:
    (place.home / ".cursor").write_text("no folder", encoding="utf-8")

    assert "MCP" not in place.run("doctor").out


def test_doctor_shows_no_control_characters_of_a_file(place: Place) -> None:
    place.file("claude-code", json.dumps({"mcpServers": {"onethread": {"command": "/x\x1b[2J\udc80"}}}))

    assert r"starts '/x\x1b[2J\udc80', which is not there" in place.run("doctor").out


# --- what else may be there ---


def test_link_stays_a_link(place: Place) -> None:
    kept = place.root / "dotfiles.json"
    kept.write_text("{}", encoding="utf-8")
    path = place.file("cursor")
    path.parent.mkdir()
    path.symlink_to(kept)

    place.config("cursor", "--write")

    assert path.is_symlink()
    assert entry_of("cursor", kept.read_text(encoding="utf-8"))["command"] == ONETHREAD


def test_place_that_cannot_be_written_is_said(place: Place) -> None:
    (place.home / ".cursor").write_text("no folder", encoding="utf-8")

    refused = place.config("cursor", "--write")

    assert refused.code == 1
    assert refused.err.startswith(f"Error: {place.home}/.cursor/mcp.json cannot be ")


# --- where it belongs ---


@pytest.mark.parametrize(
    ("platform", "environ", "claude", "zed"),
    [
        ("darwin", {}, "~/Library/Application Support/Claude/claude_desktop_config.json", "~/.config/zed/settings.json"),
        ("linux", {"XDG_CONFIG_HOME": "/xdg"}, "/xdg/Claude/claude_desktop_config.json", "/xdg/zed/settings.json"),
        ("linux", {}, "~/.config/Claude/claude_desktop_config.json", "~/.config/zed/settings.json"),
        ("win32", {"APPDATA": "/roaming"}, "/roaming/Claude/claude_desktop_config.json", "/roaming/Zed/settings.json"),
    ],
)
def test_each_platform_has_its_places(
    monkeypatch: pytest.MonkeyPatch, platform: str, environ: Mapping[str, str], claude: str, zed: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)

    assert [mcp_config.CLIENTS[name].file(environ) for name in ("claude-desktop", "zed")] == [
        Path(claude).expanduser(),
        Path(zed).expanduser(),
    ]


def test_command_line_knows_the_same_clients() -> None:
    assert tuple(mcp_config.CLIENTS) == cli.CLIENTS


def test_doctor_speaks_of_mcp_only_where_a_client_starts_what_is_gone(place: Place) -> None:
    place.config("cursor", "--write")
    fine = place.run("doctor").out
    moved = place.file("cursor").read_text(encoding="utf-8").replace(ONETHREAD, "/moved/bin/onethread")
    place.file("cursor", moved)

    gone = place.run("doctor").out

    assert "MCP" not in fine
    assert f"! MCP: {place.file('cursor')} starts /moved/bin/onethread, which is not there" in gone
    assert "Remove its entry there, then: onethread mcp config cursor --write" in gone
