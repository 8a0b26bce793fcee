"""Markdown as chat platforms need it: cut into parts, mass mentions made harmless, and plain; the same for all of them.

A reply grows while it is shown, and only at its end. A part that is done must stay as it was sent; so where it ends is decided by the text
that might have fitted into it, and by nothing that comes later.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from core.text import clip, utf16_len

Measure = Callable[[str], int]
"""How a platform counts a text: characters (len), UTF-16 units (core.text.utf16_len). Never less than one for a character, and additive."""

_JOINER = "\u2060"  # WORD JOINER: no width, no line break
_CROWD = re.compile(
    r"(?:<|&lt;|&#0*60;|&#x0*3c;)(?=\\?!(?:channel|here|everyone|subteam\\?\^)|@&)"  # Slack's, and Discord's roles
    r"|@(?=everyone|here)",
    re.IGNORECASE,
)

# Fences beyond these bounds are cut like text, so that what closes and reopens a fence, or a table's header, leaves room in a part of 200.
_FENCE_PREFIX, _FENCE_MARKUP, _FENCE_INFO = 40, 20, 40
_SHORT_HEADER = 100
_STEP = 2048  # characters from one place to the next from which a growing text is parsed again

_LINE_END = re.compile(r"\r\n?|\n")
_LINES = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+\Z")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n?|\n))*")
_INDENTATION = re.compile(r"[ \t]*")
_LINE_PREFIX = re.compile(r"[ \t>]*")
_QUOTE = re.compile(r" {0,3}> ?")
_ITEM = re.compile(r"( *)([-+*]|\d{1,9}[.)])?( *)")
_NUMBERED = re.compile(r"[ \t>]*\d{1,9}[.)](?:[ \t]|$)", re.MULTILINE)
_FENCE_LIKE = re.compile(r"(?:^|(?<=\r))([ \t>*+\-0-9.)]{0,40})(`{3,20}|~{3,20})", re.MULTILINE)

# What would be read as a heading, list, quote, table, rule, underline, fence or definition if a part began with it, or may be one once it
# is longer.
_BLOCKISH = re.compile(
    r"[ \t]*(?:>|\||#{1,6}(?:\s|\Z)|[-+*](?:\s|\Z)|\d{1,9}(?:[.)](?:\s|\Z)|\Z)|`{1,2}\Z|~{1,2}\Z|```|~~~"
    r"|=+[ \t]*(?:[\r\n]|\Z)|:?-[-:| \t]*(?:[\r\n]|\Z)|(?:[*_][ \t]*)+(?:[\r\n]|\Z)|\[[^\]\r\n]{0,100}(?:\Z|\]:))"
)
_MARK_ONLY = re.compile(r"[ \t>]*(?:\d{1,9}[.)]?|[-+*#]+|[`~]+)[ \t]*")
# Markup inside a paragraph that a cut would tear. What is not finished yet counts as well.
_SPAN = re.compile(
    r"(?<![`\\])(?P<code>`+)(?!`)(?:.{1,300}?(?<!`)(?P=code)(?!`)|.{0,300}\Z)"
    r"|!?\[(?:[^\[\]]|\[[^\[\]]{0,100}\]){0,300}(?:\](?:\((?:[^()]|\([^()]{0,300}\)){0,600}(?:\)|\Z)|\Z)|\Z)"
    r"|<?[a-z][a-z0-9+.\-]{1,20}://\S+"
    r"|(?P<mark>\*{1,3}|(?<!\w)_{1,3}|~~)(?=[^\s*_~])(?:.{0,300}?[^\s\\](?P=mark)|.{0,300}\Z)"
    r"|\\."
    r"|&#?\w{1,31}(?:;|\Z)"
    r"|<[@#!:][^<>\s]{0,100}(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?…][\"')\]*_»”]*[ \t]+|[。！？]")
_SPACE = re.compile(r"[ \t]+")
_FLAGS = re.compile("[\U0001f1e6-\U0001f1ff]*\\Z")
_JOINED = re.compile("[\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")  # joiner, skin tones, tags of flags


def cut(text: str, begin: int, limit: int, measure: Measure = len) -> int | None:
    """Where the part that starts at `begin` ends, as an offset into `text`; None while everything from `begin` on fits into one part.

    `limit` is 200 or more. Once this gave an offset, it gives the same for every longer text that begins with this one. The piece is within
    `limit`, with what closes and reopens a fence.
    """
    window = _Window(text=text[begin : begin + limit + 1], carried=_carried(text[:begin]), limit=limit, measure=measure)
    if window.fits(len(window.text)):
        return None
    return _choose(text, begin, begin + window.largest())


def piece(text: str, begin: int, end: int | None) -> str:
    """text[begin:end] as it is sent: a fence open at `begin` is opened again, one open at `end` closed, a table's header repeated.

    A part that begins inside a list is moved to the margin. Blank lines between two parts are dropped.
    """
    shown = text if end is None else text[:end]
    opening, body, start = _resumed(shown, begin)
    closing = _closing(shown, start) if body else ""
    if closing:
        return opening + body + ("" if body.endswith(("\n", "\r")) else "\n") + closing
    return opening + (body if end is None else body.rstrip())


def parts(text: str, limit: int, measure: Measure = len) -> list[str]:
    """All pieces of a finished text, in order."""
    pieces, begin = [], 0
    while (end := cut(text, begin, limit, measure)) is not None:
        pieces.append(piece(text, begin, end))
        begin = end
    return [*pieces, piece(text, begin, None)]


def neutral(text: str) -> str:
    """`text` in which nothing notifies a crowd: a word joiner, unseen, parts <!channel>, <!subteam^…>, <@&…>, @everyone and @here."""
    return _CROWD.sub(lambda found: found[0] + _JOINER, text)


def plain(text: str, limit: int) -> str:
    """What `text` says, without markup, on one line of at most `limit` characters; an ellipsis stands where it was cut."""
    return clip(" ".join(_said(_MARKDOWN.parse(text))), limit)


def _said(tokens: Iterable[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type == "inline":
            yield "".join(" " if child.type.endswith("break") else child.content for child in token.children or ())
        elif token.type in ("fence", "code_block"):
            yield token.content


# --- what fits -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    kind: str
    begin: int  # where its first line starts
    end: int  # behind its last line
    level: int
    markup: str
    info: str
    closed: bool  # a fence, by its last line


@dataclass(frozen=True, slots=True, kw_only=True)
class _Carried:
    """What a part begins with because of what stands before it, and what closing that costs."""

    opening: str = ""
    closing: int = 0
    header: str = ""  # of a table
    containers: int = 0  # each may cost a blank line where it ends


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The text that might fit into a part. It counts generously: what does not fit must never fit again as the text grows."""

    text: str
    carried: _Carried
    limit: int
    measure: Measure

    def fits(self, length: int) -> bool:
        header = self.carried.header if _repeats(self.carried.header, length) else ""
        kept = self.carried.opening + header + self.text[:length]
        return self.measure(kept) + self.carried.containers + self._closing(length) <= self.limit

    def largest(self) -> int:
        """How many characters fit, at least one."""
        return max(bisect_left(range(len(self.text) + 1), True, key=lambda length: not self.fits(length)) - 1, 1)

    def _closing(self, length: int) -> int:
        """What closing a fence costs, if it were open: it might be wherever a line begins like one."""
        costs = [
            1 + _prefix_width(found[1]) + min(found.end(), length) - found.start(2)
            for found in _FENCE_LIKE.finditer(self.text)
            if found.start(2) + 3 <= length
        ]
        return max(self.carried.closing, *costs, 0)


