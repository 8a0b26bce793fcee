"""What providers' prompt caches would have kept of the requests that they were sent, by the vendors' published rules."""

import json
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Protocol

from tests.emulators.raw_provider import Usage

JSON = dict[str, Any]
BYTES_PER_TOKEN = 4
MINIMUM_TOKENS = 1024
_STEP_TOKENS = 128
_MOST_MARKS = 4
_LOOK_BACK_BLOCKS = 20


class PromptCache(Protocol):
    def usage(self, body: JSON) -> Usage:
        """How many of the request's tokens were known; from now on all of it is."""
        ...


class OpenAICache:
    """Automatic: the longest beginning that an earlier request had as well, from 1,024 tokens on, in steps of 128."""

    def __init__(self) -> None:
        self._seen: list[bytes] = []

    def usage(self, body: JSON) -> Usage:
        prompt = b"".join(_bytes(part) for part in (*body.get("tools", ()), *body["messages"]))
        common = max((_common(prompt, earlier) for earlier in self._seen), default=0) // BYTES_PER_TOKEN
        self._seen.append(prompt)
        cached = common // _STEP_TOKENS * _STEP_TOKENS if common >= MINIMUM_TOKENS else 0
        return Usage(tokens_in=len(prompt) // BYTES_PER_TOKEN, tokens_cached=cached)


class AnthropicCache:
    """Only what is marked is kept, at four places at most; each mark finds what was kept at it or up to 20 blocks before it."""

    def __init__(self) -> None:
        self._kept: set[bytes] = set()

    def usage(self, body: JSON) -> Usage:
        blocks = list(_blocks(body))
        marks = [place for place, (_, marked) in enumerate(blocks) if marked]
        assert len(marks) <= _MOST_MARKS, "A maximum of 4 blocks with cache_control may be provided."
        beginnings = list(accumulate(block for block, _ in blocks))
        found = [len(beginning) for mark in marks for beginning in self._before(beginnings, mark) if beginning in self._kept]
        self._kept |= {beginnings[mark] for mark in marks if len(beginnings[mark]) >= MINIMUM_TOKENS * BYTES_PER_TOKEN}
        return Usage(tokens_in=len(beginnings[-1]) // BYTES_PER_TOKEN, tokens_cached=max(found, default=0) // BYTES_PER_TOKEN)

    @staticmethod
    def _before(beginnings: list[bytes], mark: int) -> list[bytes]:
        return beginnings[max(0, mark + 1 - _LOOK_BACK_BLOCKS) : mark + 1]


def _blocks(body: JSON) -> Iterator[tuple[bytes, bool]]:
    """The prompt in the order in which Anthropic reads it, and where it is marked."""
    for role, content in (("tools", body.get("tools", [])), ("system", body.get("system", []))):
        yield from (_block(role, block) for block in content)
    for message in body["messages"]:
        content = message["content"] if isinstance(message["content"], list) else [{"type": "text", "text": message["content"]}]
        yield from (_block(message["role"], block) for block in content)


def _block(role: str, block: JSON) -> tuple[bytes, bool]:
    return _bytes([role, {name: value for name, value in block.items() if name != "cache_control"}]), "cache_control" in block


def _bytes(part: Any) -> bytes:
    return json.dumps(part, ensure_ascii=False).encode()


def _common(one: bytes, other: bytes) -> int:
    """How many bytes the two begin with in common."""
    return bisect_left(range(min(len(one), len(other))), True, key=lambda end: one[: end + 1] != other[: end + 1])
