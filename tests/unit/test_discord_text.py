"""Discord's markup as markdown for the model, and the model's markdown as Discord shows it."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bots.discord.text import Mentions, forms, from_markdown, line, mentions, to_markdown

ANN, BOB, ROLE, CHANNEL, OTHER = (f"{number}" * 18 for number in range(1, 6))
NAMES = {ANN: "ann", BOB: "bob lee", ROLE: "devs", CHANNEL: "general"}
MEMBERS = {"ann": ANN, "bob": OTHER, "bob lee": BOB, "zoë": "666666666666666666"}
TABLE = "| Task | Hours |\n|---|--:|\n| **Write** 漢字 | 12 |\n| Test | 3 |"

# --- from Discord ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "markdown"),
    [
        (f"<@{ANN}> and <@!{BOB}>", "@ann and @bob lee"),
        (f"<@{OTHER}> <@&{ROLE}> <#{CHANNEL}>", f"@{OTHER} @devs #general"),
        (f"</task new:{ANN}> <:party:{ANN}> <a:dance:{ANN}>", "/task new :party: :dance:"),
        ("<t:1780000000> <t:1780000000:R> <t:999999999999>", "2026-05-28 20:26 UTC 2026-05-28 20:26 UTC <t:999999999999>"),
        ("**bold** *it* ~~no~~ ||hidden|| <https://example.com>", "**bold** *it* ~~no~~ ||hidden|| <https://example.com>"),
        (f"`<@{ANN}>` ``<@{ANN}> ` `` <@{ANN}>", f"`<@{ANN}>` ``<@{ANN}> ` `` @ann"),
        (f"see:```py\nx = '<@{ANN}>'```done", f"see:\n```py\nx = '<@{ANN}>'\n```\ndone"),
        ("```one line```", "```one line```"),
        ("```\ntidy\n```", "```\ntidy\n```"),
        ("<@12> <#> <@&x> 1 < 2", "<@12> <#> <@&x> 1 < 2"),
        ("@everyone @here", "@everyone @here"),
    ],
)
def test_content_becomes_markdown(content: str, markdown: str) -> None:
    assert to_markdown(content, NAMES) == markdown


def test_a_name_cannot_break_the_line() -> None:
    assert to_markdown(f"<@{ANN}>!", {ANN: "ann\n\n# boss"}) == "@ann # boss!"


@given(st.text("ab<>@#&!:/t1234567890`~ \n", max_size=120))
def test_any_content_is_converted_without_an_error(content: str) -> None:
    assert isinstance(to_markdown(content, NAMES), str)


def test_all_that_is_mentioned_is_found() -> None:
    found = mentions(f"<@{ANN}> <@!{BOB}> <@&{ROLE}> <#{CHANNEL}> <@5> @ann")
    assert found == Mentions(users=frozenset({ANN, BOB}), roles=frozenset({ROLE}), channels=frozenset({CHANNEL}))


# --- to Discord ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("# One\n## Two\n### Three", "# One\n## Two\n### Three"),
        ("#### Four **now**\n##### Five #####", "**Four now**\n**Five**"),
        ("One\n===\nTwo\n---", "# One\n## Two"),
        ("a\n\n---\n\nb\n\n***", "a\n\n———\n\nb\n\n———"),
        ("![a chart](https://x.y/a.png) ![](https://x.y)", "[a chart](https://x.y/a.png) [image](https://x.y)"),
        ("- [ ] open\n- [x] done\n+ plus\n* star\n  + inner", "- ☐ open\n- ☑ done\n- plus\n* star\n  - inner"),
        ("~~~python title=x\ncode\n~~~", "```python\ncode\n```"),
        ("~~~\na ``` b\n~~~", "```\na `\u2060`` b\n```"),
        ("````md\n```py\nx\n```\n````", "```md\n`\u2060``py\nx\n`\u2060``\n```"),
        ("    indented\n\nafter", "```\nindented\n```\n\nafter"),
        ("__bold__ a_b__c __d", "**bold** a_b__c __d"),
        ("a || b || c", r"a \|\| b \|\| c"),
        (">quote\n> fine\n>>> rest", "> quote\n> fine\n>\u2060>> rest"),
        ("a<br>b &lt;b&gt; &amp; &nbsp;", "a\nb <b> & \xa0"),
        ("1. a\n   ```py\n   x = __y__\n   ```\n2. #### b", "1. a\n   ```py\n   x = __y__\n   ```\n2. **b**"),
        ("`a || __b__ ![c](d)`", "`a || __b__ ![c](d)`"),
        ("**[OT-1](https://x.y/__a__)** t", "**[OT-1](https://x.y/__a__)** t"),
        ("a\r\nb\rc", "a\nb\nc"),
    ],
)
def test_what_discord_does_not_show_becomes_something_that_it_does(markdown: str, shown: str) -> None:
    assert from_markdown(markdown, {}) == shown


def test_a_table_stands_in_a_code_block() -> None:
    aligned, plain, raw = forms(f"Hours:\n\n{TABLE}\n\nDone.", {})
    assert aligned == "Hours:\n\n```\nTask        Hours\n──────────  ─────\nWrite 漢字     12\nTest            3\n```\n\nDone."
    assert plain == "Hours:\n\n```\nTask | Hours\nWrite 漢字 | 12\nTest | 3\n```\n\nDone."
    assert raw == f"Hours:\n\n{TABLE}\n\nDone."


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("@ann, @Bob. @ZOË!", f"<@{ANN}>, <@{OTHER}>. <@666666666666666666>!"),
        ("@bob lee and @bob leeds", f"<@{BOB}> and <@{OTHER}> leeds"),
        ("# @ann\n**@ann** `@ann`", f"# <@{ANN}>\n**<@{ANN}>** `@ann`"),
        ("[@ann](https://x.y/@ann) a@ann.com @carl", "[@ann](https://x.y/@ann) a@ann.com @carl"),
        (f"<@{ANN}> <@!{ROLE}> [<@{ANN}>](https://x.y)", f"<@{ANN}> <\u2060@!{ROLE}> [<\u2060@{ANN}>](https://x.y)"),
        (f"<@&{ROLE}> @everyone @here", f"<\u2060@&{ROLE}> @\u2060everyone @\u2060here"),
        (f"&lt;@{ROLE}&gt; &#64;everyone", f"<\u2060@{ROLE}> @\u2060everyone"),
    ],
)
def test_members_are_mentioned_and_nobody_else(markdown: str, shown: str) -> None:
    assert from_markdown(markdown, MEMBERS) == shown


@settings(max_examples=200)
@given(st.text("@anbo le<!>&1#`~*_|\n[]()./-=+:x", max_size=120))
def test_only_members_are_ever_mentioned(markdown: str) -> None:
    for form in forms(markdown, MEMBERS):
        found = mentions(form)
        assert found.users <= set(MEMBERS.values())
        assert not found.roles


@settings(max_examples=200)
@given(st.text("ab `~#>|-=_*\n\t1.", max_size=120))
def test_what_is_said_stays(markdown: str) -> None:
    """Letters come through whatever the markup around them is."""
    for form in forms(markdown, {}):
        assert re.findall("[ab]", form) == re.findall("[ab]", markdown)


def test_a_mention_comes_back_as_it_went() -> None:
    assert from_markdown(to_markdown(f"ask <@{ANN}> or <@{BOB}>", NAMES), MEMBERS) == f"ask <@{ANN}> or <@{BOB}>"


def test_a_line_of_ours_is_one() -> None:
    assert line("✔ `create\ntask` **now** @ann") == "✔ `create task` **now** @ann"


@pytest.mark.parametrize("unit", ["[", "|", "`", "@a ", "<@", "&#", "#", "> ", "__", "- [ ] "])
def test_long_hostile_text_is_quick(unit: str) -> None:
    begun = time.process_time()
    list(forms(unit * (2_000 // len(unit)), MEMBERS))
    assert time.process_time() - begun < 1