@lru_cache(maxsize=64)
def _carried(text: str) -> _Carried:
    """What the part behind `text` begins with at most."""
    if not text:
        return _Carried()
    blocks = _blocks(text, len(text))
    containers = len(_around(blocks, len(text), len(text)))
    fence = _open_fence(text, blocks)
    if fence is not None:
        closing = 1 + _prefix_width(_prefix(text, fence)) + len(fence.markup)
        return _Carried(opening=_reopened(text, blocks, fence, len(text)), closing=closing, containers=containers)
    table = next((block for block in blocks if block.kind == "table" and block.end == len(text)), None)
    return _Carried(header=_header(text, table, len(text)) if table else "", containers=containers)


def _repeats(header: str, length: int) -> bool:
    """Whether a table's header is worth repeating in a part of `length` characters."""
    return utf16_len(header) <= _SHORT_HEADER or len(header) * 2 <= length


# --- parts -----------------------------------------------------------------------------------------------------------


def _resumed(text: str, begin: int) -> tuple[str, str, int]:
    """What stands before the rest of `text` from `begin` on, that rest as it reads by itself, and where in `text` it starts."""
    if begin == 0:
        return "", text, 0
    start = _end_of(_BLANK_LINES, text, begin)
    line_end = _end_of(_LINE, text, start)
    blocks = _blocks(text[:line_end], begin)
    fence = next((block for block in blocks if block.kind == "fence" and block.begin < begin and start < block.end), None)
    if fence is None or not _kept(text, fence):
        return _resumed_text(text, blocks, start, line_end)
    if fence.closed:
        return _resumed(text, line_end)  # nothing is left of it but its last line
    widths = _widths(text, _around(blocks, fence.begin + 1, fence.end))
    return _reopened(text, blocks, fence, begin), _moved(text, begin, widths, fence), begin


