"""The page's frame: its views and their addresses, keys, light and dark, the layout on a phone, and parts that do not load."""

import re
from datetime import UTC, datetime, timedelta

from playwright.sync_api import WebSocketRoute, expect

from tests.page.browser import Pages
from tests.page.conftest import new_name
from tests.page.site import Person, Site

DARK_PAPER, LIGHT_PAPER = "rgb(25, 24, 22)", "rgb(247, 244, 238)"


def test_views_are_linked_by_their_addresses_and_gone_back_to(mia: Person, pages: Pages) -> None:
    task = mia.task("Feed the cat")
    page = pages.open(mia, "/")
    expect(page).to_have_title("New chat · Onethread")
    expect(page.get_by_role("heading", name=f"What should be done, {mia.name}?")).to_be_visible()

    page.get_by_role("link", name="Feed the cat").click()
    expect(page).to_have_url(f"{mia.site.url}/tasks/{task['ref']}")
    expect(page).to_have_title("Feed the cat · Onethread")
    expect(page.get_by_role("heading", name="Feed the cat").first).to_be_visible()

    page.get_by_role("link", name="Board").click()
    expect(page).to_have_title("Board · Onethread")
    expect(page.get_by_role("link", name="Board")).to_have_attribute("aria-current", "page")

    page.go_back()
    expect(page).to_have_title("Feed the cat · Onethread")
    page.reload()
    expect(page).to_have_title("Feed the cat · Onethread")
    expect(page.locator(".row[aria-current=page]")).to_contain_text("Feed the cat")


def test_title_is_told_of_what_is_in_no_list(mia: Person, pages: Pages) -> None:
    chat = mia.asks("Put away")["conversation_id"]
    mia.call("PATCH", f"/api/conversations/{chat}", {"archived": True})
    page = pages.open(mia, f"/conversations/{chat}")
    expect(page).to_have_title("Put away · Onethread")
    task = mia.task("Something new")
    expect(page.locator(".row-title").filter(has_text="Something new")).to_be_visible()
    expect(page).to_have_title("Put away · Onethread")

    page.goto(f"{mia.site.url}/tasks/{task['ref'].lower()}")
    expect(page.locator(".row[aria-current=page]")).to_contain_text("Something new")


def test_view_that_breaks_leaves_the_rest_of_the_page(mia: Person, pages: Pages) -> None:
    pages.allow("Really broken")
    page = pages.open(mia, "/")
    broken = "export function Board() { throw new Error('Really broken'); }"
    page.route("**/components/board.js", lambda route: route.fulfill(body=broken, content_type="text/javascript"))
    page.get_by_role("link", name="Board").click()
    expect(page.get_by_role("alert")).to_contain_text("This cannot be shown")
    page.get_by_role("link", name="New chat").click()
    expect(page.get_by_role("heading", name="What should be done")).to_be_visible()


def test_details_are_beside_a_task_as_one_left_them(mia: Person, pages: Pages) -> None:
    task = mia.task("Sharpen the knives")
    page = pages.open(mia, f"/tasks/{task['ref']}")
    details = page.get_by_role("complementary", name=f"Details of {task['ref']}")
    expect(details).to_contain_text("Sharpen the knives")
    page.get_by_role("heading", name="Sharpen the knives").first.click()  # out of the field where one writes
    page.keyboard.press("d")
    expect(details).to_be_hidden()
    page.reload()
    expect(page.get_by_role("heading", name="Sharpen the knives")).to_be_visible()
    expect(details).to_be_hidden()
    page.get_by_role("button", name="Details of the task").click()
    expect(details).to_be_visible()


def test_what_waits_for_one_is_shown_at_the_start(mia: Person, pages: Pages) -> None:
    chat = mia.asks("ask me which tea")["conversation_id"]
    page = pages.open(mia, "/")
    waiting = page.get_by_role("region", name="Waiting for you")
    expect(waiting).to_contain_text("tea")

    waiting.get_by_role("link", name="ask me which tea").click()
    expect(page).to_have_url(f"{mia.site.url}/conversations/{chat}")


