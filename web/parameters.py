"""Parameters that several routes take."""

import re
from collections import Counter
from typing import Annotated

from fastapi import Header, Query, Request

from core.access import Principal
from core.errors import InvalidInput
from core.models import InboxKey

SOURCE = "api"
"""Where messages come from that a program posted here."""
_PAGE = "web"
_MAY_REPEAT = frozenset({"status"})

Limit = Annotated[int, Query(ge=1, le=100, description="At most so many.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Made by you, new for each thing that you want done. The same key again, within 7 days, does nothing new and gives "
        "what the first call made; with another body it is a conflict.",
        examples=["7f9c24e5-1c3b-4f0e-9a51-3d8f1f0f6c2e"],
    ),
]


def source_of(request: Request) -> str:
    """Where the message comes from that this request posts: the page has a session's cookie and nothing else, a program a token."""
    return SOURCE if "authorization" in request.headers else _PAGE


async def no_repeats(request: Request) -> None:
    """Of a parameter that came twice, whichever we took would be the wrong one for somebody."""
    names = Counter(name for name, _ in request.query_params.multi_items())
    if twice := [name for name, times in names.items() if times > 1 and name not in _MAY_REPEAT]:
        raise InvalidInput(f"The parameter {twice[0]!r} came more than once. Send it once.")


def inbox_key(caller: Principal, key: str | None) -> InboxKey | None:
    return InboxKey(source=SOURCE, scope=str(caller.user_id), event_id=key) if key else None


def prefers_async(prefer: str | None) -> bool:
    """Whether a header Prefer (RFC 7240) asks not to wait for the result."""
    return any(re.fullmatch(r"respond-async", each.partition(";")[0].strip(), re.IGNORECASE) for each in (prefer or "").split(","))


def accepts_events(accept: str | None) -> bool:
    """Whether a header Accept names server-sent events."""
    return any(each.partition(";")[0].strip().lower() == "text/event-stream" for each in (accept or "").split(","))
