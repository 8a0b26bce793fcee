"""What is asked of a model when the beginning of a conversation is to be summarised."""

from core.llm import summary
from core.llm.history import History

CALL = {"function": {"name": "create_task", "arguments": '{"title": "Buy milk"}'}}
HISTORY = History(
    prefix=[{"role": "system", "content": "the agent's own rules"}],
    turns=[
        (
            1,
            [
                {"role": "user", "content": "Buy milk\nplease. " + "x" * 5_000},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": '{"ref": "OT-1"}' + "y" * 900},
                {"role": "assistant", "content": "OT-1 is there."},
            ],
        ),
        (3, [{"role": "user", "content": "Thanks"}]),
    ],
)


def test_all_turns_before_are_told_with_their_tool_calls_and_the_earlier_summary() -> None:
    system, asked = next(summary.requests(HISTORY, 3, "They met.", 1_000))

    assert system == {"role": "system", "content": summary.INSTRUCTIONS}
    lines = asked["content"].splitlines()
    assert lines[:4] == ["<earlier_summary>", "They met.", "</earlier_summary>", ""]
    assert [line.split(":")[0] for line in lines[5:9]] == ["User", 'Agent calls create_task {"title"', "Result", "Agent"]
    assert [len(line) for line in lines[5:9]] == [4_006, 45, 508, 21]
    assert "Thanks" not in asked["content"]
    assert "the agent's own rules" not in asked["content"]


def test_each_further_request_is_shorter_and_the_last_keeps_the_end() -> None:
    contents = [messages[1]["content"] for messages in summary.requests(HISTORY, 3, "", 30)]

    assert sorted(contents, key=len, reverse=True) == contents
    assert contents[0].startswith("<conversation>\n")
    assert "OT-1 is there.\n</conversation>" in contents[-1]
    assert len(contents[-1]) < 100
