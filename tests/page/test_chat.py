"""A conversation in the page: what is shown of messages, tool calls, questions and replies' fates, and what a person does about them."""

import re
from typing import Any
from uuid import UUID

from playwright.sync_api import APIResponse, Locator, Page, Route, expect

from core import messages
from core.ids import new_id
from core.models import Message, MessageStatus, Role
from core.ports import UnitOfWork
from tests.emulators.raw_provider import Reply, ToolUse, Usage
from tests.page.browser import Pages, until
from tests.page.conftest import NewSite, new_name
from tests.page.site import OFFLINE, SCRIPTED, Halting, Model, Person, Site

JSON = dict[str, Any]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000100000001080600000"
    "01f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def posts(page: Page) -> Locator:
    return page.locator(".post")


def field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message", exact=True)


def last(page: Page) -> Locator:
    return posts(page).last


def opened(pages: Pages, who: Person, posted: JSON, **options: Any) -> Page:
    page = pages.open(who, f"/conversations/{posted['conversation_id']}", **options)
    expect(posts(page).first).to_be_visible()
    return page


def test_a_message_and_its_answer_are_shown_with_who_when_model_and_cost(mia: Person, pages: Pages, model: Model) -> None:
    model.says(Reply(text=("It is **done**.",), usage=Usage(tokens_in=1200, tokens_out=34)))
    posted = mia.asks("Do\nit", model=SCRIPTED)
    page = opened(pages, mia, posted)

    said, answer = posts(page).nth(0), posts(page).nth(1)
    expect(said.locator("header b")).to_have_text(mia.name)
    expect(said.locator("br")).to_have_count(1)  # people's line breaks are kept
    expect(said.locator("time")).to_have_attribute("datetime", re.compile(r"^\d{4}-.*Z$"))
    expect(said.locator(".origin")).to_have_count(0)  # it was written here
    expect(answer.locator("strong")).to_have_text("done")
    expect(answer.locator("footer .spent")).to_contain_text("scripted")
    expect(answer.locator("footer .spent")).to_contain_text("1.2k tokens")
    expect(answer.locator("footer .spent")).to_contain_text("cost unknown")
    expect(page.locator(".chat-total")).to_contain_text("1.2k tokens · cost unknown")

    model.says(Reply(text=("Again.",), usage=Usage(tokens_in=2000, tokens_out=0)))
    mia.asks("Once more", conversation_id=posted["conversation_id"], model=SCRIPTED)
    expect(page.locator(".chat-total")).to_contain_text("3.2k tokens")  # read again when a reply ended


def test_a_message_tells_where_it_was_written(site: Site, mia: Person, pages: Pages) -> None:
    posted = mia.asks("hello")
    conversation_id = UUID(posted["conversation_id"])

    async def elsewhere(uow: UnitOfWork) -> None:
        sources = ("slack", "discord", "mcp", "terminal", "api")
        seq = await uow.conversations.take_seqs(conversation_id, len(sources))
        for number, source in enumerate(sources):
            await uow.messages.add(said(conversation_id, seq + number, uow, author=UUID(mia.id), content=f"from {source}", source=source))

    site.stored(elsewhere)
    page = opened(pages, mia, posted)
    expect(page.locator(".origin")).to_have_text(["Slack", "Discord", "IDE", "Terminal", "API"])


def test_a_tool_call_is_told_in_words_and_unfolds(mia: Person, pages: Pages) -> None:
    page = opened(pages, mia, mia.asks("create a task to water the plants", model=OFFLINE))
    call = page.locator(".tool")
    expect(call.locator("summary")).to_contain_text("Created a task Water the plants")
    expect(call.get_by_role("img", name="is done")).to_be_visible()
    expect(call.get_by_text('"ref": "OT-')).to_be_hidden()
    call.locator("summary").click()
    expect(call.locator("dt")).to_have_text("title")
    expect(call.locator("dd")).to_have_text("Water the plants")
    expect(call.get_by_text('"ref": "OT-')).to_be_visible()


