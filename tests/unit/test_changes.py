"""What a batch of live events changes, for whom: what nobody listens to is left out, and nobody is told of what they may not see."""

from uuid import UUID

import pytest

from core.events import (
    AgentStatusChanged,
    ConversationDeleted,
    Event,
    Lagged,
    MessageAdded,
    TaskChanged,
    TaskDeleted,
    TextDelta,
    TurnChanged,
)
from core.models import TurnStatus
from mcp_server.changes import Batch, Topic

HERE, THERE, ANA, KIM, ID = (UUID(int=number) for number in range(1, 6))
BOARD, STATUS = ("board", None), ("status", None)
LISTENED: set[Topic | None] = {("board", None), ("status", None), ("task", HERE), ("messages", HERE), ("messages", THERE), None}
CHANGED = TaskChanged(conversation_id=HERE, task_id=ID)
SAID = MessageAdded(conversation_id=HERE, message_id=ID)
TURNED = TurnChanged(conversation_id=HERE, turn_id=ID, status=TurnStatus.QUEUED, lease_token=0)
WRITTEN = TextDelta(conversation_id=HERE, message_id=ID, stream_no=1, offset=0, text="a")


def gone(*readers: UUID) -> Event:
    return TaskDeleted(conversation_id=HERE, task_id=ID, ref="OT-1", readers=readers)


def test_what_changed_is_told_to_those_who_may_see_it() -> None:
    batch = Batch.of([CHANGED, SAID, MessageAdded(conversation_id=THERE, message_id=ID)], LISTENED)
    assert batch.unread == [HERE, THERE]
    batch.learn(HERE, {ANA}, has_task=True)
    batch.learn(THERE, None, has_task=True)
    assert batch.topics_for(ANA) == {BOARD, ("task", HERE), ("messages", HERE), ("messages", THERE)}
    assert batch.topics_for(KIM) == {("messages", THERE)}


def test_what_nothing_was_learned_of_is_told_to_nobody() -> None:
    assert Batch.of([CHANGED, SAID], LISTENED).topics_for(ANA) == set()


def test_status_is_told_to_everybody_and_nothing_is_read_for_it() -> None:
    batch = Batch.of([TURNED], LISTENED)
    assert batch.unread == []
    assert batch.topics_for(KIM) == {STATUS}


def test_conversation_without_a_task_changes_no_board() -> None:
    batch = Batch.of([AgentStatusChanged(conversation_id=HERE), SAID], LISTENED)
    batch.learn(HERE, None, has_task=False)
    assert batch.topics_for(ANA) == {STATUS, ("messages", HERE)}


def test_deletion_is_told_to_those_who_could_see_it_though_nothing_is_left_to_read() -> None:
    batch = Batch.of([CHANGED, gone(ANA), ConversationDeleted(conversation_id=HERE, readers=(ANA,))], LISTENED)
    assert batch.unread == []
    assert batch.topics_for(ANA) == {BOARD, STATUS, ("task", HERE), ("messages", HERE)}
    assert batch.topics_for(KIM) == {STATUS}


@pytest.mark.parametrize("event", [CHANGED, SAID, TURNED, gone(ANA)])
def test_what_nobody_listens_to_needs_no_reading(event: Event) -> None:
    batch = Batch.of([event], {("messages", THERE), None})
    assert batch.is_empty
    assert batch.unread == []


@pytest.mark.parametrize(
    ("event", "of_list", "missed"), [(CHANGED, True, False), (gone(), True, False), (SAID, False, False), (WRITTEN, False, False)]
)
def test_list_may_be_another_one_where_a_task_changed(event: Event, of_list: bool, missed: bool) -> None:
    batch = Batch.of([event], LISTENED)
    assert (batch.of_list, batch.missed) == (of_list, missed)


def test_lost_events_are_missed() -> None:
    assert Batch.of([SAID, Lagged()], LISTENED).missed
