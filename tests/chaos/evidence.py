"""What the database says, read with plain SQL: nothing of the code under test takes part."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

from core.models import Decision
from tests.chaos.databases import Database
from tests.chaos.talker import answer, is_question, opening, rounds, titles

_TURNS = """
    SELECT turns.*, question.content AS question, question.status AS question_status, reply.content AS text, reply.status AS reply_status
    FROM turns JOIN messages question ON question.id = turns.user_message_id JOIN messages reply ON reply.id = turns.reply_id
"""
_REPLY_STATUS = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A turn that runs in a certain process."""

    turn_id: UUID | str
    """As the database gives it."""
    token: int
    has_draft: bool


class Evidence:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.rows = database.rows
        self.write_locked = database.write_locked

    def value(self, query: str, *values: Any) -> Any:
        return self.rows(query, *values)[0][0]

    def held_by(self, pid: int) -> list[Held]:
        """The turns that run in the process `pid`."""
        query = f"{_TURNS} JOIN workers ON workers.id = turns.lease_owner WHERE turns.status = 'running' AND workers.pid = ?"
        return [
            Held(turn_id=row["id"], token=row["lease_token"], has_draft=row["text"] not in ("", opening(_key(row))))
            for row in self.rows(query, pid)
        ]

    def lost(self, held: Collection[Held]) -> int:
        """How many of them somebody else has claimed since."""
        tokens = {row["id"]: row["lease_token"] for row in self.rows("SELECT id, lease_token FROM turns")}
        return sum(tokens[each.turn_id] > each.token for each in held)

    def reported_by(self, pid: int) -> int:
        """How many state events the process `pid` has stored."""
        return int(self.value("SELECT count(*) FROM changes JOIN workers ON workers.id = changes.origin WHERE workers.pid = ?", pid))

    def keys(self) -> dict[UUID, str]:
        """Which message each turn answers."""
        return {UUID(str(turn["id"])): _key(turn) for turn in self.rows(_TURNS)}

    def violations(self, keys: Collection[str], decisions: Mapping[str, Decision] | None = None) -> list[str]:
        """Everything that must not be, after all `keys` were posted and answered; `decisions` are what people decided on for which key."""
        turns = self.rows(f"{_TURNS} ORDER BY turns.conversation_id, turns.seq")
        return [
            *self._database.damage(),
            *_answers(turns, keys),
            *(_order(turns) if self._database.exact_times else ()),
            *self._left_behind(turns),
            *self._rounds(turns),
            *self._effects(turns),
            *self._approvals(turns, decisions or {}),
            *self._numbering(),
        ]

    def slowest(self) -> float:
        """The longest time, in seconds, from a message to the end of its turn."""
        times = self.rows("SELECT created_at, finished_at FROM turns WHERE finished_at IS NOT NULL")
        return max((_time(row["finished_at"]) - _time(row["created_at"])).total_seconds() for row in times)

    def _left_behind(self, turns: list[Any]) -> Iterator[str]:
        """What only a turn that is being answered may have: a lease, locks, a pause that it probes, a busy conversation."""
        for turn in turns:
            if turn["lease_owner"] or turn["lease_until"]:
                yield f"{_key(turn)} is {turn['status']} and leased"
        if self.write_locked():
            yield "somebody holds a lock"
        for row in self.rows("SELECT model FROM model_pauses WHERE probe_turn_id IS NOT NULL"):
            yield f"{row['model']} is still probed"
        last = {turn["conversation_id"]: turn for turn in turns}
        for row in self.rows("SELECT id, agent_status, agent_status_message FROM conversations"):
            expected = _agent_status(last[row["id"]]) if row["id"] in last else "idle"
            if row["agent_status"] != expected or (expected == "idle" and row["agent_status_message"]):
                yield f"a conversation is {row['agent_status']} ({row['agent_status_message']}) instead of {expected}"

    def _rounds(self, turns: list[Any]) -> Iterator[str]:
        steps: defaultdict[Any, list[int]] = defaultdict(list)
        for row in self.rows("SELECT turn_id, number FROM steps ORDER BY turn_id, number"):
            steps[row["turn_id"]].append(row["number"])
        for turn in turns:
            if turn["status"] == "succeeded" and steps[turn["id"]] != list(range(rounds(_key(turn)))):
                yield f"{_key(turn)}: its rounds are {steps[turn['id']]}"
        yield from self._ledger()

    def _ledger(self) -> Iterator[str]:
        """Each round and each summary is charged once, with what it took."""
        taken = self._taken("steps JOIN turns ON turns.id = steps.turn_id")
        charged = self._taken("usage")
        summaries = {row[0]: row[1] for row in self.rows("SELECT conversation_id, count(*) FROM summaries GROUP BY 1")}
        for conversation, (number, *tokens) in charged.items():
            made, *used = taken.get(conversation, (0, 0, 0))
            if number != made + summaries.get(conversation, 0) or (conversation not in summaries and tokens != used):
                yield f"{made} rounds, {summaries.get(conversation, 0)} summaries, {used} tokens, but the ledger has {number}, {tokens}"
        if missing := taken.keys() - charged.keys():
            yield f"{len(missing)} conversations were never charged"

    def _taken(self, table: str) -> dict[Any, tuple[int, int, int]]:
        """For each conversation: requests, tokens in and out."""
        rows = self.rows(f"SELECT conversation_id, count(*), sum(tokens_in), sum(tokens_out) FROM {table} GROUP BY 1")
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def _effects(self, turns: list[Any]) -> Iterator[str]:
        made = Counter(row["title"] for row in self.rows("SELECT title FROM tasks"))
        noted: defaultdict[Any, list[str]] = defaultdict(list)
        deleted: Counter[str] = Counter()
        keys = {turn["id"]: _key(turn) for turn in turns}
        for row in self.rows("SELECT * FROM tool_calls WHERE state = 'done' ORDER BY turn_id, step, \"index\""):
            match row["name"]:
                case "create_task":
                    noted[row["turn_id"]].append(json.loads(row["arguments"])["title"])
                case "delete_task":
                    deleted[titles(keys[row["turn_id"]])[1]] += 1
        said = Counter(title for done in noted.values() for title in done)
        for title in made.keys() | said.keys():
            if made[title] != said[title] - deleted[title]:
                yield f"{title!r}: {made[title]} tasks, but {said[title]} finished calls and {deleted[title]} that deleted it"
        for turn in turns:
            if turn["status"] == "succeeded" and noted[turn["id"]] != list(titles(_key(turn))):
                yield f"{_key(turn)}: its tools made {noted[turn['id']]}"

    def _approvals(self, turns: list[Any], decisions: Mapping[str, Decision]) -> Iterator[str]:
        """Each was asked once, and what happened is what was decided."""
        asked: defaultdict[Any, list[str]] = defaultdict(list)
        for row in self.rows("SELECT turn_id, status FROM approvals"):
            asked[row["turn_id"]].append(row["status"])
        done = {row["turn_id"] for row in self.rows("SELECT turn_id FROM tool_calls WHERE name = 'delete_task' AND state = 'done'")}
        for turn in turns:
            decision = decisions.get(_key(turn))
            expected = {None: [], Decision.APPROVE: ["approved"], Decision.DENY: ["denied"]}[decision]
            if asked[turn["id"]] != expected or (turn["id"] in done) != (decision is Decision.APPROVE):
                yield f"{_key(turn)}: people said {decision}, stored is {asked[turn['id']]}, and it was done: {turn['id'] in done}"

    def _numbering(self) -> Iterator[str]:
        for row in self.rows("SELECT conversation_id, count(*) AS n, min(seq) AS low, max(seq) AS high FROM messages GROUP BY 1"):
            if (row["low"], row["high"]) != (1, row["n"]):
                yield f"{row['n']} messages have the numbers {row['low']}-{row['high']}"