def test_a_tool_call_that_failed_says_why_and_an_unknown_one_is_named_in_words(mia: Person, pages: Pages, model: Model) -> None:
    wrong = ToolUse(name="get_task", fragments=('{"ref": "OT-999999"}',))
    unknown = ToolUse(name="send_the_rocket", fragments=('{"to_planet": "Mars"}',), call_id="call_2")
    inherited = [ToolUse(name=name, fragments=("{}",), call_id=name) for name in ("constructor", "__proto__")]
    model.says(Reply(text=(), tools=(wrong, unknown, *inherited), finish="tool_calls"), Reply(text=("Neither.",)))
    page = opened(pages, mia, mia.asks("Look", model=SCRIPTED))
    expect(page.locator(".tool").nth(0)).to_contain_text("Read OT-999999")
    expect(page.locator(".tool").nth(0).locator(".tool-problem")).to_contain_text("No task 'OT-999999'")
    expect(page.locator(".tool").nth(1).locator("summary")).to_contain_text("Use send the rocket")
    expect(page.locator(".tool").nth(2).locator("summary")).to_contain_text("Use constructor")
    expect(page.locator(".tool")).to_have_count(4)


def test_a_message_that_cannot_be_shown_takes_nothing_else_with_it(mia: Person, pages: Pages) -> None:
    page = opened(pages, mia, mia.asks("count to 3"))
    change = """async (tool_calls) => {
      const { messages } = await import('/static/state/conversation.js'), reply = messages.peek().at(-1);
      messages.value = [...messages.peek().slice(0, -1), { ...reply, tool_calls }];
    }"""

    def broken() -> bool:
        page.evaluate(change, None)
        return "This message cannot be shown as it should be." in last(page).inner_text()

    until(page, broken)  # once the live connection has sent the conversation, which takes the place of what was changed
    expect(last(page)).to_contain_text("1 2 3")
    expect(posts(page).first).to_contain_text("count to 3")
    page.evaluate(change, [])
    expect(last(page)).not_to_contain_text("cannot be shown")
    expect(last(page).locator("footer")).to_be_visible()


def test_an_approval_is_decided_by_a_button_and_everybody_sees_by_whom(site: Site, mia: Person, pages: Pages) -> None:
    pages.allow("status of 404")  # what was read of the conversation, when it goes at that moment
    task = mia.task("Mow the lawn")
    mia.asks("hello")
    posted = mia.says(f"delete {task['ref']}")
    page = opened(pages, mia, posted)
    ann = site.person(new_name("ann"), admin=True)
    elsewhere = pages.open(ann, f"/tasks/{task['ref']}")
    kept = mia.says(f"delete {task['ref']}", task_id=task["ref"])
    approval = elsewhere.get_by_role("region", name="Waits for your decision")
    expect(approval).to_contain_text(f"May the agent do this? Delete {task['ref']}")
    pages.shot(elsewhere, "chat-approval")
    expect(elsewhere.get_by_placeholder("Writing something else denies it")).to_be_visible()
    expect(elsewhere.locator(".chat-head .status")).to_have_text("Waiting")
    approval.get_by_role("button", name="Deny").press("Enter")
    expect(field(elsewhere)).to_be_focused()
    expect(field(elsewhere)).to_have_value("")
    elsewhere.evaluate("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', repeat: true, bubbles: true}))")
    expect(elsewhere.locator("#composer-hint")).to_have_text("")
    expect(elsewhere.locator(".tool-problem")).to_have_text(f"denied by {ann.name}")
    expect(approval).to_have_count(0)
    elsewhere.reload()
    expect(elsewhere.locator(".tool-problem")).to_have_text(f"denied by {ann.name}")
    assert mia.messages(kept["conversation_id"])[1]["tool_calls"][0]["approval"] == "denied"

    late: list[tuple[Route, APIResponse]] = []
    page.route("**/api/approvals/*", lambda route: late.append((route, route.fetch())))
    page.get_by_role("button", name="Allow").click()
    expect(last(page)).to_contain_text(f"Deleted {task['ref']}")
    until(page, lambda: bool(late))
    with page.expect_event("requestfinished"):
        late[0][0].fulfill(response=late[0][1])  # after the frames that told more
    expect(page.locator(".tool-by")).to_have_text(f"allowed by {mia.name}")
    expect(last(page)).to_contain_text(f"Deleted {task['ref']}")
    expect(elsewhere.get_by_role("heading", name=f"{task['ref']} was deleted")).to_be_visible()