def test_keys_work_everywhere_but_where_one_writes(mia: Person, pages: Pages) -> None:
    for title in ("Lower", "Upper"):
        mia.task(title)
    page = pages.open(mia, "/board")
    expect(page.locator(".row").first).to_contain_text("Upper")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()

    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(help_).to_contain_text("Search everywhere")
    page.keyboard.press("n")  # not while a dialog is open
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    expect(page).to_have_url(f"{mia.site.url}/board")

    page.keyboard.press("n")
    expect(page).to_have_url(f"{mia.site.url}/")
    writing = page.get_by_role("main").get_by_role("textbox")
    expect(writing).to_be_focused()
    page.keyboard.type("bn?")
    expect(writing).to_have_value("bn?")

    page.keyboard.press("Alt+ArrowDown")
    expect(page).to_have_url(re.compile("/tasks/"))
    first = page.url
    expect(page.locator(".row[aria-current=page]")).to_have_count(1)
    page.keyboard.press("Alt+ArrowDown")
    expect(page).not_to_have_url(first)
    page.keyboard.press("Alt+ArrowUp")
    expect(page).to_have_url(first)

    page.get_by_role("main").get_by_role("textbox").first.focus()
    page.evaluate("import('/static/ui.js').then(({ go }) => go('/board'))")
    expect(page.get_by_role("main")).to_be_focused()  # where the focus was is gone
    expect(page.locator("#announcer")).to_have_text("Board")


def test_single_keys_can_be_switched_off(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/board")
    page.get_by_role("button", name=re.compile(f"^{mia.name}: ")).click()
    page.get_by_role("menuitem", name="Keyboard shortcuts").click()
    page.get_by_role("checkbox", name=re.compile("Single keys")).uncheck()
    page.get_by_role("button", name="Close", exact=True).click()

    page.keyboard.press("n")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("dialog", name="Search")).to_be_visible()
    assert page.url == f"{mia.site.url}/board"


def test_light_or_dark_is_as_the_system_has_it_or_as_one_chooses(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/", dark=True)
    paper = page.locator("html")
    expect(paper).to_have_css("background-color", DARK_PAPER)
    page.emulate_media(color_scheme="light")
    expect(paper).to_have_css("background-color", LIGHT_PAPER)

    page.get_by_role("button", name=re.compile(f"^{mia.name}: ")).click()
    page.get_by_role("menuitemradio", name="Dark", exact=True).click()
    expect(paper).to_have_css("background-color", DARK_PAPER)
    page.reload()
    expect(paper).to_have_css("background-color", DARK_PAPER)
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name=re.compile(f"^{mia.name}: ")).click()
    page.get_by_role("menuitemradio", name="Light", exact=True).click()
    expect(paper).to_have_css("background-color", LIGHT_PAPER)


