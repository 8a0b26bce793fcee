"""Who watches over the process is told whether it lives and whether it can work, without a sign-in and under any host name."""

import sqlite3

import httpx
import pytest

from tests.integration.web.conftest import Site


@pytest.fixture
def stranger(site: Site) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=site.url, timeout=20)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probe_is_answered_to_anybody_under_whatever_name_they_know(stranger: httpx.AsyncClient, path: str) -> None:
    async with stranger:
        asked = await stranger.get(path, headers={"Host": "10.1.2.3:8420"})
        heads = await stranger.head(path)

    assert (asked.status_code, asked.json()) == (200, {"status": "ok" if path == "/healthz" else "ready"})
    assert (heads.status_code, heads.content) == (200, b"")


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "The database has the tables of another version of Onethread."),
        ("DROP TABLE alembic_version", "The database does not have Onethread's tables any more."),
    ],
)
async def test_process_lives_but_is_not_ready_on_a_database_that_it_cannot_use(
    site: Site, stranger: httpx.AsyncClient, breaks: str, reason: str
) -> None:
    with sqlite3.connect(site.world.app.settings.data_dir / "onethread.db") as database:
        database.execute(breaks)
    database.close()

    async with stranger:
        ready = await stranger.get("/readyz")
        alive = await stranger.get("/healthz")

    assert ready.status_code == 503
    assert ready.headers["content-type"] == "application/problem+json"
    assert ready.headers["retry-after"] == "1"
    assert ready.json()["detail"].startswith(reason)
    assert alive.status_code == 200
