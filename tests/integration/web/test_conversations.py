"""Conversations over HTTP: listed, read, changed, deleted."""

from typing import Any
from uuid import uuid4

from tests.integration.web.conftest import Site

SENT = {
    "id",
    "title",
    "task_ref",
    "model",
    "visibility",
    "agent_status",
    "agent_status_message",
    "message_count",
    "last_seq",
    "read_seq",
    "archived_at",
    "created_at",
    "updated_at",
}


async def titles(site: Site, **parameters: Any) -> list[str]:
    page = (await site.client.get("/api/conversations", params=parameters)).json()
    return [each["title"] for each in page["conversations"]]


async def test_conversations_are_listed_by_their_last_use_in_pages(site: Site) -> None:
    for title in ("one", "two", "three"):
        await site.world.chat(title=title)
    stranger = await site.world.user("stranger")
    await site.world.chat(stranger, title="theirs")

    page = (await site.client.get("/api/conversations", params={"limit": 2, "offset": 1})).json()

    assert [each["title"] for each in page["conversations"]] == ["two", "one"]
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 1)
    assert set(page["conversations"][0]) == SENT
    assert await titles(site) == ["three", "two", "one"]


async def test_a_list_counts_the_messages(site: Site) -> None:
    conversation = await site.world.chat()
    await site.world.post(conversation.id, "Hello")

    (listed,) = (await site.client.get("/api/conversations")).json()["conversations"]

    assert listed["message_count"] == 2
    assert listed["title"] == "Hello"


async def test_a_conversation_comes_with_its_last_50_messages_ascending(site: Site) -> None:
    conversation = await site.world.chat()
    for number in range(52):
        await site.world.note(conversation.id, f"note {number}")

    found = (await site.client.get(f"/api/conversations/{conversation.id}")).json()

    assert set(found) == SENT | {"messages", "has_more", "bindings"}
    assert [message["content"] for message in found["messages"]] == [f"note {number}" for number in range(2, 52)]
    assert (found["has_more"], found["message_count"]) == (True, 52)


async def test_earlier_messages_are_read_page_by_page(site: Site) -> None:
    conversation = await site.world.chat()
    for number in range(5):
        await site.world.note(conversation.id, f"note {number}")
    path = f"/api/conversations/{conversation.id}/messages"

    last = (await site.client.get(path, params={"limit": 2})).json()
    before = (await site.client.get(path, params={"limit": 3, "before": last["messages"][0]["seq"]})).json()

    assert [message["content"] for message in last["messages"]] == ["note 3", "note 4"]
    assert last["has_more"] is True
    assert [message["content"] for message in before["messages"]] == ["note 0", "note 1", "note 2"]
    assert before["has_more"] is False


async def test_a_conversation_is_renamed_given_a_model_and_archived(site: Site) -> None:
    conversation = await site.world.chat(title="Old")
    path = f"/api/conversations/{conversation.id}"

    changed = (await site.client.patch(path, json={"title": "  New \n name ", "model": "two/model", "archived": True})).json()

    assert (changed["title"], changed["model"]) == ("New name", "two/model")
    assert changed["archived_at"]
    assert await titles(site) == []
    assert await titles(site, archived=True) == ["New name"]
    back = (await site.client.patch(path, json={"model": None, "archived": False})).json()
    assert (back["title"], back["model"], back["archived_at"]) == ("New name", None, None)


async def test_what_is_not_given_stays(site: Site) -> None:
    conversation = await site.world.chat(title="Old", model="two/model")

    answer = await site.client.patch(f"/api/conversations/{conversation.id}", json={})

    assert answer.status_code == 200
    assert (answer.json()["title"], answer.json()["model"]) == ("Old", "two/model")


_WRONG_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"title": " "}, "body.title"),
    ({"title": None}, "body.title"),
    ({"title": "x" * 201}, "body.title"),
    ({"model": ""}, "body.model"),
    ({"model": "two words"}, "body.model"),
    ({"archived": 1}, "body.archived"),
    ({"colour": "red"}, "body.colour"),
]


async def test_a_change_that_cannot_be_is_refused_at_its_place(site: Site) -> None:
    for change, place in _WRONG_CHANGES:
        conversation = await site.world.chat(title="Old")

        answer = await site.client.patch(f"/api/conversations/{conversation.id}", json=change)

        assert answer.status_code == 400
        assert answer.json()["errors"][0]["at"] == place


async def test_a_deleted_conversation_is_gone_with_what_runs_in_it(site: Site) -> None:
    conversation = await site.world.chat()
    posted = await site.world.post(conversation.id, "Hello")

    answer = await site.client.delete(f"/api/conversations/{conversation.id}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert (await site.client.get(f"/api/conversations/{conversation.id}")).status_code == 404
    assert (await site.client.get(f"/api/turns/{posted.turn_id}")).status_code == 404


async def test_a_tasks_conversation_keeps_its_title_and_goes_with_its_task(site: Site) -> None:
    task = await site.world.task("Paint the fence")
    path = f"/api/conversations/{task.conversation_id}"

    renamed = await site.client.patch(path, json={"title": "Other"})
    deleted = await site.client.delete(path)

    assert (renamed.status_code, deleted.status_code) == (409, 409)
    assert (await site.client.get(path)).json()["task_ref"] == task.ref


async def test_somebody_elses_conversation_looks_like_none(site: Site) -> None:
    theirs = await site.world.chat(await site.world.user("stranger"))

    for method, rest, body in (("GET", "", None), ("PATCH", "", {"title": "Mine"}), ("DELETE", "", None), ("GET", "/messages", None)):
        foreign = await site.client.request(method, f"/api/conversations/{theirs.id}{rest}", json=body)
        absent = await site.client.request(method, f"/api/conversations/{uuid4()}{rest}", json=body)
        malformed = await site.client.request(method, f"/api/conversations/x{rest}", json=body)

        assert {answer.status_code for answer in (foreign, absent, malformed)} == {404}
        assert foreign.json()["detail"].replace(str(theirs.id), "") == absent.json()["detail"].replace(absent.url.path.split("/")[3], "")


_WRONG = [
    "limit=0",
    "limit=101",
    "limit=ten",
    "limit=1e1",
    "offset=-1",
    "offset=" + "9" * 30,
    "archived=perhaps",
    "limit=1&limit=2",
    "limit=",
]


async def test_parameters_out_of_bounds_are_refused_by_name(site: Site) -> None:
    for query in _WRONG:
        answer = await site.client.get(f"/api/conversations?{query}")

        assert answer.status_code == 400
        assert answer.json()["error_code"] == "VALIDATION_ERROR"
        assert query.partition("=")[0] in answer.json()["detail"]
