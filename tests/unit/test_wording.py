"""What every surface says alike."""

import json
from decimal import Decimal

import pytest

from core import wording
from core.models import JSON


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (None, "cost unknown"),
        ("0", "$0"),
        ("0.00000012", "$1.2e-07"),
        ("0.000099", "$9.9e-05"),
        ("0.0001", "$0.0001"),
        ("0.0123", "$0.0123"),
        (Decimal("1.5"), "$1.50"),
        ("1234.567", "$1234.57"),
    ],
)
def test_a_price_is_short_and_unknown_where_it_is_not_known(cost: str | Decimal | None, said: str) -> None:
    assert wording.price(cost) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (1_499, "1.5 kB"), (2_500_000, "2.5 MB")]
)
def test_a_size_has_a_unit(count: int, said: str) -> None:
    assert wording.size(count) == said


def test_it_is_said_which_model_was_asked_for_and_why_it_did_not_answer() -> None:
    told = {"model": "a/x", "fallback_from": "b/y", "fallback_reason": "model_overloaded"}

    assert wording.instead(told, str.upper).startswith("instead of B/Y, which ")
    assert wording.instead({"model": "a/x"}, str.upper) == ""


@pytest.mark.parametrize(("position", "said"), [(1, "1 answer before this one"), (2, "2 answers before this one")])
def test_a_place_in_the_queue_is_told_by_what_comes_before(position: int, said: str) -> None:
    assert wording.before(position) == said


@pytest.mark.parametrize(("argument", "said"), [("OT-3", "OT-3"), (3, "3"), (["ü"], '["ü"]'), (None, "null")])
def test_an_argument_is_shown_as_a_person_would_write_it(argument: object, said: str) -> None:
    assert wording.value(argument) == said


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"state": "done", "result": json.dumps({"error": "no"})}, ""),
        ({"state": "running"}, ""),
        ({"state": "failed", "approval": "denied"}, "denied"),
        ({"state": "failed", "approval": "expired"}, "nobody allowed it"),
        ({"state": "failed", "result": json.dumps({"error": "There is no task OT-9."})}, "There is no task OT-9."),
        ({"state": "failed", "result": None}, "not done"),
        ({"state": "failed", "result": "cut off {"}, "not done"),
        ({"state": "failed", "result": "[]"}, "not done"),
    ],
)
def test_a_tool_call_that_failed_says_why(call: JSON, said: str) -> None:
    assert wording.problem(call) == said


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"state": "done"}, ""),
        ({"state": "awaiting_approval", "approval": "open"}, ""),
        ({"state": "running", "approval": "approved", "decided_by": "mia"}, "approved by mia"),
        ({"state": "failed", "approval": "denied", "decided_by": "mia"}, "denied by mia"),
        ({"state": "failed", "approval": "expired"}, "nobody allowed it"),
        (
            {"state": "failed", "approval": "approved", "decided_by": "mia", "result": json.dumps({"error": "There is no task OT-9."})},
            "approved by mia: There is no task OT-9.",
        ),
    ],
)
def test_a_tool_call_says_who_decided_on_it(call: JSON, said: str) -> None:
    assert wording.outcome(call) == said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "live", "mode": "two_way"}, "two-way"),
        ({"state": "live", "mode": "watch"}, "read-only"),
        ({"state": "pending", "mode": "watch", "surface": "slack"}, "as soon as Slack was asked"),
        ({"state": "off", "mode": "off"}, "off"),
        ({"state": "ended", "mode": "two_way", "reason": "is_archived"}, "The channel is archived."),
    ],
)
def test_a_place_says_how_a_conversation_is_shown_there(fields: JSON, said: str) -> None:
    assert wording.standing(fields) == said
