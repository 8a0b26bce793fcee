"""Application commands: what Discord takes at their registration, and how a person fills one in."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.emulators.discord import shapes
from tests.emulators.discord.errors import Problems
from tests.emulators.discord.objects import JSON, User
from tests.emulators.discord.state import World

CHAT, USER_MENU, MESSAGE_MENU = 1, 2, 3
SUB_COMMAND, GROUP, STRING, INTEGER, BOOLEAN, USER, CHANNEL, ROLE, MENTIONABLE, NUMBER = range(1, 11)
GUILD, BOT_DM = 0, 1
_NAME = re.compile(r"[-_'\w]{1,32}")
_CONTEXTS = (0, 1, 2)
_INSTALLS = (0, 1)
_WHOLE_MOST = 8000


def register(world: World, body: Any) -> list[JSON]:
    """PUT: the commands that there are from now on."""
    problems = Problems()
    if not isinstance(body, list):
        problems.add("_", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        problems.refuse()
    for number, one in enumerate(body):
        _check(world, one, f"{number}", problems)
    names = [(one.get("type", CHAT), one.get("name")) for one in body]
    for number, name in enumerate(names):
        if name in names[:number]:
            problems.add(f"{number}", "APPLICATION_COMMANDS_DUPLICATE_NAME", "Application command names must be unique")
    problems.refuse()
    before = {(one["type"], one["name"]): one["id"] for one in world.commands}
    world.commands = [_registered(world, one, before.get((one.get("type", CHAT), one["name"]))) for one in body]
    return world.commands


def add(world: World, body: JSON) -> JSON:
    """POST: one more, or in place of that name's."""
    problems = Problems()
    holder: JSON = {}
    _check(world, body, "0", problems)
    holder.update(problems.found.get("0", {}))
    problems.found = holder
    problems.refuse()
    same = [one for one in world.commands if (one["type"], one["name"]) == (body.get("type", CHAT), body["name"])]
    command = _registered(world, body, same[0]["id"] if same else None)
    world.commands = [one for one in world.commands if one not in same] + [command]
    return command


def fill_in(world: World, line: str, given: Mapping[str, object], *, focused: str = "") -> tuple[JSON, JSON]:
    """The command of that line ("task new"), and the interaction's `data` with its options. AssertionError for what no client allows."""
    first, *path = line.split()
    command = _one(world.commands, first, CHAT)
    resolved: JSON = {}
    data = {"id": command["id"], "name": first, "type": CHAT}
    options = _options(world, command, path, dict(given), resolved, focused=focused)
    return command, {**data, **({"options": options} if options else {}), **({"resolved": resolved} if resolved else {})}


def menu(world: World, name: str) -> JSON:
    return _one(world.commands, name, MESSAGE_MENU)


def allowed_in(command: JSON, *, direct: bool) -> bool:
    """Whether it is offered in DMs, or in guilds."""
    contexts = command.get("contexts")
    return contexts is None or (BOT_DM if direct else GUILD) in contexts


def _one(commands: Sequence[JSON], name: str, kind: int) -> JSON:
    found = [one for one in commands if one["name"] == name and one["type"] == kind]
    assert found, f"no command {name!r} of type {kind} is registered: {[one['name'] for one in commands]}"
    return found[0]


def _options(world: World, command: JSON, path: list[str], given: dict[str, object], resolved: JSON, *, focused: str) -> list[JSON]:
    offered = {one["name"]: one for one in command.get("options", [])}
    if path:
        assert path[0] in offered, f"/{command['name']} has no {path[0]!r}, but {list(offered)}"
        inner = offered[path[0]]
        return [{"name": path[0], "type": inner["type"], "options": _options(world, inner, path[1:], given, resolved, focused=focused)}]
    assert not any(one["type"] in (SUB_COMMAND, GROUP) for one in offered.values()), f"{command['name']} needs one of {list(offered)}"
    assert set(given) <= set(offered), f"{command['name']} has {list(offered)}, not {list(given)}"
    missing = [name for name, one in offered.items() if one.get("required") and name not in given]
    assert focused or not missing, f"{command['name']} needs {missing}"
    filled = []
    for name, value in given.items():
        option = {"name": name, "type": offered[name]["type"], "value": _value(world, offered[name], value, resolved, checked=not focused)}
        if name == focused:
            assert offered[name].get("autocomplete"), f"{name} is not completed"
            option["focused"] = True
        filled.append(option)
    return filled


