"""What was changed of a task, by whom: over HTTP, in both databases."""

from typing import Any

import pytest

from core import conversations, tasks
from core.errors import Conflict
from core.ports import UnitOfWork
from core.tools.registry import Posting, ToolContext
from core.tools.tasks import CLIENT_TOOLS
from tests.databases import on_both
from tests.fakes import Call
from tests.integration.web.conftest import Site

new_database = on_both


async def changes(site: Site, ref: str = "OT-1", **parameters: Any) -> list[dict[str, Any]]:
    answer = await site.client.get(f"/api/tasks/{ref}/changes", params=parameters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["changes"]
    return found


async def told(site: Site, ref: str = "OT-1") -> list[tuple[str, Any, Any]]:
    """Field, before and after of all changes but the beginning, oldest first."""
    found = (await changes(site, ref))[::-1]
    assert [each["field"] for each in found[:1]] == ["created"]
    return [(each["field"], each["before"], each["after"]) for each in found[1:]]


async def change(site: Site, **fields: Any) -> None:
    assert (await site.client.patch("/api/tasks/OT-1", json=fields)).status_code == 200


async def test_each_field_that_changed_is_noted_with_what_it_was(site: Site) -> None:
    await site.world.user("kim")
    await site.world.task("Buy milk", description="2 l", labels=["home"])
    await change(site, title="Buy oat milk", description="3 l\nor 4", status="in_progress", priority="high")
    await change(site, assignee="kim", due_at="2026-12-24T17:00:00+01:00", labels=["home", "shop"])
    await change(site, assignee="admin", due_at=None, labels=[], description="")
    await change(site, assignee=None)

    assert await told(site) == [
        ("title", "Buy milk", "Buy oat milk"),
        ("description", None, None),
        ("status", "todo", "in_progress"),
        ("priority", "medium", "high"),
        ("due_at", None, "2026-12-24T16:00:00.000Z"),
        ("labels", ["home"], ["home", "shop"]),
        ("assignee", None, "kim"),
        ("description", None, None),
        ("due_at", "2026-12-24T16:00:00.000Z", None),
        ("labels", ["home", "shop"], []),
        ("assignee", "kim", "admin"),
        ("assignee", "admin", None),
    ]


async def test_what_stays_as_it_is_is_not_noted(site: Site) -> None:
    task = await site.world.task("Buy milk", labels=["home"], due_at="2026-12-24", assignee="admin")
    await change(site, title="Buy  milk ", labels=["home"], due_at="2026-12-24", assignee="admin", status="todo", priority="medium")
    await change(site)
    with pytest.raises(Conflict):
        await site.world.write(lambda uow: tasks.update(uow, site.world.admin, task.ref, {"status": "done"}, expected_version=1))

    assert await told(site) == []


async def test_a_change_tells_who_made_it_and_when(site: Site) -> None:
    kim = await site.world.user("kim")
    task = await site.world.task("Buy milk", kim)
    await change(site, status="done")

    newest, created = await changes(site)

    assert created == {
        "id": created["id"],
        "at": (await site.client.get(f"/api/tasks/{task.ref}")).json()["created_at"],
        "by": "kim",
        "by_agent": False,
        "field": "created",
        "before": None,
        "after": "Buy milk",
    }
    assert newest["by"] == "admin"
    assert newest["at"] == (await site.client.get(f"/api/tasks/{task.ref}")).json()["updated_at"]


async def test_what_the_agent_does_for_somebody_is_told_as_the_agents(site: Site) -> None:
    kim = await site.world.user("kim")
    chat = await site.world.chat(kim)
    async with site.world.working():
        site.world.model.will(Call("create_task", {"title": "Buy milk"})).will(Call("update_task", {"ref": "OT-1", "status": "done"}))
        await site.world.ask(chat.id, "Do it", kim)
    await change(site, status="todo")

    assert [(each["field"], each["by"], each["by_agent"]) for each in await changes(site)] == [
        ("status", "admin", False),
        ("status", "kim", True),
        ("created", "kim", True),
    ]


async def test_what_somebodys_own_assistant_does_by_their_token_is_theirs(site: Site) -> None:
    kim = await site.world.user("kim")
    tools = {tool.name: tool for tool in CLIENT_TOOLS}

    async def call(uow: UnitOfWork) -> None:
        posting = Posting(rules=site.world.app.rules, source="mcp")
        context = ToolContext(uow=uow, principal=kim, conversation=None, posting=posting)
        await tools["create_task"].run(context, {"title": "Buy milk"})
        await tools["update_task"].run(context, {"ref": "OT-1", "status": "done"})

    await site.world.write(call)

    assert {(each["by"], each["by_agent"]) for each in await changes(site)} == {("kim", False)}


async def test_a_conversation_that_becomes_a_task_begins_its_history(site: Site) -> None:
    chat = await site.world.chat(title="Milk?")
    await site.world.write(lambda uow: tasks.promote(uow, site.world.admin, chat.id, "Buy milk"))

    assert [(each["field"], each["after"]) for each in await changes(site)] == [("created", "Buy milk")]


async def test_what_was_taken_out_of_a_description_is_not_kept(site: Site) -> None:
    task = await site.world.task("Deploy", description="The password is strawberry.")
    await change(site, description="The password is in the vault.")
    stored = await site.world.read(lambda uow: uow.task_changes.page(task.id, before=None, limit=10))

    assert [each.field for each in stored] == ["description", "created"]
    assert "strawberry" not in str(stored)
    assert "vault" not in str(stored)


async def test_a_history_is_read_in_pages_newest_first(site: Site) -> None:
    await site.world.task("Buy milk")
    for number in range(4):
        await change(site, title=f"No. {number}")

    first = (await site.client.get("/api/tasks/ot-1/changes", params={"limit": 2})).json()
    await change(site, title="meanwhile")
    second = (await site.client.get("/api/tasks/OT-1/changes", params={"limit": 2, "before": first["changes"][-1]["id"]})).json()
    last = (await site.client.get("/api/tasks/OT-1/changes", params={"limit": 2, "before": second["changes"][-1]["id"]})).json()

    afters = [each["after"] for page in (first, second, last) for each in page["changes"]]
    assert afters == ["No. 3", "No. 2", "No. 1", "No. 0", "Buy milk"]
    assert [page["has_more"] for page in (first, second, last)] == [True, True, False]


async def test_a_history_is_its_tasks_own_and_goes_with_it(site: Site) -> None:
    task, other = await site.world.task("Buy milk"), await site.world.task("Buy bread")
    await change(site, status="done")
    assert [each["after"] for each in await changes(site, other.ref)] == ["Buy bread"]

    await site.world.write(lambda uow: tasks.delete(uow, site.world.admin, task.ref))

    assert await site.world.read(lambda uow: uow.task_changes.page(task.id, before=None, limit=10)) == []
    assert (await site.client.get(f"/api/tasks/{task.ref}/changes")).status_code == 404
    assert len(await changes(site, other.ref)) == 1


async def test_a_private_tasks_history_is_for_its_readers(site: Site) -> None:
    kim = await site.world.user("kim")
    task = await site.world.task("Buy milk", kim)
    await site.world.write(lambda uow: conversations.make_private(uow, task.conversation_id))
    async with site.calling(kim) as calling, site.calling(kim, scopes=frozenset({"chat"})) as unable:
        statuses = [(await each.get("/api/tasks/OT-1/changes")).status_code for each in (calling, site.client, unable)]

    assert statuses == [200, 404, 401]