def _resumed_text(text: str, blocks: Sequence[_Block], start: int, line_end: int) -> tuple[str, str, int]:
    if not _begins_line(text, start):
        start = _end_of(_INDENTATION, text, start)
    body = _moved(text, start, _widths(text, _around(blocks, start, line_end)), None)
    table = next((block for block in blocks if block.kind == "table" and block.begin < start < block.end), None)
    header = _header(text, table, start) if table else ""
    return (header if _repeats(header, len(body)) else ""), body, start


def _header(text: str, table: _Block, start: int) -> str:
    """The header of a table that goes on at `start`; none inside a row, a list or a quote."""
    end = _end_of(_LINE, text, _end_of(_LINE, text, table.begin))
    return text[table.begin : end] if table.level == 0 and end <= start and _begins_line(text, start) else ""


def _reopened(text: str, blocks: Iterable[_Block], fence: _Block, begin: int) -> str:
    """The line that opens `fence` again, and the signs of its quotes where `begin` is inside a line."""
    widths = _widths(text, _around(blocks, fence.begin + 1, fence.end))
    signs = "> " * widths.count(0)
    line = _inner(_line_at(text, fence.begin), widths)
    indentation = line[: _end_of(_INDENTATION, line, 0)]
    info = fence.info if utf16_len(fence.info) <= _FENCE_INFO else ""
    return f"{signs}{indentation}{fence.markup}{info}\n" + ("" if _begins_line(text, begin) else signs)


def _closing(text: str, start: int) -> str:
    """What closes a fence that is open at the end of `text`, in a part that starts at `start`."""
    if not _FENCE_LIKE.search(text):
        return ""
    blocks = _blocks(text, len(text))
    fence = _open_fence(text, blocks)
    if fence is None:
        return ""
    containers = _around(blocks, fence.begin + 1, fence.end)
    signs = ["> " if width == 0 else " " * width if held.begin >= start else "" for held, width in _measured(text, containers)]
    return "".join(signs) + fence.markup


def _moved(text: str, start: int, widths: Sequence[int], fence: _Block | None) -> str:
    """`text` from `start` on, moved to the margin as far as it goes on with the containers it starts in; an open `fence` ends with them."""
    if not widths:
        return text[start:]
    moved: list[str] = []
    for number, line in enumerate(_LINES.findall(text, start)):
        if number == 0 and not _begins_line(text, start):
            moved.append(line)
            continue
        outdented, depth = _outdented(line, widths)
        if fence is not None and depth < len(widths):
            moved.append("> " * widths.count(0) + fence.markup + "\n")
        if depth < len(widths) and _NUMBERED.match(outdented):
            moved.append("\n")  # only a list of its own, which the line is not here, might start within a paragraph, and only with 1
        if fence is not None and (depth < len(widths) or _closes(outdented, fence.markup)):
            fence = None
        widths = widths[:depth]
        moved.append(outdented)
    return "".join(moved)


# --- where to cut ----------------------------------------------------------------------------------------------------


def _choose(text: str, begin: int, top: int) -> int:
    """The best place to cut in the last half of text[begin:top]. It looks at the character behind `top` too, and at none after that."""
    floor = begin + (top - begin) // 2
    shown = text[:top]
    blocks = _blocks(shown, floor)
    ranks = (
        _starts([block for block in blocks if block.level == 0]),
        _starts(blocks),
        _text_lines(shown, blocks),
        _fence_lines(shown, blocks),
    )
    for offsets in ranks:
        if found := [offset for offset in offsets if offset > floor]:
            return max(found)
    return _within_line(text, top, floor, [block for block in blocks if block.end > floor])


def _starts(blocks: Sequence[_Block]) -> Iterator[int]:
    """Where blocks start, except behind a heading, which stays with what it heads."""
    return (block.begin for before, block in pairwise(blocks) if before.kind != "heading")


