"""The last sieve before the database: no text enters it that PostgreSQL, or a surface that reads it, could not hold."""

import json
import re
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import Engine, event

from core.text import clean

_ESCAPED_NUL = re.compile(r"((?<!\\)(?:\\\\)*)\\u0000")


def json_text(value: Any) -> str:
    """As JSON, with U+FFFD in place of U+0000 and lone surrogates. Ids and times become strings."""
    try:
        text = to_json(value).decode()  # five times as fast as the standard library
    except PydanticSerializationError:  # a lone surrogate, which the standard library writes
        text = clean(json.dumps(value, ensure_ascii=False))
    return _ESCAPED_NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text


def clean_parameters_of(engine: Engine) -> None:
    """Puts U+FFFD in place of U+0000 and lone surrogates in every text that is stored or compared."""

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _clean(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, executemany: bool) -> tuple[str, Any]:
        return statement, [_cleaned(row) for row in parameters] if executemany else _cleaned(parameters)


def _cleaned(row: Any) -> tuple[Any, ...]:
    return tuple(clean(value) if isinstance(value, str) else value for value in row)
