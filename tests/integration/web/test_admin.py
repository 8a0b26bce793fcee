"""What admins look after over HTTP: who may sign in, and the work of all, whose words they are not shown."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest

from core import identity
from core.access import ALL_SCOPES, Principal
from core.errors import ModelRefused
from core.ids import new_id
from core.models import JSON, ModelPause, Posted, TurnStatus, WorkerInfo
from core.ports import UnitOfWork
from tests.fakes import Gate, claim_one
from tests.integration.conftest import MODEL
from tests.integration.web.conftest import Site

SECRET = "strawberry"
USER = {"id", "name", "admin", "disabled_at", "has_password", "created_at"}
TURN = {
    *("turn_id", "conversation_id", "title", "task_ref", "author", "model", "status", "failures", "rescues", "error_code", "error"),
    *("no_worker", "created_at", "started_at", "finished_at"),
}
ONLY = "Only an admin may"


@pytest.fixture
async def admin(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """The local admin, signed in."""
    async with site.signed_in(site.world.admin) as client:
        yield client


async def found(client: httpx.AsyncClient, path: str, **parameters: Any) -> JSON:
    answer = await client.get(f"/api/admin/{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    body: JSON = answer.json()
    return body


# --- users ---


async def test_a_new_user_comes_in_by_the_link(site: Site, admin: httpx.AsyncClient) -> None:
    added = await admin.post("/api/admin/users", json={"name": "kim"})

    assert added.status_code == 201
    body = added.json()
    assert set(body["user"]) == USER
    assert (body["user"]["name"], body["user"]["admin"], body["user"]["has_password"]) == ("kim", False, False)
    code = _code(site, body["link"])
    async with httpx.AsyncClient(base_url=site.url, headers={"Origin": site.url}) as browser:
        answer = await browser.post("/welcome", data={"code": code, "password": "correct horse", "again": "correct horse"})
        assert answer.status_code == 303, answer.text
        assert (await browser.get("/api/me")).json()["name"] == "kim"
        assert (
            await browser.post("/welcome", data={"code": code, "password": "another horse", "again": "another horse"})
        ).status_code == 401
    (kim,) = (await found(admin, "users", query="kim"))["users"]
    assert kim["has_password"]


async def test_a_link_lasts_for_a_week_and_another_one_can_be_made(site: Site, admin: httpx.AsyncClient) -> None:
    added = (await admin.post("/api/admin/users", json={"name": "kim"})).json()
    answer = await admin.post(f"/api/admin/users/{added['user']['id']}/link")

    assert answer.status_code == 200
    assert _code(site, answer.json()["link"]) != _code(site, added["link"])
    days = datetime.fromisoformat(answer.json()["expires_at"]) - site.world.app.clock.now()
    assert timedelta(days=6, hours=23) < days <= timedelta(days=7)
    for link in (added["link"], answer.json()["link"]):
        async with httpx.AsyncClient() as browser:
            assert (await browser.get(link)).status_code == 200


async def test_users_are_listed_in_pages_with_those_who_are_disabled(site: Site, admin: httpx.AsyncClient) -> None:
    ids = {name: (await site.world.user(name)).user_id for name in ("kim", "Kimberly", "lee")}
    assert (await admin.patch(f"/api/admin/users/{ids['lee']}", json={"disabled": True})).json()["disabled_at"]

    first = await found(admin, "users", limit=2)
    second = await found(admin, "users", limit=2, cursor=first["next_cursor"])

    assert [user["name"] for user in first["users"] + second["users"]] == ["admin", "kim", "Kimberly", "lee"]
    assert second["next_cursor"] is None
    assert [bool(user["disabled_at"]) for user in second["users"]] == [False, True]
    assert [user["name"] for user in (await found(admin, "users", query="KIM"))["users"]] == ["kim", "Kimberly"]


async def test_who_is_disabled_is_shut_out_at_once_and_let_in_again(site: Site, admin: httpx.AsyncClient) -> None:
    kim = await site.world.user("kim")
    async with site.calling(kim) as client:
        assert (await client.get("/api/me")).status_code == 200
        assert (await admin.patch(f"/api/admin/users/{kim.user_id}", json={"disabled": True})).status_code == 200
        assert (await client.get("/api/me")).status_code == 401
        refused = await admin.post(f"/api/admin/users/{kim.user_id}/link")
        assert (refused.status_code, "Enable them first" in refused.json()["detail"]) == (409, True)
        back = await admin.patch(f"/api/admin/users/{kim.user_id}", json={"disabled": False})
        assert back.json()["disabled_at"] is None
        assert (await client.get("/api/me")).status_code == 200


async def test_an_admin_is_made_and_unmade(site: Site, admin: httpx.AsyncClient) -> None:
    kim = await site.world.user("kim")
    async with site.signed_in(kim) as client:
        assert (await client.get("/api/admin/queue")).status_code == 401
        assert (await admin.patch(f"/api/admin/users/{kim.user_id}", json={"admin": True})).json()["admin"] is True
        assert (await client.get("/api/admin/queue")).status_code == 200
        assert (await admin.patch(f"/api/admin/users/{kim.user_id}", json={"admin": False})).json()["admin"] is False
        assert (await client.get("/api/admin/queue")).status_code == 401
        assert (await client.get("/api/me")).json()["admin"] is False


async def test_nobody_shuts_themselves_out(site: Site, admin: httpx.AsyncClient) -> None:
    await admin.post("/api/admin/users", json={"name": "second", "admin": True})
    own = f"/api/admin/users/{site.world.admin.user_id}"
    for change in ({"disabled": True}, {"admin": False}, {"admin": False, "disabled": True}):
        answer = await admin.patch(own, json=change)
        assert (answer.status_code, answer.json()["detail"][:36]) == (409, "You cannot take this from yourself, ")
    assert (await admin.patch(own, json={"disabled": False, "admin": True})).status_code == 200
    assert (await admin.get("/api/admin/queue")).status_code == 200


async def test_an_admin_makes_no_link_for_themselves(site: Site, admin: httpx.AsyncClient) -> None:
    """It would change the password without the present one: for whoever sits at a session that was left open."""
    answer = await admin.post(f"/api/admin/users/{site.world.admin.user_id}/link")

    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "You cannot make a link for yourself. Change your password under Settings.",
    )


async def test_a_personal_token_changes_nobody(site: Site) -> None:
    """The links, and whoever is made an admin, would outlive it; and it would shut out those who could revoke it."""
    kim, lee = await site.world.user("kim"), await site.world.user("lee", admin=True)
    async with site.calling(site.world.admin, scopes=ALL_SCOPES) as token:
        refused = [
            await token.post("/api/admin/users", json={"name": "lee"}),
            await token.post(f"/api/admin/users/{kim.user_id}/link"),
            await token.patch(f"/api/admin/users/{kim.user_id}", json={"admin": True}),
            await token.patch(f"/api/admin/users/{kim.user_id}", json={"disabled": True}),
            await token.patch(f"/api/admin/users/{kim.user_id}", json={"disabled": False}),
            await token.patch(f"/api/admin/users/{lee.user_id}", json={"admin": False}),
        ]
        allowed = [
            await token.get("/api/admin/users"),
            await token.get("/api/admin/queue"),
            await token.get("/api/admin/turns"),
        ]

    assert [answer.status_code for answer in refused] == [401] * 6
    assert {answer.json()["detail"].partition(".")[2] for answer in refused} == {" Sign in, or get a token by: POST /api/auth/token"}
    assert [answer.status_code for answer in allowed] == [200, 200, 200]
    shown = [(user["name"], user["admin"], user["disabled_at"]) for user in allowed[0].json()["users"]]
    assert shown == [("admin", True, None), ("kim", False, None), ("lee", True, None)]


_WRONG: list[Any] = [
    {},
    {"name": ""},
    {"name": "_x"},
    {"name": "two words"},
    {"name": "x" * 65},
    {"name": "x", "admin": "yes"},
    {"name": None},
]


async def test_a_user_who_cannot_be_is_refused_with_what_to_do(admin: httpx.AsyncClient) -> None:
    for body in _WRONG:
        assert (await admin.post("/api/admin/users", json=body)).status_code == 400, body
    assert "use 1-64 letters" in (await admin.post("/api/admin/users", json={"name": "two words"})).json()["detail"]
    assert (await admin.post("/api/admin/users", json={"name": "ADMIN"})).status_code == 409
    for path in (f"users/{new_id()}", "users/nobody"):
        assert (await admin.patch(f"/api/admin/{path}", json={"admin": True})).status_code == 404
        assert (await admin.post(f"/api/admin/{path}/link")).status_code == 404


def _code(site: Site, link: str) -> str:
    assert link.startswith(f"{site.url}/welcome?code=")
    (code,) = parse_qs(urlsplit(link).query)["code"]
    return code


# --- the queue ---


async def test_an_empty_queue_has_zeros(admin: httpx.AsyncClient) -> None:
    assert await found(admin, "queue") == {
        "turns": {"queued": 0, "running": 0, "waiting": 0},
        "oldest_queued_seconds": None,
        "failed_last_day": 0,
        "workers": [],
        "paused_models": [],
    }


async def test_the_queue_tells_who_works_at_what(site: Site, admin: httpx.AsyncClient) -> None:
    world = site.world
    now = world.app.clock.now()
    silent = WorkerInfo(
        id=new_id(),
        host="gone.example",
        pid=7,
        concurrency=5,
        unserved=frozenset({"openai", "anthropic"}),
        started_at=now - timedelta(hours=2),
        heartbeat_at=now - timedelta(minutes=5),
    )
    alive = replace(silent, id=new_id(), host="here.example", pid=8, unserved=frozenset(), heartbeat_at=now)
    forgotten = replace(silent, id=new_id(), heartbeat_at=now - timedelta(hours=25))
    paused = ModelPause(model="one/model", paused_since=now, paused_until=now + timedelta(minutes=1), pauses=3)
    over = ModelPause(model="two/model", paused_since=now, paused_until=now - timedelta(seconds=1), pauses=1)
    for number in range(3):
        await world.post((await world.chat()).id, f"Hello {number}")

    async def fill(uow: UnitOfWork) -> None:
        for worker in (silent, alive, forgotten):
            await uow.workers.beat(worker)
        await claim_one(uow, alive.id)
        for pause in (paused, over):
            await uow.pauses.put(pause)

    await world.write(fill)
    queue = await found(admin, "queue")

    assert queue["turns"] == {"queued": 2, "running": 1, "waiting": 0}
    assert 0 <= queue["oldest_queued_seconds"] < 60
    shown = [(each["host"], each["running"], each["unserved"], each["alive"], each["concurrency"]) for each in queue["workers"]]
    assert shown == [("here.example", 1, [], True, 5), ("gone.example", 0, ["anthropic", "openai"], False, 5)]
    assert [(each["model"], each["pauses"]) for each in queue["paused_models"]] == [("one/model", 3)]


async def test_only_the_failures_of_the_last_day_are_counted(site: Site, admin: httpx.AsyncClient) -> None:
    early, late = await _failed(site, site.world.admin), await _failed(site, site.world.admin)
    assert early.turn_id
    yesterday = site.world.app.clock.now() - timedelta(hours=25)
    early_id = early.turn_id
    await site.world.write(lambda uow: uow.turns.update(early_id, finished_at=yesterday))

    assert (await found(admin, "queue"))["failed_last_day"] == 1
    assert [turn["turn_id"] for turn in (await found(admin, "turns"))["turns"]] == [str(late.turn_id), str(early.turn_id)]


# --- turns ---


async def test_turns_are_listed_the_newest_first_without_what_is_said(site: Site, admin: httpx.AsyncClient) -> None:
    kim = await site.world.user("kim")
    failed = await _failed(site, kim)
    chat = await site.world.chat(kim, title=SECRET)
    queued = await site.world.post(chat.id, SECRET, kim)
    task = await site.world.task("For all", kim)
    shared = await site.world.post(task.conversation_id, "Hello", kim)

    page = await found(admin, "turns")

    assert [turn["turn_id"] for turn in page["turns"]] == [str(each.turn_id) for each in (shared, queued, failed)]
    assert all(set(turn) == TURN for turn in page["turns"])
    assert [(turn["title"], turn["task_ref"]) for turn in page["turns"]] == [("For all", task.ref), (None, None), (None, None)]
    assert {turn["author"] for turn in page["turns"]} == {"kim"}
    assert [turn["no_worker"] for turn in page["turns"]] == [True, True, False]
    broken = page["turns"][2]
    assert (broken["status"], broken["error_code"], broken["error"], broken["model"]) == ("failed", "BAD_REQUEST", "No.", MODEL)
    assert broken["finished_at"]
    assert SECRET not in str(page)


async def test_a_token_that_may_not_read_conversations_is_told_no_titles(site: Site) -> None:
    task = await site.world.task("For all")
    posted = await site.world.post(task.conversation_id, "Hello")
    async with site.calling(site.world.admin, scopes=frozenset({"admin", "tasks:read"})) as token:
        (turn,) = (await found(token, "turns"))["turns"]
        stopped = (await token.post(f"/api/admin/turns/{posted.turn_id}/cancel")).json()
    async with site.calling(site.world.admin, scopes=frozenset({"admin", "chat"})) as token:
        told = (await token.post(f"/api/admin/turns/{posted.turn_id}/cancel")).json()

    assert [(each["title"], each["task_ref"], each["author"]) for each in (turn, stopped, told)] == [
        (None, None, "admin"),
        (None, None, "admin"),
        ("For all", task.ref, "admin"),
    ]


async def test_turns_are_listed_by_status_in_pages(site: Site, admin: httpx.AsyncClient) -> None:
    in_order: list[str] = []
    for status in (TurnStatus.FAILED, TurnStatus.QUEUED, TurnStatus.FAILED, TurnStatus.QUEUED, TurnStatus.FAILED):
        turn = await site.world.turn(await site.world.post((await site.world.chat()).id, "Hello"))
        await site.world.write(partial(_set_status, turn.id, status))
        in_order.insert(0, str(turn.id))
    for statuses, wanted in {
        ("failed",): in_order[::2],
        ("queued",): in_order[1::2],
        ("queued", "failed"): in_order,
        ("running", "waiting"): [],
        (): in_order,
    }.items():
        seen: list[str] = []
        cursor: dict[str, str] = {}
        for _ in range(4):
            page = await found(admin, "turns", status=[*statuses], limit=2, **cursor)
            seen += [turn["turn_id"] for turn in page["turns"]]
            if not page["next_cursor"]:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert seen == wanted, statuses
    for wrong in ({"status": "succeeded"}, {"limit": 101}, {"cursor": "x"}):
        assert (await admin.get("/api/admin/turns", params=wrong)).status_code == 400


async def test_an_admin_has_a_failed_message_of_somebody_answered_without_reading_it(site: Site, admin: httpx.AsyncClient) -> None:
    kim = await site.world.user("kim")
    failed = await _failed(site, kim)
    assert (await admin.get(f"/api/turns/{failed.turn_id}")).status_code == 404

    answer = await admin.post(f"/api/admin/turns/{failed.turn_id}/retry")

    assert answer.status_code == 202
    turn = answer.json()
    assert (turn["status"], turn["title"], turn["failures"], turn["error"], turn["finished_at"]) == ("queued", None, 0, None, None)
    assert SECRET not in answer.text
    again = await admin.post(f"/api/admin/turns/{failed.turn_id}/retry")
    assert (again.status_code, again.json()["detail"]) == (409, "Only a failed or stopped answer can be retried; this one is queued.")
    site.world.model.will("Here it is.")
    async with site.world.working():
        assert (await site.world.ended(failed)).content == "Here it is."
    page = await site.world.read(lambda uow: uow.messages.page(failed.conversation_id, limit=10))
    assert [message.author_id for message in page] == [kim.user_id, None]  # nothing was posted in the admin's name


async def test_an_earlier_message_is_not_asked_again_in_its_authors_name(site: Site, admin: httpx.AsyncClient) -> None:
    kim = await site.world.user("kim")
    failed = await _failed(site, kim)
    site.world.model.will("Yes.")
    async with site.world.working():
        await site.world.ask(failed.conversation_id, "Anybody there?", kim)

    answer = await admin.post(f"/api/admin/turns/{failed.turn_id}/retry")

    assert (answer.status_code, "Something was asked after it" in answer.json()["detail"]) == (409, True)
    assert (await site.world.turn(failed)).status is TurnStatus.FAILED


async def test_a_deleted_message_is_not_answered_again(site: Site, admin: httpx.AsyncClient) -> None:
    kim = await site.world.user("kim")
    failed = await _failed(site, kim)
    await site.world.delete(failed.message_id, kim)

    answer = await admin.post(f"/api/admin/turns/{failed.turn_id}/retry")

    assert (answer.status_code, answer.json()["detail"]) == (409, "The message was deleted, so it cannot be answered again.")


async def test_an_admin_stops_what_runs_and_what_is_queued(site: Site, admin: httpx.AsyncClient) -> None:
    kim = await site.world.user("kim")
    chat = await site.world.chat(kim, title=SECRET)
    gate = Gate()
    site.world.model.will("One", gate, " two")
    async with site.world.working():
        running = await site.world.post(chat.id, SECRET, kim)
        queued = await site.world.post(chat.id, SECRET, kim)
        await site.world.comes_to(running, TurnStatus.RUNNING)
        for posted in (queued, running, running):
            answer = await admin.post(f"/api/admin/turns/{posted.turn_id}/cancel")
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled"), answer.text
            assert SECRET not in answer.text
        gate.open()

    assert {(await site.world.turn(posted)).status for posted in (running, queued)} == {TurnStatus.CANCELLED}


async def test_a_turn_that_is_not_there_is_not_found(admin: httpx.AsyncClient) -> None:
    for path in (f"{new_id()}/retry", f"{new_id()}/cancel", "x/retry"):
        assert (await admin.post(f"/api/admin/turns/{path}")).status_code == 404


async def test_whoever_is_no_admin_is_told_so_before_anything_is_looked_for(site: Site) -> None:
    kim = await site.world.user("kim")
    failed = await _failed(site, kim)
    async with site.signed_in(kim) as client:
        answers = [
            await client.get("/api/admin/users"),
            await client.post(f"/api/admin/users/{new_id()}/link"),
            await client.patch(f"/api/admin/users/{kim.user_id}", json={"admin": True}),
            await client.patch(f"/api/admin/users/{site.world.admin.user_id}", json={"disabled": True}),
            await client.get("/api/admin/queue"),
            await client.get("/api/admin/turns"),
            await client.post(f"/api/admin/turns/{new_id()}/retry"),
            await client.post(f"/api/admin/turns/{failed.turn_id}/cancel"),
        ]

    assert {(answer.status_code, answer.json()["detail"][: len(ONLY)]) for answer in answers} == {(401, ONLY)}
    user = await site.world.read(lambda uow: identity.user_of(uow, kim))
    assert not user.admin


async def _set_status(turn_id: UUID, status: TurnStatus, uow: UnitOfWork) -> None:
    await uow.turns.update(turn_id, status=status)


async def _failed(site: Site, who: Principal) -> Posted:
    """A private chat of theirs that ends with a failed answer."""
    chat = await site.world.chat(who, title=SECRET)
    site.world.model.will(ModelRefused("No.", reason="BAD_REQUEST"))
    async with site.world.working():
        posted = await site.world.post(chat.id, SECRET, who)
        await site.world.ended(posted)
    return posted
