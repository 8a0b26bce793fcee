"""What every surface says alike: prices, sizes, what stands in a queue, why nobody answers. Each adds its own markup and what to do."""

import json
from collections.abc import Callable
from decimal import Decimal

from core.llm.failures import why
from core.models import JSON

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


def problem(call: JSON) -> str:
    """Why a tool call was not done; empty where it was, or still may be."""
    if call["state"] != "failed":
        return ""
    if call.get("approval") in ("denied", "expired"):
        return "denied" if call["approval"] == "denied" else "nobody allowed it"
    try:
        result = json.loads(call.get("result") or "{}")
    except ValueError:
        return "not done"
    return str(result.get("error", "not done")) if isinstance(result, dict) else "not done"
