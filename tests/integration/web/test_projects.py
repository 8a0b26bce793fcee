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


async def test_an_admin_makes_a_project_whose_tasks_bear_its_key(site: Site) -> None:
    made = await site.client.post(
        "/api/projects", json={"key": "web2", "name": " Website ", "instructions": " Be brief. ", "model": "two/model"}
    )

    assert (made.status_code, made.headers["location"], set(made.json())) == (201, "/api/projects/WEB2", SENT)
    project = made.json()
    told = (project["key"], project["name"], project["instructions"], project["model"])
    assert told == ("WEB2", "Website", "Be brief.", "two/model")
    assert (await site.client.get("/api/projects/web2")).json() == project
    assert (await site.client.post("/api/tasks", json={"title": "Paint it", "project": "WEB2"})).json()["ref"] == "WEB2-1"
    plain = (await site.client.post("/api/projects", json={"key": "AB", "name": "Plain"})).json()
    assert (plain["instructions"], plain["model"]) == ("", None)


async def test_a_key_is_taken_once_whatever_its_case(site: Site) -> None:
    for key in ("OT", "ot"):
        answer = await site.client.post("/api/projects", json={"key": key, "name": "Another"})
        assert (answer.status_code, answer.json()["detail"]) == (409, "There is a project 'OT' already.")


_NO_PROJECTS: list[dict[str, Any]] = [
    *({"key": key, "name": "x"} for key in ("", "A", "1A", "A-B", "\u0131b", "x" * 11, None)),
    *({"key": "AB", "name": name} for name in ("", "  ", "x" * 201, None)),
    {"key": "AB", "name": "x", "instructions": "x" * 20_001},
    {"key": "AB", "name": "x", "model": ""},
    {"key": "AB"},
]


async def test_a_project_that_cannot_be_is_refused(site: Site) -> None:
    for body in _NO_PROJECTS:
        assert (await site.client.post("/api/projects", json=body)).status_code == 400, body
    wrong_key = await site.client.post("/api/projects", json={"key": "A-B", "name": "x"})
    assert "use 2-10 letters and digits" in wrong_key.json()["detail"]
    assert [project["key"] for project in (await site.client.get("/api/projects")).json()["projects"]] == ["OT"]


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
            for answer in (
                await client.patch("/api/projects/OT", json={"name": "Theirs"}),
                await client.post("/api/projects", json={"key": "MINE", "name": "Theirs"}),
            ):
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
