"""Tasks over HTTP: found, made once, changed without treading on one another, removed."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

from tests.integration.conftest import Start
from tests.integration.web.conftest import Site, site_of

SENT = {
    "id",
    "ref",
    "title",
    "description",
    "status",
    "priority",
    "assignee",
    "due_at",
    "labels",
    "conversation_id",
    "agent_status",
    "agent_status_message",
    "version",
    "created_at",
    "updated_at",
}


async def refs(site: Site, query: str = "") -> list[str]:
    answer = await site.client.get(f"/api/tasks?{query}")
    assert answer.status_code == 200, answer.text
    return [task["ref"] for task in answer.json()["tasks"]]


async def test_a_task_is_made_with_its_place_and_read_by_id_and_ref(site: Site) -> None:
    draft = {
        "title": " Buy  milk ",
        "priority": "high",
        "due_at": "2026-12-24",
        "labels": ["home"],
        "assignee": "admin",
        "description": "2 l",
    }

    made = await site.client.post("/api/tasks", json=draft)

    assert made.status_code == 201
    task = made.json()
    assert set(task) == SENT
    assert made.headers["location"] == f"/api/tasks/{task['id']}"
    assert (task["ref"], task["title"], task["status"], task["version"]) == ("OT-1", "Buy milk", "todo", 1)
    assert (task["priority"], task["due_at"], task["labels"], task["assignee"]) == ("high", "2026-12-24T00:00:00.000Z", ["home"], "admin")
    for name in (task["id"], "OT-1", "ot-1"):
        assert (await site.client.get(f"/api/tasks/{name}")).json() == task
    assert (await site.client.get(f"/api/conversations/{task['conversation_id']}")).json()["visibility"] == "shared"


async def test_tasks_are_found_by_status_words_and_assignee(site: Site) -> None:
    milk = await site.world.task("Buy milk", status="done")
    await site.world.task("Buy bread")
    fence = await site.world.task("Paint the fence", status="in_review", assignee="admin")

    assert await refs(site, "status=done&status=in_review") == [fence.ref, milk.ref]
    assert await refs(site, "query=BUY%20milk") == [milk.ref]
    assert await refs(site, "query=%25") == []
    assert await refs(site, "assignee=admin") == [fence.ref]


async def test_a_filter_that_names_nobody_says_so(site: Site) -> None:
    answer = await site.client.get("/api/tasks", params={"assignee": "nobody"})

    assert answer.status_code == 404
    assert "There is no user 'nobody'." in answer.json()["detail"]


async def test_pages_follow_one_another_while_tasks_are_added(site: Site) -> None:
    for number in range(5):
        await site.world.task(f"task {number}")

    first = (await site.client.get("/api/tasks", params={"limit": 2})).json()
    await site.world.task("new")
    second = (await site.client.get("/api/tasks", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    last = (await site.client.get("/api/tasks", params={"limit": 2, "cursor": second["next_cursor"]})).json()

    assert [task["title"] for page in (first, second, last) for task in page["tasks"]] == [f"task {n}" for n in (4, 3, 2, 1, 0)]
    assert (first["total"], last["next_cursor"]) == (5, None)


async def test_a_change_raises_the_version_and_leaves_the_rest(site: Site) -> None:
    task = await site.world.task("Buy milk", labels=["home"], due_at="2026-12-24", assignee="admin")

    changed = (await site.client.patch(f"/api/tasks/{task.ref}", json={"status": "done", "due_at": None, "assignee": None})).json()
    same = (await site.client.patch(f"/api/tasks/{task.ref}", json={})).json()

    assert (changed["status"], changed["due_at"], changed["assignee"], changed["version"]) == ("done", None, None, 2)
    assert (changed["title"], changed["labels"]) == ("Buy milk", ["home"])
    assert same == changed


async def test_a_change_of_an_older_version_is_a_conflict(site: Site) -> None:
    task = await site.world.task("Buy milk")

    answers = await asyncio.gather(
        *(site.client.patch(f"/api/tasks/{task.ref}", json={"title": f"Buy {what}", "expected_version": 1}) for what in ("tea", "oats"))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (refused,) = [answer.json() for answer in answers if answer.status_code == 409]
    assert refused["error_code"] == "CONFLICT"
    assert "it is at version 2 now" in refused["detail"]


async def test_a_deleted_task_is_gone_with_its_conversation(site: Site) -> None:
    task = await site.world.task("Buy milk")

    assert (await site.client.delete(f"/api/tasks/{task.ref}")).status_code == 204
    assert (await site.client.get(f"/api/tasks/{task.id}")).status_code == 404
    assert (await site.client.delete(f"/api/tasks/{task.ref}")).status_code == 404
    assert (await site.client.get(f"/api/conversations/{task.conversation_id}")).status_code == 404


_ABSENT = [str(uuid4()), "OT-99", "x", "%00", "OT-1%2F..", "9" * 64, "9" * 65]


async def test_a_task_that_is_not_there_is_not_found_whatever_it_is_called(site: Site) -> None:
    for ref in _ABSENT:
        for method, body in (("GET", None), ("PATCH", {"title": "x"}), ("DELETE", None)):
            answer = await site.client.request(method, f"/api/tasks/{ref}", json=body)

            assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")


async def test_the_same_key_makes_a_task_once_also_at_the_same_moment(site: Site) -> None:
    asked: dict[str, Any] = {"json": {"title": "Buy milk", "labels": ["home"]}, "headers": {"Idempotency-Key": "one key"}}

    answers = await asyncio.gather(*(site.client.post("/api/tasks", **asked) for _ in range(4)))

    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["ref"] for answer in answers} == {"OT-1"}
    assert await refs(site) == ["OT-1"]


async def test_the_same_key_after_a_restart_gives_the_first_task(start: Start) -> None:
    asked: dict[str, Any] = {"json": {"title": "Buy milk"}, "headers": {"Idempotency-Key": "one key"}}
    async with start() as world, site_of(world) as site:
        first = (await site.client.post("/api/tasks", **asked)).json()
    async with start() as world, site_of(world) as site:
        again = (await site.client.post("/api/tasks", **asked)).json()

    assert again == first


async def test_a_key_stands_for_one_task_and_is_no_message_of_the_minute(site: Site) -> None:
    headers = {"Idempotency-Key": "one key"}
    await site.client.post("/api/tasks", json={"title": "Buy milk"}, headers=headers)

    other = await site.client.post("/api/tasks", json={"title": "Buy bread"}, headers=headers)
    received = await site.world.read(lambda uow: uow.inbox.nth_last(site.world.admin.user_id, 1, since=uow.now - timedelta(minutes=1)))

    assert (other.status_code, received) == (409, None)
    assert await refs(site) == ["OT-1"]


_WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "body.title"),
    ({"title": ""}, "body.title"),
    ({"title": "x" * 201}, "body.title"),
    ({"title": "x", "status": "open"}, "body.status"),
    ({"title": "x", "status": None}, "body.status"),
    ({"title": "x", "due_at": "tomorrow"}, "body.due_at"),
    ({"title": "x", "due_at": 1}, "body.due_at"),
    ({"title": "x", "labels": [" "]}, "body.labels.0"),
    ({"title": "x", "labels": ["x"] * 21}, "body.labels"),
    ({"title": "x", "description": "x" * 10_001}, "body.description"),
    ({"title": "x", "ref": "OT-7"}, "body.ref"),
]


async def test_a_task_that_cannot_be_is_refused_at_its_place(site: Site) -> None:
    for draft, place in _WRONG:
        answer = await site.client.post("/api/tasks", json=draft)

        assert answer.status_code == 400
        assert answer.json()["errors"][0]["at"] == place
        assert await refs(site) == []


async def test_an_assignee_or_project_that_is_not_there_is_not_found(site: Site) -> None:
    nobody = await site.client.post("/api/tasks", json={"title": "x", "assignee": "nobody"})
    nowhere = await site.client.post("/api/tasks", json={"title": "x", "project": "NO"})

    assert (nobody.status_code, nowhere.status_code) == (404, 404)
    assert await refs(site) == []


async def test_each_scope_opens_its_own_doors(site: Site) -> None:
    task = await site.world.task("Buy milk")
    async with site.calling(site.world.admin, scopes=frozenset({"tasks:read"})) as client:
        read = [await client.get("/api/tasks"), await client.get(f"/api/tasks/{task.ref}")]
        write = [
            await client.post("/api/tasks", json={"title": "x"}),
            await client.patch(f"/api/tasks/{task.ref}", json={}),
            await client.patch(f"/api/tasks/{task.ref}", json={"title": "x"}),
            await client.delete(f"/api/tasks/{task.ref}"),
        ]
    async with site.calling(site.world.admin, scopes=frozenset({"chat"})) as client:
        neither = [await client.get("/api/tasks?assignee=nobody"), await client.get(f"/api/tasks/{task.ref}")]

    assert {answer.status_code for answer in read} == {200}
    assert {answer.status_code for answer in write + neither} == {401}
