"""The provider's side of the conversation: what is answered to a message, and what goes wrong on the way.

A message begins with its key. It is answered in two rounds: two tasks named after the key, then a text that only this key has.
"""

import json
import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

from core.llm.history import joined
from tests.emulators.raw_provider import Ending, Reply, ToolUse

SUMMARY = "a summary"
"""The key of all requests for one."""
MOST_FAULTS_IN_A_ROUND = 2
"""One fewer than the policy allows, so that a turn is given up only where a test means it."""
FAULTS = ("429", "429 with Retry-After", "500", "clean EOF", "[DONE] without finish", "refused to answer", "disconnect")


def titles(key: str) -> tuple[str, str]:
    return f"{key} first", f"{key} second"


def opening(key: str) -> str:
    """What is said before the tools are called; nothing for some."""
    return f"I begin with {key} 🙂" if random.Random(key).random() < 0.5 else ""


def pieces(key: str) -> list[str]:
    """The text of the second round: 3-61 pieces, some of them with characters beyond ASCII and beyond 16 bits."""
    dice = random.Random(key + " text")
    number = dice.choice((2, 4, 8, 30, 60))
    return [*(f"{key}/{index} {dice.choice(('word', 'naïve', '🦊', '漢字'))} " for index in range(number)), f"end of {key}."]


def answer(key: str) -> str:
    return joined([opening(key), "".join(pieces(key))])


class Talker:
    """The script of a RawProvider. `trouble` is the share of requests that go wrong."""

    def __init__(self, *, trouble: float = 0.0, gap_seconds: float = 0.0, seed: int = 1, doomed: Collection[str] = ()) -> None:
        self._trouble = trouble
        self._gap = gap_seconds
        self._dice = random.Random(seed)
        self._faults: Counter[tuple[str, bool]] = Counter()
        self.doomed = set(doomed)
        """Keys whose text is always cut, until they are taken out of here."""
        self.asked: Counter[str] = Counter()
        """Requests for each key."""
        self.injected: Counter[str] = Counter()
        self.complaints: list[str] = []
        """Requests that no model should have been sent."""

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        messages = body["messages"]
        if "tools" not in body:
            self.asked[SUMMARY] += 1
            return Reply(text=("They ", "spoke."))
        key = _key([message for message in messages if message["role"] == "user"][-1])
        after_tools = messages[-1]["role"] == "tool"
        self.asked[key] += 1
        self.complaints += _complaints(messages, key)
        whole = self._second_round(key) if after_tools else self._first_round(key)
        if after_tools and key in self.doomed:
            return self._broken("clean EOF", whole)
        if self._dice.random() < self._trouble and self._faults[key, after_tools] < MOST_FAULTS_IN_A_ROUND:
            self._faults[key, after_tools] += 1
            return self._broken(self._dice.choice(FAULTS), whole)
        return whole

    def _first_round(self, key: str) -> Reply:
        calls = tuple(_create_task(index, title) for index, title in enumerate(titles(key)))
        said = (opening(key),) if opening(key) else ()
        return Reply(text=said, tools=calls, finish="tool_calls", gap_seconds=self._gap)

    def _second_round(self, key: str) -> Reply:
        return Reply(text=pieces(key), gap_seconds=self._gap)

    def _broken(self, fault: str, whole: Reply) -> Reply:
        self.injected[fault] += 1
        half = tuple(whole.text)[: len(tuple(whole.text)) // 2]
        match fault:
            case "429":
                return Reply(status=429, error=_error("Rate limit reached", "rate_limit_error"))
            case "429 with Retry-After":
                return Reply(status=429, error=_error("Rate limit reached", "rate_limit_error"), headers={"retry-after": "1"})
            case "500":
                return Reply(status=500, error=_error("Internal error", "server_error"))
            case "refused to answer":
                return Reply(disconnect=True)
            case "clean EOF":
                return Reply(text=half, ending=Ending.CLEAN_EOF, gap_seconds=self._gap)
            case "[DONE] without finish":
                return Reply(text=half, ending=Ending.DONE_WITHOUT_FINISH, gap_seconds=self._gap)
            case _:
                return Reply(text=half, ending=Ending.DISCONNECT, gap_seconds=self._gap)


def _create_task(index: int, title: str) -> ToolUse:
    arguments = json.dumps({"title": title})
    return ToolUse(name="create_task", fragments=(arguments[:9], arguments[9:]), call_id=f"call_{index}")


def _error(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": None}}


def _key(message: dict[str, Any]) -> str:
    return str(message["content"]).split()[0]


def _complaints(messages: Sequence[dict[str, Any]], key: str) -> Iterator[str]:
    """The tools' results must be there, each once, and every earlier answer whole or marked as interrupted."""
    if messages[-1]["role"] == "tool":
        results = [message["content"] for message in messages[-2:]]
        if any(title not in result for title, result in zip(titles(key), results, strict=True)):
            yield f"{key}: the tools' results are {results}"
    earlier = ""
    for before, message in pairwise(messages):
        earlier = _key(before) if before["role"] == "user" else earlier
        ends = message["role"] == "user" and before["role"] == "assistant" and not before.get("tool_calls")
        if ends and before["content"] != "".join(pieces(earlier)) and not before["content"].endswith("[interrupted]"):
            yield f"{key}: {earlier} was answered with {before['content'][:200]!r}"
