"""JSON with comments: what is added is there, and every other byte is what it was."""

import json
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from onethread.jsonc import NoJSON, filled, is_blank, read, with_item, with_member

ENTRY = {"command": "/bin/onethread", "args": ["mcp"]}
SHOWN = {
    "an empty object": ("{}", '{\n  "mcpServers": {\n    "onethread": {\n      "a": 1\n    }\n  }\n}'),
    "another server, and what is said of it": (
        '// mine\n{\n  "theme": "x", /* dark */\n  "mcpServers": {\n    "git": {"command": "g"} // keep\n    // the last one\n  }\n}\n',
        '// mine\n{\n  "theme": "x", /* dark */\n  "mcpServers": {\n    "git": {"command": "g"}, // keep\n    "onethread": {\n'
        '      "a": 1\n    }\n    // the last one\n  }\n}\n',
    ),
    "trailing commas and tabs": (
        '{\n\t"mcpServers": {\n\t\t"git": {}, // keep\n\t},\n}\n',
        '{\n\t"mcpServers": {\n\t\t"git": {}, // keep\n\t\t"onethread": {\n\t\t\t"a": 1\n\t\t},\n\t},\n}\n',
    ),
    "four spaces and other line ends": (
        '{\r\n    "mcpServers": {}\r\n}\r\n',
        '{\r\n    "mcpServers": {\r\n        "onethread": {\r\n            "a": 1\r\n        }\r\n    }\r\n}\r\n',
    ),
    "one line": ('{"a": 1}', '{"a": 1,\n  "mcpServers": {\n    "onethread": {\n      "a": 1\n    }\n  }\n}'),
    "brackets in strings and comments": (
        '{"s": "}, // no", /* }] */ "mcpServers": {"x": "/*"}}',
        '{"s": "}, // no", /* }] */ "mcpServers": {"x": "/*",\n  "onethread": {\n    "a": 1\n  }\n}}',
    ),
    "a comment over two lines behind the last": (
        '{\n  "mcpServers": {\n    "x": 1 /* one\n two */\n  }\n}',
        '{\n  "mcpServers": {\n    "x": 1, /* one\n two */\n    "onethread": {\n      "a": 1\n    }\n  }\n}',
    ),
    "a comment behind the last, and other line ends": (
        '{\r\n  "mcpServers": {\r\n    "x": {} // mine\r\n  }\r\n}\r\n',
        '{\r\n  "mcpServers": {\r\n    "x": {}, // mine\r\n    "onethread": {\r\n      "a": 1\r\n    }\r\n  }\r\n}\r\n',
    ),
    "a section behind a comment, and other line ends": (
        '{\r\n  "a": 1 // mine\r\n}',
        '{\r\n  "a": 1, // mine\r\n  "mcpServers": {\r\n    "onethread": {\r\n      "a": 1\r\n    }\r\n  }\r\n}',
    ),
    "a single other line end": (
        '{\n  "a": 1,\r\n  "mcpServers": {}\n}\n',
        '{\n  "a": 1,\r\n  "mcpServers": {\n    "onethread": {\n      "a": 1\n    }\n  }\n}\n',
    ),
    "nothing but a comment": (
        '{\n  "mcpServers": { // none yet\n  }\n}',
        '{\n  "mcpServers": {\n    "onethread": {\n      "a": 1\n    } // none yet\n  }\n}',
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_member_is_added_as_somebody_would_by_hand(name: str) -> None:
    before, after = SHOWN[name]

    assert with_member(before, "mcpServers", "onethread", {"a": 1}) == after


def test_item_is_added_to_a_list_that_is_made_where_it_is_missing() -> None:
    first = with_item('{\n  "servers": {} // mine\n}', "inputs", {"id": "a"})
    second = with_item(first, "inputs", {"id": "b"})

    assert first == '{\n  "servers": {}, // mine\n  "inputs": [\n    {\n      "id": "a"\n    }\n  ]\n}'
    assert read(second) == {"servers": {}, "inputs": [{"id": "a"}, {"id": "b"}]}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a": 1,, }', "line 1, column 11: "),
        ('{\n  "a": 1 /* never closed\n}', "line 2, column 10: "),
        ('{"a": }', "line 1, column 7: "),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a": ' + "1" * 5_000 + "}", "it holds a number of too many digits"),
        ('{"a": 1} {}', "line 1, column 10: Extra data"),
        ("// nothing\n", "line 2, column 1: "),
        ('{"a": "' + '\\"' * 400_000, "line 1, column 7: "),
        ('{"a": 1 ' + "/* " * 300_000, "line 1, column 9: "),
        ("{'a': 1}", "line 1, column 2: "),
    ],
)
def test_what_cannot_be_understood_is_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(NoJSON, match=re.escape(where)):
        read(text)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", "{}\n"),
        ("\ufeff", "\ufeff{}\n"),
        ("  \n", "  \n{}\n"),
        ("// nothing", "// nothing\n{}\n"),
        ("// nothing\r\n", "// nothing\r\n{}\r\n"),
        ("/* nothing */", "/* nothing */\n{}\n"),
    ],
)
def test_blank_text_is_filled_below_what_it_says(text: str, after: str) -> None:
    assert is_blank(text)
    assert filled(text, {}) == after


