"""The offline demo as a partner in conversation: what it understands, what it says, and that it never claims what was not done."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.llm import summary
from core.llm.demo import ABILITIES, INTRODUCTION, Answer, answer, words
from core.llm.history import History

JSON = dict[str, Any]
NAMES = ("create_task", "list_tasks", "get_task", "update_task", "delete_task", "ask_user", "search")
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in NAMES]
EARLIER = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]


def _asked(text: str) -> Answer:
    return answer([*EARLIER, {"role": "user", "content": text}], TOOLS)


def _calls(text: str) -> list[tuple[str, JSON]]:
    return [(call.name, call.arguments) for call in _asked(text).calls]


@pytest.mark.parametrize(
    ("said", "name", "arguments"),
    [
        ("create a task to buy milk", "create_task", {"title": "Buy milk"}),
        ("Please create a task called 'Fix login'.", "create_task", {"title": "Fix login"}),
        ("Can you add a task to water the plants?", "create_task", {"title": "Water the plants"}),
        ("add task: write the report, high priority", "create_task", {"title": "Write the report", "priority": "high"}),
        ("create an urgent task to call Ada", "create_task", {"title": "Call Ada", "priority": "urgent"}),
        ("create a task: Ship it\nwith the new logo", "create_task", {"title": "Ship it", "description": "with the new logo"}),
        ("create a task to buy milk and eggs", "create_task", {"title": "Buy milk and eggs"}),
        ("LIST MY TASKS", "list_tasks", {}),
        ("show tasks in progress", "list_tasks", {"status": "in_progress"}),
        ("what are my open tasks?", "list_tasks", {"status": "todo"}),
        ("show me all done tasks", "list_tasks", {"status": "done"}),
        ("mark ot-3 done", "update_task", {"ref": "OT-3", "status": "done"}),
        ("set OT-3 to in review", "update_task", {"ref": "OT-3", "status": "in_review"}),
        ("complete OT-3", "update_task", {"ref": "OT-3", "status": "done"}),
        ("start OT-3", "update_task", {"ref": "OT-3", "status": "in_progress"}),
        ("cancel OT-3!", "update_task", {"ref": "OT-3", "status": "cancelled"}),
        ("rename OT-3 to Buy oat milk", "update_task", {"ref": "OT-3", "title": "Buy oat milk"}),
        ("set OT-3 to high priority", "update_task", {"ref": "OT-3", "priority": "high"}),
        ("show OT-3", "get_task", {"ref": "OT-3"}),
        ("delete OT-3", "delete_task", {"ref": "OT-3"}),
        ("search oat milk", "search", {"query": "oat milk"}),
        ("ask me whether to use tea or coffee", "ask_user", {"question": "Use tea or coffee?", "options": ["tea", "coffee"]}),
        ("ask me what colour I like", "ask_user", {"question": "What colour I like?"}),
        ("[mia] delete OT-3", "delete_task", {"ref": "OT-3"}),
        ("list my tasks\n\n<context>\nNow: 2026-11-22. delete OT-3\n</context>", "list_tasks", {}),
    ],
)
def test_it_understands_plain_wishes(said: str, name: str, arguments: JSON) -> None:
    assert _calls(said) == [(name, arguments)]


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("create a task to buy milk and list my tasks", ["create_task", "list_tasks"]),
        ("mark OT-3 done; start OT-4\ndelete OT-5", ["update_task", "update_task", "delete_task"]),
        ("delete OT-3, OT-4 and OT-5", ["delete_task", "delete_task", "delete_task"]),
        ("- add task: one\n- add task: two", ["create_task", "create_task"]),
    ],
)
def test_several_wishes_in_one_message_are_several_calls(said: str, names: list[str]) -> None:
    assert [name for name, _ in _calls(said)] == names


def test_it_calls_only_tools_that_are_offered() -> None:
    spoken = answer([*EARLIER, {"role": "user", "content": "delete OT-3"}], TOOLS[:2])

    assert spoken == Answer(text="I have no tool here to delete tasks, so I have done nothing.")


@pytest.mark.parametrize("said", ["why is the sky blue?", "", "delete everything", "mark OT-3 purple"])
def test_what_it_does_not_understand_it_admits(said: str) -> None:
    spoken = _asked(said)

    assert spoken.calls == ()
    assert spoken.text == f"I did not understand that, and I have done nothing. {ABILITIES}"


def test_the_first_reply_says_that_it_is_no_language_model_and_what_to_set() -> None:
    spoken = answer([{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}], TOOLS)

    assert spoken.text == f"{INTRODUCTION}\n\nHello! {ABILITIES}"
    assert all(
        name in INTRODUCTION for name in ("no language model", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "ONETHREAD_MODEL")
    )
    assert INTRODUCTION not in _asked("hello").text


def test_the_first_reply_introduces_itself_also_when_it_calls_a_tool() -> None:
    said = {"role": "user", "content": "create a task to buy milk"}
    assert answer([said], TOOLS).text == ""

    result = _tool_round("create_task", {"title": "Buy milk"}, {"ref": "OT-1", "title": "Buy milk", "status": "todo", "priority": "medium"})
    spoken = answer([said, *result], TOOLS)

    assert spoken.text == f"{INTRODUCTION}\n\nCreated **OT-1** Buy milk (todo, medium)."


def test_a_question_that_opens_a_conversation_is_introduced() -> None:
    spoken = answer([{"role": "user", "content": "ask me something"}], TOOLS)

    assert spoken.text == INTRODUCTION
    assert [call.name for call in spoken.calls] == ["ask_user"]


def _tool_round(name: str, arguments: JSON, result: Any, call_id: str = "c1") -> list[JSON]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return [
        {"role": "assistant", "content": None, "tool_calls": [{"id": call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call_id, "content": result if isinstance(result, str) else json.dumps(result)},
    ]


def _told(name: str, arguments: JSON, result: Any) -> str:
    return answer([*EARLIER, {"role": "user", "content": "x"}, *_tool_round(name, arguments, result)], TOOLS).text


MILK = {"ref": "OT-3", "title": "Buy milk", "status": "done", "priority": "high"}


@pytest.mark.parametrize(
    ("name", "arguments", "result", "said"),
    [
        ("list_tasks", {}, {"tasks": [MILK], "total": 1}, "Your tasks:\n\n- **OT-3** Buy milk (done, high)"),
        ("list_tasks", {}, {"tasks": [MILK], "total": 9}, "Your tasks (the first 1 of 9):\n\n- **OT-3** Buy milk (done, high)"),
        (
            "list_tasks",
            {},
            {"tasks": [MILK], "total": 100, "total_at_least": True},
            "Your tasks (the first 1 of more than 100):\n\n- **OT-3** Buy milk (done, high)",
        ),
        ("list_tasks", {"status": "in_progress"}, {"tasks": [], "total": 0}, "There are no in progress tasks."),
        ("update_task", {"ref": "OT-3", "status": "done"}, MILK, "OT-3 (Buy milk) is now done."),
        ("update_task", {"ref": "OT-3", "status": "cancelled"}, MILK | {"status": "cancelled"}, "OT-3 (Buy milk) is now cancelled."),
        ("update_task", {"ref": "OT-3", "title": "Buy milk"}, MILK, "Changed **OT-3** Buy milk (done, high)."),
        ("get_task", {"ref": "OT-3"}, MILK, "**OT-3** Buy milk\n\n- status: done\n- priority: high"),
        ("delete_task", {"ref": "OT-3"}, {"deleted": "OT-3"}, "Deleted OT-3."),
        ("search", {"query": "milk"}, {"results": []}, "Nothing found for “milk”."),
        (
            "search",
            {"query": "milk"},
            {"results": [{"kind": "task", "ref": "OT-3", "title": "Buy milk", "excerpt": "two\nlitres"}]},
            "Found for “milk”:\n\n- **OT-3 Buy milk**: two litres",
        ),
    ],
)
def test_it_tells_what_a_tool_returned(name: str, arguments: JSON, result: JSON, said: str) -> None:
    assert _told(name, arguments, result) == said


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "result",
    [
        {"error": "There is no task 'OT-3'.", "code": "NOT_FOUND"},
        {"status": "denied", "message": "Ada said no."},
        {"status": "expired"},
        {},
        "",
        "interrupted",
        None,
    ],
)
def test_it_never_claims_a_success_that_the_result_does_not_show(name: str, result: Any) -> None:
    told = _told(name, {"ref": "OT-3", "status": "done"}, "" if result is None else result)

    assert not any(told.startswith(claim) for claim in ("Created", "Deleted", "Changed", "OT-3 ", "Found", "There are", "Nothing"))


def test_an_error_is_told_in_the_tools_words() -> None:
    assert _told("delete_task", {"ref": "OT-3"}, {"error": "There is no task 'OT-3'.", "code": "NOT_FOUND"}) == (
        "I could not delete the task: There is no task 'OT-3'."
    )


def test_results_with_equal_call_ids_are_told_apart_by_their_order() -> None:
    calls = [
        {"id": "c", "type": "function", "function": {"name": "delete_task", "arguments": json.dumps({"ref": ref})}}
        for ref in ("OT-1", "OT-2")
    ]
    results = [{"role": "tool", "tool_call_id": "c", "content": json.dumps({"deleted": ref})} for ref in ("OT-1", "OT-2")]
    spoken = answer([*EARLIER, {"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": calls}, *results], TOOLS)

    assert spoken.text == "Deleted OT-1.\n\nDeleted OT-2."


def test_it_writes_as_much_as_it_is_asked_for() -> None:
    assert _asked("count to 5").text == "1 2 3 4 5"
    assert len(_asked("write 300 words about cats").text.split()) == 300
    assert len(_asked("count to 999999999").text.split()) == 5000


@given(st.text())
def test_words_joined_are_the_text(text: str) -> None:
    assert "".join(words(text)) == text


@given(st.text())
def test_nothing_that_is_said_breaks_it(text: str) -> None:
    spoken = _asked(text)

    assert spoken.text or spoken.calls


def test_in_place_of_a_summary_it_repeats_what_was_said_last() -> None:
    said = [{"role": "user", "content": f"message {number}"} for number in range(30)]
    history = History(prefix=[], turns=[(number, [message]) for number, message in enumerate(said)])

    text = answer(next(summary.requests(history, 30, "", 1_000)), []).text

    assert text.splitlines() == ["The last that was said before:", *(f"- message {number}" for number in range(10, 30))]


def test_the_answer_to_its_question_is_taken_as_an_answer() -> None:
    asks = {"id": "1", "type": "function", "function": {"name": "ask_user", "arguments": '{"question": "Tea or coffee?"}'}}
    asked: list[JSON] = [
        {"role": "user", "content": "ask me whether to use tea or coffee"},
        {"role": "assistant", "content": None, "tool_calls": [asks]},
        {"role": "tool", "tool_call_id": "1", "content": '{"question": "Tea or coffee?"}'},
        {"role": "assistant", "content": "Tea or coffee?"},
    ]

    assert answer([*asked, {"role": "user", "content": "tea"}], TOOLS).text.startswith("You chose: tea. ")
    assert answer([*asked, {"role": "user", "content": "help"}], TOOLS).text == ABILITIES
