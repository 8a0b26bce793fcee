"""What the database file says, read with plain SQL: nothing of the code under test takes part."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.chaos.talker import answer, opening, titles

_TURNS = """
    SELECT turns.*, question.content AS question, question.status AS question_status, reply.content AS text, reply.status AS reply_status
    FROM turns JOIN messages question ON question.id = turns.user_message_id JOIN messages reply ON reply.id = turns.reply_id
"""
_REPLY_STATUS = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A turn that runs in a certain process."""

    turn_id: str
    token: int
    has_draft: bool


class Evidence:
    def __init__(self, database: Path) -> None:
        self._database = database

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with closing(sqlite3.connect(self._database, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, values).fetchall()

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

    def write_locked(self) -> bool:
        """Whether somebody holds the file's write lock for longer than any transaction should."""
        with closing(sqlite3.connect(self._database, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
        return False

    def violations(self, keys: Collection[str]) -> list[str]:
        """Everything that must not be, after all `keys` were posted and answered."""
        turns = self.rows(f"{_TURNS} ORDER BY turns.conversation_id, turns.seq")
        return [*self._damage(), *_answers(turns, keys), *_order(turns), *self._rounds(turns), *self._effects(turns), *self._numbering()]

    def _damage(self) -> Iterator[str]:
        if (found := self.value("PRAGMA integrity_check")) != "ok":
            yield f"integrity_check: {found}"
        if broken := self.rows("PRAGMA foreign_key_check"):
            yield f"{len(broken)} rows point to nothing"
        busy = self.rows("SELECT agent_status, count(*) FROM conversations GROUP BY 1")
        if {row[0] for row in busy} - {"idle", "error"}:
            yield f"conversations are still {[tuple(row) for row in busy]}"

    def _rounds(self, turns: list[sqlite3.Row]) -> Iterator[str]:
        steps: defaultdict[str, list[int]] = defaultdict(list)
        for row in self.rows("SELECT turn_id, number FROM steps ORDER BY turn_id, number"):
            steps[row["turn_id"]].append(row["number"])
        for turn in turns:
            if turn["status"] == "succeeded" and steps[turn["id"]] != [0, 1]:
                yield f"{_key(turn)}: its rounds are {steps[turn['id']]}"
        for row in self.rows(
            "SELECT turns.conversation_id, count(*) AS steps,"
            " (SELECT count(*) FROM usage WHERE usage.conversation_id = turns.conversation_id) AS used,"
            " (SELECT count(*) FROM summaries WHERE summaries.conversation_id = turns.conversation_id) AS summaries"
            " FROM steps JOIN turns ON turns.id = steps.turn_id GROUP BY 1"
        ):
            if row["steps"] + row["summaries"] != row["used"]:
                yield f"{row['steps']} rounds and {row['summaries']} summaries, but {row['used']} rows of usage"

    def _effects(self, turns: list[sqlite3.Row]) -> Iterator[str]:
        made = Counter(row["title"] for row in self.rows("SELECT title FROM tasks"))
        noted: defaultdict[str, list[str]] = defaultdict(list)
        for row in self.rows("SELECT * FROM tool_calls WHERE state = 'done' ORDER BY turn_id, step, \"index\""):
            noted[row["turn_id"]].append(json.loads(row["arguments"])["title"])
        said = Counter(title for done in noted.values() for title in done)
        for title in made.keys() | said.keys():
            if made[title] != said[title]:
                yield f"{title!r}: {made[title]} tasks, but {said[title]} finished calls"
        for turn in turns:
            if turn["status"] == "succeeded" and noted[turn["id"]] != list(titles(_key(turn))):
                yield f"{_key(turn)}: its tools made {noted[turn['id']]}"

    def _numbering(self) -> Iterator[str]:
        for row in self.rows("SELECT conversation_id, count(*) AS n, min(seq) AS low, max(seq) AS high FROM messages GROUP BY 1"):
            if (row["low"], row["high"]) != (1, row["n"]):
                yield f"{row['n']} messages have the numbers {row['low']}-{row['high']}"


def _answers(turns: list[sqlite3.Row], keys: Collection[str]) -> Iterator[str]:
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


def _order(turns: list[sqlite3.Row]) -> Iterator[str]:
    """Nobody is begun before the one before has ended. Cancelled turns end when a person says so."""
    asked = [turn for turn in turns if turn["status"] != "cancelled"]
    for before, turn in pairwise(asked):
        if before["conversation_id"] != turn["conversation_id"] or not turn["started_at"] or not before["finished_at"]:
            continue
        if turn["started_at"] < before["finished_at"]:
            yield f"{_key(turn)} began before {_key(before)} had ended"


def _key(turn: sqlite3.Row) -> str:
    return str(turn["question"]).split()[0]