def test_a_question_is_answered_by_an_option_or_in_own_words(mia: Person, pages: Pages) -> None:
    posted = mia.asks("ask me whether to use tea or coffee")
    page = opened(pages, mia, posted)
    question = page.get_by_role("region", name="The agent asks")
    expect(question.get_by_role("group").get_by_role("button")).to_have_text(["tea", "coffee"])
    pages.shot(page, "chat-question")
    question.get_by_role("button", name="coffee").click()
    expect(field(page)).to_be_focused()
    expect(posts(page).nth(2)).to_contain_text("coffee")
    expect(question.get_by_role("button", name="coffee")).to_have_attribute("aria-pressed", "true")
    expect(question.get_by_role("button", name="tea")).to_be_disabled()
    expect(question).to_contain_text(f"Answered by {mia.name}.")
    expect(last(page)).to_have_attribute("data-status", "completed")

    mia.asks("ask me whether to use red or blue", conversation_id=posted["conversation_id"])
    second = page.get_by_role("region", name="The agent asks").last
    second.get_by_label("Answer in your own words").fill("green")
    second.get_by_role("button", name="Answer", exact=True).click()
    expect(second).to_contain_text("in their own words")
    assert [each["content"] for each in mia.messages(posted["conversation_id"]) if each["role"] == "user"][-1] == "green"


def test_a_failed_answer_says_why_and_is_retried_in_place(mia: Person, pages: Pages, model: Model) -> None:
    model.says(Reply(status=401))
    posted = mia.says("Hello", model=SCRIPTED)
    page = opened(pages, mia, posted)
    problem = last(page).get_by_role("alert")
    expect(problem).to_contain_text("OpenAI")
    pages.shot(page, "chat-failed")
    model.says(Reply(text=("Now it works.",)))
    problem.get_by_role("button", name="Retry").click()
    expect(field(page)).to_be_focused()
    expect(last(page).locator(".md")).to_have_text("Now it works.")
    expect(posts(page)).to_have_count(2)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_stopped_answer_keeps_its_text_and_can_be_retried(mia: Person, pages: Pages, model: Model) -> None:
    halting = Halting("So far", " so good.")
    model.says(halting.reply())
    posted = mia.says("Go", model=SCRIPTED)
    page = opened(pages, mia, posted)
    expect(last(page).locator(".md")).to_have_text("So far")
    until(page, lambda: mia.messages(posted["conversation_id"])[-1]["content"] == "So far")  # what is not stored yet, a stop may lose
    page.get_by_role("button", name="Stop the answer").click()
    expect(field(page)).to_be_focused()
    expect(last(page).locator(".note.stopped")).to_contain_text("Stopped here.")
    expect(last(page).locator(".md")).to_have_text("So far")
    expect(page.get_by_role("button", name="Stop the answer")).to_have_count(0)
    model.says(Reply(text=("Whole.",)))
    last(page).get_by_role("button", name="Retry").click()
    expect(last(page).locator(".md")).to_have_text("Whole.")


def test_what_waits_tells_its_place_and_moves_up(mia: Person, pages: Pages, model: Model) -> None:
    halting = Halting("One", " two")
    model.says(halting.reply(), Reply(text=("Next.",)))
    posted = mia.says("First", model=SCRIPTED)
    again = {"conversation_id": posted["conversation_id"], "model": SCRIPTED}
    page = opened(pages, mia, posted)
    expect(last(page).locator(".md")).to_have_text("One")
    mia.says("Second", **again)
    mia.says("Third", **again)
    expect(posts(page).nth(3)).to_contain_text("Waiting, 1 before you.")
    expect(posts(page).nth(5)).to_contain_text("Waiting, 2 before you.")
    pages.shot(page, "chat-queue")
    mia.call("POST", f"/api/turns/{posted['turn_id']}/cancel")
    expect(posts(page).nth(5).locator(".md")).to_have_text("Next.")


