"""Personal tokens over HTTP, who one is, and who else there is."""

from typing import Any

import httpx

from core import identity
from core.access import Principal
from core.ids import new_id
from tests.integration.web.conftest import Site


async def created(client: httpx.AsyncClient, name: str = "ci", **fields: Any) -> dict[str, Any]:
    answer = await client.post("/api/tokens", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def refusal(client: httpx.AsyncClient, **body: Any) -> tuple[int, str, str]:
    """How a token is not made."""
    problem = (await client.post("/api/tokens", json=body)).json()
    return problem["status"], problem["error_code"], problem["detail"]


async def names(client: httpx.AsyncClient) -> list[str]:
    return [token["name"] for token in (await client.get("/api/tokens")).json()["tokens"]]


async def test_a_tokens_secret_is_shown_once_and_works_until_it_is_revoked(site: Site) -> None:
    answer = await site.client.post("/api/tokens", json={"name": "ci", "scopes": ["chat"], "expires_in_days": 30})
    made = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert set(made) == {"id", "name", "scopes", "created_at", "expires_at", "secret"}
    assert (made["name"], made["scopes"]) == ("ci", ["chat"])

    listed = await site.client.get("/api/tokens")
    assert made["secret"] not in listed.text
    assert listed.json()["tokens"][-1] == {name: value for name, value in made.items() if name != "secret"}

    async with httpx.AsyncClient(base_url=site.url, headers={"Authorization": f"Bearer {made['secret']}"}) as program:
        me = (await program.get("/api/me")).json()
        assert me == {
            "id": str(site.world.admin.user_id),
            "name": "admin",
            "admin": False,
            "scopes": ["chat"],
            "has_password": False,
        }
        revoked = await site.client.delete(f"/api/tokens/{made['id']}")
        assert (revoked.status_code, revoked.content) == (204, b"")
        assert (await program.get("/api/me")).status_code == 401
    assert "ci" not in await names(site.client)
    assert (await site.client.delete(f"/api/tokens/{made['id']}")).status_code == 404


async def test_a_token_is_never_made_with_more_than_its_maker_has(site: Site) -> None:
    kim = await site.world.user("kim")
    async with site.calling(kim, scopes=frozenset({"tasks:read", "chat"})) as client:
        assert (await created(client, "default"))["scopes"] == ["chat", "tasks:read"]
        assert (await created(client, "less", scopes=["chat"]))["scopes"] == ["chat"]
        for scope in ("tasks:write", "admin"):
            status, code, detail = await refusal(client, name="more", scopes=["chat", scope])
            assert (status, code, f"{scope!r} is not among them" in detail) == (400, "VALIDATION_ERROR", True)
    assert (await created(site.client, "full", scopes=["admin"]))["scopes"] == ["admin"]


async def test_a_token_that_is_none_is_refused_with_a_sentence(site: Site) -> None:
    await created(site.client, "taken")
    refusals = [
        await refusal(site.client, name="taken"),
        await refusal(site.client, name=" "),
        await refusal(site.client, name="x" * 101),
        await refusal(site.client, name="x", scopes=[]),
        await refusal(site.client, name="x", scopes=["root"]),
        await refusal(site.client, name="x", expires_in_days=0),
        await refusal(site.client, name="x", expires_in_days=10**30),
        await refusal(site.client),
    ]
    assert [(status, code) for status, code, _ in refusals] == [(409, "CONFLICT")] + [(400, "VALIDATION_ERROR")] * 7
    assert refusals[0][2] == "admin has a token 'taken' already. Revoke it first or choose another name."
    assert "body.scopes" in refusals[3][2]
    assert "body.expires_in_days" in refusals[5][2]


async def test_nobody_sees_or_revokes_another_persons_tokens(site: Site) -> None:
    mine = await created(site.client, "mine")
    async with site.calling(await site.world.user("kim")) as kim:
        assert await names(kim) == ["test-0"]
        for token_id in (mine["id"], str(new_id())):
            refused = await kim.delete(f"/api/tokens/{token_id}")
            assert (refused.status_code, refused.json()["detail"]) == (404, "You have no such token. See yours: GET /api/tokens")
        assert (await kim.delete("/api/tokens/mine")).status_code == 404
    assert "mine" in await names(site.client)


async def test_a_weak_token_revokes_no_stronger_one_but_itself(site: Site) -> None:
    kim = await site.world.user("kim")
    async with site.calling(kim) as strong, site.calling(kim, scopes=frozenset({"chat"})) as weak:
        first, second = (await strong.get("/api/tokens")).json()["tokens"]
        assert (await weak.delete(f"/api/tokens/{first['id']}")).status_code == 401
        assert (await weak.delete(f"/api/tokens/{second['id']}")).status_code == 204
        assert (await weak.get("/api/me")).status_code == 401
        assert await names(strong) == ["test-0"]


async def test_without_a_credential_there_is_nothing_to_see(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url) as nobody:
        for path in ("/api/me", "/api/users", "/api/tokens"):
            answer = await nobody.get(path)
            assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHORIZED")
            assert answer.headers["www-authenticate"] == "Bearer"
        for scheme in ("Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer ot_", "Bearer ot_guess", "Bearer \u00e9", "Bearer a.b.c"):
            answer = await nobody.get("/api/me", headers=[(b"Authorization", scheme.encode("latin-1"))])
            assert answer.status_code == 401, scheme


async def test_people_are_listed_in_pages_by_name_and_without_those_who_are_disabled(site: Site) -> None:
    people = {name: await site.world.user(name) for name in ("ann", "bob", "Bobby", "carl")}
    await _disable(site, people["carl"])

    first = (await site.client.get("/api/users", params={"limit": 3})).json()
    second = (await site.client.get("/api/users", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [user["name"] for user in first["users"] + second["users"]] == ["admin", "ann", "bob", "Bobby"]
    assert second["next_cursor"] is None
    found = (await site.client.get("/api/users", params={"query": "BOB"})).json()
    assert found == {
        "users": [{"id": str(people[name].user_id), "name": name} for name in ("bob", "Bobby")],
        "next_cursor": None,
    }

    async with site.calling(people["ann"], scopes=frozenset({"chat"})) as chatter:
        answer = await chatter.get("/api/users")
        assert (answer.status_code, "lacks the scope 'tasks:read'" in answer.json()["detail"]) == (401, True)


async def _disable(site: Site, who: Principal) -> None:
    async def disable(uow: Any) -> None:
        await identity.disable(uow, await identity.user_of(uow, who))

    await site.world.write(disable)
