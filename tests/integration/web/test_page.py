"""The page as it is served: its shell for who is signed in, and its files, which are the same for everybody."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from core import identity
from core.access import Principal
from tests.integration.web.conftest import Site
from web.files import FOLDER, Files
from web.page import ADDRESSES

PATHS = ["/", "/conversations/0192f7a0-0000-7000-8000-000000000000", "/tasks/OT-1", "/board", "/settings", "/settings/tokens"]


@asynccontextmanager
async def browser(site: Site, who: Principal | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Signed in, if as somebody."""
    async with httpx.AsyncClient(base_url=site.url, timeout=20) as opened:
        if who:

            async def enter(uow: Any) -> str:
                return await identity.open_session(uow, await identity.user_of(uow, who))

            opened.cookies.set("onethread_sid", await site.world.write(enter))
        yield opened


def test_all_addresses_are_tried() -> None:
    patterns = [re.sub(r"\{\w+\}", "[^/]+", address) for address in ADDRESSES]

    assert [[path for path in PATHS if re.fullmatch(pattern, path)] for pattern in patterns] == [[path] for path in PATHS]


@pytest.mark.parametrize("path", PATHS)
async def test_page_is_for_who_is_signed_in(site: Site, path: str) -> None:
    kim = await site.world.user("kim")
    async with browser(site, kim) as page, browser(site) as nobody:
        shown, head, sent = await page.get(path), await page.head(path), await nobody.get(path)

    assert (shown.status_code, head.status_code, head.text) == (200, 200, "")
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    (about,) = re.findall(r'<meta name="onethread-user" content="(.*?)">', shown.text)
    assert json.loads(unescape(about)) == {"id": str(kim.user_id), "name": "kim", "admin": False}
    after = "/login" if path == "/" else f"/login?next={path}"
    assert (sent.status_code, sent.headers["location"], sent.headers["cache-control"]) == (303, after, "no-store")


async def test_whoever_must_sign_in_first_comes_to_where_they_wanted(site: Site) -> None:
    async with browser(site) as page:
        sent = await page.get("/conversations/c%20d?q=a%26b&z=%C3%A4#12")
        form = await page.get(sent.headers["location"])

    assert '<input type="hidden" name="next" value="/conversations/c%20d?q=a%26b&amp;z=%C3%A4">' in form.text


async def test_link_from_another_site_opens_the_page(site: Site) -> None:
    """Such as one in Slack: the browser sends the cookie along with it, for it is Lax."""
    clicked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with browser(site, site.world.admin) as page:
        shown = await page.get("/conversations/0192f7a0-0000-7000-8000-000000000000", headers=clicked)

    assert (shown.status_code, shown.headers["x-frame-options"]) == (200, "DENY")
    assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]


