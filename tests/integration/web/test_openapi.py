"""The description of the API: complete, true in what a client relies on, and fit to be read."""

from typing import Any

import httpx
import pytest

from core.attachments import Upload
from tests.fakes import Call
from tests.integration.web.conftest import Site
from web import schemas

OPEN = {("post", "/api/auth/token"), ("get", "/healthz"), ("get", "/readyz")}
OF_DESIGN = {
    ("post", "/api/chat"),
    ("get", "/api/turns/{turn_id}"),
    ("get", "/api/turns/{turn_id}/events"),
    ("post", "/api/turns/{turn_id}/cancel"),
    ("post", "/api/turns/{turn_id}/retry"),
    ("post", "/api/approvals/{approval_id}"),
    ("get", "/api/conversations"),
    ("get", "/api/conversations/{conversation_id}"),
    ("patch", "/api/conversations/{conversation_id}"),
    ("delete", "/api/conversations/{conversation_id}"),
    ("get", "/api/conversations/{conversation_id}/messages"),
    ("patch", "/api/messages/{message_id}"),
    ("delete", "/api/messages/{message_id}"),
    ("post", "/api/messages/{message_id}/answer"),
    ("get", "/api/attachments/{attachment_id}"),
    ("get", "/api/tasks"),
    ("post", "/api/tasks"),
    ("get", "/api/tasks/{ref}"),
    ("patch", "/api/tasks/{ref}"),
    ("delete", "/api/tasks/{ref}"),
    ("get", "/api/projects"),
    ("get", "/api/projects/{key}"),
    ("post", "/api/projects"),
    ("patch", "/api/projects/{key}"),
    ("get", "/api/admin/users"),
    ("post", "/api/admin/users"),
    ("post", "/api/admin/users/{user_id}/link"),
    ("patch", "/api/admin/users/{user_id}"),
    ("get", "/api/admin/queue"),
    ("get", "/api/admin/turns"),
    ("post", "/api/admin/turns/{turn_id}/retry"),
    ("post", "/api/admin/turns/{turn_id}/cancel"),
    ("get", "/api/models"),
    ("get", "/api/usage"),
    ("get", "/api/me"),
    ("post", "/api/auth/token"),
    ("get", "/api/tokens"),
    ("post", "/api/tokens"),
    ("delete", "/api/tokens/{token_id}"),
    ("get", "/api/accounts"),
    ("post", "/api/accounts/code"),
    ("delete", "/api/accounts/{surface}/{account}/{external_id}"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


@pytest.fixture
async def described(site: Site) -> Any:
    """/openapi.json, as somebody gets it who is not signed in."""
    async with httpx.AsyncClient(base_url=site.url) as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(described: Any) -> dict[tuple[str, str], Any]:
    return {(method, path): operation for path, methods in described["paths"].items() for method, operation in methods.items()}


async def test_the_whole_of_the_design_is_described(described: Any) -> None:
    assert described["openapi"] == "3.1.0"
    assert set(operations(described)) >= OF_DESIGN


async def test_every_operation_tells_what_it_does_and_who_may_do_it(described: Any) -> None:
    for name, operation in operations(described).items():
        assert operation["summary"], name
        assert len(operation["description"]) > 10, name
        assert operation["tags"], name
        assert operation.get("security", []) == ([] if name in OPEN else [{"token": []}, {"session": []}]), name


async def test_every_operation_has_a_name_of_its_own_that_programs_can_use(described: Any) -> None:
    names = [operation["operationId"] for operation in operations(described).values()]

    assert len(names) == len(set(names))
    assert all(name.isidentifier() for name in names)
    assert {"chat", "follow_turn", "list_tasks"} <= set(names)


async def test_errors_are_described_as_problems_and_422_is_never_answered(described: Any) -> None:
    for name, operation in operations(described).items():
        assert "422" not in operation["responses"], name
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert response["content"] == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}, name
    assert not {"HTTPValidationError", "ValidationError"} & set(described["components"]["schemas"])


async def test_what_a_body_may_hold_is_described_with_its_limits(described: Any) -> None:
    chat = operations(described)["post", "/api/chat"]["requestBody"]["content"]
    patch = described["components"]["schemas"]["TaskPatch"]["properties"]

    assert set(chat) == {"application/json", "multipart/form-data"}
    assert chat["application/json"]["schema"]["properties"]["message"]["maxLength"] == 10_000
    assert chat["multipart/form-data"]["schema"]["properties"]["files"]["maxItems"] == 10
    assert patch["title"]["pattern"]
    assert patch["expected_version"]["anyOf"][0]["minimum"] == 1
    assert "default" not in patch["status"]


async def test_what_is_sent_is_described_member_by_member(site: Site) -> None:
    site.world.model.will(Call("list_tasks")).will("None.")
    async with site.world.working():
        posted = await site.world.post((await site.world.chat()).id, "Look", uploads=[Upload(name="a.txt", data=b"Hi")])
        await site.world.ended(posted)
    await site.world.task("Buy milk")

    conversation = (await site.client.get(f"/api/conversations/{posted.conversation_id}")).json()
    turn = (await site.client.get(f"/api/turns/{posted.turn_id}")).json()
    (task,) = (await site.client.get("/api/tasks")).json()["tasks"]
    asked, reply = conversation["messages"]

    for sent, kind in (
        (conversation, schemas.ConversationWithMessages),
        (turn, schemas.Turn),
        (task, schemas.Task),
        (asked, schemas.Message),
        (reply, schemas.Message),
        (asked["attachments"][0], schemas.Attachment),
        (reply["tool_calls"][0], schemas.ToolCall),
    ):
        assert set(sent) <= set(kind.model_fields), kind.__name__
        assert {name for name, field in kind.model_fields.items() if field.is_required()} <= set(sent), kind.__name__
