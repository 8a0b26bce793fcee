"""The terminal's commands without a terminal: what depends on the very moment."""

from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import DummyCompleter
from prompt_toolkit.input import DummyInput
from prompt_toolkit.output import DummyOutput

from core import identity
from core.errors import Conflict
from core.ids import new_id
from onethread.bootstrap import running
from onethread.settings import Settings
from onethread.terminal import commands
from onethread.terminal.session import Session


async def test_where_it_is_followed_cannot_be_said_before_it_is_loaded(tmp_path: Path) -> None:
    async with running(Settings(data_dir=tmp_path)) as app:
        async with app.storage.write() as uow:
            admin = await identity.local_admin(uow)
        with create_app_session(input=DummyInput(), output=DummyOutput()):
            session = Session(app, admin, commands.run, DummyCompleter())
        session.conversation_id = new_id()

        with pytest.raises(Conflict, match="being loaded"):
            await commands.run(session, "/where")
