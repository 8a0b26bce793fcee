"""Prints a conversation in its order: what is finished goes onto the paper, once; what still grows is offered row by row."""

from dataclasses import dataclass, field
from typing import Protocol

from core import wording
from core.frames import Frame
from core.models import JSON
from core.talk import Entry, Talk
from onethread.terminal import text as texts
from onethread.terminal.text import Fragments, one_line, plain

_HISTORY_ROWS = 12
_OPEN_ROWS = 4
"""So many rows wait for a bold or code mark to be closed."""
_LIVE_ROWS = 6
_HERE = ("terminal", "question")


class Paper(Protocol):
    """Where finished lines go."""

    @property
    def width(self) -> int: ...
    def print(self, fragments: Fragments) -> None: ...


@dataclass(slots=True)
class _Printed:
    """How much of a message is on the paper."""

    text: str = ""
    calls: set[tuple[int, int]] = field(default_factory=set)
    reopened: int = 0
    done: bool = False


class Transcript:
    """`fresh` is a conversation that begins here: it needs no heading."""

    def __init__(self, paper: Paper, talk: Talk, me: str, *, fresh: bool = False) -> None:
        self._paper = paper
        self._talk = talk
        self._me = me
        self._fresh = fresh
        self._printed: dict[str, _Printed] = {}
        self._gap = False
        """True where an empty row comes before the next line."""
        self._after_call = False
        self.mine: set[str] = set()
        """Messages that were sent from here."""

    def apply(self, frame: Frame) -> None:
        """Takes a frame in and prints what can be printed now."""
        first = not self._talk.known
        self._talk.apply(frame)
        if first and self._talk.known and not self._fresh:
            self._print_history()
        self._advance()
        for notice in self._talk.notices:
            self.note(plain(notice))
        self._talk.notices.clear()

    def growing(self) -> list[Fragments]:
        """The rows of the unfinished reply that are not on the paper yet."""
        entry = self._talk.unfinished
        if entry is None:
            return []
        text, printed = plain(entry.text), self._of(entry).text
        if not text.startswith(printed) or len(text) == len(printed):
            return []
        start = text.rfind("\n", 0, len(printed)) + 1
        line = text[start:]
        if texts.in_fence(text[:start]) or texts.is_fence(line):
            return [[("class:code", one_line(line, self._paper.width))]]
        indent = texts.hanging(line)
        folded = texts.fold(texts.styled(text[len(printed) :]), self._paper.width, indent=indent, begun=len(printed) > start)
        rows = [self._row(row, indent, follows=place > 0 or len(printed) > start) for place, row in enumerate(folded)]
        return rows[-_LIVE_ROWS:]

    def note(self, sentence: str, style: str = "class:dim") -> None:
        for row in texts.rows(sentence, self._paper.width - 2, style):
            self._line([("", "  "), *row])

    # --- order ---

    def _advance(self) -> None:
        """Prints on to the first reply that has not ended; what comes behind it waits."""
        for entry in self._talk.entries:
            printed = self._of(entry)
            if printed.done and entry.reopened > printed.reopened:
                self.note("↻ answering again")
                printed.done, printed.text, printed.reopened = False, "", entry.reopened
            if printed.done:
                continue
            if not entry.is_reply:
                self._print_said(entry)
            elif not self._print_reply(entry):
                return

    def _print_history(self) -> None:
        """What had ended before: short, and the last exchange in full."""
        self._print_heading()
        unfinished = self._talk.unfinished
        ended = [entry for entry in self._talk.entries if unfinished is None or entry.seq < unfinished.seq]
        exchanged = [entry for entry in ended if not entry.is_notice][-2:]
        for entry in ended:
            limit = 0 if entry in exchanged else _HISTORY_ROWS
            if entry.is_reply:
                self._print_old_reply(entry, limit)
            else:
                self._print_said(entry, limit=limit, old=True)

    def _of(self, entry: Entry) -> _Printed:
        return self._printed.setdefault(entry.message["id"], _Printed())

    # --- what people said ---

    def _print_heading(self) -> None:
        task = self._talk.task
        facts = f" ({task['status'].replace('_', ' ')}, {task['priority']})" if task else ""
        self._gap = True
        self._line([("class:heading", one_line(f"── {self._talk.title}{facts} ──", self._paper.width))])
        if elsewhere := wording.also(self._talk.conversation["bindings"]):
            self.note(plain(elsewhere))
        if task and task["description"]:
            self._block(task["description"], style="class:dim", limit=_HISTORY_ROWS)
        if not self._talk.entries:
            self.note("Nothing was said here yet.")

    def _print_said(self, entry: Entry, *, limit: int = 0, old: bool = False) -> None:
        message = entry.message
        self._of(entry).done = True
        if entry.is_notice:
            self.note(plain(entry.text))
            return
        self._gap = True
        who = one_line(message["author"] or message["role"], 40)
        if message["deleted_at"]:
            self.note(f"{who} deleted this message.")
            return
        here = message["id"] in self.mine or (old and message["author"] == self._me and message["source"] in _HERE)
        if not here:
            self._line([("class:name", f"{who} ({one_line(message['source'], 20)})")])
        self._block(entry.text, style="class:mine" if here else "", mark="❯ ", limit=limit)
        for file in message["attachments"]:
            self.note(f"+ {one_line(file['name'], 60)} ({wording.size(file['size'])})")
        self._gap = True

    # --- replies ---

    def _print_old_reply(self, entry: Entry, limit: int) -> None:
        printed = self._of(entry)
        self._print_calls(entry, printed)
        self._block(entry.text, limit=limit)
        printed.text = plain(entry.text)
        self._print_end(entry)
        printed.done = True

    def _print_reply(self, entry: Entry) -> bool:
        """Prints what has come; True when the reply has ended."""
        printed = self._of(entry)
        self._print_calls(entry, printed)
        self._print_text(entry, printed, whole=entry.ended)
        if entry.ended:
            self._print_end(entry)
            printed.done = True
        return printed.done

    def _print_calls(self, entry: Entry, printed: _Printed) -> None:
        finished = [place for place, call in sorted(entry.calls.items()) if call["state"] in ("done", "failed")]
        fresh = [place for place in finished if place not in printed.calls and entry.calls[place]["name"] != "ask_user"]
        if fresh and entry.streamed:
            self._print_text(entry, printed, whole=True)
        for place in fresh:
            printed.calls.add(place)
            self._print_call(entry.calls[place])

    def _print_call(self, call: JSON) -> None:
        outcome = wording.outcome(call)
        mark, style = ("✕", "class:error") if call["state"] == "failed" else ("✔", "class:ok")
        self._gap = self._gap and not self._after_call
        line = f"{call['name']} {shown_arguments(call['arguments'])}{f': {outcome}' if outcome else ''}"
        self._line([("", "  "), (style, mark), ("class:dim", f" {one_line(line, self._paper.width - 4)}")])
        self._gap = self._after_call = True

    def _print_text(self, entry: Entry, printed: _Printed, *, whole: bool) -> None:
        text = plain(entry.text)
        if not text.startswith(printed.text) and not self._begin_again(entry, printed, text, whole=whole):
            return
        while (newline := text.find("\n", len(printed.text))) >= 0:
            self._print_line(printed, text, newline, whole=True)
            printed.text = text[: newline + 1]
        self._print_line(printed, text, len(text), whole=whole)

    def _begin_again(self, entry: Entry, printed: _Printed, text: str, *, whole: bool) -> bool:
        """The text differs from what is printed: it is printed anew from the line on that differs. False to wait for more of it."""
        if printed.text.startswith(text) and not (whole and entry.message["status"] == "completed"):
            return False
        self.note("(corrected)" if entry.ended else "(tried again)")
        same = next((place for place, (one, other) in enumerate(zip(printed.text, text, strict=False)) if one != other), len(text))
        printed.text = text[: text.rfind("\n", 0, same) + 1]
        return True

    def _print_line(self, printed: _Printed, text: str, end: int, *, whole: bool) -> None:
        """Prints the rows of one line, from where it was left, that later text cannot change."""
        begun_at, start = len(printed.text), text.rfind("\n", 0, len(printed.text)) + 1
        line, rest = text[start:end], text[begun_at:end]
        if texts.in_fence(text[:start]) or texts.is_fence(line):
            if whole:
                self._line([("class:code", rest)])
                printed.text = text[:end]
            return
        if not rest.strip():
            self._gap = self._gap or (whole and not line.strip())
            return
        indent = texts.hanging(line)
        rows = texts.fold(texts.styled(rest), self._paper.width, indent=indent, begun=begun_at > start)
        ready = rows if whole else _unchangeable(rows, rest)
        for place, row in enumerate(ready):
            self._line(self._row(row, indent, follows=place > 0 or begun_at > start))
        if ready:
            printed.text = text[: end if whole else begun_at + ready[-1][-1][2]]

    def _print_end(self, entry: Entry) -> None:
        metadata = entry.message["metadata"]
        if entry.message["deleted_at"]:
            self.note("This answer was deleted.")
        match entry.message["status"]:
            case "failed":
                self.note(f"✕ {metadata.get('error', {}).get('message', 'The answer failed.')}", "class:error")
                self.note("/retry tries again")
            case "cancelled":
                self.note("■ Stopped. /retry answers again.")
            case _:
                self._print_options(metadata)
                self.note(spent(metadata))

    def _print_options(self, metadata: JSON) -> None:
        for number, option in enumerate((metadata.get("question") or {}).get("options") or [], 1):
            self._line([("class:key", f"  [{number}]"), ("", f" {one_line(str(option), self._paper.width - 7)}")])

    # --- lines ---

    def _block(self, text: str, *, style: str = "", mark: str = "", limit: int = 0) -> None:
        rows = list(texts.rows(text, self._paper.width - len(mark), style))
        shown = rows[:limit] if limit and len(rows) > limit + 2 else rows
        for number, row in enumerate(shown):
            self._line([(style, " " * len(mark) if number else mark), *row])
        if len(shown) < len(rows):
            self.note(f"… {len(rows) - len(shown)} more lines")

    @staticmethod
    def _row(row: list[texts.Cell], indent: int, *, follows: bool) -> Fragments:
        return [("", " " * indent if follows else ""), *texts.fragments(row)]

    def _line(self, fragments: Fragments) -> None:
        if self._gap:
            self._gap = False
            self._paper.print([("", "")])
        self._after_call = False
        self._paper.print(fragments)


