"""How much of a long conversation the model is shown.

Cut rarely and by a lot: a window that slides with every turn would break the provider's cached prefix every time.
"""

from core.llm import images
from core.llm.history import History
from core.models import JSON
from core.ports import ChatModel, ModelRequest

CUT_ABOVE = 0.75
CUT_TO = 0.40
ALWAYS_FITS_CHARACTERS = 6_000
"""So little fits into any model's window, so a short conversation asks nothing of the model's library."""


async def first_seq(history: History, request: ModelRequest, model: ChatModel, present: int) -> int:
    """From which message on the model is shown the conversation: `present`, or later where that would fill 75 % of its window."""
    characters = _characters(history.messages(present))
    if characters < ALWAYS_FITS_CHARACTERS:
        return present
    budget = await model.context_window(request.model)
    # A token is never less than a character, so what fits by characters needs no counting.
    if characters < budget * CUT_ABOVE or await _tokens(history, request, model, present) <= budget * CUT_ABOVE:
        return present
    return await cut(history, request, model, present, budget)


async def cut(history: History, request: ModelRequest, model: ChatModel, present: int, budget: int) -> int:
    """The first turn behind `present` from which on no more than 40 % of `budget` is filled; the last one where it always is more, and
    `present` where that is the last one."""
    starts = [seq for seq, _ in history.turns if seq > present]
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if await _tokens(history, request, model, starts[middle]) <= budget * CUT_TO:
            high = middle
        else:
            low = middle + 1
    return starts[low] if starts else present


async def _tokens(history: History, request: ModelRequest, model: ChatModel, from_seq: int) -> int:
    shown = ModelRequest(model=request.model, messages=history.messages(from_seq), tools=request.tools)
    return await model.count_tokens(shown)


def _characters(messages: list[JSON]) -> int:
    return sum(len(str(images.without(message))) for message in messages) + images.TOKENS * images.count(messages)