def _value(world: World, option: JSON, value: object, resolved: JSON, *, checked: bool) -> object:
    kind = option["type"]
    if kind in (USER, CHANNEL, ROLE, MENTIONABLE):
        id_ = str(getattr(value, "id", value))
        if kind in (USER, MENTIONABLE):
            _resolve(world, world.users[id_], resolved)
        return id_
    types: dict[int, type | tuple[type, ...]] = {STRING: str, INTEGER: int, BOOLEAN: bool, NUMBER: (int, float)}
    assert isinstance(value, types[kind]), f"{option['name']} takes {types[kind]}, not {value!r}"
    if checked and isinstance(value, str):
        least, most = option.get("min_length", 0), option.get("max_length", 6000)
        assert least <= len(value) <= most, f"{option['name']} takes {least} to {most} characters"
    offered = [choice["value"] for choice in option.get("choices", [])]
    assert not offered or value in offered, f"{option['name']} takes one of {offered}"
    return value


def _resolve(world: World, user: User, resolved: JSON) -> None:
    resolved.setdefault("users", {})[user.id] = shapes.user(world, user)
    for guild in world.guilds.values():
        if user.id in guild.members and world.bot.id in guild.members:
            member = {**shapes.member(world, guild.members[user.id], whole=False), "permissions": "0"}
            resolved.setdefault("members", {})[user.id] = member


def _registered(world: World, body: JSON, id_: str | None) -> JSON:
    kind = body.get("type") or CHAT
    given = {key: body.get(key) for key in ("name_localizations", "description_localizations", "default_member_permissions")}
    shape = {
        "id": id_ or world.snowflake(),
        "application_id": world.application.id,
        "version": world.snowflake(),
        "type": kind,
        "name": body["name"],
        "description": body.get("description") or "",
        "contexts": body.get("contexts"),
        "integration_types": body.get("integration_types") or [0],
        "nsfw": bool(body.get("nsfw")),
        **given,
    }
    if kind == CHAT and body.get("options"):
        shape["options"] = [_option(one) for one in body["options"]]
    return shape


def _option(one: JSON) -> JSON:
    """As Discord gives it back: what is false or empty is left out."""
    kept = {key: value for key, value in one.items() if value not in (None, False, [])}
    if one.get("options"):
        kept["options"] = [_option(inner) for inner in one["options"]]
    return kept


def _check(world: World, one: JSON, path: str, problems: Problems) -> None:
    kind = one.get("type") or CHAT
    problems.choice(f"{path}.type", kind, (CHAT, USER_MENU, MESSAGE_MENU))
    if kind == CHAT:
        _check_name(one, path, problems)
        problems.length(f"{path}.description", one.get("description"), least=1, most=100, required=True)
        _check_options(one.get("options") or [], f"{path}.options", problems)
        if _size(one) > _WHOLE_MOST:
            problems.add(path, "APPLICATION_COMMAND_TOO_LARGE", "Command exceeds maximum size (8000)")
    else:
        problems.length(f"{path}.name", one.get("name"), least=1, most=32, required=True)
        problems.length(f"{path}.description", one.get("description"), most=0)
    for key, allowed in (("contexts", _CONTEXTS), ("integration_types", _INSTALLS)):
        if world.other_server and key in one and one[key] is None:
            problems.add(f"{path}.{key}", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        for number, value in enumerate(one.get(key) or []):
            problems.choice(f"{path}.{key}.{number}", value, allowed)


def _check_name(one: JSON, path: str, problems: Problems) -> None:
    name = one.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name != name.lower():
        problems.add(f"{path}.name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")


def _check_options(options: Sequence[JSON], path: str, problems: Problems) -> None:
    if len(options) > 25:
        problems.add(path, "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
    optional = False
    for number, one in enumerate(options):
        at = f"{path}.{number}"
        _check_name(one, at, problems)
        problems.length(f"{at}.description", one.get("description"), least=1, most=100, required=True)
        problems.choice(f"{at}.type", one.get("type"), tuple(range(1, 12)))
        if one.get("required") and optional:
            problems.add(at, "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", "Required options must be placed before non-required options")
        optional = optional or not one.get("required")
        if one.get("choices") and one.get("autocomplete"):
            problems.add(at, "APPLICATION_COMMAND_OPTIONS_CHOICES_AUTOCOMPLETE", "Choices and autocomplete are mutually exclusive")
        if one["name"] in [other["name"] for other in options[:number]]:
            problems.add(at, "APPLICATION_COMMAND_OPTIONS_NAME_INVALID", "Option name already used")
        _check_options(one.get("options") or [], f"{at}.options", problems)


def _size(one: JSON) -> int:
    """Characters of names, descriptions and values, as Discord counts them."""
    own = len(one.get("name") or "") + len(one.get("description") or "") + len(str(one.get("value", "")))
    return own + sum(_size(inner) for key in ("options", "choices") for inner in one.get(key) or [])
