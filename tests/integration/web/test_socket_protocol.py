"""docs/protocol.md tells the whole protocol, and nothing that is not."""

import re
from typing import get_args

import pytest

from core.frames import FrameEvent
from tests.conftest import ROOT
from web import frames, outbox, socket
from web.frames import FRAMES

PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
SERVER_EVENTS = [*get_args(FrameEvent), "reply"]


def rows() -> dict[str, str]:
    """The tables' rows that begin with an event's name."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*)$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("event", FRAMES)
def test_every_event_of_a_client_is_told_with_its_payload(event: str) -> None:
    told = rows()[event].partition("|")[0]
    members = FRAMES[event].payload.model_fields
    for name, member in members.items():
        assert f"{name}?" in told if not member.is_required() else re.search(rf"\b{name}\b(?!\?)", told), (event, name)
    shape = re.search(r"\{(.*?)\}", told)
    assert shape
    assert {each.strip(" ?") for each in shape[1].split(",") if each} == set(members)


@pytest.mark.parametrize("event", SERVER_EVENTS)
def test_every_event_of_the_server_is_told(event: str) -> None:
    assert event in rows() or f'"event": "{event}"' in PAGE


def test_no_event_is_told_that_does_not_exist() -> None:
    assert set(rows()) == {*FRAMES, *get_args(FrameEvent)}


def test_close_codes_and_limits_are_those_of_the_code() -> None:
    for code in (socket.UNAUTHORIZED, socket.TOO_LARGE, socket.POLICY, socket.TRY_AGAIN_LATER, socket.BROKEN):
        assert re.search(rf"^\| {code} \|", PAGE, re.MULTILINE), code
    assert f"| {frames.MAX_FRAME_BYTES // 1024} kB | close {socket.TOO_LARGE} |" in PAGE
    assert f"{socket.FRAMES_PER_SECOND} a second, {socket.FRAMES_AT_ONCE} at once" in PAGE
    assert f"{socket.FRAMES_REFUSED} further ones: close {socket.POLICY}" in PAGE
    assert f"{socket.MAX_TOPICS} for each connection" in PAGE
    assert outbox.DELTA_SECONDS <= 0.05