def test_a_busy_model_is_asked_again_with_a_countdown(mia: Person, pages: Pages, model: Model) -> None:
    model.says(Reply(status=429, headers={"Retry-After": "30"}))
    page = opened(pages, mia, mia.says("Hello", model=f"{SCRIPTED}-{mia.name}"))
    countdown = page.locator(".countdown")
    expect(countdown).to_have_text(re.compile(r"^Trying again in \d+ s …$"))
    expect(last(page)).to_contain_text("limits how often")
    first = countdown.inner_text()
    expect(countdown).not_to_have_text(first)  # it ticks


def test_a_message_that_nobody_can_answer_says_so(new_site: NewSite, pages: Pages) -> None:
    site = new_site(arguments=("--no-worker",))
    admin, mia = site.person("ann", admin=True), site.person("mia")
    page = opened(pages, mia, mia.says("Hello"))
    expect(last(page)).to_contain_text("No worker runs that could answer. The message is kept and answered as soon as one does.")
    page = opened(pages, admin, admin.says("Hello"))
    expect(last(page)).to_contain_text("onethread worker")


def test_own_messages_are_edited_and_deleted_and_others_are_not(site: Site, mia: Person, pages: Pages) -> None:
    task = mia.task("Talk")
    posted = mia.asks("Helo there", task_id=task["ref"])
    ann = site.person(new_name("ann"))
    other = ann.asks("I am ann", task_id=task["ref"])
    page = opened(pages, mia, posted)
    mine = posts(page).nth(0)
    expect(posts(page).nth(2)).to_contain_text("I am ann")
    expect(posts(page).nth(2).get_by_role("button", name="Edit the message")).to_have_count(0)
    expect(posts(page).nth(2).get_by_role("button", name="Delete the message")).to_have_count(0)
    expect(posts(page).nth(3).get_by_role("button", name="Delete the answer")).to_have_count(0)

    mine.hover()
    mine.get_by_role("button", name="Edit the message").click()
    editor = mine.get_by_role("textbox", name="Edit the message")
    expect(editor).to_be_focused()
    editor.fill("Something else")
    editor.press("Escape")
    expect(mine.locator(".md")).to_have_text("Helo there")
    mine.get_by_role("button", name="Edit the message").click()
    editor.fill("x" * 10_001)
    expect(mine.get_by_role("alert")).to_contain_text("10,001")
    expect(mine.get_by_role("button", name="Save")).to_be_disabled()
    editor.fill("Hello there")
    editor.press("Enter")
    expect(mine.locator(".md")).to_have_text("Hello there")
    expect(mine.locator(".edited")).to_have_text("edited")
    expect(mine.get_by_role("button", name="Edit the message")).to_be_focused()

    mine.get_by_role("button", name="Delete the message").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(mine.locator(".md")).to_have_text("Hello there")
    mine.get_by_role("button", name="Delete the message").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(mine).to_contain_text(f"{mia.name} deleted this message.")
    expect(mine).to_be_focused()
    assert mia.messages(posted["conversation_id"])[0]["content"] == ""
    ann.call("DELETE", f"/api/messages/{other['message']['id']}")
    expect(posts(page).nth(3)).to_contain_text("This answer was deleted.")


def test_a_message_is_copied_as_markdown(mia: Person, pages: Pages, model: Model) -> None:
    model.says(Reply(text=("A **bold** word.\n\n```py\nx = 1\n```",)))
    page = opened(pages, mia, mia.asks("Go", model=SCRIPTED), permissions=["clipboard-read", "clipboard-write"])
    last(page).hover()
    last(page).get_by_role("button", name="Copy the answer as Markdown").click()
    expect(last(page).get_by_role("status").filter(has_text="Copied").first).to_be_attached()
    assert page.evaluate("navigator.clipboard.readText()") == "A **bold** word.\n\n```py\nx = 1\n```"
    last(page).get_by_role("button", name="Copy code").click()
    until(page, lambda: bool(page.evaluate("navigator.clipboard.readText()") == "x = 1"))