async def test_page_runs_its_own_files_only_and_is_not_kept(site: Site) -> None:
    async with browser(site, site.world.admin) as page:
        shown = await page.get("/")

    policy = dict(part.strip().split(" ", 1) for part in shown.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data: blob:",
        "connect-src": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert (shown.headers["cache-control"], shown.headers["referrer-policy"]) == ("no-store", "same-origin")
    assert "microphone=()" in shown.headers["permissions-policy"]
    assert shown.headers["x-content-type-options"] == "nosniff"


async def test_everything_that_the_page_names_is_there(site: Site) -> None:
    async with browser(site, site.world.admin) as page:
        shell = await page.get("/")
        named = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', shell.text))
        answers = {path: (await page.get(path)).status_code for path in named}

    assert "/static/app.js" in named
    assert set(answers.values()) == {200}, answers


# --- addresses that are none ---

_PERSON = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/board/", "/settings/", "/settings/tokens/", "/tasks/OT-1/", "/conversations/c%20d//", "/login/"])
async def test_slash_at_the_end_of_an_address_is_left_out_for_people(site: Site, path: str) -> None:
    async with browser(site) as page:
        people = [await page.get(f"{path}?a=%26&b", headers=_PERSON), await page.head(f"{path}?a=%26&b", headers=_PERSON)]
        program = await page.get(path)

    assert [(each.status_code, each.headers["location"]) for each in people] == [(307, f"{path.rstrip('/')}?a=%26&b")] * 2
    assert (program.status_code, program.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("path", ["/nowhere", "/nowhere/", "//example.com/", "/%5Cexample.com/", "//board/", "/board/x", "/.//x.com/"])
async def test_people_are_told_by_a_page_that_nothing_is_there(site: Site, path: str) -> None:
    async with browser(site) as page:
        shown = await page.get(httpx.URL(site.url).copy_with(raw_path=path.encode()), headers=_PERSON)
        program = await page.get(httpx.URL(site.url).copy_with(raw_path=path.encode()), headers={"Accept": "application/json"})

    assert (shown.status_code, shown.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is nothing at this address." in shown.text
    assert "script" not in shown.headers["content-security-policy"]
    assert (program.status_code, program.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("path", ["/api", "/api/me/", "/api/nothing", "/static/", "/static/nothing.js", "/mcp/", "/slack/events/"])
async def test_addresses_for_programs_answer_as_such_whoever_asks(site: Site, path: str) -> None:
    async with browser(site) as page:
        answer = await page.get(path, headers=_PERSON)

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


# --- files ---


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("app.js", "text/javascript; charset=utf-8"),
        ("css/base.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("manifest.webmanifest", "application/manifest+json"),
        ("vendor/MANIFEST.json", "application/json"),
        ("vendor/LICENSES.txt", "text/plain; charset=utf-8"),
    ],
)
async def test_file_comes_with_its_own_type_and_is_asked_for_each_time(site: Site, path: str, media_type: str) -> None:
    async with browser(site) as nobody:
        got = await nobody.get(f"/static/{path}", headers={"Accept-Encoding": "identity"})
        head = await nobody.head(f"/static/{path}")
        same = await nobody.get(f"/static/{path}", headers={"If-None-Match": f'"other", {got.headers["etag"]}'})
        whatever = await nobody.get(f"/static/{path}", headers={"If-None-Match": "*"})
        other = await nobody.get(f"/static/{path}", headers={"If-None-Match": '"other"'})

    assert (got.status_code, got.headers["content-type"], got.content) == (200, media_type, (FOLDER / path).read_bytes())
    assert (got.headers["cache-control"], got.headers["x-content-type-options"]) == ("no-cache", "nosniff")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", got.headers["etag"])
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", got.headers["etag"])
    assert (whatever.status_code, whatever.content) == (304, b"")
    assert (other.status_code, other.content) == (200, got.content)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br, zstd", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("identity", None),
        ("", None),
        ("br, gzip;q=0", None),
        ("gzip;q=0.0", None),
        ("xgzip", None),
    ],
)
async def test_file_is_compressed_for_who_takes_that(site: Site, accepted: str, encoding: str | None) -> None:
    async with browser(site) as nobody, nobody.stream("GET", "/static/vendor/marked.js", headers={"Accept-Encoding": accepted}) as got:
        raw = b"".join([chunk async for chunk in got.aiter_raw()])

    assert (got.headers.get("content-encoding"), got.headers["vary"]) == (encoding, "Accept-Encoding")
    assert int(got.headers["content-length"]) == len(raw)
    assert (gzip.decompress(raw) if encoding else raw) == (FOLDER / "vendor/marked.js").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "",
        "css",
        "css/",
        "index.html",  # the shell, which has its own addresses
        "..%2fpages.py",
        "%2e%2e/pages.py",
        "css%5c..%5capp.js",
        "/app.js",
        "%2fetc%2fpasswd.txt",
        "app.js%00",
        ".app.js",
        "app.js/",
    ],
)
async def test_nothing_else_is_served(site: Site, path: str) -> None:
    raw = httpx.URL(f"{site.url}/static/").copy_with(raw_path=f"/static/{path}".encode())
    async with browser(site) as nobody:
        answer = await nobody.get(raw)

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    "path", ["../secret.js", "css/../../secret.js", "./app.js", ".hidden.js", "/app.js", "css//app.js", "app.js\n", "app.py", "a\0.js"]
)
async def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "static"
    (folder / "css").mkdir(parents=True)
    for name in ("secret.js", "static/app.js", "static/.hidden.js", "static/css/app.js", "static/app.py"):
        (tmp_path / name).write_text("text", encoding="utf-8")

    assert await Files(folder).get("app.js")
    assert await Files(folder).get("css/app.js")
    assert await Files(folder).get(path) is None


async def test_changed_file_is_read_anew_and_a_removed_one_is_gone(tmp_path: Path) -> None:
    files, path = Files(tmp_path), tmp_path / "app.js"
    path.write_text("one", encoding="utf-8")
    before = await files.get("app.js")
    path.write_text("two and more", encoding="utf-8")
    after = await files.get("app.js")
    path.unlink()

    assert (before and before.data, after and after.data, await files.get("app.js")) == (b"one", b"two and more", None)
    assert before
    assert after
    assert before.etag != after.etag


async def test_unchanged_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("one", encoding="utf-8")
    files = Files(tmp_path)

    assert await files.get("app.js") is await files.get("app.js")
