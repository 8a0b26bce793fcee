"""`onethread doctor`: what is configured, what is missing, and how to fix it. It shows names of keys, never a key."""

import json
import os
import shutil
import site
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr

from core.errors import InvalidInput, OnethreadError
from core.frames import WORKER_SILENT
from core.llm.providers import DEMO_MODEL, PROVIDERS, key_of, missing_keys, provider_of
from onethread import mcp_config
from onethread.bootstrap import App, running
from onethread.doctor_platforms import discord, slack
from onethread.finding import Finding
from onethread.settings import CONFIG_FILE, Settings, load, prepare_data_dir, variable
from storage.migrate import head

_LOW_DISK_BYTES = 500_000_000
_KNOWN_PTH = ("distutils-precedence.pth", "_virtualenv.pth")


async def examine() -> list[Finding]:
    """Everything that was found, in the order in which one would mend it."""
    before = dict(os.environ)
    try:
        settings = load()
        findings = [*_settings(settings, before), *_disk(settings)]
        prepare_data_dir(settings)
    except OnethreadError as error:
        return [Finding("broken", str(error))]
    findings.append(Finding("fine", f"data directory: {settings.data_dir} can be written to"))
    findings += [*await _database(settings), *_keys(settings), _default_model(settings), *_fallbacks(settings), *_mcp(settings)]
    return [*findings, *await slack(settings), *await discord(settings), *_pth_files()]


def _settings(settings: Settings, before: dict[str, str]) -> Iterator[Finding]:
    """What is set, and where."""
    dotenv = dotenv_values(".env")
    file = settings.data_dir / CONFIG_FILE
    toml = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for field in Settings.model_fields:
        name = variable(field)
        origin = (
            "the environment"
            if before.get(name)
            else f"{Path('.env').absolute()}"
            if dotenv.get(name)
            else str(file)
            if field in toml
            else ""
        )
        if origin:
            value = settings.database_shown if field == "database_url" else _shown(getattr(settings, field))
            yield Finding("fine", f"{name}={value} (from {origin})")
    if unknown := sorted(each for each in toml if each not in Settings.model_fields):
        yield Finding("note", f"{file} sets what does not exist: {', '.join(unknown)}", "See .env.example for what can be set.")


