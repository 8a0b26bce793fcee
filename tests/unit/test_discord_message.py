"""Parts as Discord's messages: what stands where, and that no message is more than Discord takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.discord.message import rendered
from bots.surface import Action, Button, Part, TooLong
from core.text import utf16_len

UNITS = 2_000
STOP = Button(action=Action.STOP, label="Stop", value="turn-1")


def _content(part: Part, units: int = UNITS) -> str:
    return rendered(part, {"ann": "1" * 18}, units).content


def test_a_reply_is_its_text_its_notes_in_small_and_its_buttons() -> None:
    approve = Button(action=Action.APPROVE, label="Approve", value="a-1", style="primary")
    deny = Button(action=Action.DENY, label=" ", value="a-1", style="danger")
    shown = rendered(
        Part(text="**Monday**\n", notes=("✔ `create_task`", "demo/offline · 3 tokens"), buttons=(STOP, approve, deny)), {}, UNITS
    )
    assert shown.content == "**Monday**\n-# ✔ `create_task`\n-# demo/offline · 3 tokens"
    assert shown.components == (
        {
            "type": 1,
            "components": [
                {"type": 2, "style": 2, "label": "Stop", "custom_id": "onethread:stop:turn-1"},
                {"type": 2, "style": 1, "label": "Approve", "custom_id": "onethread:approve:a-1"},
                {"type": 2, "style": 4, "label": "…", "custom_id": "onethread:deny:a-1"},
            ],
        },
    )


def test_more_than_five_buttons_stand_in_rows() -> None:
    buttons = tuple(Button(action=Action.ANSWER, label=f"{number}" * 100, value=f"reply {number}") for number in range(7))
    rows = rendered(Part(text="?", buttons=buttons), {}, UNITS).components
    assert [len(row["components"]) for row in rows] == [5, 2]
    assert {len(each["label"]) for row in rows for each in row["components"]} == {80}


def test_what_somebody_says_elsewhere_begins_with_who_it_is() -> None:
    assert _content(Part(text="hello", speaker="al*ce <@1>, on the web")) == "**al\\*ce \\<@1\\>, on the web**\nhello"


def test_nothing_is_shown_as_something() -> None:
    assert _content(Part(text="\n ")) == "…"
    assert _content(Part(text="", notes=("◐ Thinking",))) == "-# ◐ Thinking"


def test_where_there_is_little_room_the_newest_notes_are_kept() -> None:
    part = Part(text="x" * 1_900, notes=("a" * 60, "b" * 60, "c" * 20))
    assert _content(part) == "\n".join(["x" * 1_900, "-# " + "b" * 60, "-# " + "c" * 20])[: 1_900 + 64 + 24]


def test_a_note_that_does_not_fit_is_clipped() -> None:
    shown = _content(Part(text="x" * 1_950, notes=("older", f"`{'b' * 100}`")))
    assert utf16_len(shown) == UNITS
    assert shown.endswith("-# '" + "b" * 44 + "…")


def test_a_note_that_has_no_room_at_all_is_left_out() -> None:
    assert _content(Part(text="x" * 1_998, notes=("◐ Thinking",))) == "x" * 1_998


def test_what_the_agent_asks_is_worth_more_than_a_pretty_table() -> None:
    table = "| A | B |\n|---|---|\n" + "\n".join(f"| {number} | {'x' * number} |" for number in range(50))
    assert _content(Part(text=table, notes=("◎ May I run this?",))).endswith("```\n-# ◎ May I run this?")


def test_mentions_that_make_a_text_too_long_are_not_written_out() -> None:
    text = "@ann " * 370
    assert _content(Part(text=text)).startswith("@ann @ann")
    assert _content(Part(text="@ann " * 3)).startswith("<@1")


def test_a_text_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TooLong):
        _content(Part(text="😀" * 1_001))
    assert _content(Part(text="😀" * 1_000)) == "😀" * 1_000


@given(
    st.text("ab|-\n #`*@😀_", max_size=300),
    st.lists(st.text("ab `*😀", max_size=80), max_size=5),
    st.text("ab *", max_size=20),
)
def test_no_message_is_longer_than_discord_takes(text: str, notes: list[str], speaker: str) -> None:
    part = Part(text=text, notes=tuple(notes), speaker=speaker)
    try:
        shown = _content(part, 300)
    except TooLong:
        assert utf16_len(text) + utf16_len(speaker) > 200
        return
    assert 0 < utf16_len(shown) <= 300
