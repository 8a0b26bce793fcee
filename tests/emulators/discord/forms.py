"""What Discord takes and refuses in a request's body: messages, components, threads. Refusals are its 50035 with nested `errors`."""

from collections.abc import Callable
from typing import Any

from tests.emulators.discord.errors import Problems
from tests.emulators.discord.objects import COMPONENTS_V2, JSON

CONTENT_MOST = 2000
ROWS_MOST = BUTTONS_MOST = 5
AUTO_ARCHIVE = (60, 1440, 4320, 10080)
ROW, BUTTON, STRING_SELECT, TEXT_INPUT, TEXT_DISPLAY, SEPARATOR, CONTAINER = 1, 2, 3, 4, 10, 14, 17
SELECTS = (3, 5, 6, 7, 8)
V2 = (9, 10, 11, 12, 13, 14, 17)
LINK, PREMIUM = 5, 6


def message(body: JSON, problems: Problems | None = None, *, at: str = "") -> None:
    """Of a POST or a PATCH, or of the answer to an interaction (`at`: "data.")."""
    found = problems or Problems()
    found.length(f"{at}content", body.get("content"), most=CONTENT_MOST)
    _nonce(body.get("nonce"), found)
    _allowed_mentions(body.get("allowed_mentions"), found, at)
    embeds = body.get("embeds") or []
    if len(embeds) > 10:
        found.add(f"{at}embeds", "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
    v2 = bool((body.get("flags") or 0) & COMPONENTS_V2)
    if v2 and (body.get("content") or embeds):
        found.add(
            f"{at}content", "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2", "The 'content' field cannot be used with components V2"
        )
    components(body.get("components") or [], found, v2=v2, at=at)
    if problems is None:
        found.refuse()


def components(rows: list[JSON], problems: Problems, *, v2: bool = False, at: str = "") -> None:
    """Rows of buttons and selects, and with `v2` the layouts, of which only the rows are looked into."""
    if len(rows) > (40 if v2 else ROWS_MOST):
        problems.add(f"{at}components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
    seen: set[str] = set()
    for number, row in enumerate(rows):
        path = f"{at}components.{number}"
        if not problems.choice(f"{path}.type", row.get("type"), (ROW, *(V2 if v2 else ()))) or row["type"] != ROW:
            continue
        inner = row.get("components") or []
        selects = any(one.get("type") in SELECTS for one in inner)
        if not 1 <= len(inner) <= (1 if selects else BUTTONS_MOST):
            problems.add(f"{path}.components", "BASE_TYPE_BAD_LENGTH", f"Must be between 1 and {1 if selects else BUTTONS_MOST} in length.")
        for place, one in enumerate(inner):
            _component(one, f"{path}.components.{place}", problems, seen)


def thread(body: JSON, *, private: bool = False) -> None:
    """Of a new one."""
    problems = Problems()
    _name(body, problems, required=True)
    _archive(body, problems)
    if private:
        problems.choice("type", body.get("type", 12), (10, 11, 12))
    problems.refuse()


def thread_change(body: JSON) -> None:
    problems = Problems()
    if "name" in body:
        _name(body, problems, required=True)
    _archive(body, problems)
    for field in ("archived", "locked", "invitable"):
        if field in body and not isinstance(body[field], bool):
            problems.add(field, "BASE_TYPE_BOOLEAN", "Must be either true or false.")
    problems.refuse()


def choices(found: list[JSON]) -> None:
    """Of an autocompletion's answer."""
    problems = Problems()
    if len(found) > 25:
        problems.add("data.choices", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
    for number, one in enumerate(found):
        problems.length(f"data.choices.{number}.name", one.get("name"), least=1, most=100, required=True)
        if isinstance(one.get("value"), str):
            problems.length(f"data.choices.{number}.value", one["value"], most=100)
    problems.refuse()


def _name(body: JSON, problems: Problems, *, required: bool) -> None:
    problems.length("name", body.get("name"), least=1, most=100, required=required)


def _archive(body: JSON, problems: Problems) -> None:
    if body.get("auto_archive_duration") is not None:
        problems.choice("auto_archive_duration", body["auto_archive_duration"], AUTO_ARCHIVE)


def _nonce(nonce: object, problems: Problems) -> None:
    if nonce is None or (isinstance(nonce, int) and not isinstance(nonce, bool)):
        return
    if not isinstance(nonce, str):
        problems.add("nonce", "NONCE_TYPE_INVALID", "Nonce must be a string or an integer.")
    elif len(nonce) > 25:
        problems.add("nonce", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")


def _allowed_mentions(allowed: Any, problems: Problems, at: str) -> None:
    if allowed is None:
        return
    path = f"{at}allowed_mentions"
    for number, kind in enumerate(allowed.get("parse") or []):
        problems.choice(f"{path}.parse.{number}", kind, ("users", "roles", "everyone"))
    for kind in ("users", "roles"):
        listed = allowed.get(kind) or []
        if kind in (allowed.get("parse") or []) and listed:
            problems.add(path, "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.')
        if len(listed) > 100:
            problems.add(f"{path}.{kind}", "BASE_TYPE_MAX_LENGTH", "Must be 100 or fewer in length.")


def _component(one: JSON, path: str, problems: Problems, seen: set[str]) -> None:
    if not problems.choice(f"{path}.type", one.get("type"), (BUTTON, *SELECTS)):
        return
    check: Callable[[JSON, str, Problems], None] = _button if one["type"] == BUTTON else _select
    check(one, path, problems)
    custom_id = one.get("custom_id")
    if custom_id in seen:
        problems.add(f"{path}.custom_id", "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated")
    if custom_id is not None:
        seen.add(str(custom_id))


def _button(one: JSON, path: str, problems: Problems) -> None:
    problems.length(f"{path}.label", one.get("label"), most=80)
    if not problems.choice(f"{path}.style", one.get("style"), tuple(range(1, 7))):
        return
    if one["style"] == LINK:
        problems.length(f"{path}.url", one.get("url"), least=1, most=512, required=True)
        if "custom_id" in one:
            problems.add(path, "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE", "A custom id and url cannot both be specified")
    elif one["style"] != PREMIUM:
        problems.length(f"{path}.custom_id", one.get("custom_id"), least=1, most=100, required=True)
        if not one.get("label") and not one.get("emoji"):
            problems.add(f"{path}.label", "BUTTON_COMPONENT_LABEL_OR_EMOJI_REQUIRED", "A button needs a label or an emoji")


def _select(one: JSON, path: str, problems: Problems) -> None:
    problems.length(f"{path}.custom_id", one.get("custom_id"), least=1, most=100, required=True)
    problems.length(f"{path}.placeholder", one.get("placeholder"), most=150)
    options = one.get("options") or []
    if one["type"] == STRING_SELECT and not 1 <= len(options) <= 25:
        problems.add(f"{path}.options", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 25 in length.")
    for number, option in enumerate(options):
        for field in ("label", "value"):
            problems.length(f"{path}.options.{number}.{field}", option.get(field), least=1, most=100, required=True)