def test_another_model_than_the_one_asked_for_is_told(site: Site, mia: Person, pages: Pages) -> None:
    posted = mia.asks("hello")

    async def switched(uow: UnitOfWork) -> None:
        reply = await uow.messages.get(UUID(posted["message"]["id"]))
        assert reply
        told = {"fallback_from": "openai/gpt-9", "fallback_reason": "RATE_LIMITED"}
        await uow.messages.update(reply.id, metadata={**reply.metadata, **told})

    site.stored(switched)
    page = opened(pages, mia, posted)
    expect(last(page).locator(".spent")).to_contain_text("instead of gpt-9, which is busy")


def test_files_are_shown(mia: Person, pages: Pages) -> None:
    files = [("files", ("dot.png", PNG, "image/png")), ("files", ("notes.txt", b"Some notes.", "text/plain"))]
    answer = mia.request("POST", "/api/chat", data={"message": "Look"}, files=files, headers={"Prefer": "respond-async"})
    page = opened(pages, mia, answer.json())
    picture = page.get_by_role("img", name="dot.png")
    expect(picture).to_have_js_property("naturalWidth", 1)
    link = page.get_by_role("link", name="notes.txt 11 B")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "notes.txt"


def test_earlier_messages_come_by_scrolling_up_and_nothing_jumps(site: Site, mia: Person, pages: Pages) -> None:
    posted = mia.asks("hello")
    filled(site, mia, posted, 398)
    page = opened(pages, mia, posted)
    expect(page.get_by_text("Number 398")).to_be_in_viewport()
    assert posts(page).count() == 50
    page.locator("#m354").evaluate("post => post.scrollIntoView()")
    before = page.locator("#m354").bounding_box()
    assert before
    until(page, lambda: posts(page).count() > 50)
    after = page.locator("#m354").bounding_box()
    assert after
    assert abs(after["y"] - before["y"]) <= 2
    for _ in range(20):
        count = posts(page).count()
        if count == 400:
            break
        page.locator(".thread-box").evaluate("box => box.scrollTop = 0")
        expect(posts(page)).not_to_have_count(count)
    expect(posts(page)).to_have_count(400)
    expect(page.locator(".earlier")).to_have_count(0)
    page.locator(".thread-box").evaluate("box => box.scrollTop = 0")
    expect(page.locator("#m1")).to_be_in_viewport()

    page.get_by_role("button", name=re.compile("Latest")).click()
    expect(page.get_by_text("Number 398")).to_be_in_viewport()
    expect(page.get_by_role("button", name=re.compile("Latest"))).to_have_count(0)


def test_a_link_to_a_message_shows_it_however_far_back(site: Site, mia: Person, pages: Pages) -> None:
    posted = mia.asks("hello")
    filled(site, mia, posted, 200)
    page = pages.open(mia, f"/conversations/{posted['conversation_id']}#20")
    expect(page.locator("#m20")).to_be_in_viewport()
    expect(page.locator("#m20")).to_have_class(re.compile(r"\bshown\b"))
    page.evaluate("location.hash = '#9999'")
    expect(page.get_by_text("There is no such message here.")).to_be_visible()