def _disk(settings: Settings) -> Iterator[Finding]:
    existing = next((path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    text = f"disk: {free / 1e9:.1f} GB free at {existing}"
    yield Finding("note", text, "Free some space: a full disk stops everything.") if free < _LOW_DISK_BYTES else Finding("fine", text)


async def _database(settings: Settings) -> list[Finding]:
    try:
        async with running(settings) as app:
            return [_stored(settings, await app.storage.version()), *await _work(app), *await _web(app), *await _people(app)]
    except OnethreadError as error:
        return [Finding("broken", f"database: {error}", f"It is at {settings.database_shown}")]


def _stored(settings: Settings, version: str) -> Finding:
    files: list[Path] = []
    if settings.database.startswith("sqlite"):
        path = Path(settings.database.partition("///")[2])
        files = [each for each in (path, path.with_name(f"{path.name}-wal")) if each.is_file()]
    size = f", {sum(each.stat().st_size for each in files) / 1e6:.1f} MB" if files else ""
    return Finding("fine", f"database: {settings.database_shown} ({version}, revision {head()}{size})")


async def _work(app: App) -> list[Finding]:
    async with app.storage.read() as uow:
        workers = await uow.workers.alive(uow.now - WORKER_SILENT)
        unfinished = await uow.turns.open_count()
        models = {app.rules.default_model, *app.settings.fallback_models, *(each.model for each in await uow.projects.all() if each.model)}
        pauses = [pause for model in sorted(models) if (pause := await uow.pauses.get(model)) and pause.paused_until > uow.now]
        now = uow.now
    findings = [
        Finding(
            "fine", f"worker: {each.host} process {each.pid}, up {_age(now - each.started_at)}, seen {_age(now - each.heartbeat_at)} ago"
        )
        for each in workers
    ]
    if not workers:
        advice = "`onethread chat` and `onethread serve` bring their own; otherwise start `onethread worker`."
        findings.append(Finding("note", "workers: none is running", advice))
    findings.append(Finding("fine" if workers or not unfinished else "note", f"messages queued or running: {unfinished}"))
    for pause in pauses:
        until = _age(pause.paused_until - now)
        findings.append(Finding("note", f"model {pause.model} is paused for {until}: its provider turns everybody away"))
    return findings


async def _web(app: App) -> list[Finding]:
    """What `onethread serve` would say."""
    from onethread import serve  # brings the whole web surface along

    findings = []
    local = not serve.is_public(app.settings)
    refused = await serve.unsafe(app, local=local)
    where = f"at {app.settings.public_url}" if app.settings.public_url else "for this machine alone"
    if refused:
        findings.append(Finding("broken", f"web: `onethread serve` would refuse to start {where}", "\n".join(refused)))
    else:
        findings.append(Finding("fine", f"web: `onethread serve` would start {where}"))
    if local and (also := [each for each in await serve.unsafe(app, local=False) if each not in refused]):
        findings.append(Finding("note", "web: for others than this machine more is needed", "\n".join(also)))
    if not local and app.settings.public_url.startswith("http://"):
        advice = "Passwords and what people write can be read on the way. Put a reverse proxy with TLS in front of it."
        findings.append(Finding("note", f"web: {app.settings.public_url} is not https", advice))
    return findings


async def _people(app: App) -> list[Finding]:
    """Whom the map names that is not here, or may not come in."""
    async with app.storage.read() as uow:
        users = {name: await uow.users.by_name(name) for name in app.settings.people}
    findings = []
    for name, user in users.items():
        if user is None:
            advice = f"Until then whoever writes with their accounts is somebody else. Add them: onethread user add {name}"
            findings.append(Finding("note", f"people: there is no user {name!r}", advice))
        elif user.disabled_at:
            advice = f"Let them in again: onethread user enable {name}. Or take them out of people."
            findings.append(Finding("note", f"people: {name} is disabled, and turned away on the chat platforms, too", advice))
    if users and not findings:
        findings.append(Finding("fine", f"people: all are known whose accounts are named: {', '.join(users)}"))
    return findings


def _keys(settings: Settings) -> Iterator[Finding]:
    for provider in PROVIDERS:
        if provider.key_names and key_of(provider, settings.environ):
            name = next(name for name in provider.key_names if settings.environ.get(name, "").strip())
            yield Finding("fine", f"{provider.label}: {name} is set")
    without = [provider for provider in PROVIDERS if provider.key_names and not key_of(provider, settings.environ)]
    if len(without) == sum(bool(provider.key_names) for provider in PROVIDERS):
        names = ", ".join(provider.key_names[0] for provider in without[:3])
        yield Finding("note", "no provider's key is set", f"Set one, for example {names}, in the environment or in .env.")


def _default_model(settings: Settings) -> Finding:
    model = settings.default_model
    missing = () if settings.model_api_base else missing_keys(model, settings.environ)
    if missing:
        return Finding("broken", f"default model: {model} has no key", f"Set {' or '.join(missing)}, or another ONETHREAD_MODEL.")
    if model == DEMO_MODEL:
        return Finding("note", f"default model: {model}, which answers by rules and is no language model")
    if provider_of(model) is None:
        return Finding("note", f"default model: {model}, of a provider that Onethread does not know by name")
    return Finding("fine", f"default model: {model}")


def _fallbacks(settings: Settings) -> Iterator[Finding]:
    for model in settings.fallback_models:
        missing = () if settings.model_api_base else missing_keys(model, settings.environ)
        advice = f"It is passed over. Set {' or '.join(missing)}."
        yield Finding("note", f"fallback model: {model} has no key", advice) if missing else Finding("fine", f"fallback model: {model}")


def _mcp(settings: Settings) -> Iterator[Finding]:
    """Clients whose file cannot be understood, or starts what is not there any more: they show no tools, and do not say why."""
    for name, client in mcp_config.CLIENTS.items():
        path = client.file(settings.environ)
        try:
            command = mcp_config.started(client, path)
        except InvalidInput as error:
            yield Finding("note", f"MCP: {error}")
            continue
        if command and not shutil.which(command):
            shown = command if command.isprintable() else ascii(command)  # a project's file is not always the person's own
            advice = f"Remove its entry there, then: onethread mcp config {name} --write"
            yield Finding("note", f"MCP: {path} starts {shown}, which is not there", advice)


def _shown(value: object) -> object:
    match value:
        case SecretStr():
            return f"{len(value)} characters, not shown"
        case tuple():
            return ",".join(value)
        case BaseModel():
            return value.model_dump_json(exclude_defaults=True)
        case dict():
            return json.dumps(
                {name: each.model_dump(exclude_none=True) if isinstance(each, BaseModel) else each for name, each in value.items()}
            )
        case _:
            return value


def _pth_files() -> Iterator[Finding]:
    """Files that run code whenever Python starts: malware was spread by one."""
    for folder in {*site.getsitepackages(), site.getusersitepackages()}:
        for path in sorted(Path(folder).glob("*.pth")):
            if path.name not in _KNOWN_PTH and _runs_code(path) and not path.name.startswith("__editable__"):
                yield Finding("note", f"{path} runs code at each start of Python", "If you do not know where it is from, look into it.")


def _runs_code(path: Path) -> bool:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    return any(line.startswith(("import ", "import\t")) for line in lines)


def _age(span: timedelta) -> str:
    seconds = max(int(span.total_seconds()), 0)
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7_200 else f"{seconds // 3_600} h"