def test_menus_are_used_by_keys(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/")
    opener = page.get_by_role("button", name=re.compile(f"^{mia.name}: "))
    opener.press("Enter")
    expect(page.get_by_role("menuitem", name="Settings")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Sign out")).to_be_focused()
    page.keyboard.press("Home")
    expect(page.get_by_role("menuitem", name="Settings")).to_be_focused()

    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_be_hidden()
    expect(opener).to_be_focused()


def test_on_a_phone_the_list_is_a_drawer(mia: Person, pages: Pages) -> None:
    task = mia.task("A task with " + "quite " * 20 + "a long title")
    page = pages.open(mia, "/", phone=True)
    drawer, opener = page.get_by_role("navigation", name="Conversations"), page.get_by_role("button", name="Open the list")
    expect(page.get_by_role("heading", name="What should be done")).to_be_visible()
    expect(drawer).to_be_hidden()

    opener.tap()
    expect(drawer).to_be_visible()
    expect(page.get_by_role("button", name="Close the list")).to_be_focused()
    assert page.locator("main").evaluate("main => main.inert")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(opener).to_be_focused()

    opener.tap()
    page.locator(".row").first.tap()
    expect(page).to_have_url(f"{mia.site.url}/tasks/{task['ref']}")
    expect(drawer).to_be_hidden()

    page.set_viewport_size({"width": 844, "height": 390})  # on its side
    expect(drawer).to_be_hidden()
    expect(page.get_by_role("heading", name="A task with")).to_be_hidden()  # it stands in the bar above
    opener.tap()
    expect(drawer).to_be_visible()
    page.locator(".scrim").tap(position={"x": 800, "y": 200})
    expect(drawer).to_be_hidden()


def test_status_is_whole_beside_a_long_title(mia: Person, pages: Pages) -> None:
    chat = mia.asks("ask me which tea")["conversation_id"]
    mia.call("PATCH", f"/api/conversations/{chat}", {"title": "Tea " * 50})
    page = pages.open(mia, f"/conversations/{chat}")
    status = page.locator(".chat-head .status .words")
    expect(status).to_contain_text("Waiting")
    assert status.evaluate("words => words.scrollWidth <= words.clientWidth")


def test_conversation_is_printed_whole_and_without_the_page_around_it(mia: Person, pages: Pages) -> None:
    chat = mia.asks("A line\n" * 200)["conversation_id"]
    page = pages.open(mia, f"/conversations/{chat}")
    expect(page.locator(".post.reply .md")).to_be_visible()
    page.emulate_media(media="print")
    for hidden in (".sidebar", ".composer", ".chat-head .icon-button"):
        expect(page.locator(hidden).first).to_be_hidden()
    expect(page.locator(".post").first).to_be_visible()
    assert page.locator(".thread-box").evaluate("box => box.scrollHeight - box.clientHeight") == 0
    assert page.evaluate("document.documentElement.scrollHeight") > 200 * 20


def test_what_happened_is_never_to_come_where_the_clock_is_slow(site: Site, pages: Pages) -> None:
    ann = site.person(new_name("ann"), admin=True)
    ann.asks("Hello")
    context = pages.context(ann)
    context.clock.set_fixed_time(datetime.now(UTC) - timedelta(hours=2))
    page = pages.tab(context, f"{site.url}/settings/queue")
    expect(page.locator(".row-when").first).to_have_text("now")
    expect(page.locator(".panel").filter(has_text="Workers").last).to_contain_text("heard of just now")


def test_nothing_is_scrolled_sideways_on_the_smallest_phone(mia: Person, pages: Pages) -> None:
    task = mia.task("Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen" * 2)
    page = pages.open(mia, "/", viewport={"width": 320, "height": 640})
    for path in ("/", "/board", "/settings", f"/tasks/{task['ref']}"):
        page.goto(mia.site.url + path)
        expect(page.locator(".row").first).to_be_attached()
        expect(page.locator(".loading, .skeleton")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
        assert page.locator(".view").evaluate("view => view.scrollWidth - view.clientWidth") == 0, path


def test_part_that_does_not_load_says_so_and_comes_when_it_can(mia: Person, pages: Pages) -> None:
    pages.allow("ERR_FAILED|WebSocket")
    connected: list[WebSocketRoute] = []

    def pass_on(socket: WebSocketRoute) -> None:
        connected.append(socket)
        socket.connect_to_server()

    context = pages.context(mia)
    context.route_web_socket(re.compile(r"/ws\?"), pass_on)
    page = pages.tab(context, mia.site.url + "/")
    page.evaluate("window.same = true")

    page.route("**/static/components/board_filters.js", lambda route: route.abort())
    page.get_by_role("link", name="Board").click()
    expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
    expect(page.get_by_role("alert")).to_contain_text("Failed to fetch")
    expect(page.get_by_role("button", name="Reload the page")).to_be_visible()
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Board")).to_be_visible()

    page.route("**/static/components/settings/settings.js", lambda route: route.abort())
    page.evaluate("import('/static/ui.js').then(({ go }) => go('/settings'))")
    expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
    page.unroute_all()
    connected[-1].close(code=1012)  # it comes back by itself
    expect(page.get_by_role("navigation", name="Settings")).to_be_visible()
    assert page.evaluate("window.same")


def test_wrong_address_leads_back_to_the_start(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/board")
    for address in ("00000000-0000-7000-8000-000000000000", "nonsense"):
        page.goto(f"{mia.site.url}/conversations/{address}")
        expect(page.get_by_role("heading", name="There is no such conversation")).to_be_visible()
        expect(page).to_have_title("Conversation · Onethread")


def test_motion_is_reduced_where_the_system_asks_for_it(mia: Person, pages: Pages) -> None:
    page = pages.open(mia, "/", reduced_motion="reduce")
    page.evaluate("document.body.append(Object.assign(document.createElement('i'), {className: 'skeleton'}))")
    expect(page.locator("body > .skeleton")).to_have_css("animation-name", "none")
    page.emulate_media(reduced_motion="no-preference")
    expect(page.locator("body > .skeleton")).to_have_css("animation-name", "breathe")