def _text_lines(text: str, blocks: Iterable[_Block]) -> Iterator[int]:
    for block in blocks:
        if block.kind == "table":
            yield from _line_starts(text, block)[1:]
        elif block.kind == "code_block":  # between blank lines, which count here, and are dropped at the ends of parts
            starts = [block.begin, *_line_starts(text, block)]
            yield from (start for before, start in pairwise(starts) if _line_at(text, before).strip() and _line_at(text, start).strip())
        elif block.kind == "paragraph":
            spans = _Spans(text, block)
            yield from (start for start in _line_starts(text, block) if spans.free(_end_of(_LINE_PREFIX, text, start)))


def _fence_lines(text: str, blocks: Iterable[_Block]) -> Iterator[int]:
    """Starts of lines in fences: not of the first one, nor of blank ones, which a part does not begin with."""
    for block in blocks:
        if block.kind == "fence":
            yield from (start for start in _line_starts(text, block)[1:] if _line_at(text, start).strip("> \t"))


def _line_starts(text: str, block: _Block) -> list[int]:
    """Where the lines of `block` start, without the first."""
    return [line.end() for line in _LINE_END.finditer(text, block.begin, block.end) if line.end() < block.end]


def _within_line(text: str, top: int, floor: int, blocks: Sequence[_Block]) -> int:
    """Behind a sentence, a word, a character, as long as that tears no markup; in the last resort behind any character."""
    spans = [_Spans(text[:top], block) for block in blocks if block.kind in ("paragraph", "heading")]
    for pattern in (_SENTENCE_END, _SPACE):
        ends = [found.end() for block in spans for found in pattern.finditer(text, max(floor, block.begin), min(top, block.end))]
        if ends := [end for end in ends if end > floor and any(block.free(end) for block in spans)]:
            return max(ends)
    whole = [offset for offset in range(top, floor, -1) if _between_characters(text, offset)]
    return next((offset for offset in whole if any(block.free(offset) for block in spans)), whole[0] if whole else top)


class _Spans:
    """The markup inside one paragraph: code, links, emphasis, addresses, entities."""

    def __init__(self, text: str, block: _Block) -> None:
        self._text, self.begin, self.end = text, block.begin, block.end
        found = [span.span() for span in _SPAN.finditer(text, block.begin, block.end)]
        self._begins = [begin for begin, _ in found]
        self._ends = [end if end < len(text) else end + 1 for _, end in found]  # at the end of the text it may go on

    def free(self, offset: int) -> bool:
        """Whether a part may begin here, inside the paragraph: no markup is torn, and what follows does not read as another block."""
        if not self.begin < offset <= self.end:
            return False
        if _MARK_ONLY.fullmatch(self._text, max(self._text.rfind(end, 0, offset) for end in "\r\n") + 1, offset):
            return False
        before = bisect_left(self._begins, offset) - 1
        return (before < 0 or self._ends[before] <= offset) and _BLOCKISH.match(self._text, offset) is None


def _between_characters(text: str, offset: int) -> bool:
    """Whether no character, as people see them, reaches over `offset`."""
    before, after = text[offset - 1], text[offset : offset + 1]
    if not after:
        return True
    if before == "\u200d" or before + after == "\r\n" or _JOINED.match(after) or unicodedata.category(after).startswith("M"):
        return False
    flags = _FLAGS.search(text[max(offset - 64, 0) : offset])
    return flags is None or len(flags[0]) % 2 == 0 or not _FLAGS.match(after)


# --- blocks: which part of a text is what ----------------------------------------------------------------------------


def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


_MARKDOWN = _parser()
_BLOCKS = _parser()
_BLOCKS.core.ruler.enableOnly(["normalize", "block"])
_PARTS_OF_BLOCKS = frozenset({"inline", "thead_open", "tbody_open", "tr_open", "th_open", "td_open"})


