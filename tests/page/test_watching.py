"""What fails a test here although it asserted nothing of the kind."""

import pytest
from playwright.sync_api import Browser

from tests.page.browser import Pages
from tests.page.site import Person


def test_trouble_in_a_page_fails_the_test_that_opened_it(chromium: Browser, mia: Person) -> None:
    pages = Pages(chromium)
    page = pages.open(mia)
    page.evaluate("console.error('an error'), console.warn('a warning')")
    page.evaluate("setTimeout(() => { throw new Error('nobody caught it') })")
    page.evaluate("() => { fetch('http://elsewhere.example/').catch(() => 0); new WebSocket('ws://elsewhere.example/') }")
    with page.expect_console_message(lambda said: "127.0.0.1:9/leak" in said.text):
        page.evaluate("() => { document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/leak' })) }")
    pages.close()

    with pytest.raises(AssertionError) as failed:
        pages.check()
    for sign in ("console: an error", "uncaught: Error: nobody caught it", "connect-src", "ws://elsewhere.example/", "127.0.0.1:9/leak"):
        assert sign in str(failed.value)
    assert "a warning" not in str(failed.value)
    pages.allow("an error|nobody caught it|elsewhere.example|127.0.0.1:9")
    pages.check()
