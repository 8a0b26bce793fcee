"""What stands below the paper: what the agent does, what waits, and which keys decide."""

from collections.abc import Iterator
from datetime import datetime
from math import ceil

from core import wording
from core.models import JSON, AgentStatus
from core.talk import Talk
from onethread.terminal.text import Fragments, one_line
from onethread.terminal.transcript import shown_arguments

_ANIMATIONS = {AgentStatus.THINKING: "◐◓◑◒", AgentStatus.EXECUTING: "◉◎"}
_HELD_SHOWN = 3


def status_line(talk: Talk, context: str, width: int, now: datetime) -> Fragments:
    """One row: the agent's status with what it says, then what the conversation is."""
    status, message = _status(talk, now)
    style = status.style
    icons = _ANIMATIONS.get(status, style.icon)
    icon = icons[int(now.timestamp() * 4) % len(icons)]
    said = one_line(f"{icon} {style.label}{f'  {message}' if message else ''}", width)
    room = width - len(said) - 3
    shown = one_line(context, room) if room > 12 else ""
    return [(f"class:{status.value}", said), ("class:dim", f" · {shown}" if shown else "")]


def held_lines(talk: Talk, width: int) -> Iterator[Fragments]:
    """Messages that wait for the answers before them."""
    held = list(talk.held)
    for entry in held[:_HELD_SHOWN]:
        turn = talk.turns.get(entry.message["turn_id"] or "")
        before = _before(int(turn["position"])) if turn else ""
        said = one_line(entry.text, max(width - len(before) - 5, 8))
        yield [("class:dim", one_line(f"  {'·' if entry.is_notice else '❯'} {said}{before}", width))]
    if len(held) > _HELD_SHOWN:
        yield [("class:dim", f"  … {len(held) - _HELD_SHOWN} more")]


def approval_line(call: JSON, width: int) -> list[Fragments]:
    """What is asked for, and the keys that decide."""
    asked = f"May I run {call['name']} {shown_arguments(call['arguments'])}?"
    keys = yes_or_no("approve", "deny")
    if len(asked) + 24 <= width:
        return [[("class:ask", one_line(asked, width)), *keys]]
    return [[("class:ask", one_line(asked, width))], keys]


def yes_or_no(yes: str, no: str) -> Fragments:
    return [("", "  "), ("class:key", "[y]"), ("", f" {yes}  "), ("class:key", "[n]"), ("", f" {no}")]


def _status(talk: Talk, now: datetime) -> tuple[AgentStatus, str]:
    status, message = AgentStatus(talk.agent["status"]), str(talk.agent["message"])
    turn = talk.turn
    if turn is None or turn["status"] != "queued":
        return status, message
    if turn.get("no_worker"):
        return AgentStatus.THINKING, f"{wording.NO_WORKER} {wording.START_WORKER}"
    if turn["retry_at"]:
        seconds = max(ceil((datetime.fromisoformat(turn["retry_at"]) - now).total_seconds()), 0)
        reason = turn.get("error") or wording.MODEL_PAUSED
        return AgentStatus.THINKING, f"next try in {seconds} s: {reason}"
    return AgentStatus.THINKING, str(turn.get("error") or wording.WAITS_FOR_WORKER)


def _before(position: int) -> str:
    return f"  ({wording.before(position)})" if position else ""
