"""Rows to the core's values and back."""

from collections.abc import Hashable, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin

_T = TypeVar("_T")


def load(kind: type[_T], row: Mapping[Any, Any]) -> _T:
    """A value of the dataclass `kind` from a row that has a column for each of its fields."""
    return kind(**{name: convert(row[name]) if convert else row[name] for name, convert in converters(cast(Hashable, kind))})


def dump(value: Any, *leave_out: str) -> dict[str, Any]:
    """The columns of a dataclass value."""
    columns = {name: getattr(value, name) for name, _ in converters(cast(Hashable, type(value))) if name not in leave_out}
    return {name: sorted(content) if isinstance(content, frozenset) else content for name, content in columns.items()}


@cache
def converters(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Of each field of the dataclass `kind` its name, and what its column's value goes through, None where it stays as it is."""
    return tuple((field.name, _converter(field.type)) for field in fields(kind))


def _converter(annotation: Any) -> Any:
    for kind in get_args(annotation) or (annotation,):
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return _Members(kind, none=NoneType in get_args(annotation)).__getitem__
    origin: Any = get_origin(annotation)
    return origin if origin in (tuple, frozenset) else None


class _Members(dict[Any, Any]):
    """By value: looked up in a tenth of the time that calling the class takes, which says what is wrong with others."""

    def __init__(self, kind: type[StrEnum], *, none: bool) -> None:
        super().__init__({member.value: member for member in kind} | ({None: None} if none else {}))
        self._kind = kind

    def __missing__(self, value: Any) -> StrEnum:
        return self._kind(value)
