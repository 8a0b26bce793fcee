"""A conversation put together from a Follower's frames."""

from typing import Any

from core.frames import Frame
from core.models import JSON
from core.talk import Talk


def _message(number: int, role: str = "user", status: str = "completed", **fields: Any) -> JSON:
    return {
        "id": f"m{number}",
        "seq": number,
        "role": role,
        "content": f"Text {number}",
        "status": status,
        "author": "alice",
        "tool_calls": [],
        "deleted_at": None,
        "stream_no": 1,
        "metadata": {},
        **fields,
    }


def _told(*messages: JSON) -> Talk:
    talk = Talk()
    conversation = {"title": "One", "agent_status": "idle", "agent_status_message": ""}
    talk.apply(Frame("snapshot", {"conversation": conversation, "task": None, "turns": [], "messages": list(messages)}))
    return talk


def test_who_reads_messages_elsewhere_forgets_all_but_those_that_are_being_written() -> None:
    talk = _told(_message(1), _message(2, "assistant"), _message(3), _message(4, "assistant", "processing"), _message(5))
    talk.forget(but={"m2"})
    assert [entry.message["id"] for entry in talk.entries] == ["m2", "m4"]
    talk.apply(Frame("llm_delta", {"message_id": "m4", "stream_no": 1, "offset": 6, "delta": " and more"}))
    entry = talk.entry("m4")
    assert entry
    assert entry.text == "Text 4 and more"
    assert talk.entry("m1") is None


def test_a_forgotten_message_that_changes_is_known_again() -> None:
    talk = _told(_message(1))
    talk.forget(but=())
    talk.apply(Frame("message_changed", _message(1, content="Changed")))
    assert [entry.text for entry in talk.entries] == ["Changed"]
