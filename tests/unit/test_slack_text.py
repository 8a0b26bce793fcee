import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bots.slack.text import fallback, from_markdown, leading_mention, mentioned, to_markdown

NAMES = {"U1": "ann", "W2": "bob lee", "C1": "general", "S1": "devs"}
MEMBERS = {"ann": "U1", "bob": "U2", "bob lee": "W2", "zoë": "U3", "j.r.": "U4"}

# --- from Slack ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mrkdwn", "markdown"),
    [
        ("<@U1> and <@W2>", "@ann and @bob lee"),
        ("<@U9> <@U9|carl>", "@U9 @carl"),
        ("<#C1|old> <#C2|random> <#C3|> <#C3>", "#general #random #C3 #C3"),
        ("<!subteam^S1|@old> <!subteam^S2|@team> <!subteam^S3>", "@devs @team @S3"),
        ("<!here> <!channel|channel> <!everyone>", "@here @channel @everyone"),
        ("<!date^1392734382^{date}|18 February 2014>", "18 February 2014"),
        ("<https://example.com|label>", "[label](https://example.com)"),
        ("<https://example.com/?a=1&amp;b=2>", "https://example.com/?a=1&b=2"),
        ("<https://example.com|https://example.com>", "https://example.com"),
        ("<mailto:a@example.com|a@example.com> <mailto:a@example.com|Ann>", "a@example.com [Ann](mailto:a@example.com)"),
        ("*bold*, _italic_ and ~struck~", "**bold**, _italic_ and ~~struck~~"),
        ("*<https://example.com|see> `a*b`*", "**[see](https://example.com) `a*b`**"),
        ("2*3*4, a* b *, **, ~/dir and ~/other", "2*3*4, a* b *, **, ~/dir and ~/other"),
        ("*a*\n*b*", "**a**\n**b**"),
        ("`*a* &lt;b&gt; ~c~`", "`*a* <b> ~c~`"),
        ("```\n*a* &amp;&amp; ~b~\n```", "```\n*a* && ~b~\n```"),
        ("```one line```", "```one line```"),
        ("see:```first\nsecond```done", "see:\n```\nfirst\nsecond\n```\ndone"),
        ("&gt; quote\n1 &lt; 2 &amp; 3", "> quote\n1 < 2 & 3"),
    ],
)
def test_mrkdwn_becomes_markdown(mrkdwn: str, markdown: str) -> None:
    assert to_markdown(mrkdwn, NAMES) == markdown


@pytest.mark.parametrize(
    ("mrkdwn", "markdown"),
    [
        ("&amp;lt;@U1&amp;gt;", "&lt;@U1&gt;"),  # entities are read once
        ("&lt;@U1&gt; &lt;https://x|y&gt;", "<@U1> <https://x|y>"),  # and what they spell is text
        ("< <@U1 > <<@U1>> <>", "< <@U1 > <@ann> <>"),
        ("<https://example.com|a]b[c>", r"[a\]b\[c](https://example.com)"),
        ("<https://example.com/a_(b)|c>", "[c](<https://example.com/a_(b)>)"),
        ("<https://example.com/&lt;&gt;|c>", "[c](https://example.com/%3C%3E)"),
        ("*a <b* <c|d>", "*a <b* <c|d>"),
        ("``` never closed *b*", "``` never closed **b**"),
    ],
)
def test_hostile_mrkdwn_stays_text(mrkdwn: str, markdown: str) -> None:
    assert to_markdown(mrkdwn, NAMES) == markdown


def test_a_name_cannot_break_the_line() -> None:
    assert to_markdown("<@U1>!", {"U1": "ann\n\n# boss"}) == "@ann # boss!"


@given(st.text("ab <>&;*~_`|@#!U1\n", max_size=80))
def test_any_text_typed_into_slack_arrives_without_entities(typed: str) -> None:
    sent = typed.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    letters = str.maketrans("", "", "*~\n")

    assert to_markdown(sent, NAMES).translate(letters).replace("```", "") == typed.translate(letters).replace("```", "")


@given(st.text("ab<>|@#!^U1&lt;*`~ \n", max_size=120))
def test_any_event_is_converted_without_an_error(mrkdwn: str) -> None:
    assert isinstance(to_markdown(mrkdwn, NAMES), str)


