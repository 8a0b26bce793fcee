"""Files beside a message: chosen, pasted, dropped, looked at, removed, refused, sent."""

import base64
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.page.browser import Pages
from tests.page.composing import choose, chosen, field, hint, messages
from tests.page.conftest import new_name
from tests.page.site import Person, Site

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
EVIL = "<img src=x onerror='document.title=1'>.txt"
_BRING = """([kind, files, text]) => {
    const carried = new DataTransfer();
    for (const [name, type, content] of files) carried.items.add(new File([content], name, {type}));
    if (text) carried.setData("text/plain", text);
    const about = {bubbles: true, cancelable: true, clipboardData: carried, dataTransfer: carried};
    const event = kind === "paste" ? new ClipboardEvent(kind, about) : new DragEvent(kind, about);
    return (kind === "paste" ? document.activeElement : document.querySelector("main")).dispatchEvent(event);
}"""


def bring(page: Page, kind: str, *files: tuple[str, str, str], text: str = "") -> Any:
    """Whether the browser would go on with it."""
    return page.evaluate(_BRING, [kind, files, text])


def test_files_come_by_button_paste_and_drop(mia: Person, pages: Pages) -> None:
    page = pages.open(mia)
    field(page).focus()
    choose(page, ("notes.md", "text/markdown", b"# Notes"), ("dot.png", "image/png", PIXEL))
    expect(chosen(page)).to_have_count(2)
    picture = chosen(page).nth(1).locator("img")
    expect(picture).to_have_js_property("naturalWidth", 1)
    expect(chosen(page).nth(1)).to_contain_text("if the model sees images")
    field(page).focus()
    assert not bring(page, "paste", (EVIL, "text/plain", "pasted"))
    assert bring(page, "paste", ("sheet.png", "image/png", "x"), text="a table's text is pasted as text")
    assert not bring(page, "dragover", ("a", "", ""))
    expect(page.get_by_text("Drop files to attach them")).to_be_visible()
    pages.shot(page, "composer-drop")
    assert not bring(page, "drop", ("long.log", "", "line\n" * 20_000))
    expect(page.get_by_text("Drop files to attach them")).to_have_count(0)
    expect(chosen(page)).to_have_count(4)
    expect(chosen(page).nth(2)).to_contain_text(EVIL)
    expect(chosen(page).nth(3)).to_contain_text("100 kB · read in part")
    pages.shot(page, "composer-files")

    page.get_by_role("button", name="Remove dot.png").click()
    expect(chosen(page)).to_have_count(3)
    expect(field(page)).to_be_focused()
    field(page).fill("See these")
    field(page).press("Enter")
    page.wait_for_url("**/conversations/*")
    expect(messages(page).get_by_text("See these")).to_be_visible()
    expect(chosen(page)).to_have_count(0)
    (said, _) = mia.messages(page.url.rpartition("/")[2])
    assert [(each["name"], each["size"]) for each in said["attachments"]] == [("notes.md", 7), (EVIL, 6), ("long.log", 100_000)]
    assert page.title() != "1"


def test_files_that_would_be_refused_are_named_before(site: Site, pages: Pages, tmp_path: Path) -> None:
    page = pages.open(site.person(new_name()), phone=True)
    sizes = {"empty.txt": 0, "large.bin": 10 * 1024 * 1024 + 1, "good.txt": 4}
    for name, size in sizes.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    page.set_input_files("input[type=file]", [tmp_path / name for name in sizes])
    expect(chosen(page)).to_have_count(1)
    expect(hint(page)).to_have_text("The file “empty.txt” is empty. The file “large.bin” is larger than 10 MB, which is the most.")
    choose(page, *((f"{number}.txt", "text/plain", b"x") for number in range(10)))
    expect(chosen(page)).to_have_count(10)
    expect(hint(page)).to_have_text("The file “9.txt” was left out: a message has at most 10.")
    pages.shot(page, "composer-many-files-phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_files_stay_with_their_conversation_until_they_are_sent(mia: Person, pages: Pages) -> None:
    chat = mia.asks("Hello")["conversation_id"]
    page = pages.open(mia, f"/conversations/{chat}")
    choose(page, ("kept.txt", "text/plain", b"kept"))
    expect(chosen(page)).to_have_count(1)
    page.get_by_role("link", name="Board").first.click()
    page.wait_for_url("**/board")
    page.locator(f"a[href$='{chat}']").first.click()
    expect(chosen(page)).to_have_count(1)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(messages(page).get_by_text("(kept.txt)")).to_be_visible()
