"""Searching over HTTP, in both databases: titles and refs first, then what was said."""

from typing import Any

import pytest

from core import search
from core.access import Principal
from core.models import Conversation
from tests.databases import on_both
from tests.integration.web.conftest import Site

new_database = on_both


async def results(site: Site, query: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = await site.client.get("/api/search", params={"query": query, **parameters})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


async def titles(site: Site, query: str, **parameters: Any) -> list[str]:
    """Of what was found by title or ref."""
    return [each["conversation"]["title"] for each in await results(site, query, **parameters) if each["message"] is None]


async def excerpts(site: Site, query: str, **parameters: Any) -> list[str]:
    """Of the messages that were found."""
    return [each["excerpt"] for each in await results(site, query, **parameters) if each["message"]]


async def test_titles_come_before_messages_and_each_result_tells_where_it_is(site: Site) -> None:
    chat = await site.world.chat(title="Breakfast")
    noted = await site.world.note(chat.id, "We need\n\n  oat MILK.")
    async with site.world.working():
        site.world.model.will("Milk it is.")
        reply = await site.world.ask(chat.id, "What?")
    await site.world.chat(title="About milk")

    by_title, by_reply, by_note = await results(site, "milk")

    assert (by_title["conversation"]["title"], by_title["message"], by_title["excerpt"]) == ("About milk", None, "")
    assert [each["excerpt"] for each in (by_reply, by_note)] == ["Milk it is.", "We need oat MILK."]
    assert by_reply["message"]["id"] == str(reply.id)
    assert (by_reply["message"]["role"], by_reply["message"]["author"], by_reply["message"]["seq"]) == ("assistant", None, 3)
    assert by_note["message"].pop("created_at")
    assert by_note["message"] == {"id": str(noted.message_id), "seq": 1, "role": "user", "author": "admin"}
    listed = (await site.client.get("/api/conversations")).json()["conversations"]
    assert [each["conversation"] for each in (by_title, by_note)] == listed


async def test_a_title_is_found_by_all_of_its_words_and_a_task_by_its_ref(site: Site) -> None:
    for number in range(11):
        await site.world.task(f"Paint fence {number}")
    await site.world.chat(title="Fences of the world")

    assert await titles(site, "fence paint ot-2") == ["Paint fence 1"]
    assert (await titles(site, "ot-1"))[0] == "Paint fence 0"
    assert sorted(await titles(site, "ot-1")) == ["Paint fence 0", "Paint fence 10", "Paint fence 9"]
    assert await titles(site, "FENCES") == ["Fences of the world"]
    assert await titles(site, "fence nowhere") == []


@pytest.mark.parametrize("query", ["müsli", "MÜSLI", "mÜsLi"])
async def test_two_cases_of_a_letter_are_one_in_all_alphabets(site: Site, query: str) -> None:
    for title in ("MÜSLI", "Müsli", "Musli"):
        await site.world.note((await site.world.chat(title=title)).id, f"{title} for breakfast")
    task = await site.world.task("Buy", description="MÜSLI")

    assert sorted(await titles(site, query)) == ["MÜSLI", "Müsli"]
    assert sorted(await excerpts(site, query)) == ["MÜSLI for breakfast", "Müsli for breakfast"]
    listed = (await site.client.get("/api/tasks", params={"query": query})).json()
    assert ([each["ref"] for each in listed["tasks"]], listed["total"]) == ([task.ref], 1)


async def test_a_message_is_found_by_all_of_its_words_wherever_its_lines_end(site: Site) -> None:
    chat = await site.world.chat()
    for text in ("MÜSLI\nmit Milch", "mit\n\nSahne, kein Müsli", "mit Milch", "Müsli"):
        await site.world.note(chat.id, text)

    assert await excerpts(site, "müsli mit") == ["mit Sahne, kein Müsli", "MÜSLI mit Milch"]
    assert await excerpts(site, "müsli mit tee") == []


async def test_an_excerpt_is_around_the_words_as_they_were_asked_for_where_they_stand_so(site: Site) -> None:
    chat = await site.world.chat()
    await site.world.note(chat.id, f"oat {'x ' * 200}{'y ' * 40}oat\nmilk {'z ' * 200}milk")
    await site.world.note(chat.id, f"milk {'x ' * 200}oat")

    apart, together = await excerpts(site, "oat milk")

    assert together.startswith("…y ")
    assert "y oat milk z" in together
    assert apart.endswith("oat")


async def test_archived_ones_are_found_and_deleted_messages_are_not(site: Site) -> None:
    chat = await site.world.chat(title="Old plans")
    gone = await site.world.note(chat.id, "strawberries")
    await site.world.note(chat.id, "raspberries")
    await site.world.delete(gone.message_id)
    await site.client.patch(f"/api/conversations/{chat.id}", json={"archived": True})

    (found,) = await results(site, "berries")
    assert (found["excerpt"], found["conversation"]["archived_at"] is not None) == ("raspberries", True)
    assert await titles(site, "plans") == ["Old plans"]
    assert await results(site, "strawberries") == []


@pytest.mark.parametrize("text", ["100%", "a_b", "back\\slash", "it's", '"quoted"', "[x]", "%", "müsli", "日本語", "👩‍👩‍👧", "naïve & <b>"])
async def test_no_character_stands_for_others(site: Site, text: str) -> None:
    chat = await site.world.chat(title=f"T {text}")
    await site.world.note(chat.id, f"before {text} behind")
    other = await site.world.chat(title="T 100 axb backslash its quoted x musli nave")
    await site.world.note(other.id, "before 100 axb backslash its quoted x musli nave behind")

    assert await titles(site, text) == [f"T {text}"]
    assert await excerpts(site, text) == [f"before {text} behind"]


async def test_what_no_database_holds_is_no_obstacle(site: Site) -> None:
    chat = await site.world.chat()
    await site.world.note(chat.id, "nul \x00 here")

    assert await excerpts(site, "nul \x00 here") == ["nul \ufffd here"]
    assert await excerpts(site, "nul \ufffd") == ["nul \ufffd here"]


async def test_an_excerpt_is_one_line_around_what_was_found(site: Site) -> None:
    chat = await site.world.chat()
    await site.world.note(chat.id, f"{'word ' * 100}# **NEEDLE**\n\n- [link](https://example.org)\n{'more ' * 100}")
    await site.world.note(chat.id, f"Needle {'more ' * 100}")

    at_the_beginning, amid = await excerpts(site, "needle")

    assert (amid[0], amid[-1], at_the_beginning[-1]) == ("…", "…", "…")
    assert "# **NEEDLE** - [link](https://example.org) more" in amid
    assert at_the_beginning.startswith("Needle more")
    assert all(len(each) <= 60 + len("needle") + 140 + 2 and "\n" not in each for each in (amid, at_the_beginning))


async def test_many_of_both_kinds_share_the_page(site: Site) -> None:
    for number in range(6):
        chat = await site.world.chat(title=f"Apple {number}")
        await site.world.note(chat.id, f"An apple, {number}.")

    assert (len(await titles(site, "apple", limit=4)), await excerpts(site, "apple", limit=4)) == (2, ["An apple, 5.", "An apple, 4."])
    assert (len(await titles(site, "apple", limit=1)), await excerpts(site, "apple", limit=1)) == (1, [])
    assert (len(await titles(site, "apple 3")), await excerpts(site, "apple, 3")) == (1, ["An apple, 3."])
    assert (len(await titles(site, "apple", limit=10)), len(await excerpts(site, "apple", limit=10))) == (5, 5)
    assert len(await titles(site, "apple")) == len(await excerpts(site, "apple")) == 6


async def test_nobody_finds_what_they_may_not_see(site: Site) -> None:
    kim = await site.world.user("kim")
    private, shared = await _with_a_secret(site, "Private secret", None), await site.world.task("Shared secret")
    await site.world.note(shared.conversation_id, "a shared secret")
    async with site.calling(kim) as calling:
        found = (await calling.get("/api/search", params={"query": "secret"})).json()["results"]
    async with site.calling(kim, scopes=frozenset({"tasks:read"})) as unable:
        refused = await unable.get("/api/search", params={"query": "secret"})

    assert {each["conversation"]["id"] for each in found} == {str(shared.conversation_id)}
    assert len(found) == 2
    assert str(private.id) in {each["conversation"]["id"] for each in await results(site, "secret")}
    assert refused.status_code == 401


@pytest.mark.parametrize(
    "query", ["", "query=", "query=%20%09", f"query={'x' * 201}", "query=a&query=b", "query=a&limit=0", "query=a&limit=101"]
)
async def test_a_wrong_question_is_refused(site: Site, query: str) -> None:
    answer = await site.client.get(f"/api/search?{query}")

    assert (answer.status_code, answer.json()["error_code"]) == (400, "VALIDATION_ERROR")


async def test_what_was_found_only_by_the_database_is_shown_from_its_beginning() -> None:
    assert search._excerpt("İstanbul is a city", "i̇stanbul") == "İstanbul is a city"


async def _with_a_secret(site: Site, title: str, who: Principal | None) -> Conversation:
    chat = await site.world.chat(who, title=title)
    await site.world.note(chat.id, "a private secret", who)
    return chat
