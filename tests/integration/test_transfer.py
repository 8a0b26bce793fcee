"""Onethread goes on, in another database, where it was when it was exported."""

import io
from pathlib import Path
from typing import Any

from core import bindings, identity
from core.attachments import Upload
from core.models import Account, AgentStatus, BindingMode, ChannelKind, MessageStatus, Place, TurnStatus
from tests.fakes import Gate, ScriptedModel
from tests.integration.conftest import Start, World, onethread


async def _moved(world: World, other: World) -> None:
    """Carries everything over; the other world's admin is the first one's then."""
    file = io.BytesIO()
    await world.app.transfer.export_to(file, lambda *_: None)
    file.seek(0)
    await other.app.transfer.import_from(file, lambda *_: None)
    other.admin = await other.app.principal()


async def test_an_imported_database_goes_on_where_the_exported_one_was(start: Start, tmp_path: Path) -> None:
    async with start() as world, onethread(tmp_path / "other") as other:
        task = await world.task("Buy milk")
        owner = await world.app.person()
        _, secret = await world.write(lambda uow: identity.create_token(uow, owner, "ci", scopes=frozenset({"chat"}), lifetime=None))
        async with world.working():
            upload = Upload(name="list.txt", data=b"oat milk")
            await world.ended(await world.post(task.conversation_id, "Which kind?", uploads=[upload]))
        place = Place(account=Account(surface="slack", id="T1"), channel="C1", thread="1.0")
        how: Any = {"mode": BindingMode.WATCH, "kind": ChannelKind.OPEN, "source": "test"}
        followed = await world.write(lambda uow: bindings.follow(uow, world.admin, task.conversation_id, place, **how))

        await _moved(world, other)

        assert (await other.task("Buy bread")).ref == "OT-2"
        assert (await other.read(lambda uow: identity.authenticate(uow, secret))).user_id == world.admin.user_id
        assert await other.read(lambda uow: bindings.at(uow, place)) == followed
        async with other.working():
            reply = await other.ask(task.conversation_id, "And how much?")
        assert (reply.seq, reply.content) == (5, "OK.")
        assert "oat milk" in str(other.model.requests)


async def test_an_answer_that_was_being_written_is_begun_anew(start: Start, tmp_path: Path) -> None:
    gate = Gate()
    async with start(ScriptedModel().will("Half", gate, " and half")) as world, onethread(tmp_path / "other") as other:
        chat = await world.chat()
        async with world.working():
            posted = await world.post(chat.id, "Hello")
            await gate.reached()
            await _moved(world, other)
            gate.open()
            await world.ended(posted)

        turn = await other.turn(posted)
        assert (turn.status, turn.lease_owner, turn.lease_until) == (TurnStatus.QUEUED, None, None)
        assert (await other.reply(posted)).status is MessageStatus.PENDING
        assert (await other.agent_status(chat.id))[0] is AgentStatus.IDLE
        async with other.working():
            reply = await other.ended(posted)
        assert (reply.content, reply.status) == ("OK.", MessageStatus.COMPLETED)
