"""What is shown of messages and tasks, state by state."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from bots import view
from bots.surface import Action
from core.models import JSON, AgentStatus

REPLY = "01900000-0000-7000-8000-000000000001"
TURN = "01900000-0000-7000-8000-000000000002"
ASKING = {"status": "thinking", "message": "Asking demo/offline …"}
RUNNING = {"status": "running", "position": 0, "retry_at": None}
QUEUED = {"status": "queued", "position": 0, "retry_at": None}


def _reply(status: str = "processing", **fields: Any) -> JSON:
    return {
        "id": REPLY,
        "turn_id": TURN,
        "role": "assistant",
        "content": "",
        "status": status,
        "author": None,
        "source": "agent",
        "metadata": {},
        "tool_calls": [],
        "attachments": [],
        "deleted_at": None,
        **fields,
    }


def _said(**fields: Any) -> JSON:
    return {**_reply("completed"), "role": "user", "content": "Hi", "author": "alice", "source": "web", **fields}


def _call(state: str = "done", **fields: Any) -> JSON:
    return {"step": 0, "index": 0, "name": "create_task", "arguments": {"title": "Milk"}, "state": state, **fields}


def _shown(message: JSON, **around: Any) -> view.View:
    found = view.message(message, **around)
    assert found
    return found


def test_a_reply_without_text_shows_what_the_agent_does_and_can_be_stopped() -> None:
    shown = _shown(_reply(), turn=RUNNING, agent=ASKING)
    assert (shown.text, shown.notes, shown.ended) == ("", ("◐ Thinking · Asking demo/offline …",), False)
    assert [(button.action, button.label, button.value) for button in shown.buttons] == [(Action.STOP, "Stop", TURN)]


@pytest.mark.parametrize(("position", "note"), [(1, "○ Queued · 1 answer before this one"), (2, "○ Queued · 2 answers before this one")])
def test_a_queued_reply_shows_how_many_answers_come_before_it(position: int, note: str) -> None:
    assert _shown(_reply("pending"), turn={**QUEUED, "position": position}, agent=ASKING).notes == (note,)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_reply_that_broke_off_can_be_tried_again_until_another_turn_came(status: str) -> None:
    assert [button.action for button in _shown(_reply(status)).buttons] == [Action.RETRY]
    assert _shown(_reply(status), is_past=True).buttons == ()


@pytest.mark.parametrize(
    ("behind", "note"), [(1, "○ 1 more message is answered after this"), (3, "○ 3 more messages are answered after this")]
)
def test_a_reply_says_how_many_messages_are_answered_after_it(behind: int, note: str) -> None:
    assert _shown(_reply(), turn=RUNNING, agent=ASKING, behind=behind).notes == ("◐ Thinking · Asking demo/offline …", note)
    assert _shown(_reply(), turn=RUNNING, agent=ASKING).notes == ("◐ Thinking · Asking demo/offline …",)


def test_a_reply_that_waits_for_a_retry_shows_when_and_why() -> None:
    turn = {**QUEUED, "retry_at": "2026-11-26T12:03:10.000Z", "error": "The provider is busy."}
    assert _shown(_reply("pending"), turn=turn, agent=ASKING).notes == ("◐ Thinking · Trying again at 12:03:10 UTC: The provider is busy.",)


def test_a_reply_that_no_worker_can_give_says_what_to_do() -> None:
    shown = _shown(_reply("pending"), turn={**QUEUED, "no_worker": True}, agent=ASKING)
    assert "No worker runs that could answer. Start one that has this model's key" in shown.notes[0]


def test_a_running_reply_shows_its_text_and_its_tool_calls_a_line_each() -> None:
    calls = [_call(), _call("running", name="list_tasks", arguments={}), _call("failed", result='{"error": "There is no OT-9."}')]
    shown = _shown(
        _reply(content="So far", tool_calls=calls), turn=RUNNING, agent={"status": "executing", "message": "Running list_tasks …"}
    )
    assert shown.text == "So far"
    assert shown.notes == (
        "✔ create_task `title=Milk`",
        "◉ Running list_tasks",
        "✕ create_task `title=Milk`: There is no OT-9.",
    )


def test_only_the_newest_of_many_tool_calls_are_shown() -> None:
    calls = [_call(index=number) for number in range(11)]
    notes = _shown(_reply("completed", tool_calls=calls)).notes
    assert notes[0] == "… 3 more tool calls before these"
    assert len(notes) == 9


def test_a_denied_tool_call_says_so() -> None:
    denied = _call("failed", approval="denied", approval_id="A", decided_by="mia_*")
    assert _shown(_reply("completed", tool_calls=[denied])).notes == (r"✕ create_task `title=Milk` · denied by mia\_\*",)


def test_a_tool_call_that_awaits_approval_is_asked_for() -> None:
    call = _call("awaiting_approval", name="delete_task", arguments={"ref": "OT-3"}, approval_id="A", approval="open")
    shown = _shown(_reply(tool_calls=[call]), turn={**RUNNING, "status": "waiting"}, agent=ASKING)
    assert shown.notes == ("◎ May I run delete_task `ref=OT-3`?",)
    assert [(each.action, each.value, each.style) for each in shown.buttons] == [
        (Action.APPROVE, "A", "primary"),
        (Action.DENY, "A", "danger"),
    ]


def test_a_completed_reply_ends_with_model_tokens_and_cost() -> None:
    metadata = {"model": "demo/offline", "tokens_in": 1234, "tokens_out": 56, "cost": "0.0010", "estimated": True}
    shown = _shown(_reply("completed", content="Done", metadata=metadata))
    assert (shown.notes, shown.buttons, shown.ended) == (("demo/offline · ~1,234 → 56 tokens · $0.0010",), (), True)


def test_an_unknown_price_and_another_model_are_told() -> None:
    metadata = {"model": "a/x", "fallback_from": "b/y", "fallback_reason": "RATE_LIMITED", "tokens_in": 1, "tokens_out": 2, "cost": None}
    assert _shown(_reply("completed", metadata=metadata)).notes == ("a/x · instead of b/y, which is busy · 1 → 2 tokens · cost unknown",)


def test_a_question_has_a_button_for_each_option_until_it_is_answered() -> None:
    question = _reply("completed", content="Which?", metadata={"question": {"text": "Which?", "options": ["Red", "Blue"]}})
    buttons = _shown(question).buttons
    assert [(each.action, each.label, each.value) for each in buttons] == [
        (Action.ANSWER, "Red", f"{REPLY} 0"),
        (Action.ANSWER, "Blue", f"{REPLY} 1"),
    ]
    answered = _shown(question, answer=view.Answer(by="mia*", text="Blue"))
    assert (answered.buttons, answered.notes) == ((), (r"✔ Answered by mia\*: Blue",))


def test_a_failed_reply_keeps_its_text_and_can_be_retried() -> None:
    shown = _shown(_reply("failed", content="Half", metadata={"error": {"code": "TIMEOUT", "message": "It took too long."}}))
    assert (shown.text, shown.notes) == ("Half", ("✕ It took too long.",))
    assert [(each.action, each.value) for each in shown.buttons] == [(Action.RETRY, TURN)]


def test_a_stopped_reply_can_be_retried() -> None:
    shown = _shown(_reply("cancelled", content="Half"))
    assert (shown.text, shown.notes, [each.action for each in shown.buttons]) == ("Half", ("■ Stopped.",), [Action.RETRY])


def test_nothing_is_shown_of_a_deleted_message() -> None:
    assert view.message(_said(deleted_at="2026-11-26T12:00:00Z")) is None


@pytest.mark.parametrize(
    ("source", "speaker"),
    [("web", "alice, on the web"), ("terminal", "alice, in the terminal"), ("mcp", "alice, by MCP"), ("import", "alice, by import")],
)
def test_what_people_say_elsewhere_comes_with_name_and_origin(source: str, speaker: str) -> None:
    shown = _shown(_said(source=source))
    assert (shown.text, shown.speaker, shown.notes, shown.buttons) == ("Hi", speaker, (), ())


def test_files_and_the_reason_why_nobody_answers_are_noted() -> None:
    shown = _shown(_said(attachments=[{"name": "a*b.png", "size": 2500}], metadata={"unanswered": {"code": "X", "message": "Too many."}}))
    assert shown.notes == ("+ a\\*b.png (2.5 kB)", "Too many.")


def test_what_somebody_wrote_stays_on_its_line_and_within_its_markup() -> None:
    call = _call("failed", name="x*y", arguments={"title": "a`b\nc <!channel>"}, result='{"error": "**no** [x](http://y)\\n# z"}')
    note = _shown(_reply("completed", tool_calls=[call])).notes[0]
    assert note.startswith("✕ x\\*y `title=a'b c ")
    assert note.count("`") == 2
    assert "\n" not in note
    assert "<!channel>" not in note
    assert note.endswith("\\*\\*no\\*\\* \\[x\\](http://y) # z")


def test_nothing_notifies_a_crowd() -> None:
    everything = [
        _shown(_said(content="<!channel> @everyone", author="@everyone")),
        _shown(_reply("completed", content="@here <!here>")),
        _shown(_reply("failed", metadata={"error": {"message": "@everyone"}})),
        view.card(_task(title="@everyone <!here>"), "https://one.example", "also in #@everyone on Slack"),
        _shown({**_said(content="@here follows this in #<!channel> on Slack."), "role": "system"}),
        view.changed(_said(content="<!here>", author="@everyone")),
        _intro("@everyone <!channel>"),
    ]
    for shown in everything:
        said = " ".join((shown.text, shown.speaker, *shown.notes))
        assert not any(crowd in said for crowd in ("<!channel>", "<!here>", "@everyone", "@here"))


def _intro(name: str) -> view.View:
    """Where everybody and everything has this name."""
    before = view.Before(count=3, since=datetime(2026, 11, 22, tzinfo=UTC), people=[name], first=name, last=name)
    standing = view.Standing(read_only=False, read_by_others=True, is_left=False, also=f"also in #{name} on Slack")
    return view.intro(None, name, "https://one.example", before, standing)


def test_what_people_wrote_is_no_markup_where_a_place_is_told_what_it_follows() -> None:
    shown = _intro("**x**](https://evil.example)\n# [y](z)")
    assert shown.text == r"Follows **[\*\*x\*\*\](https://evil.example) # \[y\](z)](https://one.example)**"
    assert not any("\n" in note or "**x**" in note or "[y](" in note for note in shown.notes)


def _task(**fields: Any) -> JSON:
    facts = {"ref": "OT-3", "title": "Buy milk", "status": "todo", "priority": "medium", "assignee": None, "due_at": None}
    return {**facts, **fields}


def test_a_card_tells_what_is_not_as_usual() -> None:
    assert view.card(_task(), "https://one.example/x").notes == ("○ Todo",)
    task = _task(status="in_progress", priority="urgent", assignee="bob", due_at="2026-12-01T00:00:00.000Z")
    card = view.card(task, "https://one.example/x")
    assert card.text == "**[OT-3](https://one.example/x)** Buy milk"
    assert card.notes == ("◐ In progress · Urgent priority · for bob · due 1 December 2026",)
    assert card.is_card


@pytest.mark.parametrize(
    ("turn", "agent", "status"),
    [
        (None, ASKING, AgentStatus.IDLE),
        (RUNNING, ASKING, AgentStatus.THINKING),
        (RUNNING, {"status": "idle", "message": ""}, AgentStatus.THINKING),
        (QUEUED, {"status": "error", "message": "x"}, AgentStatus.THINKING),
        ({**RUNNING, "status": "waiting"}, {"status": "waiting_for_user", "message": "May I?"}, AgentStatus.WAITING_FOR_USER),
    ],
)
def test_the_status_is_idle_only_without_a_turn(turn: JSON | None, agent: JSON, status: AgentStatus) -> None:
    assert view.doing(turn, agent)[0] is status


def test_a_link_to_the_conversation_leads_to_its_page() -> None:
    assert view.page("https://one.example", UUID(REPLY)) == f"https://one.example/conversations/{REPLY}"