def test_what_is_seen_is_marked_as_read_and_what_is_not_seen_is_not(site: Site, mia: Person, pages: Pages) -> None:
    posted = mia.asks("hello")
    filled(site, mia, posted, 30)
    path = f"/api/conversations/{posted['conversation_id']}"
    page = opened(pages, mia, posted)
    until(page, lambda: bool(mia.call("GET", path)["read_seq"] == 32))
    page.locator(".thread-box").evaluate("box => box.scrollTop = 0")
    expect(page.get_by_role("button", name="Latest")).to_be_visible()
    told = UUID(posted["conversation_id"])
    site.stored(lambda uow: messages.notice(uow, told, "Followed.", author=None, source="slack", metadata={"notice": "followed"}))
    mia.asks("More", conversation_id=posted["conversation_id"])
    expect(page.get_by_role("button", name=re.compile("Latest.*2 new"))).to_be_visible()  # nobody said the notice
    assert mia.call("GET", path)["read_seq"] == 32
    page.get_by_role("button", name=re.compile("Latest")).click()
    until(page, lambda: bool(mia.call("GET", path)["read_seq"] == 35))
    page.evaluate("document.querySelector('.thread-box').scrollTop = 0; document.querySelector(\"a[href='/board']\").click()")
    expect(posts(page)).to_have_count(0)  # and no exception about a thread that is gone


def test_what_is_read_stays_where_it_is_while_one_writes(site: Site, mia: Person, pages: Pages) -> None:
    posted = mia.asks("hello")
    filled(site, mia, posted, 30)
    page = opened(pages, mia, posted)
    box, lines = page.locator(".thread-box"), "\n".join(["a line"] * 8)
    rest = "box => new Promise(requestAnimationFrame).then(() => box.scrollHeight - box.scrollTop - box.clientHeight)"
    field(page).fill(lines)
    for _ in range(3):
        field(page).press("x")
        assert box.evaluate(rest) <= 1
    expect(page.get_by_role("button", name="Latest")).to_have_count(0)

    mine = posts(page).nth(-2)
    mine.hover()
    mine.get_by_role("button", name="Edit the message").click()
    mine.get_by_role("textbox").fill(lines * 3)
    box.evaluate("box => box.scrollTop = box.scrollHeight")
    before = box.evaluate("box => box.scrollTop")
    mine.get_by_role("textbox").press("x")
    assert box.evaluate("box => box.scrollTop") == before


def test_what_could_not_be_marked_as_read_stays_unread_until_it_is_told(mia: Person, pages: Pages) -> None:
    pages.allow("ERR_FAILED")
    posted = mia.asks("hello")
    path = f"/api/conversations/{posted['conversation_id']}"
    page = opened(pages, mia, posted)
    until(page, lambda: bool(mia.call("GET", path)["read_seq"] == 2))
    row = page.locator(".row[aria-current=page]")
    expect(row).to_have_attribute("data-unread", "false")

    page.route("**/read", lambda route: route.abort())
    mia.asks("More", conversation_id=posted["conversation_id"])
    expect(row).to_have_attribute("data-unread", "true")
    page.unroute("**/read")

    def looked_again() -> bool:
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        return bool(mia.call("GET", path)["read_seq"] == 4)

    until(page, looked_again)
    expect(row).to_have_attribute("data-unread", "false")


def test_an_answer_that_is_written_anew_is_unread_until_it_is_seen(mia: Person, pages: Pages, model: Model) -> None:
    model.says(Reply(status=401), Reply(text=("Now it works.",)))
    posted = mia.says("Will it work?", model=SCRIPTED)
    chat, retry = f"/api/conversations/{posted['conversation_id']}", f"/api/turns/{posted['turn_id']}/retry"
    page = opened(pages, mia, posted)
    row = page.locator(".row", has_text="Will it work?")
    until(page, lambda: bool(mia.call("GET", chat)["read_seq"] == 2))
    mia.call("POST", retry)  # seen here as it is written
    expect(last(page)).to_contain_text("Now it works.")
    until(page, lambda: bool(mia.call("GET", chat)["read_seq"] == 2))
    expect(row).to_have_attribute("data-unread", "false")

    model.says(Reply(status=401), Reply(text=("It does.",)))
    another = mia.says("And now?", conversation_id=posted["conversation_id"], model=SCRIPTED)
    until(page, lambda: bool(mia.call("GET", chat)["read_seq"] == 4))
    page.get_by_role("link", name="Board").click()
    mia.call("POST", f"/api/turns/{another['turn_id']}/retry")
    expect(row).to_have_attribute("data-unread", "true")
    row.click()
    expect(last(page)).to_contain_text("It does.")
    expect(row).to_have_attribute("data-unread", "false")
    until(page, lambda: bool(mia.call("GET", chat)["read_seq"] == 4))


