"""A reply while it is being written: what is drawn of it, how often, and where the reader stays."""

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.emulators.raw_provider import Reply
from tests.page.browser import Pages, until
from tests.page.site import SCRIPTED, Halting, Model, Person

JSON = dict[str, Any]
PARAGRAPHS = "\n\n".join(f"Paragraph {number} has **some** words and `code` in it." for number in range(1, 13))


def streaming(pages: Pages, who: Person, model: Model, *parts: str, **options: Any) -> tuple[Page, Halting, JSON]:
    """A page on a reply that stopped behind its first part."""
    halting = Halting(*parts)
    model.says(halting.reply())
    posted = who.says("Go", model=SCRIPTED)
    page = pages.open(who, f"/conversations/{posted['conversation_id']}", **options)
    expect(text(page)).to_be_visible(timeout=30_000)
    return page, halting, posted


def text(page: Page) -> Locator:
    return page.locator(".post.reply .md").last


def test_text_grows_with_a_caret_until_it_is_whole(mia: Person, pages: Pages, model: Model) -> None:
    page, halting, _ = streaming(pages, mia, model, "Some **bo", "ld** words.")
    expect(text(page)).to_have_text("Some **bo")
    expect(text(page)).to_have_class(re.compile("growing"))
    caret = "md => getComputedStyle(md.lastElementChild, '::after').content"
    assert text(page).evaluate(caret) == '""'
    expect(page.locator(".post").last).to_have_attribute("aria-busy", "true")
    pages.shot(page, "chat-streaming")
    halting.go_on()
    expect(text(page).locator("strong")).to_have_text("bold")
    expect(text(page)).not_to_have_class(re.compile("growing"))
    assert text(page).evaluate(caret) == "none"
    expect(page.locator(".post").last).to_have_attribute("aria-busy", "false")


def test_an_open_fence_is_a_block_of_code_at_once_and_coloured(mia: Person, pages: Pages, model: Model) -> None:
    page, halting, _ = streaming(
        pages, mia, model, "Look:\n\n```python\ndef one():\n    ret", "urn 1\n\ndef two():\n    pass", "\n```\n\nDone."
    )
    expect(text(page).locator("pre")).to_have_text("def one():\n    ret")
    expect(text(page).locator(".hljs-keyword")).to_have_text(["def"])
    halting.go_on()
    expect(text(page).locator(".hljs-keyword")).to_have_text(["def", "return", "def", "pass"])
    halting.go_on()
    expect(text(page).locator("p").last).to_have_text("Done.")


def test_blocks_that_are_finished_are_neither_read_nor_made_again(mia: Person, pages: Pages, model: Model) -> None:
    words = re.findall(r"\S+\s*", PARAGRAPHS)
    page, halting, _ = streaming(pages, mia, model, PARAGRAPHS + "\n\n", *words)
    expect(text(page).locator("> p")).to_have_count(12)
    text(page).evaluate(
        """async (md) => {
          const { Lexer } = await import('/static/vendor/marked.js'), lex = Lexer.lex;
          window.read = [], window.changes = [], window.blocks = [...md.children].slice(0, 8);
          Lexer.lex = (source, how) => (read.push(source.length), lex(source, how));
          const seen = (records) => records.forEach((record) => changes.push(blocks.findIndex((block) => block.contains(record.target))));
          new MutationObserver(seen).observe(md, { subtree: true, childList: true, characterData: true, attributes: true });
        }"""
    )
    halting.finish()
    expect(text(page).locator("> p")).to_have_count(24)
    expect(text(page)).not_to_have_class(re.compile("growing"))
    *while_growing, at_the_end = page.evaluate("read")
    assert len(while_growing) > 10
    assert max(while_growing) < 4 * len("Paragraph 12 has **some** words and `code` in it.\n\n")
    assert at_the_end == 2 * len(PARAGRAPHS) + 2
    assert set(page.evaluate("changes")) == {-1}  # it did grow, and nothing of the first blocks was touched
    assert page.evaluate("blocks.every(block => block.isConnected)")


def test_text_that_comes_fast_is_written_at_most_every_50_ms(mia: Person, pages: Pages, model: Model) -> None:
    page, halting, _ = streaming(pages, mia, model, "Begin ", *["x" * 10 + " "] * 3)
    page.evaluate(
        """async () => {
          const { messages } = await import('/static/state/conversation.js');
          window.written = [];
          messages.subscribe(() => written.push(performance.now()));
        }"""
    )
    model.says(Reply(text=tuple(["word "] * 200), gap_seconds=0.005))
    halting.finish()
    mia.asks("Again", conversation_id=page.url.rpartition("/")[2], model=SCRIPTED)
    expect(page.locator(".post").last).to_have_attribute("data-status", "completed")
    gaps = page.evaluate("written.slice(1).map((at, place) => at - written[place])")
    assert len(gaps) < sum(gaps) / 50 + 15  # what begins and ends a message is not held back


def test_an_emoji_that_a_delta_cuts_in_two_is_whole(mia: Person, pages: Pages) -> None:
    posted = mia.asks("hello")
    page = pages.open(mia, f"/conversations/{posted['conversation_id']}")
    expect(text(page)).to_be_visible()
    shown = page.evaluate(
        """async (reply) => {
          const { Markdown } = await import('/static/markdown.js'), { h, render } = await import('/static/ui.js');
          const root = document.createElement('div'), seen = [];
          for (const [text, growing] of [['Milk \\ud83e', true], ['Milk \\ud83e\\udd5b.', true], ['Milk \\ud83e\\udd5b.', false]]) {
            render(h(Markdown, { text, growing }), root);
            seen.push(root.textContent);
          }
          return seen;
        }"""
    )
    assert shown == ["Milk ", "Milk 🥛.", "Milk 🥛."]


def test_the_reader_stays_at_the_end_but_is_not_dragged_there(mia: Person, pages: Pages, model: Model) -> None:
    page, halting, posted = streaming(pages, mia, model, PARAGRAPHS + "\n\n", PARAGRAPHS + "\n\n", PARAGRAPHS + "\n\n", "The end.")
    box, latest = page.locator(".thread-box"), page.get_by_role("button", name=re.compile("Latest"))
    rest = "box => Math.round(box.scrollHeight - box.scrollTop - box.clientHeight)"
    assert box.evaluate(rest) <= 1
    halting.go_on()
    expect(text(page).locator("> p")).to_have_count(24)
    until(page, lambda: box.evaluate(rest) <= 1)
    expect(latest).to_have_count(0)
    box.hover()
    page.mouse.wheel(0, -600)
    expect(latest).to_be_visible()
    expect(latest).to_contain_text("writing …")
    pages.shot(page, "chat-latest")
    top = box.evaluate("box => box.scrollTop")
    halting.go_on()
    expect(text(page).locator("> p")).to_have_count(36)
    assert abs(box.evaluate("box => box.scrollTop") - top) <= 1
    latest.click()
    expect(latest).to_have_count(0)
    halting.go_on()
    expect(page.get_by_text("The end.")).to_be_in_viewport()
    mia.asks("hello", conversation_id=posted["conversation_id"])
    expect(page.locator(".post").last).to_be_in_viewport()