@pytest.mark.parametrize("text", ["null", "// a\nnull", "[]", "0", '""', "/* never closed", "\xa0"])
def test_text_that_holds_anything_is_not_blank(text: str) -> None:
    assert not is_blank(text)


# --- whatever the file looks like ---

_scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["// no", "/* no */", "}", "],", '"', "\\"])
_names = st.text(max_size=5)
_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3), max_leaves=8)
_spaces = st.sampled_from(
    ["", " ", "\n", "\r\n", "\t", "\n    ", " // a, b }\n", "/* c, ] */", "/* d\n e */ ", "\n// f\n", " // g, }\r\n", "/* h\r\n i */"]
)
_sections = st.dictionaries(_names.filter(lambda name: name != "onethread"), _values, max_size=3)


@st.composite
def _files(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    """A file as somebody might have written it, and what it holds."""
    whole: dict[str, object] = draw(st.dictionaries(_names, _values, max_size=3))
    if draw(st.booleans()):
        whole["mcpServers"] = draw(_sections)
    else:
        whole.pop("mcpServers", None)

    def space() -> str:
        return draw(_spaces)

    def written(value: object) -> str:
        match value:
            case dict():
                inner = [f"{space()}{json.dumps(key)}{space()}:{space()}{written(each)}{space()}" for key, each in value.items()]
                return "{" + enclosed(inner) + "}"
            case list():
                return "[" + enclosed([f"{space()}{written(each)}{space()}" for each in value]) + "]"
            case _:
                return json.dumps(value, ensure_ascii=draw(st.booleans()))

    def enclosed(elements: list[str]) -> str:
        last_comma = draw(st.sampled_from(["", ","])) if elements else ""
        return ",".join(elements) + last_comma + space()

    return draw(_spaces) + written(whole) + draw(_spaces), whole


@given(_files())
def test_what_is_added_is_there_and_all_the_rest_is_what_it_was(file: tuple[str, dict[str, object]]) -> None:
    text, whole = file
    assert read(text) == whole

    added = with_member(text, "mcpServers", "onethread", ENTRY)

    servers = whole.get("mcpServers", {})
    assert isinstance(servers, dict)
    assert read(added) == {**whole, "mcpServers": {**servers, "onethread": ENTRY}}
    rest = iter(added)
    assert all(character in rest for character in text)  # in this order, nothing left out


@given(_files())
def test_line_ends_are_the_only_difference_between_files_of_either_kind(file: tuple[str, dict[str, object]]) -> None:
    text = file[0].replace("\r\n", "\n")
    assume("\n" in text)

    added = with_member(text, "mcpServers", "onethread", ENTRY)

    assert with_member(text.replace("\n", "\r\n"), "mcpServers", "onethread", ENTRY) == added.replace("\n", "\r\n")
