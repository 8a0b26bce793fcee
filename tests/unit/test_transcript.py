"""What the terminal puts onto the paper, from a Follower's frames."""

from typing import Any

from core.frames import Frame
from core.models import JSON
from core.talk import Talk
from onethread.terminal.status import held_lines
from onethread.terminal.text import Fragments
from onethread.terminal.transcript import Transcript

SLACK: JSON = {"id": "b1", "surface": "slack", "kind": "open", "label": "#ops", "mode": "two_way", "state": "live"}
DISCORD: JSON = {**SLACK, "id": "b2", "surface": "discord", "kind": "private", "label": "", "mode": "watch"}


class Lines:
    """Paper that remembers."""

    width = 100

    def __init__(self) -> None:
        self.printed: list[str] = []

    def print(self, fragments: Fragments) -> None:
        self.printed.append("".join(fragment[1] for fragment in fragments))

    def fresh(self) -> list[str]:
        """What was printed since this was asked last."""
        printed, self.printed = self.printed, []
        return [line for line in printed if line]


def _message(number: int, role: str = "user", **fields: Any) -> JSON:
    message = {"id": f"m{number}", "seq": number, "role": role, "content": f"Text {number}", "status": "completed", "author": "mia"}
    return {
        **message,
        "source": "slack",
        "tool_calls": [],
        "attachments": [],
        "deleted_at": None,
        "turn_id": None,
        "stream_no": 1,
        "metadata": {},
        **fields,
    }


def _notice(number: int, content: str) -> JSON:
    return _message(number, "system", content=content, metadata={"notice": "followed", "binding_id": "b1"})


def _call(**fields: Any) -> JSON:
    return {"message_id": "m2", "step": 0, "index": 0, "name": "delete_task", "arguments": {"ref": "OT-3"}, **fields}


def _opened(*messages: JSON, bindings: tuple[JSON, ...] = ()) -> tuple[Transcript, Talk, Lines]:
    talk, lines = Talk(), Lines()
    transcript = Transcript(lines, talk, "kim")
    conversation = {"title": "Milk", "agent_status": "idle", "agent_status_message": "", "bindings": list(bindings)}
    transcript.apply(Frame("snapshot", {"conversation": conversation, "task": None, "turns": [], "messages": list(messages)}))
    return transcript, talk, lines


def test_it_begins_with_where_else_the_conversation_is_shown() -> None:
    _, _, lines = _opened(_message(1), bindings=(SLACK, DISCORD, {**SLACK, "id": "b3", "state": "off"}))

    heading, also, *_ = lines.fresh()

    assert (heading, also) == ("── Milk ──", "  also in #ops on Slack, read-only in a private channel on Discord")
    assert _opened(_message(1))[2].fresh() == ["── Milk ──", "mia (slack)", "❯ Text 1"]


def test_a_notice_is_a_line_that_nobody_said() -> None:
    transcript, _, lines = _opened(_message(1), _notice(2, "mia follows this in #ops on Slack from now on."))
    assert lines.fresh()[-1] == "  mia follows this in #ops on Slack from now on."

    transcript.apply(Frame("new_message", _notice(3, "mia stopped following this in #ops on Slack.\x1b[2J")))

    assert lines.fresh() == ["  mia stopped following this in #ops on Slack.[2J"]


def test_a_notice_among_what_waits_is_none_of_the_messages_that_do() -> None:
    reply = _message(2, "assistant", status="processing", author=None)
    _, talk, _ = _opened(_message(1), reply, _notice(3, "mia follows this."), _message(4))

    assert [line[0][1] for line in held_lines(talk, 80)] == ["· mia follows this.", "❯ Text 4"]


def test_a_notice_takes_nothing_from_a_question_and_from_the_last_exchange() -> None:
    long = "\n".join(f"Line {number}" for number in range(30))
    asked = _message(2, "assistant", content=long, author=None, metadata={"question": {"text": "Which?", "options": ["Red", "Blue"]}})
    _, talk, lines = _opened(_message(1), asked, _notice(3, "mia follows this."), _notice(4, "mia made this read-only."))

    assert talk.question
    assert talk.question.options == ("Red", "Blue")
    assert "Line 29" in lines.fresh()


def test_it_says_who_allowed_a_tool_and_who_did_not() -> None:
    reply = _message(2, "assistant", status="processing", author=None)
    transcript, _, lines = _opened(_message(1), reply)
    lines.fresh()

    transcript.apply(Frame("tool_call", _call(state="done", approval="approved", decided_by="mia")))
    transcript.apply(Frame("tool_call", _call(index=1, state="failed", approval="denied", decided_by="kim")))
    transcript.apply(Frame("tool_call", _call(index=2, state="failed", approval="expired")))

    assert lines.fresh() == [
        "  ✔ delete_task {ref: OT-3}: approved by mia",
        "  ✕ delete_task {ref: OT-3}: denied by kim",
        "  ✕ delete_task {ref: OT-3}: nobody allowed it",
    ]