@lru_cache(maxsize=64)
def _blocks(text: str, since: int) -> tuple[_Block, ...]:
    """The blocks of `text` that reach beyond `since`, and some before; outer ones first."""
    start = _anchor(text[: since // _STEP * _STEP])
    return tuple(_parsed(text[start:], start))


@lru_cache(maxsize=128)
def _anchor(text: str) -> int:
    """Where the last top-level block begins: what follows reads the same without what stands before it."""
    if not text:
        return 0
    earlier = _anchor(text[:-_STEP])
    whole_lines = text[earlier : text.rfind("\n") + 1]  # half a line may turn out to be another block
    return max((block.begin for block in _parsed(whole_lines, earlier) if block.level == 0), default=earlier)


def _parsed(text: str, offset: int) -> list[_Block]:
    starts = [0, *(line.end() for line in _LINE_END.finditer(text))]
    return [_block(token, text, offset, starts) for token in _BLOCKS.parse(text) if token.map and token.type not in _PARTS_OF_BLOCKS]


def _block(token: Token, text: str, offset: int, starts: Sequence[int]) -> _Block:
    assert token.map is not None
    first, behind = token.map
    end = starts[behind] if behind < len(starts) else len(text)
    return _Block(
        kind=token.type.removesuffix("_open"),
        begin=offset + starts[first],
        end=offset + end,
        level=token.level,
        markup=token.markup,
        info=token.info.strip(),
        closed=token.type == "fence"
        and len(_LINES.findall(token.content)) < behind - first - 1
        and _closes(text[starts[behind - 1] : end], token.markup),
    )


def _around(blocks: Iterable[_Block], begin: int, end: int) -> list[_Block]:
    """The items and quotes that started before `begin` and reach to `end`; the outermost first."""
    return [block for block in blocks if block.kind in ("list_item", "blockquote") and block.begin < begin and end <= block.end]


def _open_fence(text: str, blocks: Sequence[_Block]) -> _Block | None:
    """The fence that is open at the end of `text`."""
    last = blocks[-1] if blocks else None
    return last if last and last.kind == "fence" and not last.closed and last.end == len(text) and _kept(text, last) else None


def _kept(text: str, fence: _Block) -> bool:
    return len(fence.markup) <= _FENCE_MARKUP and _prefix_width(_prefix(text, fence)) <= _FENCE_PREFIX


def _closes(line: str, markup: str) -> bool:
    sign = line.strip("> \t\r\n")
    return len(sign) >= len(markup) and not sign.strip(markup[0])


def _prefix(text: str, fence: _Block) -> str:
    return _line_at(text, fence.begin).partition(fence.markup)[0]


def _prefix_width(prefix: str) -> int:
    return len(prefix.expandtabs(4)) + prefix.count(">")


# --- lines -----------------------------------------------------------------------------------------------------------


def _end_of(pattern: re.Pattern[str], text: str, offset: int) -> int:
    found = pattern.match(text, offset)
    return found.end() if found else offset


def _begins_line(text: str, offset: int) -> bool:
    return offset == 0 or text[offset - 1] in "\r\n"


def _line_at(text: str, offset: int) -> str:
    return text[offset : _end_of(_LINE, text, offset)].rstrip("\r\n")


def _widths(text: str, containers: Iterable[_Block]) -> list[int]:
    """How many columns each container takes from its lines: an item its indentation, a quote 0, for its sign stays."""
    return [width for _, width in _measured(text, containers)]


def _measured(text: str, containers: Iterable[_Block]) -> list[tuple[_Block, int]]:
    measured: list[tuple[_Block, int]] = []
    for container in containers:
        line = _inner(_line_at(text, container.begin), [width for _, width in measured])
        measured.append((container, 0 if container.kind == "blockquote" else _item_width(line)))
    return measured


def _inner(line: str, widths: Iterable[int]) -> str:
    """What containers leave of `line`, whether it starts them or goes on with them."""
    line = line.expandtabs(4)
    for width in widths:
        line = line[width or _end_of(_QUOTE, line, 0) :]
    return line


def _item_width(line: str) -> int:
    found = _ITEM.match(line)
    assert found is not None  # it matches anything
    padding = len(found[3]) if len(found[3]) <= 4 and found.end() < len(line) else 1
    return len(found[1]) + len(found[2] or "") + padding


def _outdented(line: str, widths: Iterable[int]) -> tuple[str, int]:
    """`line` without its indentation, the signs of quotes kept, and how many of the containers it goes on with."""
    signs, depth = "", 0
    for width in widths:
        taken = _indentation(line, width) if width else _end_of(_QUOTE, line, 0)
        if taken == 0 and (width == 0 or line.strip()):
            break
        signs, line, depth = signs + ("" if width else line[:taken]), line[taken:], depth + 1
    return signs + line, depth


def _indentation(line: str, width: int) -> int:
    """How many characters of `line` are `width` columns of indentation; a tab is not parted. 0 if it has less and is not blank."""
    columns = 0
    for taken, character in enumerate(line):
        if columns >= width:
            return taken
        if character not in " \t":
            return taken if character in "\r\n" else 0
        columns = columns + 1 if character == " " else columns // 4 * 4 + 4
    return len(line)