def _answers(turns: list[Any], keys: Collection[str]) -> Iterator[str]:
    answered = Counter(_key(turn) for turn in turns if turn["status"] == "succeeded")
    for key in keys:
        if answered[key] != 1:
            yield f"{key} was answered {answered[key]} times"
    for turn in turns:
        key, ended = _key(turn), _REPLY_STATUS.get(turn["status"])
        if ended is None:
            yield f"{key} is {turn['status']}"
        elif (turn["question_status"], turn["reply_status"]) != (ended, ended):
            yield f"{key} {turn['status']}, its messages are {turn['question_status']} and {turn['reply_status']}"
        elif turn["status"] == "succeeded" and turn["text"] != answer(key):
            yield f"{key} was answered with {turn['text'][:300]!r}"
        elif not answer(key).startswith(turn["text"]):
            yield f"{key} {turn['status']} with {turn['text'][:300]!r}"


def _order(turns: list[Any]) -> Iterator[str]:
    """Nobody is begun before the one before has ended. Cancelled turns end when a person says so."""
    asked = [turn for turn in turns if turn["status"] != "cancelled"]
    for before, turn in pairwise(asked):
        if before["conversation_id"] != turn["conversation_id"] or not turn["started_at"] or not before["finished_at"]:
            continue
        if turn["started_at"] < before["finished_at"]:
            yield f"{_key(turn)} began before {_key(before)} had ended"


def _agent_status(last: Any) -> str:
    """What a conversation shows after its last turn."""
    if last["status"] == "failed":
        return "error"
    return "waiting_for_user" if last["status"] == "succeeded" and is_question(_key(last)) else "idle"


def _time(stored: Any) -> datetime:
    return stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)


def _key(turn: Any) -> str:
    return str(turn["question"]).split()[0]
