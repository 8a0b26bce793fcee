"""What is not kept for ever, and its removal in steps that nobody has to wait for."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from core import conversations, tasks
from core.models import Conversation
from core.ports import Clock, Storage, UnitOfWork

_BATCH = 20
"""Conversations in one transaction."""


async def prune(storage: Storage, clock: Clock, kept: timedelta | None) -> Mapping[str, int]:
    """Removes what is old: rows removed, by table. Unused conversations go when `kept` is over, with their finished tasks."""
    removed = dict(await storage.prune(clock.now()))
    return removed | {"conversations": await _remove_unused(storage, kept) if kept else 0}


async def prunable(storage: Storage, clock: Clock, kept: timedelta | None) -> Mapping[str, int]:
    """What `prune` would remove."""
    found = dict(await storage.prunable(clock.now()))
    async with storage.read() as uow:
        return found | {"conversations": await uow.conversations.count_unused_since(uow.now - kept) if kept else 0}


async def _remove_unused(storage: Storage, kept: timedelta) -> int:
    number, last = 0, None
    while batch := await _remove_batch(storage, kept, last):
        number += len(batch)
        last = batch[-1].id
    return number


async def _remove_batch(storage: Storage, kept: timedelta, after: UUID | None) -> list[Conversation]:
    async with storage.write() as uow:
        batch = await uow.conversations.unused_since(uow.now - kept, after=after, limit=_BATCH)
        for conversation in batch:
            await _remove(uow, conversation)
    return batch


async def _remove(uow: UnitOfWork, conversation: Conversation) -> None:
    task = await uow.tasks.of_conversation(conversation.id)
    if task:
        await tasks.remove(uow, task)
    else:
        await conversations.remove(uow, conversation)
