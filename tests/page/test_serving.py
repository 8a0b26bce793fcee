"""The page as Chromium takes it: what its headers let it do and what they stop, and links from elsewhere."""

import base64

import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.browser import Pages
from tests.page.site import Person

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


@pytest.fixture
def page(mia: Person, pages: Pages) -> Page:
    opened = pages.open(mia)
    expect(opened.get_by_role("main")).to_be_visible()
    return opened


def test_page_starts_at_each_of_its_addresses(mia: Person, pages: Pages) -> None:
    task = mia.task("Water the plants")
    page = pages.open(mia)
    for path in ("/", f"/conversations/{task['conversation_id']}", f"/tasks/{task['ref']}", "/board", "/settings"):
        with page.expect_websocket(lambda socket: socket.url.startswith(f"ws://127.0.0.1:{mia.site.port}/ws?")):
            page.goto(mia.site.url + path)
        expect(page.get_by_role("main")).to_be_visible()
        assert page.url == mia.site.url + path


def test_what_a_page_needs_is_asked_for_at_once(mia: Person, pages: Pages) -> None:
    """And not one file after another, as each import is found: that is left for what is beside it or loads later."""
    task = mia.task("Water the plants")
    conversation = {"chat.js", "conversation.js", "thread.js", "message.js", "markdown.js", "marked.js", "toolcall.js", "unsent.js"}
    frame = {"app.js", "ui.js", "preact.js", "signals-core.js", "api.js", "socket.js", "lists.js", "sidebar.js", "composer.js"}
    loaded = """wanted => Object.fromEntries(performance.getEntriesByType("resource")
        .map(({ name, initiatorType }) => [name.split("/").pop(), initiatorType === "script"]).filter(([name]) => wanted.includes(name)))"""
    for path, needed in (
        ("/", frame),
        (f"/tasks/{task['ref']}", frame | conversation),
        (f"/conversations/{task['conversation_id']}", frame | conversation),
    ):
        page = pages.open(mia, path)
        expect(page.get_by_role("main").get_by_role("textbox", name="Message", exact=True)).to_be_visible()
        assert page.evaluate(loaded, [*needed]) == dict.fromkeys(needed, False)  # by no import


def test_scripts_that_get_into_the_page_do_not_run(page: Page, pages: Pages) -> None:
    pages.allow("Content Security Policy|Trusted|elsewhere.example")
    stopped = page.evaluate(
        """() => {
            const inline = document.createElement("script");
            inline.append("window.ran = true");
            document.body.append(inline);
            const foreign = Object.assign(document.createElement("img"), { src: "http://elsewhere.example/leak" });
            document.body.append(foreign);
            const errors = [];
            for (const sink of [
                () => { document.body.innerHTML = "<img src=x onerror='window.ran = true'>"; },
                () => document.body.setAttribute("onclick", "window.ran = true"),
                () => { document.createElement("iframe").srcdoc = "<script>parent.ran = true</script>"; },
            ]) try { sink(); errors.push("let through"); } catch (error) { errors.push(error.name); }
            document.body.click();
            Object.assign(document.createElement("a"), { href: "javascript:window.ran = true" }).click();
            return errors;
        }"""
    )
    assert stopped == ["TypeError", "TypeError", "TypeError"]
    assert page.evaluate("window.ran") is None
    assert [each for each in pages.trouble if "elsewhere.example" in each and "Security Policy" in each]


def test_pictures_of_messages_are_shown(mia: Person, page: Page) -> None:
    at_once = {"Prefer": "respond-async"}
    posted = mia.request("POST", "/api/chat", data={"message": "Look"}, files={"files": ("one.png", PIXEL, "image/png")}, headers=at_once)
    assert posted.status_code == 202, posted.text
    (attachment,) = posted.json()["user_message"]["attachments"]
    width = page.evaluate(
        """async (id) => {
            const image = Object.assign(new Image(), { src: `/api/attachments/${id}` });
            await image.decode();
            return image.naturalWidth;
        }""",
        attachment["id"],
    )

    assert width == 1


def test_link_on_another_site_opens_the_page(mia: Person, pages: Pages) -> None:
    """As one in Slack does. Nothing of the kind can be framed there."""
    pages.allow("chat.example|frame-ancestors|X-Frame-Options|/board$")
    chat = mia.asks("count to 3")
    target = f"{mia.site.url}/conversations/{chat['conversation_id']}"

    def elsewhere(route: Route) -> None:
        route.fulfill(content_type="text/html", body=f"<a href='{target}'>See it</a><iframe src='{mia.site.url}/board'></iframe>")

    context = pages.context(mia)
    context.route("http://chat.example/**", elsewhere)
    page = pages.tab(context, "http://chat.example/channel")
    framed = page.frames[1]
    page.wait_for_load_state("load")
    assert "Onethread" not in framed.title()
    pages.tab(context, mia.site.url).close()  # its host is known from here on
    page.get_by_role("link", name="See it").click()

    expect(page.get_by_text("1 2 3")).to_be_visible()
    assert page.url == target
