"""Writing: the keys, drafts, what is refused before it is sent, Stop, and who answers."""

import re

from playwright.sync_api import Page, Route, expect

from tests.emulators.raw_provider import Reply
from tests.page.browser import Pages, until
from tests.page.composing import field, held, hint, messages, watch
from tests.page.conftest import new_name
from tests.page.site import SCRIPTED, Halting, Model, Person, Site

LONG = "x" * 10_001
_CHATS = re.compile(r"/api/chat$")


def hold(page: Page, address: str | re.Pattern[str]) -> list[Route]:
    """The requests to there, of which each waits for the test to let it go on."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.route(address, keep)
    return held


def test_enter_sends_and_the_first_message_opens_its_conversation(mia: Person, pages: Pages) -> None:
    page = pages.open(mia)
    expect(field(page)).to_be_focused()
    field(page).press_sequentially("One")
    low = field(page).evaluate("field => field.clientHeight")
    field(page).press("Shift+Enter")
    field(page).press_sequentially("two")
    assert field(page).input_value() == "One\ntwo"
    assert field(page).evaluate("field => field.clientHeight") > low
    composing = "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true})"
    assert field(page).evaluate(f"field => field.dispatchEvent({composing})"), "Enter that ends a word of an input method was taken"
    assert field(page).input_value() == "One\ntwo"

    places = watch(page, "Onetwo")
    with held(page, "**/api/chat", lambda: "unsent" in places()):
        field(page).press("Enter")
    page.wait_for_url("**/conversations/*")
    expect(messages(page).get_by_text(re.compile(r"^One\s*two$"))).to_be_visible()
    expect(field(page)).to_have_value("")
    expect(field(page)).to_be_focused()
    until(page, lambda: "stored" in places())
    assert places() == ["unsent", "stored"], "it was gone for a moment"

    field(page).fill("\n".join(["a line"] * 200))
    assert field(page).evaluate("field => field.clientHeight < 300 && field.scrollHeight > 2000"), "it grows without a limit"
    field(page).fill("  \n    indented code\n")
    field(page).press("Enter")
    expect(field(page)).to_have_value("")
    expect(messages(page).get_by_role("article").get_by_text("indented code")).to_be_visible()
    assert [each["content"] for each in mia.messages(page.url.rpartition("/")[2]) if each["role"] == "user"] == [
        "One\ntwo",
        "    indented code",
    ]
    page.go_back()
    page.wait_for_url(mia.site.url + "/")


def test_a_draft_is_kept_for_each_conversation_and_person(site: Site, mia: Person, pages: Pages) -> None:
    pages.allow("status of 40[14]")  # mia's page, while bob is signed in beside it
    first, second = (mia.asks(f"Say {word}")["conversation_id"] for word in ("one", "two"))
    page = pages.open(mia, f"/conversations/{first}")
    field(page).fill("For the first")
    page.locator(f"a[href$='{second}']").click()
    expect(field(page)).to_have_value("")
    field(page).fill("For the second")
    page.reload()
    expect(field(page)).to_have_value("For the second")
    page.locator(f"a[href$='{first}']").click()
    expect(field(page)).to_have_value("For the first")

    beside = pages.tab(page.context, page.url)
    expect(field(beside)).to_have_value("For the first")
    field(page).fill("")
    expect(field(beside)).to_have_value("")
    expect(field(page)).to_be_focused()
    field(beside).press_sequentially("From beside")
    expect(field(page)).to_have_value("From beside")  # what is empty takes it in, and what was the same goes along
    page.evaluate("name => localStorage.removeItem(name)", f"onethread:{mia.id}:draft:{first}")
    expect(field(beside)).to_have_value("")
    field(page).evaluate("field => field.value = 'My own'")
    field(beside).fill("For the first")
    assert field(page).input_value() == "My own"
    field(beside).press("Enter")
    expect(field(beside)).to_have_value("")
    beside.evaluate("document.activeElement.blur()")
    beside.reload()
    expect(messages(beside).get_by_text("For the first")).to_be_visible()
    expect(field(beside)).to_have_value("")

    page.locator(f"a[href$='{second}']").click()
    bob = site.person(new_name("bob"))
    pages.sign_in(page.context, bob)
    other = pages.tab(page.context, bob.site.url)
    expect(field(other)).to_have_value("")
    assert "For the second" not in other.content()
    page.context.clear_cookies()
    page.reload()
    pages.sign_in(page.context, site.sign_in_again(mia))
    page.goto(f"{site.url}/conversations/{second}")
    expect(field(page)).to_have_value("For the second")
    kept = "Object.keys(localStorage).filter(key => key.includes(':draft:')).length"
    assert page.evaluate(kept) == 1
    page.evaluate(
        "import('/static/components/composer.js').then(it => [...Array(60).keys()].forEach(n => it.keepDraft(`place-${n}`, 'text')))"
    )
    assert page.evaluate(kept) == 50


def test_a_draft_is_kept_until_the_outbox_has_it(mia: Person, pages: Pages) -> None:
    pages.allow("ERR_FAILED|ERR_ABORTED")
    page = pages.open(mia)
    held = hold(page, "**/static/state/outbox.js")
    field(page).fill("first")
    field(page).press("Enter")
    until(page, lambda: bool(held))
    held.clear()
    page.reload()
    expect(field(page)).to_have_value("first")
    field(page).press("Enter")
    expect(field(page)).to_have_value("")
    field(page).fill("second")
    until(page, lambda: bool(held))
    for route in held:
        route.abort()
    expect(field(page)).to_have_value("first\nsecond")
    expect(hint(page)).to_contain_text("The server cannot be reached.")


def test_what_would_be_refused_is_not_sent(mia: Person, pages: Pages) -> None:
    page = pages.open(mia)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if _CHATS.search(request.url) else None)
    field(page).press("Enter")
    expect(hint(page)).to_have_text("The message is empty. Write something first.")
    field(page).fill(" \n ")
    expect(hint(page)).to_have_text("")
    field(page).press("Enter")
    expect(hint(page)).to_have_text("The message is empty. Write something first.")

    field(page).fill("😀" * 9_999)
    expect(page.get_by_text("9,999 / 10,000")).to_be_visible()
    field(page).fill(LONG)
    expect(page.get_by_text("10,001 / 10,000")).to_be_visible()
    field(page).press("Enter")
    expect(hint(page)).to_contain_text("A message has at most 10,000 characters; this one has 10,001. Shorten it or attach it as a file.")
    pages.shot(page, "composer-too-long")
    assert field(page).input_value() == LONG
    hint(page).get_by_role("button", name="Attach it as a file").click()
    expect(field(page)).to_have_value("")
    expect(page.get_by_role("list", name="Files to be sent")).to_contain_text("message.txt")
    assert asked == []

    page.get_by_role("button", name="Send", exact=True).click()
    page.wait_for_url("**/conversations/*")
    (said, _) = mia.messages(page.url.rpartition("/")[2])
    assert (said["content"], said["attachments"][0]["size"]) == ("(message.txt)", 10_001)


def test_stop_stands_beside_send_and_one_can_write_on(mia: Person, pages: Pages, model: Model) -> None:
    halting = Halting("Half of", " it.")
    model.says(Reply(text=("First.",)), halting.reply(), Reply(text=("Third.",)), halting.reply())
    chat = mia.asks("Begin", model=SCRIPTED)["conversation_id"]
    mia.call("PATCH", f"/api/conversations/{chat}", {"model": SCRIPTED})
    page = pages.open(mia, f"/conversations/{chat}")
    stop = page.get_by_role("button", name="Stop the answer")
    expect(field(page)).to_be_visible()
    expect(stop).to_have_count(0)
    field(page).fill("Write for long")
    field(page).press("Enter")
    expect(messages(page).get_by_text("Half of")).to_be_visible()
    expect(stop).to_be_visible()
    field(page).fill("And then this")
    pages.shot(page, "composer-busy")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(messages(page).get_by_text("And then this")).to_be_visible()
    stop.click()
    expect(messages(page).get_by_text("Third.")).to_be_visible()
    expect(stop).to_have_count(0)

    field(page).fill("Once more")
    field(page).press("Enter")
    expect(stop).to_be_visible()
    field(page).press("Escape")
    expect(stop).to_have_count(0)

    held = hold(page, _CHATS)
    field(page).fill("And stopped before the server has it")
    field(page).press("Enter")
    until(page, lambda: bool(held))
    field(page).press("Escape")
    held[0].continue_()
    expect(messages(page).locator(".stopped")).to_have_count(3)
    answers = [each["status"] for each in mia.messages(chat) if each["role"] == "assistant"]
    assert answers == ["completed", "cancelled", "completed", "cancelled", "cancelled"]


def test_the_model_is_chosen_for_the_conversation(mia: Person, pages: Pages, model: Model) -> None:
    model.says(Reply(text=("I am scripted.",)))
    page = pages.open(mia)
    page.get_by_title("Who answers: the default model").click()
    choices = page.get_by_role("dialog", name="Who answers")
    expect(choices.get_by_role("button", name="offline default")).to_be_visible()
    expect(choices.get_by_role("group", name="Anthropic").get_by_role("button")).to_have_text(["claude-sonnet-5-5"])
    expect(choices.get_by_role("button", name="Default model demo/offline", pressed=True)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(choices.get_by_role("button", name="offline default")).to_be_focused()
    page.keyboard.press("Escape")
    expect(choices).to_be_hidden()

    page.get_by_title("Who answers").click()
    choices.get_by_label("Another model, by its id").fill(f" {SCRIPTED} ")
    choices.get_by_label("Another model, by its id").press("Enter")
    expect(page.get_by_title(f"Who answers: {SCRIPTED}")).to_be_focused()
    field(page).fill("Who are you?")
    field(page).press("Enter")
    expect(messages(page).get_by_text("I am scripted.")).to_be_visible()
    chat = page.url.rpartition("/")[2]
    expect(page.get_by_title(f"Who answers: {SCRIPTED}")).to_be_visible()
    assert mia.call("GET", f"/api/conversations/{chat}")["model"] == SCRIPTED

    page.get_by_title("Who answers").click()
    expect(choices.get_by_role("button", name=SCRIPTED, pressed=True)).to_be_visible()
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        choices.get_by_role("button", name="Default model demo/offline").click()
    expect(page.get_by_title("Who answers: the default model")).to_be_visible()
    assert mia.call("GET", f"/api/conversations/{chat}")["model"] is None

    pages.allow("status of 400")
    page.get_by_title("Who answers").click()
    choices.get_by_label("Another model, by its id").fill("nobody/knows-it")
    choices.get_by_role("button", name="Use").click()
    expect(page.get_by_text("Only an admin may choose a model of another provider")).to_be_visible()
    expect(page.get_by_title("Who answers: the default model")).to_be_visible()


def test_what_is_missing_for_a_model_is_named(mia: Person, pages: Pages) -> None:
    page = pages.open(mia)
    models = [
        {"id": "anthropic/a", "provider": "anthropic", "available": True, "missing": [], "default": True},
        {"id": "openai/b", "provider": "openai", "available": False, "missing": ["OPENAI_API_KEY"], "default": False},
        {"id": "gemini/c", "provider": "gemini", "available": False, "missing": ["GEMINI_API_KEY", "GOOGLE_API_KEY"], "default": False},
    ]
    page.route("**/api/models", lambda route: route.fulfill(json=models))
    page.get_by_title("Who answers").click()
    choices = page.get_by_role("dialog", name="Who answers")
    expect(choices).to_contain_text("OpenAI")
    expect(choices.locator(".missing")).to_have_text(["OpenAIOPENAI_API_KEY", "Google GeminiGEMINI_API_KEY or GOOGLE_API_KEY"])
    pages.shot(page, "composer-models")
