"""The provider's side of the conversation: what is answered to a message, and what goes wrong on the way.

A message begins with its key. It is answered in two rounds: two tasks named after the key, then a text that only this key has. Where the
key begins with `a`, the second task is deleted in between, which needs an approval; with `q`, a question takes the text's place.
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


def needs_approval(key: str) -> bool:
    return key.startswith("a")


def is_question(key: str) -> bool:
    return key.startswith("q")


def rounds(key: str) -> int:
    """How many the model needs to answer it."""
    return 3 if needs_approval(key) else 2


def options(key: str) -> tuple[str, str]:
    """The answers to choose from; each begins with a key of its own."""
    return f"k{key[1:]}-red please", f"k{key[1:]}-blue please"


def opening(key: str) -> str:
    """What is said before the tools are called; nothing for some."""
    return f"I begin with {key} 🙂" if random.Random(key).random() < 0.5 else ""


def pieces(key: str) -> list[str]:
    """The text of the second round: 3-61 pieces, some of them with characters beyond ASCII and beyond 16 bits."""
    dice = random.Random(key + " text")
    number = dice.choice((2, 4, 8, 30, 60))
    return [*(f"{key}/{index} {dice.choice(('word', 'naïve', '🦊', '漢字'))} " for index in range(number)), f"end of {key}."]


def answer(key: str) -> str:
    return joined([opening(key), _question(key) if is_question(key) else "".join(pieces(key))])


class Talker:
    """The script of a RawProvider. `trouble` is the share of requests that go wrong."""

    def __init__(self, *, trouble: float = 0.0, gap_seconds: float = 0.0, seed: int = 1, doomed: Collection[str] = ()) -> None:
        self._trouble = trouble
        self._gap = gap_seconds
        self._dice = random.Random(seed)
        self._faults: Counter[tuple[str, int]] = Counter()
        self.doomed = set(doomed)
        """Keys whose text is always cut, until they are taken out of here."""
        self.away = False
        """Whether every request is refused, which is nobody's fault."""
        self.asked: Counter[str] = Counter()
        """Requests for each key."""
        self.injected: Counter[str] = Counter()
        self.charged: Counter[str] = Counter()
        """For each key, how often it went wrong in a way that costs the turn an attempt."""
        self.complaints: list[str] = []
        """Requests that no model should have been sent."""

    def __call__(self, body: dict[str, Any], _: int) -> Reply:
        if self.away:
            self.injected["503 of an outage"] += 1
            return Reply(status=503, error=_error("Service unavailable", "server_error"))
        messages = body["messages"]
        if "tools" not in body:
            self.asked[SUMMARY] += 1
            return Reply(text=("They ", "spoke."))
        key = _key([message for message in messages if message["role"] == "user"][-1])
        results = _results(messages)
        self.asked[key] += 1
        self.complaints += _complaints(messages, key)
        whole = self._whole(key, results)
        if results and key in self.doomed:
            return self._broken("clean EOF", whole, key)
        if self._dice.random() < self._trouble and self._faults[key, len(results)] < MOST_FAULTS_IN_A_ROUND:
            self._faults[key, len(results)] += 1
            return self._broken(self._dice.choice(FAULTS), whole, key)
        return whole

    def _whole(self, key: str, results: list[str]) -> Reply:
        match len(results):
            case 0:
                calls = [_call(index, "create_task", title=title) for index, title in enumerate(titles(key))]
                said = (opening(key),) if opening(key) else ()
                return Reply(text=said, tools=tuple(calls), finish="tool_calls", gap_seconds=self._gap)
            case 2 if needs_approval(key):
                return Reply(text=(), tools=(_call(0, "delete_task", ref=json.loads(results[1])["ref"]),), finish="tool_calls")
            case 2 if is_question(key):
                return Reply(text=(), tools=(_call(0, "ask_user", question=_question(key), options=options(key)),), finish="tool_calls")
        return Reply(text=pieces(key), gap_seconds=self._gap)

    def _broken(self, fault: str, whole: Reply, key: str) -> Reply:
        self.injected[fault] += 1
        self.charged[key] += not fault.startswith("429")
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


def _call(index: int, tool: str, **arguments: Any) -> ToolUse:
    text = json.dumps(arguments)
    return ToolUse(name=tool, fragments=(text[:9], text[9:]), call_id=f"call_{index}")


def _question(key: str) -> str:
    return f"Which one for {key}?"


def _results(messages: Sequence[dict[str, Any]]) -> list[str]:
    """What the tools gave since the last message of a person."""
    asked = max(index for index, message in enumerate(messages) if message["role"] == "user")
    return [str(message["content"]) for message in messages[asked:] if message["role"] == "tool"]


def _error(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": None}}


def _key(message: dict[str, Any]) -> str:
    return str(message["content"]).split()[0]


def _complaints(messages: Sequence[dict[str, Any]], key: str) -> Iterator[str]:
    """The tools' results must be there, each once, and every earlier answer whole or marked as interrupted."""
    results = _results(messages)
    if len(results) not in (0, 2, rounds(key)) or any(title not in result for title, result in zip(titles(key), results, strict=False)):
        yield f"{key}: the tools' results are {results}"
    earlier = ""
    for before, message in pairwise(messages):
        earlier = _key(before) if before["role"] == "user" else earlier
        ends = message["role"] == "user" and before["role"] == "assistant" and not before.get("tool_calls")
        if ends and before["content"] != "".join(pieces(earlier)) and not before["content"].endswith("[interrupted]"):
            yield f"{key}: {earlier} was answered with {before['content'][:200]!r}"