def test_a_finished_answer_is_announced_once(mia: Person, pages: Pages, model: Model) -> None:
    posted = mia.asks("hello")
    page = opened(pages, mia, posted)
    announcer = page.locator("#announcer")
    expect(announcer).to_have_text("")  # nothing of what was there before
    page.evaluate(
        "window.said = []; new MutationObserver(() => announcer.textContent && said.push(announcer.textContent))"
        ".observe(announcer, {childList: true, characterData: true, subtree: true})"
    )
    model.says(Reply(text=("It ", "is ", "**ready**.")))
    mia.asks("And now", conversation_id=posted["conversation_id"], model=SCRIPTED)
    expect(announcer).to_have_text("The agent answered: It is ready.")
    assert page.evaluate("said") == ["The agent answered: It is ready."]


def test_there_is_a_state_for_what_is_empty_missing_deleted_and_hidden(site: Site, mia: Person, pages: Pages) -> None:
    pages.allow(r"status of 404")  # the details of the task, when it is deleted while they load
    task = mia.task("Fresh")
    page = pages.open(mia, f"/tasks/{task['ref']}")
    expect(page.get_by_text("Nothing was said here yet")).to_be_visible()
    pages.shot(page, "chat-empty")
    mia.call("DELETE", f"/api/tasks/{task['ref']}")
    expect(page.get_by_role("heading", name=f"{task['ref']} was deleted")).to_be_visible()
    page.goto(f"{site.url}/conversations/{new_id()}")
    expect(page.get_by_role("heading", name="There is no such conversation")).to_be_visible()
    private = site.person(new_name("ann")).asks("A secret")
    page.goto(f"{site.url}/conversations/{private['conversation_id']}")
    expect(page.get_by_role("heading", name="There is no such conversation")).to_be_visible()
    expect(page.get_by_text("secret")).to_have_count(0)


def test_the_head_names_the_conversation_and_what_is_done_with_it(mia: Person, pages: Pages) -> None:
    posted = mia.asks("count to 3")
    page = opened(pages, mia, posted, permissions=["clipboard-read", "clipboard-write"])
    head = page.locator(".chat-head")
    expect(head.get_by_role("heading", name="count to 3")).to_be_visible()
    head.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_label("Title").fill("Numbers")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(head.get_by_role("heading", name="Numbers")).to_be_visible()
    head.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Copy link").click()
    until(page, lambda: bool(page.evaluate("navigator.clipboard.readText()") == page.url))
    head.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile(r"/$"))
    pages.allow(r"status of 404")
    assert mia.request("GET", f"/api/conversations/{posted['conversation_id']}").status_code == 404


# --- in the database ---


def said(conversation_id: UUID, seq: int, uow: UnitOfWork, *, author: UUID | None, content: str, source: str = "web") -> Message:
    return Message(
        id=new_id(),
        conversation_id=conversation_id,
        turn_id=None,
        seq=seq,
        role=Role.USER if author else Role.ASSISTANT,
        author_id=author,
        content=content,
        status=MessageStatus.COMPLETED,
        revision=1,
        metadata={},
        source=source,
        created_at=uow.now,
        updated_at=uow.now,
    )


def filled(site: Site, who: Person, posted: JSON, count: int) -> None:
    """Puts so many messages behind those that are there: questions and answers, some long."""
    conversation_id = UUID(posted["conversation_id"])

    async def fill(uow: UnitOfWork) -> None:
        seq = await uow.conversations.take_seqs(conversation_id, count)
        for number in range(1, count + 1):
            text = f"Number {number}" + "\n\nwith more to say" * (number % 7)
            author = UUID(who.id) if number % 2 else None
            await uow.messages.add(said(conversation_id, seq + number - 1, uow, author=author, content=text))

    site.stored(fill)