def test_only_our_mention_at_the_start_is_left_out() -> None:
    assert leading_mention("<@U1>: hi <@U1>, ask <@U2>", "U1") == "hi <@U1>, ask <@U2>"
    assert leading_mention("  <@U1|bot> , hi", "U1") == "hi"
    assert leading_mention("<@U2> hi <@U1>", "U1") == "<@U2> hi <@U1>"
    assert leading_mention("<@U12> hi", "U1") == "<@U12> hi"


def test_all_users_mentioned_are_found_and_nobody_else() -> None:
    assert mentioned("<@U1> <@W2|x> &lt;@U3&gt; <#C1> <!here> @U4 <@B5>") == {"U1", "W2"}


# --- to Slack --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markdown", "block"),
    [
        ("@ann, @Bob. @ZOË!", "<@U1>, <@U2>. <@U3>!"),
        ("@bob lee and @bob leeds", "<@W2> and <@U2> leeds"),
        ("@ann's and **@ann**", "<@U1>'s and **<@U1>**"),
        ("@j.r. @j.r", "<@U4> @j.r"),
        ("@carl @anna @ann_x", "@carl @anna @ann_x"),
        (
            "a@ann.com @ann/package https://x.y/@ann?u=@ann [@ann](https://x.y)",
            "a@ann.com @ann/package https://x.y/@ann?u=@ann [@ann](https://x.y)",
        ),
        ("`@ann` ``a ` @ann`` @ann", "`@ann` ``a ` @ann`` <@U1>"),
        ("- ```py\n  @ann\n  ```\n@ann\n~~~\n@ann", "- ```py\n  @ann\n  ```\n<@U1>\n~~~\n@ann"),
        ("<@U1> <@U99> <@U99|x>", "<@U1> <\u2060@U99> <\u2060@U99|x>"),
        ("<!here> @everyone", "<\u2060!here> @\u2060everyone"),
        ("1 < 2 & **b** [l](https://x.y)", "1 < 2 & **b** [l](https://x.y)"),
    ],
)
def test_markdown_for_slack_mentions_members_and_no_crowd(markdown: str, block: str) -> None:
    assert from_markdown(markdown, MEMBERS) == block


@given(st.text("@anbo le<!>hrU19`~\n[]()./", max_size=100))
def test_only_members_are_ever_mentioned(markdown: str) -> None:
    assert mentioned(from_markdown(markdown, MEMBERS)) <= set(MEMBERS.values())


def test_a_mention_comes_back_as_it_went() -> None:
    assert from_markdown(to_markdown("ask <@U1> or <@W2>", NAMES), MEMBERS) == "ask <@U1> or <@W2>"


def test_the_fallback_is_mrkdwn() -> None:
    assert fallback("# Title\n\n**b** [l](https://x.y) 1 < 2 & <@U1>") == "*Title*\n\n*b* <https://x.y|l> 1 &lt; 2 &amp; <@U1>"


def test_a_link_in_the_fallback_does_not_become_a_mention() -> None:
    shown = fallback("[x](!here) [](@U5) [y](!subteam^S1) &lt;!channel&gt; <@U1>")

    assert mentioned(shown) == {"U1"}
    assert "<!" not in shown


def test_a_fallback_that_grows_by_its_entities_is_cut_earlier() -> None:
    assert 1_500 <= len(fallback("& " * 5_000)) <= 3_000


@settings(deadline=None, max_examples=50)
@given(st.text("ab &<>*_`~\n-#|[](!@)漢", max_size=60), st.integers(1, 120))
def test_the_fallback_is_short_enough_for_an_edit(markdown: str, times: int) -> None:
    assert len(fallback(markdown * times)) <= 3_000


@pytest.mark.parametrize(
    "text", ["*a " * 5_000, "<" * 15_000, "`" * 15_000, "@ann " * 3_000, "@" * 15_000, "[" * 15_000, "```a" * 4_000, "~a`" * 5_000]
)
def test_long_hostile_text_costs_little(text: str) -> None:
    started = time.process_time()

    to_markdown(text, NAMES)
    from_markdown(text, MEMBERS)
    fallback(text)

    assert time.process_time() - started < 2