def shown_arguments(arguments: JSON) -> str:
    """`{ref: OT-3}`"""
    return "{" + ", ".join(f"{name}: {wording.value(value)}" for name, value in arguments.items()) + "}"


def spent(metadata: JSON) -> str:
    """`demo/offline · 120 in · 34 out · $0.0012 · 1.2 s`"""
    about = "~" if metadata.get("estimated") else ""
    parts = [model_name(str(metadata.get("model", ""))), wording.instead(metadata, model_name)]
    if "tokens_in" in metadata:
        cached = f" ({metadata['tokens_cached']:,} cached)" if metadata.get("tokens_cached") else ""
        parts += [
            f"{about}{metadata['tokens_in']:,} in{cached}",
            f"{about}{metadata['tokens_out']:,} out",
            wording.price(metadata.get("cost")),
        ]
    if "seconds" in metadata:
        parts.append(f"{metadata['seconds']} s")
    return " · ".join(part for part in parts if part)


def model_name(model: str) -> str:
    return one_line(model, 60)


def _unchangeable(rows: list[list[texts.Cell]], rest: str) -> list[list[texts.Cell]]:
    """All but the last row, and none that a mark may still change."""
    if len(rows) > _OPEN_ROWS:
        return rows[:-1]
    open_at = texts.open_mark(rest)
    return [row for row in rows[:-1] if row[-1][2] <= open_at]
