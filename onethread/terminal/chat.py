"""Starts the terminal: a screen for a person, or a pipe for a program, each with a worker of its own."""

import asyncio
import logging
import os
import signal
import sys
import threading
from importlib.metadata import version
from typing import NoReturn
from uuid import UUID

from core import conversations, tasks
from core.llm import client
from core.llm.providers import DEMO_MODEL
from core.models import Conversation, User
from onethread.bootstrap import App, running, working
from onethread.settings import Settings
from onethread.terminal import commands
from onethread.terminal.commands import Completions
from onethread.terminal.pipe import JsonLines, Pipe, PlainText, stdin_lines
from onethread.terminal.session import Session


def has_screen() -> bool:
    """Whether a person sits at a terminal that can draw."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


async def at_screen(settings: Settings, *, task: str | None, last: bool) -> NoReturn:
    """Until the person leaves, which ends the process; raises NotFound for a task that is not there."""
    async with running(settings) as app:
        user = await app.person()
        start = await _start(app, user, task=task, last=last)
        latest = await _latest(app, user)
        async with working(app):
            threading.Thread(target=client.load, name="model.load", daemon=True).start()  # it takes seconds; the person types meanwhile
            session = Session(app, user, commands.run, Completions(app))
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, session.screen.exit)
            _greet(session)
            await session.run(lambda: _begin(session, start, latest))
    _leave()


def _leave() -> NoReturn:
    """Ends the process at once. The model's library may still be loading, in a thread that an orderly end would wait for."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


async def through_pipe(settings: Settings, *, task: str | None, last: bool, as_json: bool) -> bool:
    """Sends each line of standard input when the one before is answered. False if any answer failed."""
    async with running(settings) as app:
        user = await app.person()
        start = await _start(app, user, task=task, last=last)
        async with working(app):
            pipe = Pipe(app, user, JsonLines(sys.stdout) if as_json else PlainText(sys.stdout, sys.stderr))
            return await pipe.run(stdin_lines(), start)


async def _start(app: App, user: User, *, task: str | None, last: bool) -> UUID | None:
    if task:
        principal = await app.principal(user.name)
        async with app.storage.read() as uow:
            return (await tasks.get(uow, principal, task)).conversation_id
    latest = await _latest(app, user) if last else None
    return latest.id if latest else None


async def _latest(app: App, user: User) -> Conversation | None:
    principal = await app.principal(user.name)
    async with app.storage.read() as uow:
        page = await conversations.page(uow, principal, limit=1)
    return page.conversations[0] if page.conversations else None


def _greet(session: Session) -> None:
    model = session.app.rules.default_model
    session.screen.print([("class:bold", f"Onethread {version('onethread')}"), ("class:dim", f" · {model} · {session.user.name}")])
    if model == DEMO_MODEL:
        session.note("No model's key is set, so a rule-based demo answers. /model shows what to set.")
    session.note("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
    session.screen.flush()


async def _begin(session: Session, start: UUID | None, latest: Conversation | None) -> None:
    if start:
        await session.open(start)
    elif latest:
        session.chats = [latest.id]
        session.note(f"/open 1 goes back to “{latest.task_ref or latest.title or 'New chat'}”; /chats lists all.")
