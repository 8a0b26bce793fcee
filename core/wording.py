"""What every surface says alike: prices, sizes, what stands in a queue, why nobody answers, who decided, where a conversation is shown.

Each adds its own markup and what to do.
"""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal

from core.llm.failures import why
from core.models import JSON, NOT_A_READER, NOT_SERVED, PLACE_TAKEN, BindingMode

NO_WORKER = "No worker runs that could answer."
START_WORKER = "Start one that has this model's key with `onethread worker`."
WAITS_FOR_WORKER = "Waiting for a worker …"
MODEL_PAUSED = "The model is paused."


def price(cost: str | Decimal | None) -> str:
    """US dollars; never 0 for what is not known."""
    if cost is None:
        return "cost unknown"
    dollars = Decimal(cost)
    if dollars == 0:
        return "$0"
    return f"${dollars:.2f}" if dollars >= 1 else f"${float(dollars):.2g}" if dollars < Decimal("0.0001") else f"${dollars:.4f}"


def size(count: int) -> str:
    """Of so many bytes."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count} bytes"


def instead(metadata: JSON, named: Callable[[str], str]) -> str:
    """`instead of openai/x, which is busy`; empty for the model that was asked. `named` writes a model's name so that it is safe there."""
    model = metadata.get("fallback_from")
    return f"instead of {named(str(model))}, which {why(str(metadata.get('fallback_reason')))}" if model else ""


def before(position: int) -> str:
    """What a queued message waits for."""
    return f"{position} answer{'s' if position > 1 else ''} before this one"


def value(argument: object) -> str:
    """An argument of a tool."""
    return argument if isinstance(argument, str) else json.dumps(argument, ensure_ascii=False)


def decided(call: JSON) -> str:
    """What became of the question whether a tool may run: `approved by mia`; empty where it is open, or was not asked."""
    match call.get("approval"):
        case "expired":
            return "nobody allowed it"
        case "approved" | "denied" as decision:
            return f"{decision} by {call['decided_by']}" if call.get("decided_by") else str(decision)
        case _:
            return ""


def problem(call: JSON) -> str:
    """Why a tool call was not done; empty where it was, or still may be."""
    if call["state"] != "failed":
        return ""
    if call.get("approval") in ("denied", "expired"):
        return decided(call)
    try:
        result = json.loads(call.get("result") or "{}")
    except ValueError:
        return "not done"
    return str(result.get("error", "not done")) if isinstance(result, dict) else "not done"


def outcome(call: JSON) -> str:
    """What people are told of a tool call beside its arguments: who decided on it, and why it was not done; empty for nothing to tell."""
    return ": ".join(dict.fromkeys(filter(None, (decided(call), problem(call)))))


def surface(name: str) -> str:
    """A chat platform as people call it."""
    return name.capitalize()


def link_first(name: str) -> str:
    """What somebody is told whom nobody knows on a chat platform."""
    return f"Link your {surface(name)} account first: type `/link` in {surface(name)}, or see Settings > Accounts."


def place(binding: JSON) -> str:
    """Where a conversation is shown: `#ops on Slack`. The name of a place that is not open stays there."""
    match binding["kind"]:
        case "open" if binding["label"]:
            name = str(binding["label"])
        case "private":
            name = "a private channel"
        case "direct":
            name = "a direct message"
        case _:
            name = "a channel"
    return f"{name} on {surface(binding['surface'])}"


def also(bindings: Sequence[JSON], *, but: str = "") -> str:
    """Where else a conversation is shown: `also in #ops on Slack, read-only in a private channel on Discord`; empty where it is nowhere.

    `but` is the id of the binding where this is said.
    """
    live = [each for each in bindings if each["state"] == "live" and each["id"] != but]
    places = [f"{'read-only ' if each['mode'] == 'watch' else ''}in {place(each)}" for each in live]
    return f"also {', '.join(dict.fromkeys(places))}" if places else ""


def standing(binding: JSON) -> str:
    """How a conversation is shown at a place: `two-way`, `read-only`, `off`, or why nothing is delivered there."""
    match binding["state"]:
        case "live":
            return "read-only" if binding["mode"] == "watch" else "two-way"
        case "pending":
            return f"as soon as {surface(binding['surface'])} was asked"
        case "ended":
            return ended(binding["reason"], binding["mode"])
        case _:
            return "off"


def ended(reason: str, mode: str = BindingMode.TWO_WAY) -> str:
    """Why nothing is delivered to a place any more, and what to do about it: for a binding's reason and mode."""
    again = "then follow it again, there or on the page" if mode == BindingMode.WATCH else "then write there again"
    return _ENDED.get(reason, "Onethread may not write there any more.").format(again=again)


def listed(names: Sequence[str], *, at_most: int) -> str:
    """`mia, bob and kim`; `mia, bob and 7 others` where there are more."""
    shown = [*names] if len(names) <= at_most else [*names[: at_most - 1], f"{len(names) - at_most + 1} others"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


_GONE = "The channel or thread is not there any more, or Onethread cannot see it."
_RIGHTS = "Onethread lacks the right to write there. Give it that right, {again}."
_NOT_INVITED = "Onethread is not in that channel. Invite it, {again}."
_LOCKED = "The thread is locked."
_DIRECT = "This person takes no direct messages from Onethread."
_ENDED = {
    NOT_A_READER: "Whoever wanted it there does not read that place, or Onethread does not, or it does not exist.",
    PLACE_TAKEN: "Another conversation is shown there already.",
    NOT_SERVED: "Onethread is not to write in that channel.",
    "is_archived": "The channel is archived.",
    "is_inactive": "The channel is archived or deleted.",
    "not_in_channel": _NOT_INVITED,
    "channel_not_found": _NOT_INVITED,
    "thread_not_found": _GONE,
    "message_gone": "The message with its thread was deleted.",
    "restricted_action_thread_locked": _LOCKED,
    "missing_permission": _RIGHTS,
    "10003": _GONE,
    "10004": "Onethread is not a member of that server any more.",
    "50001": _RIGHTS,
    "50007": _DIRECT,
    "50013": _RIGHTS,
    "50083": _LOCKED,
    "50278": _DIRECT,
    "160002": _RIGHTS,
    "160005": _LOCKED,
}
