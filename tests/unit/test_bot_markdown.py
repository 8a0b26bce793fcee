import re
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bots.markdown import cut, neutral, parts, piece, plain
from core.text import utf16_len

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
MEASURES = st.sampled_from([len, utf16_len])

# --- any markdown ----------------------------------------------------------------------------------------------------

words = st.one_of(
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12),
    st.text("漢字仮名交文章試験長言葉", min_size=1, max_size=12),
    st.text("שלוםעולם", min_size=1, max_size=8),
    st.sampled_from(["👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "é́", "👍🏽", "Ende.", "Why?", "3", "2024", "x" * 60]),
)
inlines = st.one_of(
    words,
    words.map("**{}**".format),
    words.map("*{}*".format),
    words.map("~~{}~~".format),
    words.map("`{} # x`".format),
    st.tuples(words, words).map(lambda pair: f"**{pair[0]} `{pair[1]}`**"),
    st.tuples(words, st.text("abc/?=&_", max_size=20)).map(lambda pair: f"[{pair[0]} {pair[0]}](https://example.com/{pair[1]})"),
    st.text("abcdef/?=_", max_size=30).map("https://example.com/{}x".format),
)
lines = st.lists(inlines, min_size=1, max_size=25).map(" ".join)
paragraphs = st.lists(lines, min_size=1, max_size=4).map("\n".join)
headings = st.tuples(st.integers(1, 4), words).map(lambda pair: f"{'#' * pair[0]} {pair[1]}")
quotes = paragraphs.map(lambda text: "\n".join(f"> {line}" for line in text.split("\n")))
code_lines = st.one_of(
    st.text("abc = []()*_#>-|.'", max_size=60).map(str.rstrip),
    st.sampled_from(["", "    indented", "- no item", "| no | table |", "# no heading", "`no`", "``", "> no quote"]),
)
code = st.lists(code_lines, max_size=40)


def fence(sign: str, info: str, body: list[str]) -> str:
    return "\n".join([sign + info, *body, sign])


fences = st.builds(fence, st.sampled_from(["```", "~~~", "````", "~~~~~"]), st.sampled_from(["", "py", "python title=x", " sh"]), code)
tables = st.tuples(words, st.lists(st.tuples(words, words), max_size=20)).map(
    lambda table: "\n".join([f"| {table[0]} | b |", "|---|:-:|", *(f"| {left} | {right} |" for left, right in table[1])])
)


def indented(text: str, columns: int) -> str:
    return "\n".join(" " * columns + line if line else "" for line in text.split("\n"))


def bulleted(items: list[str], mark: str) -> str:
    return "\n".join(f"{mark} {indented(item, len(mark) + 1).lstrip(' ')}" for item in items)


def lists_of(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(bulleted, st.lists(inner, min_size=1, max_size=6), st.sampled_from(["-", "*", "1.", "10)"]))


items = st.one_of(lines, st.tuples(lines, fences).map("\n".join), st.tuples(lines, fences, lines).map("\n\n".join))
nested = st.tuples(lines, lists_of(items)).map("\n\n".join)
blocks = st.one_of(paragraphs, headings, quotes, fences, tables, lists_of(items), lists_of(nested), st.just("---"))
documents = st.lists(blocks, min_size=1, max_size=8).map("\n\n".join)
limits = st.integers(200, 1200)
roomy_limits = st.integers(500, 1500)  # at least twice as long as any markup above, which therefore need not be torn
hostile = st.lists(st.text("ab *_`~#>-+|[]()<>!\\&;:=.\n\r\t1漢👩\u200d🏽\u0301", min_size=3), min_size=20, max_size=120).map("".join)


def said(texts: list[str]) -> list[tuple[str, str]]:
    """What a person reads in `texts`, one after another: words with their styles, and code. Spaces and tables' headers are left out."""
    read: list[tuple[str, str]] = []
    for kind, content in [element for text in texts for element in elements(text)]:
        if read and read[-1][0] == kind:
            read[-1] = (kind, read[-1][1] + content)
        elif content:
            read.append((kind, content))
    return read


def elements(text: str) -> Iterator[tuple[str, str]]:
    heading = False
    for token in MARKDOWN.parse(text):
        heading = token.type == "thead_open" or (heading and token.type != "thead_close")
        if token.type == "fence":
            yield f"code {token.info.strip()}", token.content
        elif token.type == "code_block":
            yield "indented", token.content
        elif token.type == "hr":
            yield "words", "---"
        elif token.type == "inline" and not heading:
            for child in token.children or ():
                yield "words", f"<{child.type} {child.attrs}>" if child.nesting else "".join(child.content.split())


@settings(max_examples=60, deadline=None)
@given(documents, roomy_limits, MEASURES)
def test_parts_are_within_the_limit_and_read_like_the_whole(text: str, limit: int, measure: Callable[[str], int]) -> None:
    pieces = parts(text, limit, measure)

    assert max(map(measure, pieces)) <= limit
    assert said(pieces) == said([text])


@settings(max_examples=60, deadline=None)
@given(st.one_of(documents, hostile), limits, MEASURES, st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_parts_that_are_done_stay_as_they_are_while_the_text_grows(
    text: str, limit: int, measure: Callable[[str], int], deltas: list[int]
) -> None:
    done: list[tuple[int, str]] = []
    begin = shown = 0
    for delta in [*deltas, len(text)]:
        shown = min(shown + delta, len(text))
        while (end := cut(text[:shown], begin, limit, measure)) is not None:
            done.append((end, piece(text[:shown], begin, end)))
            begin = end
        assert measure(piece(text[:shown], begin, None)) <= limit

    assert [*(sent for _, sent in done), piece(text, begin, None)] == parts(text, limit, measure)


@settings(max_examples=80, deadline=None)
@given(hostile, limits, MEASURES)
def test_any_text_is_cut_within_the_limit_and_loses_no_letter(text: str, limit: int, measure: Callable[[str], int]) -> None:
    begin = 0
    while (end := cut(text, begin, limit, measure)) is not None:
        assert_within_and_whole(piece(text, begin, end), text[begin:end], limit, measure)
        assert end > begin
        begin = end
    assert_within_and_whole(piece(text, begin, None), text[begin:], limit, measure)


def assert_within_and_whole(sent: str, source: str, limit: int, measure: Callable[[str], int]) -> None:
    assert measure(sent) <= limit
    letters = iter(sent)
    assert all(letter in letters for letter in source if letter.isalnum())


# --- by example ------------------------------------------------------------------------------------------------------


def numbered(count: int, line: str) -> str:
    return "".join(line.format(number) + "\n" for number in range(count))


def test_a_text_that_fits_is_one_part() -> None:
    assert cut("Hello", 0, 200) is None
    assert piece("Hello", 0, None) == "Hello"


def test_a_part_ends_between_paragraphs_rather_than_within_one() -> None:
    first, second = "One sentence. " * 10, "Another sentence. " * 10

    assert parts(f"{first}\n\n{second}", 200) == [first.rstrip(), second]


def test_a_heading_stays_with_what_it_heads() -> None:
    assert parts(f"{'word ' * 30}\n\n## Title\n\n{'word ' * 30}", 200)[1].startswith("## Title\n")


def test_a_long_fence_is_closed_and_opened_again_with_its_language() -> None:
    text = f"Look:\n\n````py title=x\n{numbered(20, 'print({}, 0000000)')}````\nDone."

    assert parts(text, 250) == [
        f"Look:\n\n````py title=x\n{numbered(12, 'print({}, 0000000)')}````",
        f"````py title=x\n{''.join(f'print({number}, 0000000)' + chr(10) for number in range(12, 20))}````\nDone.",
    ]


def test_a_fence_inside_a_list_goes_on_at_the_margin_and_the_list_after_it() -> None:
    text = f"1. a\n   - b\n     ```sh\n{numbered(30, '     echo {}')}     ```\n     after\n   - c\n2. d\n"

    pieces = parts(text, 260)

    assert pieces[0].startswith("1. a\n   - b\n     ```sh\n     echo 0\n")
    assert pieces[0].endswith("\n     ```")
    assert pieces[1].startswith("```sh\necho ")
    assert pieces[1].endswith("echo 29\n```\nafter\n- c\n\n2. d\n")


def test_a_fence_inside_a_quote_stays_in_it() -> None:
    first, second = parts(f"> ~~~\n{numbered(30, '> line {}')}> ~~~\n", 250)

    assert first.endswith("\n> ~~~")
    assert second.startswith("> ~~~\n> line ")
    assert second.endswith("> line 29\n> ~~~\n")


def test_a_fence_that_ends_with_its_list_item_is_closed_there() -> None:
    second = parts(f"- ```\n{numbered(30, '  code {}')}\nText after it.", 250)[1]

    assert second.endswith("code 29\n\n```\nText after it.")


def test_the_last_part_closes_a_fence_that_is_still_being_written() -> None:
    assert piece("```py\nprint(", 0, None) == "```py\nprint(\n```"


def test_a_table_is_cut_between_rows_and_repeats_its_header() -> None:
    first, second = parts(f"| n | m |\n|---|---|\n{numbered(20, '| {} | cell |')}", 250)

    assert first.endswith("| 16 | cell |")
    assert second == f"| n | m |\n|---|---|\n{''.join(f'| {number} | cell |' + chr(10) for number in range(17, 20))}"


@pytest.mark.parametrize(
    "markup", ["`code that is long`", "**bold text here**", "[a link](https://example.com/a_(b))", "https://example.com/path"]
)
def test_markup_is_not_torn(markup: str) -> None:
    pieces = parts(f"{'x' * 185} {markup} and more text", 200)

    assert pieces == [f"{'x' * 185}", f"{markup} and more text"]


@pytest.mark.parametrize("character", ["👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "e\u0301", "\u0928\u093f"])
def test_a_character_is_not_torn(character: str) -> None:
    for before in range(185, 200):
        assert "".join(parts("x" * before + character * 5, 200)).count(character) == 5
        assert all(part.strip("x").replace(character, "") == "" for part in parts("x" * before + character * 5, 200))


LONG = {
    "table": f"| number | what |\n|---|:-:|\n{numbered(60, '| {} | cell |')}",
    "fence": f"~~~~~ python\n{numbered(60, 'print({})')}~~~~~\n",
    "fence in lists": f"10) a\n\n    10) b\n        ```py\n{numbered(60, '        echo {}')}        ```\n    11) c\n11) d\n",
    "fence in a wide list": f"-   a\n\n    ```\n{numbered(60, '    echo {}')}    ```\n",
    "fence with gaps": f"```\n{numbered(40, chr(10) * 3 + 'x = {}')}```\n",
    "indented code with gaps": f"Look:\n\n{numbered(40, chr(10) * 3 + '    x = {}' + chr(10) + '    y = 1')}",
    "fence that ends in gaps": f"```\n{numbered(30, 'x = {}')}{chr(10) * 30}```\n",
    "numbered items": f"10) {'漢' * 280}\n11) {'字' * 400}\n",
    "quoted fence": f"> > ```\n{numbered(60, '> > line {}')}> > ```\n",
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", LONG)
def test_wherever_a_long_block_is_cut_its_parts_fit_and_read_like_the_whole(kind: str, ending: str) -> None:
    text = LONG[kind].replace("\n", ending)
    for limit in range(200, 290):
        pieces = parts(text, limit)

        assert max(map(len, pieces)) <= limit
        assert said(pieces) == said([text])
        assert not any(re.search(r"([`~]{3,})\w*\s+(> )*\1", part) for part in pieces), "an empty fence"


@pytest.mark.parametrize(
    ("opening", "prefix"),
    [("`" * 150, ""), ("```" + "i" * 197, ""), ("> " * 18 + "```", "> " * 18), ("-   " * 15 + "```", "    " * 15)],
)
def test_a_fence_too_large_to_be_opened_again_still_leaves_parts_within_the_limit(opening: str, prefix: str) -> None:
    for limit in range(200, 280):
        pieces = parts(f"{opening}\n{numbered(20, prefix + 'print({})')}", limit, utf16_len)

        assert max(map(utf16_len, pieces)) <= limit
        assert ")" in pieces[-1]


def test_a_list_with_wide_marks_moves_to_the_margin() -> None:
    assert parts(LONG["fence in a wide list"], 250)[1].startswith("```\necho ")


def test_a_list_is_known_even_where_a_growing_text_is_parsed_again_in_the_middle_of_a_line() -> None:
    start = "word " * 408 + "w\n\n- a\n"
    text = f"{start}**lazy** line\n\n  ```\n{numbered(60, '  echo {}')}"

    assert len(start) == 2047
    assert piece(text, text.index("  echo 7\n"), None).startswith("```\necho 7\n")


def test_spaces_around_a_cut_are_left_out() -> None:
    assert parts("x" * 200 + "     y", 200) == ["x" * 200, "y"]


def test_a_line_does_not_become_a_list_by_being_cut_off() -> None:
    assert parts(f"{'y' * 191} in 2024. That was all.", 200) == ["y" * 191, "in 2024. That was all."]


def test_a_growing_reply_is_cut_at_the_cost_of_a_fraction_of_a_second() -> None:
    paragraph = "Some **bold** text with `code`, a [link](https://example.com/x) and 漢字.\n\n- one\n  - two\n\n```py\nprint(1)\n```\n\n"
    text = (paragraph * 200)[:15_000]

    started, begin = time.process_time(), 0
    for length in range(50, len(text) + 1, 50):
        while (end := cut(text[:length], begin, 10_000, utf16_len)) is not None:
            begin = end
        piece(text[:length], begin, None)

    assert begin > 5_000
    assert time.process_time() - started < 3


# --- mass mentions, plain text ---------------------------------------------------------------------------------------

mentions = st.sampled_from(
    ["<!channel>", "<!here|here>", "<!everyone>", "<!subteam^S123>", "<!subteam^S1|@x>", "@everyone", "@here", "<@&12>"]
)


@given(st.lists(st.one_of(mentions, mentions.map(str.upper), st.text("<!@>heraycnl^&;` \\", max_size=8)), max_size=12).map("".join))
def test_neutral_text_mentions_no_crowd_and_looks_the_same(text: str) -> None:
    assert not any(
        sign in neutral(text).lower() for sign in ("<!channel", "<!here", "<!everyone", "<!subteam^", "@everyone", "@here", "<@&")
    )
    assert neutral(text).replace("\u2060", "") == text
    assert neutral(neutral(text)) == neutral(text)


def test_neutral_text_keeps_mentions_of_persons() -> None:
    assert neutral("<@U123> <@!42> <#C1> a@b.org <!date^1^x|y> here") == "<@U123> <@!42> <#C1> a@b.org <!date^1^x|y> here"


def test_escaped_mass_mentions_are_parted_too() -> None:
    assert neutral("&lt;!here&gt; <\\!here>") == "&lt;\u2060!here&gt; <\u2060\\!here>"


def test_plain_text_has_no_markup_and_ends_in_an_ellipsis() -> None:
    text = "# Title\n\n**Bold** and [link](https://example.com)\n\n- `code`\n\n```py\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"

    assert plain(text, 100) == "Title Bold and link code x = 1 a b 1 2"
    assert plain(text, 15) == "Title Bold and…"
    assert plain("", 10) == ""
