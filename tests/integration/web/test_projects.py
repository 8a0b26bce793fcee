"""Projects over HTTP: read by all, changed by admins."""

from typing import Any

from core import projects
from tests.integration.web.conftest import Site

SENT = {"key", "name", "instructions", "model", "created_at", "updated_at"}


async def test_projects_are_listed_and_read_by_key(site: Site) -> None:
    await site.world.write(lambda uow: projects.add(uow, site.world.admin, "WEB", "Web"))

    listed = (await site.client.get("/api/projects")).json()["projects"]

    assert [project["key"] for project in listed] == ["OT", "WEB"]
    assert set(listed[0]) == SENT
    assert (await site.client.get("/api/projects/web")).json() == listed[1]


async def test_an_admin_changes_what_the_agent_is_told(site: Site) -> None:
    changed = await site.client.patch(
        "/api/projects/OT", json={"name": "Ours", "instructions": " Answer in German. ", "model": "two/model"}
    )

    assert changed.status_code == 200
    project = changed.json()
    assert (project["name"], project["instructions"], project["model"]) == ("Ours", "Answer in German.", "two/model")
    back = (await site.client.patch("/api/projects/OT", json={"model": None})).json()
    assert (back["name"], back["model"]) == ("Ours", None)


async def test_who_is_no_admin_or_shows_no_admins_token_changes_nothing(site: Site) -> None:
    for who in (await site.world.user("member"), site.world.admin):
        async with site.calling(who) as client:
            assert (await client.get("/api/projects/OT")).status_code == 200
            answer = await client.patch("/api/projects/OT", json={"name": "Theirs"})
            assert (answer.status_code, answer.json()["detail"]) == (401, "Only an admin may change projects.")


async def test_a_token_for_chat_alone_reads_no_projects(site: Site) -> None:
    async with site.calling(site.world.admin, scopes=frozenset({"chat"})) as client:
        answers = [await client.get("/api/projects"), await client.get("/api/projects/OT"), await client.get("/api/projects/NO")]

    assert {answer.status_code for answer in answers} == {401}


_ABSENT = ["NO", "%00", "ot%20", "x" * 65]


async def test_a_project_that_is_not_there_is_not_found(site: Site) -> None:
    for key in _ABSENT:
        for method, body in (("GET", None), ("PATCH", {"name": "x"})):
            assert (await site.client.request(method, f"/api/projects/{key}", json=body)).status_code == 404


_WRONG: list[dict[str, Any]] = [{"name": ""}, {"name": None}, {"instructions": None}, {"instructions": "x" * 20_001}, {"key": "X"}]


async def test_a_change_that_cannot_be_is_refused(site: Site) -> None:
    for change in _WRONG:
        assert (await site.client.patch("/api/projects/OT", json=change)).status_code == 400
