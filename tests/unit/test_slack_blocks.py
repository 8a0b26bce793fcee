"""Parts as Slack's blocks: what stands where, and that no part is more than Slack takes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.slack.blocks import MARKDOWN_CHARACTERS, plain_text, rendered, without_blocks
from bots.surface import Action, Button, Part, TooLong


def _blocks(part: Part) -> list[dict[str, Any]]:
    return list(rendered(part, {}).blocks)


def test_a_reply_is_its_text_its_notes_and_its_buttons() -> None:
    stop = Button(action=Action.STOP, label="Stop", value="turn-1")
    part = Part(text="**Monday**", notes=("✔ `create_task`", "**demo/offline** · 3 tokens"), buttons=(stop,))

    assert _blocks(part) == [
        {"type": "markdown", "text": "**Monday**"},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "✔ `create_task`\n*demo/offline* · 3 tokens"}]},
        {
            "type": "actions",
            "elements": [
                {
                    "type": "button",
                    "action_id": "onethread:stop",
                    "text": {"type": "plain_text", "text": "Stop", "emoji": False},
                    "value": "turn-1",
                }
            ],
        },
    ]


def test_what_somebody_says_elsewhere_begins_with_who_it_is() -> None:
    part = Part(text="hello", speaker="alice <b>, on the web")

    assert _blocks(part)[0] == {"type": "context", "elements": [{"type": "mrkdwn", "text": "alice &lt;b&gt;, on the web"}]}
    assert rendered(part, {}).text == "alice &lt;b&gt;, on the web: hello"


def test_buttons_that_do_the_same_have_ids_of_their_own() -> None:
    answers = [Button(action=Action.ANSWER, label=label, value=f"reply {number}") for number, label in enumerate(("yes", "no"))]
    retry = Button(action=Action.RETRY, label="Retry", value="turn-1", style="danger")
    elements = _blocks(Part(text="?", buttons=(*answers, retry)))[-1]["elements"]

    assert [each["action_id"] for each in elements] == ["onethread:answer:0", "onethread:answer:1", "onethread:retry"]
    assert [each.get("style") for each in elements] == [None, None, "danger"]


def test_a_card_is_a_section_with_its_notes_as_fields() -> None:
    (section,) = _blocks(Part(text="**OT-12** Buy milk", notes=("Status: To do", "Assignee: alice"), is_card=True))

    assert section["text"] == {"type": "mrkdwn", "text": "*OT-12* Buy milk"}
    assert [field["text"] for field in section["fields"]] == ["Status: To do", "Assignee: alice"]


def test_members_are_mentioned() -> None:
    assert rendered(Part(text="ask @alice"), {"alice": "U1"}).blocks[0]["text"] == "ask <@U1>"


@pytest.mark.parametrize("part", [Part(text=""), Part(text=" \n"), Part(text="", is_card=True), Part(text="", notes=("",))])
def test_a_part_that_shows_nothing_still_has_a_text(part: Part) -> None:
    assert rendered(part, {}).text == "…"


def test_the_text_beside_a_part_without_text_says_its_notes_or_its_buttons() -> None:
    assert rendered(Part(text="", notes=("◐ Thinking",)), {}).text == "◐ Thinking"
    assert rendered(Part(text="", buttons=(Button(action=Action.RETRY, label="Retry", value="x"),)), {}).text == "Retry"


def test_no_note_and_no_sentence_calls_a_crowd() -> None:
    shown = str(rendered(Part(text="", notes=("<!channel> <!here> @everyone",)), {}))

    assert not any(call in shown for call in ("<!channel>", "<!here>"))
    assert plain_text("<!channel> & <@U1>") == plain_text("<!channel>") + " &amp; &lt;@U1&gt;"
    assert "<" not in plain_text("<!channel>")


def test_a_text_that_its_mentions_make_too_long_is_refused() -> None:
    with pytest.raises(TooLong):
        rendered(Part(text="@al " * 2_400), {"al": "U0123456789"})


def test_without_blocks_a_short_text_is_whole_and_a_long_one_refused() -> None:
    short, long, empty = Part(text="hello", notes=("a note",)), Part(text="x" * 2_000), Part(text="", notes=("◐ Thinking",))

    assert without_blocks(short, rendered(short, {})).text == "hello\na note"
    assert without_blocks(empty, rendered(empty, {})).text == "◐ Thinking"
    with pytest.raises(TooLong):
        without_blocks(long, rendered(long, {}))


def test_ids_that_the_agent_writes_mention_members_only() -> None:
    content = rendered(Part(text="<@U1> <@U2>", notes=("<@U1>",)), {"alice": "U1"})

    assert (content.text.count("<@U1>"), content.text.count("<@U2>")) == (1, 0)
    assert "<@" not in content.blocks[1]["elements"][0]["text"]


def test_more_notes_and_buttons_than_slack_takes_are_left_out() -> None:
    retry = Button(action=Action.RETRY, label="Retry " * 40, value="turn-1")
    blocks = _blocks(Part(text="x", notes=("word " * 600,) * 60, buttons=(retry,) * 30))

    assert len(blocks) == 12
    assert len(blocks[-1]["elements"]) == 25
    assert all(len(element["text"]["text"]) <= 75 for element in blocks[-1]["elements"])


_texts = st.text(max_size=4_000) | st.text(alphabet="<>&*`@", max_size=3_000)
_buttons = st.builds(Button, action=st.sampled_from(Action), label=st.text(max_size=200), value=st.text(min_size=1, max_size=100))


@given(
    st.builds(
        Part,
        text=_texts,
        notes=st.lists(_texts, max_size=30).map(tuple),
        buttons=st.lists(_buttons, max_size=30).map(tuple),
        speaker=st.text(max_size=500),
        is_card=st.booleans(),
    )
)
def test_no_part_is_more_than_slack_takes(part: Part) -> None:
    content = rendered(part, {})

    assert 0 < len(content.text) <= 3_000
    assert len(content.blocks) <= 50
    assert sum(len(block["text"]) for block in content.blocks if block["type"] == "markdown") <= MARKDOWN_CHARACTERS
    for block in content.blocks:
        _check(block)


def _check(block: dict[str, Any]) -> None:
    match block["type"]:
        case "context":
            assert all(0 < len(element["text"]) <= 3_000 for element in block["elements"])
            assert 1 <= len(block["elements"]) <= 10
        case "section":
            assert 0 < len(block["text"]["text"]) <= 3_000
            assert all(0 < len(field["text"]) <= 2_000 for field in block.get("fields", []))
            assert len(block.get("fields", [])) <= 10
        case "actions":
            ids = [element["action_id"] for element in block["elements"]]
            assert 1 <= len(ids) == len(set(ids)) <= 25
            assert all(0 < len(element["text"]["text"]) <= 75 and len(element["value"]) <= 2_000 for element in block["elements"])
