"""Projects: what groups tasks, gives them their refs and instructs the agent."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from core.access import Principal, require, require_admin
from core.errors import Conflict, InvalidInput, NotFound
from core.ids import new_id
from core.llm.providers import checked
from core.models import Project
from core.ports import UnitOfWork
from core.text import clean

DEFAULT_KEY = "OT"
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9]{1,9}")
_MAX_INSTRUCTIONS = 20_000
_CHANGE = "change projects"


async def default(uow: UnitOfWork) -> Project:
    """The project that exists from the start."""
    return await uow.projects.by_key(DEFAULT_KEY) or await _add(uow, DEFAULT_KEY, "Onethread")


async def get(uow: UnitOfWork, key: str) -> Project:
    project = await uow.projects.by_key(key)
    if project is None:
        known = ", ".join(each.key for each in await uow.projects.all())
        raise NotFound(f"There is no project {key!r}. Projects: {known}.")
    return project


async def page(uow: UnitOfWork, principal: Principal) -> list[Project]:
    """All, the oldest first: whoever may read tasks may read what groups them."""
    require(principal, "tasks:read")
    return await uow.projects.all()


async def read(uow: UnitOfWork, principal: Principal, key: str) -> Project:
    require(principal, "tasks:read")
    return await get(uow, key)


async def add(uow: UnitOfWork, principal: Principal, key: str, name: str, *, instructions: str = "", model: str | None = None) -> Project:
    require_admin(principal, _CHANGE)
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"{key!r} is no project key: use 2-10 letters and digits, beginning with a letter, for example 'WEB'.")
    if await uow.projects.by_key(key):
        raise Conflict(f"There is a project {key.upper()!r} already.")
    return await _add(uow, key.upper(), _name(name), instructions=_instructions(instructions), model=_model(model))


async def edit(uow: UnitOfWork, principal: Principal, key: str, changes: Mapping[str, Any]) -> Project:
    """Changes any of name, instructions (the system prompt of its conversations) and model (None: the default)."""
    require_admin(principal, _CHANGE)
    project = await get(uow, key)
    cleaned = {field: _CLEAN[field](value) for field, value in changes.items()}
    if cleaned:
        await uow.projects.update(project.id, **cleaned)
    return await get(uow, key)


async def _add(uow: UnitOfWork, key: str, name: str, *, instructions: str = "", model: str | None = None) -> Project:
    project = Project(id=new_id(), key=key, name=name, instructions=instructions, model=model, created_at=uow.now, updated_at=uow.now)
    await uow.projects.add(project)
    return project


def _name(name: str) -> str:
    name = clean(name).strip()
    if not 1 <= len(name) <= 200:
        raise InvalidInput("A project's name has 1-200 characters.")
    return name


def _instructions(text: str) -> str:
    text = clean(text).strip()
    if len(text) > _MAX_INSTRUCTIONS:
        raise InvalidInput(f"Instructions have at most {_MAX_INSTRUCTIONS} characters; these have {len(text)}.")
    return text


def _model(model: str | None) -> str | None:
    return checked(model, any_provider=True) if model else None


_CLEAN: dict[str, Callable[[Any], Any]] = {"name": _name, "instructions": _instructions, "model": _model}
