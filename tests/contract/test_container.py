"""The container files name what exists: files, settings, commands, users. No container engine is needed to say so."""

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import yaml

from onethread.cli import onethread
from onethread.settings import Settings

ROOT = Path(__file__).parents[2]
PACKAGES = {"onethread", "core", "storage", "bots", "mcp_server", "web"}
SETTINGS = {f"ONETHREAD_{name.upper()}" for name in Settings.model_fields}


def instructions(name: str) -> list[str]:
    """The Dockerfile's instructions of that name, each on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return found


def copied() -> set[str]:
    """What the first stage takes from this folder."""
    return {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}


def test_every_file_that_the_image_is_made_of_exists_and_is_let_in() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}

    assert copied() == {"requirements.lock", "requirements-dev.lock", "pyproject.toml", *PACKAGES}
    assert let_in == copied()
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    assert "*" in lines
    assert not any(fnmatch(".env", pattern) for pattern in let_in)


def test_everything_is_installed_with_hashes() -> None:
    installs = [command for line in instructions("RUN") for command in line.split("&&") if "pip install" in command]

    assert len(installs) == 3
    assert ["--require-hashes" in each or ("--no-deps" in each and "--offline" in each) for each in installs] == [True] * 3
    assert "uv.txt" in installs[0]
    assert "requirements.lock" in installs[1]


def test_last_stage_runs_onethread_as_nobody_in_particular_and_installs_nothing() -> None:
    last = (ROOT / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]

    assert re.search(r"^USER 10001:10001$", last, flags=re.MULTILINE)
    assert not re.search(r"pip|apt-get|uv |curl", last)
    assert instructions("ENTRYPOINT") == ['["onethread"]']
    arguments = yaml.safe_load(instructions("CMD")[0])
    assert onethread.commands[arguments[0]].make_context(arguments[0], arguments[1:]).params["host"] == "0.0.0.0"


def test_health_check_asks_healthz_with_the_image_s_own_python() -> None:
    check = yaml.safe_load(instructions("HEALTHCHECK")[0].partition("CMD ")[2])

    assert check[:2] == ["python", "-c"]
    compile(check[2], "healthcheck", "exec")
    assert "('127.0.0.1', 8420" in check[2]
    assert "'/healthz'" in check[2]


def test_settings_in_the_container_files_exist() -> None:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", "compose.yaml"))
    named = set(re.findall(r"\bONETHREAD_[A-Z_]+", text))

    assert {"ONETHREAD_DATABASE_URL", "ONETHREAD_SECRET_KEY", "ONETHREAD_PUBLIC_URL", "ONETHREAD_DATA_DIR"} <= named
    assert named - SETTINGS == set()


def test_compose_waits_for_a_healthy_database_and_keeps_secrets_out_of_the_file() -> None:
    services = compose()["services"]

    assert set(services) == {"postgres", "onethread", "worker"}
    for name in ("onethread", "worker"):
        service = services[name]
        assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}
        assert service["read_only"] is True
        assert service["environment"]["ONETHREAD_SECRET_KEY"].startswith("${ONETHREAD_SECRET_KEY:?")
        assert "${POSTGRES_PASSWORD:?" in service["environment"]["ONETHREAD_DATABASE_URL"]
        assert service["volumes"] == ["data:/data"]
    assert services["postgres"]["image"] == "postgres:17"
    assert services["postgres"]["healthcheck"]["test"][1].startswith("pg_isready ")
    assert services["onethread"]["ports"] == ["127.0.0.1:8420:8420"]
    assert services["worker"]["command"] == ["worker"]
    assert services["worker"]["command"][0] in onethread.commands
    assert services["worker"]["profiles"] == ["workers"]
    volumes = {volume.partition(":")[0] for service in services.values() for volume in service["volumes"]}
    assert volumes == set(compose()["volumes"])


def test_commands_in_the_guide_to_deployment_exist() -> None:
    text = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    used = [found for line in _console(text) for found in re.findall(r"(?<!-u )\bonethread (?!onethread\b)([a-z]+) ?([a-z]*)", line)]

    assert {("serve", ""), ("user", "link"), ("db", "export"), ("db", "import"), ("doctor", "")} <= set(used)
    for command, subcommand in used:
        assert command in onethread.commands
        group = onethread.commands[command]
        assert not isinstance(group, click.Group) or subcommand in group.commands, (command, subcommand)


def test_settings_in_the_guide_to_deployment_exist() -> None:
    text = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")

    assert set(re.findall(r"\bONETHREAD_[A-Z_]+[A-Z]\b", text)) - SETTINGS == set()


def test_metrics_in_the_guide_to_deployment_exist() -> None:
    text = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    source = (ROOT / "web/metrics.py").read_text(encoding="utf-8")
    named = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in re.findall(r"\bonethread_[a-z_]+", text)}

    assert {name for name in named if f'"{name}"' not in source} == set()
    assert {"onethread_queue_oldest_seconds", "onethread_turns", "onethread_workers"} <= named


def _console(text: str) -> list[str]:
    """The lines of the guide's console blocks."""
    return [line for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]
