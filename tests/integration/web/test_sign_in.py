"""Signing in by browser and by program, and what a hostile page, a planted cookie, a curious mail scanner or a guesser gets."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from html import unescape
from http.cookies import SimpleCookie
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest
import structlog

from core import identity
from core.ids import new_id
from core.models import LinkPurpose, User
from tests.integration.conftest import World
from tests.integration.web.conftest import SECRET_KEY, Site, site_of
from web.passwords import AT_ONCE, Argon2

PASSWORD = "correct horse"
WRONG = "The name or the password is wrong."
FROM_OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}


class Once(Argon2):
    """Makes the hash of a password once, for all who have that password: it takes a fifth of a second."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, str] = {}

    async def hash(self, password: str) -> str:
        if password not in self._made:
            self._made[password] = await super().hash(password)
        return self._made[password]


ONCE = Once()


class Browser(httpx.AsyncClient):
    """Keeps cookies and says where its requests come from, as browsers do."""

    async def visit(self, path: str, **fields: Any) -> httpx.Response:
        return await self.get(path, headers={"Sec-Fetch-Site": "none", **fields.pop("headers", {})}, **fields)

    async def submit(self, path: str, headers: dict[str, str] | None = None, /, **form: str) -> httpx.Response:
        """Sends the form of one of our pages."""
        return await self.post(path, data=form, headers=FROM_OUR_PAGE if headers is None else headers)

    async def sign_in(self, name: str = "kim", password: str = PASSWORD, **form: str) -> httpx.Response:
        return await self.submit("/login", name=name, password=password, **form)

    async def name(self) -> str | None:
        """Who is signed in."""
        answer = await self.get("/api/me")
        return answer.json()["name"] if answer.status_code == 200 else None


@asynccontextmanager
async def browser(site: Site) -> AsyncIterator[Browser]:
    async with Browser(base_url=site.url, timeout=20) as opened:
        yield opened


@pytest.fixture
async def kim(site: Site) -> User:
    """A person with a password."""
    return await person(site.world, "kim")


async def person(world: World, name: str) -> User:
    user = await world.write(lambda uow: identity.add_user(uow, name))
    code = await link(world, user)
    return await identity.set_password_by_link(world.app.storage, ONCE, code, PASSWORD)


async def link(world: World, user: User, purpose: LinkPurpose = LinkPurpose.SET_PASSWORD, hours: float = 1) -> str:
    return await world.write(lambda uow: identity.create_link(uow, user, purpose, lifetime=timedelta(hours=hours)))


async def admin_of(site: Site) -> User:
    user = await site.world.read(lambda uow: uow.users.get(site.world.admin.user_id))
    assert user
    return user


def told(answer: httpx.Response) -> str:
    """The sentence in which a page says what went wrong."""
    found = re.search(r'<p class="plain-alert" role="alert">(.*?)</p>', answer.text, re.DOTALL)
    assert found, answer.text
    return unescape(found[1])


def cookie_of(answer: httpx.Response) -> Any:
    """The one cookie that it sets."""
    (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
    return cookie


# --- by password ---


async def test_a_browser_signs_in_stays_so_and_signs_out(site: Site, kim: User) -> None:
    async with browser(site) as page:
        assert (await page.visit("/")).headers["location"] == "/login"
        assert "<h1>Sign in</h1>" in (await page.visit("/login")).text

        entered = await page.sign_in()
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert await page.name() == "kim"
        assert (await page.visit("/login")).headers["location"] == "/"

        secret = page.cookies["onethread_sid"]
        left = await page.submit("/logout")
        assert (left.status_code, left.headers["location"]) == (303, "/login")
        assert "onethread_sid" not in page.cookies
        page.cookies.set("onethread_sid", secret)
        assert await page.name() is None


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site, kim: User) -> None:
    async with browser(site) as page:
        cookie = cookie_of(await page.sign_in())
    assert cookie.key == "onethread_sid"
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "lax", "/", "")
    assert (cookie["secure"], cookie["max-age"]) == ("", str(14 * 86_400))


async def test_over_https_the_cookie_is_bound_to_this_host(world: World) -> None:
    await person(world, "kim")
    async with site_of(world, public_url="https://onethread.example") as site, browser(site) as page:
        cookie = cookie_of(await page.sign_in())
        assert cookie.key == "__Host-onethread_sid"
        assert (cookie["secure"], cookie["httponly"], cookie["path"], cookie["domain"]) == (True, True, "/", "")
        sent = await page.post("/logout", headers={**FROM_OUR_PAGE, "Cookie": f"__Host-onethread_sid={cookie.value}"})
        left = cookie_of(sent)
        assert (left.key, left.value, left["secure"], left["path"]) == ("__Host-onethread_sid", "", True, "/")


async def test_whatever_is_wrong_the_form_comes_again_with_the_same_sentence(site: Site, kim: User) -> None:
    async with browser(site) as page:
        for name in ("kim", "nobody", "admin", "", "kim\x00", "x" * 5_000, '"><script>alert(1)</script>'):
            refused = await page.sign_in(name, "wrong password")
            assert (refused.status_code, told(refused)) == (401, WRONG)
            assert "set-cookie" not in refused.headers
            assert "<script" not in refused.text
            assert "wrong password" not in refused.text


async def test_the_sixth_attempt_in_a_minute_is_refused_even_with_the_right_password(site: Site, kim: User) -> None:
    async with browser(site) as page:
        answers = [await page.sign_in(password="wrong password") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {401}
        sixth = await page.sign_in()

        assert (sixth.status_code, sixth.headers.get("set-cookie")) == (429, None)
        assert 1 <= int(sixth.headers["retry-after"]) <= 60
        assert re.fullmatch(r"Too many attempts\. Try again in \d+ seconds\.", told(sixth))
        by_program = await site.client.post("/api/auth/token", json={"name": "kim", "password": PASSWORD})
        assert (by_program.status_code, by_program.json()["error_code"]) == (429, "RATE_LIMITED")
        assert 1 <= int(by_program.headers["retry-after"]) <= 60


async def test_signing_in_makes_a_new_session_and_ends_the_one_before(site: Site, kim: User) -> None:
    """A cookie that somebody planted, or still knows, must not become theirs."""
    async with browser(site) as page, browser(site) as other:
        await page.sign_in()
        known = page.cookies["onethread_sid"]
        await page.sign_in()
        other.cookies.set("onethread_sid", known)
        assert (await page.name(), await other.name()) == ("kim", None)

    async with browser(site) as page:
        page.cookies.set("onethread_sid", "planted")
        cookie = cookie_of(await page.sign_in())
        assert cookie.value not in ("planted", known)
        assert len(cookie.value) == 43


async def test_a_page_that_was_left_open_does_nothing_as_whoever_signed_in_after(site: Site, kim: User) -> None:
    """All tabs of a browser send the same cookie; a page says whose it is."""
    lee = await person(site.world, "lee")
    async with browser(site) as page:
        await page.sign_in("lee")
        of_kim, of_lee = ({**FROM_OUR_PAGE, "X-Onethread-User": str(user.id)} for user in (kim, lee))
        refused = await page.post("/api/tasks", json={"title": "Kim's"}, headers=of_kim)
        assert (refused.status_code, refused.json()["error_code"]) == (401, "UNAUTHORIZED")
        assert "Somebody else signed in" in refused.json()["detail"]
        assert (await page.get("/api/me", headers=of_kim)).status_code == 401
        assert (await page.post("/api/tasks", json={"title": "Lee's"}, headers=of_lee)).status_code == 201
        assert [task["title"] for task in (await page.get("/api/tasks")).json()["tasks"]] == ["Lee's"]


# --- where a form comes from ---

ELSEWHERE: dict[str, dict[str, str]] = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "a neighbour": {"Sec-Fetch-Site": "same-site"},
    "an old browser on another site": {"Origin": "https://evil.example"},
    "an old browser that hides it": {"Origin": "null"},
    "nobody says where": {},
}


async def test_forms_from_elsewhere_do_nothing(site: Site, kim: User) -> None:
    """Nobody is signed in as somebody else, or out, by a page that they only visit."""
    token = {"name": "ci", "scopes": ["chat"]}
    async with browser(site) as page:
        await page.sign_in()
        for where, headers in ELSEWHERE.items():
            for path, form in (("/login", {"name": "kim", "password": PASSWORD}), ("/logout", {})):
                refused = await page.submit(path, headers, **form)
                assert refused.status_code == 403, where
                assert "Another web site sent this request" in told(refused)
                assert "set-cookie" not in refused.headers
            assert await page.name() == "kim"
            assert (await page.post("/api/tokens", json=token, headers=headers)).status_code == 403
            assert (await page.post("/api/auth/password", json={"new": "x" * 10}, headers=headers)).status_code == 403
        assert (await page.post("/api/tokens", json=token, headers=FROM_OUR_PAGE)).status_code == 201


async def test_an_old_browser_on_our_page_gets_in(site: Site, kim: User) -> None:
    async with browser(site) as page:
        assert (await page.submit("/login", {"Origin": site.url}, name="kim", password=PASSWORD)).status_code == 303
        assert await page.name() == "kim"


GOOD_PATHS = ["/", "/tasks/OT-12?view=all&x=%2F%2Fevil#end", "/%5Cevil", "/ünï"]
BAD_PATHS = [
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "\t//evil.example",
    "/\n/evil.example",
    " //evil.example",
    "/ /evil.example",
    "javascript:alert(1)",
    "evil.example",
    "@evil.example",
    "/login?code=x",
    "/welcome?code=x",
    "/logout",
    "/\\\r\nSet-Cookie: onethread_sid=planted",
    "",
]


async def test_after_signing_in_one_comes_only_to_a_page_of_this_site(site: Site, kim: User) -> None:
    allowed = {path: path for path in GOOD_PATHS} | dict.fromkeys(BAD_PATHS, "/")
    here = httpx.URL(site.url)
    async with browser(site) as page:
        for path, wanted in allowed.items():
            form = await page.visit("/login", params={"next": path})
            (shown,) = re.findall(r'name="next" value="(.*?)"', form.text, re.DOTALL)
            assert unescape(shown) == wanted
        for path in ("/tasks/OT-12?view=all", "//evil.example/"):
            assert (await page.sign_in(next=path)).headers["location"] == allowed.get(path, path)
        for path, wanted in allowed.items():  # who is signed in is sent on at once
            assert here.join((await page.visit("/login", params={"next": path})).headers["location"]) == here.join(wanted)


# --- by the link that the start prints ---


async def test_the_link_signs_in_once(site: Site) -> None:
    code = await link(site.world, await admin_of(site), LinkPurpose.SIGN_IN)
    async with browser(site) as page, browser(site) as other:
        entered = await page.visit("/login", params={"code": code})
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert entered.headers["referrer-policy"] == "no-referrer"

        again = await other.visit("/login", params={"code": code})
        assert (again.status_code, told(again)) == (401, "This link was used already, or is too old. Ask for a new one.")
        assert "set-cookie" not in again.headers
        assert await other.name() is None
        assert await page.name() == "admin"


async def test_a_link_that_is_no_good_signs_nobody_in(site: Site) -> None:
    admin = await admin_of(site)
    expired = await link(site.world, admin, LinkPurpose.SIGN_IN, hours=0)
    async with browser(site) as page:
        for code in ("guess", expired, await link(site.world, admin, LinkPurpose.SET_PASSWORD)):
            refused = await page.visit("/login", params={"code": code})
            assert (refused.status_code, told(refused)[:26]) == (401, "This link was used already")
            assert await page.name() is None


LOOKS: dict[str, dict[str, str]] = {
    "from another site": {"Sec-Fetch-Site": "cross-site"},
    "from a neighbour": {"Sec-Fetch-Site": "same-site"},
    "a browser looks ahead": {"Sec-Purpose": "prefetch;prerender"},
}


async def test_the_link_is_not_used_up_by_what_nobody_meant(site: Site) -> None:
    code = await link(site.world, await admin_of(site), LinkPurpose.SIGN_IN)
    async with browser(site) as page:
        for look, headers in LOOKS.items():
            refused = await page.visit("/login", params={"code": code}, headers=headers)
            assert refused.status_code == 403, look
            assert "Copy it into the address bar" in told(refused)
        assert (await page.head("/login", params={"code": code})).status_code == 405
        assert (await page.visit("/login", params={"code": code})).status_code == 303


async def test_of_two_browsers_with_the_link_at_once_one_gets_in(site: Site) -> None:
    code = await link(site.world, await admin_of(site), LinkPurpose.SIGN_IN)
    async with httpx.AsyncClient(base_url=site.url) as client:
        answers = await asyncio.gather(*(client.get("/login", params={"code": code}) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [303, 401, 401, 401, 401, 401]


# --- setting a password by link ---


async def test_a_welcome_link_shows_its_form_as_often_as_it_likes_and_sets_a_password_once(site: Site) -> None:
    user = await site.world.write(lambda uow: identity.add_user(uow, "lee"))
    code = await link(site.world, user)
    async with browser(site) as scanner, browser(site) as page:
        for _ in range(3):
            shown = await scanner.visit("/welcome", params={"code": code})
            assert (shown.status_code, "Welcome, lee" in shown.text, "set-cookie" in shown.headers) == (200, True, False)
            assert shown.headers["referrer-policy"] == "no-referrer"
            assert shown.headers["cache-control"] == "no-store"
        assert f'value="{code}"' in shown.text

        done = await page.submit("/welcome", code=code, password=PASSWORD, again=PASSWORD)
        assert (done.status_code, done.headers["location"]) == (303, "/")
        assert await page.name() == "lee"
        for again in (
            await scanner.visit("/welcome", params={"code": code}),
            await scanner.submit("/welcome", code=code, password="another one"),
        ):
            assert (again.status_code, told(again)[:26]) == (401, "This link was used already")
    async with browser(site) as later:
        assert (await later.sign_in("lee")).status_code == 303


PASSWORDS = {
    ("short", "short"): "A password has 10-1,000 characters.",
    ("x" * 1_001, "x" * 1_001): "A password has 10-1,000 characters.",
    (PASSWORD, "mistyped"): "The two passwords are not the same. Type it again.",
}


async def test_a_password_that_is_refused_costs_no_link(site: Site) -> None:
    user = await site.world.write(lambda uow: identity.add_user(uow, "lee"))
    code = await link(site.world, user)
    async with browser(site) as page:
        for (password, again), sentence in PASSWORDS.items():
            refused = await page.submit("/welcome", code=code, password=password, again=again)
            assert (refused.status_code, told(refused)) == (400, sentence)
            assert refused.headers["referrer-policy"] == "no-referrer"
            assert password not in refused.text
        assert (await page.submit("/welcome", code=code, password=PASSWORD, again=PASSWORD)).status_code == 303


async def test_a_welcome_link_replaces_a_password_and_ends_all_sessions(site: Site, kim: User) -> None:
    async with browser(site) as old, browser(site) as page:
        await old.sign_in()
        await page.submit("/welcome", code=await link(site.world, kim), password="another password")
        assert (await old.name(), await page.name()) == (None, "kim")
        assert told(await old.sign_in()) == WRONG


async def test_another_site_signs_nobody_in_by_its_own_welcome_link(site: Site, kim: User) -> None:
    async with browser(site) as page:
        for headers in (ELSEWHERE["another site"], ELSEWHERE["an old browser on another site"], ELSEWHERE["nobody says where"]):
            form = {"code": await link(site.world, kim), "password": "another password"}
            assert (await page.submit("/welcome", headers, **form)).status_code == 403

        # over plain http a browser says `null`, on our page too, because the page's address holds a secret
        hidden = await page.submit("/welcome", ELSEWHERE["an old browser that hides it"], **form)
        assert (hidden.status_code, hidden.headers["location"], hidden.headers.get("set-cookie")) == (303, "/login", None)
        assert (await page.sign_in(password="another password")).status_code == 303


# --- pages ---


async def test_a_hostile_name_stays_text(site: Site) -> None:
    """No service takes such a name; a database may hold it all the same."""
    name = '"><img src=x onerror=alert(1)>&amp;'
    user = User(id=new_id(), name=name, admin=False, created_at=site.world.app.clock.now())
    await site.world.write(lambda uow: uow.users.add(user))
    code = await link(site.world, user)
    async with browser(site) as page:
        shown = [await page.visit("/welcome", params={"code": code}), await page.sign_in(name, next='/"><img/src=y>')]
        await page.submit("/welcome", code=code, password=PASSWORD)
        shell = await page.visit("/")
    assert "<img" not in shell.text
    assert json.dumps(name) in unescape(shell.text)
    for answer in shown:
        assert not re.search("<img.src=[xy]", answer.text)
        assert name in unescape(answer.text)


async def test_pages_run_no_script_and_stand_in_no_frame(site: Site, kim: User) -> None:
    code = await link(site.world, kim)
    async with browser(site) as page:
        answers = [await page.visit("/login"), await page.visit("/welcome", params={"code": code}), await page.visit("/welcome")]
    for answer in answers:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'", "'none'")
        assert (policy["form-action"], "script-src" in policy) == ("'self'", False)
        assert (policy["style-src"], "<style" in answer.text) == ("'self'", False)
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "<script" not in answer.text
    assert [answer.headers["referrer-policy"] for answer in answers] == ["same-origin", "no-referrer", "no-referrer"]


FORMS: dict[str, dict[str, Any]] = {
    "a file": {"files": {"name": ("x.txt", b"kim")}},
    "too many fields": {"data": {f"field-{number}": "x" for number in range(50)}},
    "no form": {"content": b"\xff\xfe", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
}


async def test_a_form_that_is_none_gets_a_page_with_a_sentence(site: Site) -> None:
    async with browser(site) as page:
        for form, fields in FORMS.items():
            refused = await page.post("/login", **{**fields, "headers": {**FROM_OUR_PAGE, **fields.get("headers", {})}})
            assert refused.status_code == 400, form
            assert "This form cannot be read" in told(refused)


async def test_a_form_without_its_fields_is_a_wrong_password(site: Site) -> None:
    async with browser(site) as page:
        assert told(await page.submit("/login")) == WRONG
        assert told(await page.submit("/welcome")) == "This link was used already, or is too old. Ask for a new one."
        assert (await page.submit("/logout")).status_code == 303


async def test_no_secret_reaches_the_log(site: Site, kim: User) -> None:
    code, entry = await link(site.world, kim), await link(site.world, await admin_of(site), LinkPurpose.SIGN_IN)
    with structlog.testing.capture_logs() as logged:
        async with browser(site) as page:
            await page.visit("/welcome", params={"code": code})
            await page.submit("/welcome", code=code, password="another password")
            await page.visit("/welcome", params={"code": code})
            await page.visit("/login", params={"code": entry})
            secret = page.cookies["onethread_sid"]
            token = (await page.post("/api/auth/token", json={"name": "kim", "password": "another password"})).json()["access_token"]
            made = (await page.post("/api/tokens", json={"name": "ci"}, headers=FROM_OUR_PAGE)).json()["secret"]
    lines = str(logged)
    assert len([line for line in logged if line["event"] == "request.served"]) == 6
    for hidden in (code, entry, secret, token, made, "another password"):
        assert hidden not in lines


# --- programs ---


async def test_a_program_gets_a_token_for_fifteen_minutes(site: Site, kim: User) -> None:
    async with httpx.AsyncClient(base_url=site.url) as program:
        answer = await program.post("/api/auth/token", json={"name": "kim", "password": PASSWORD})
        given = answer.json()
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert given == {"access_token": given["access_token"], "token_type": "bearer", "expires_in": 900}
        assert "set-cookie" not in answer.headers
        program.headers["Authorization"] = f"Bearer {given['access_token']}"
        me = (await program.get("/api/me")).json()

    assert me == {
        "id": str(kim.id),
        "name": "kim",
        "admin": False,
        "scopes": ["chat", "tasks:read", "tasks:write"],
        "has_password": True,
    }


async def test_a_wrong_password_gives_no_token(site: Site, kim: User) -> None:
    for body in ({"name": "kim", "password": "wrong password"}, {"name": "nobody", "password": PASSWORD}):
        answer = await site.client.post("/api/auth/token", json=body)
        assert (answer.status_code, answer.json()["error_code"], answer.json()["detail"]) == (401, "UNAUTHORIZED", WRONG)
        assert answer.headers["content-type"] == "application/problem+json"


BAD_TOKENS: dict[str, dict[str, Any]] = {
    "of another key": {"key": "another key of thirty-two chars!"},
    "unsigned": {"key": "", "algorithm": "none"},
    "for another audience": {"aud": "elsewhere"},
    "of another issuer": {"iss": "elsewhere"},
    "expired": {"exp": 1},
    "without an end": {"exp": None},
    "of nobody": {"sub": str(UUID(int=7))},
    "of no id": {"sub": "kim"},
    "of an older password": {"password_set_at": "2020-01-01T00:00:00+00:00"},
    "of no password": {"password_set_at": ""},
}


async def test_a_forged_or_stale_token_is_refused(site: Site, kim: User) -> None:
    good = (await site.client.post("/api/auth/token", json={"name": "kim", "password": PASSWORD})).json()["access_token"]
    for bad, changes in BAD_TOKENS.items():
        how = {"key": SECRET_KEY, "algorithm": "HS256", **changes}
        key, algorithm = how.pop("key"), how.pop("algorithm")
        claims = {**jwt.decode(good, options={"verify_signature": False}), **how}
        forged = jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm=algorithm)
        answer = await site.client.get("/api/me", headers={"Authorization": f"Bearer {forged}"})
        assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHORIZED"), bad
    assert (await site.client.get("/api/me", headers={"Authorization": f"Bearer {good}"})).status_code == 200


async def test_changing_the_password_ends_everything_but_the_browser_that_does_it(site: Site, kim: User) -> None:
    async with browser(site) as page, browser(site) as other:
        await other.sign_in()
        await page.sign_in()
        jwt_of_before = (await page.post("/api/auth/token", json={"name": "kim", "password": PASSWORD})).json()["access_token"]

        body = {"current": PASSWORD, "new": "another password"}
        changed = await page.post("/api/auth/password", json=body, headers=FROM_OUR_PAGE)

        assert (changed.status_code, changed.content) == (204, b"")
        assert (await page.name(), await other.name()) == ("kim", None)
        refused = await site.client.get("/api/me", headers={"Authorization": f"Bearer {jwt_of_before}"})
        assert (refused.status_code, "password was changed" in refused.json()["detail"]) == (401, True)
        assert (await other.sign_in(password="another password")).status_code == 303


async def test_a_program_changes_its_password_and_gets_no_cookie(site: Site, kim: User) -> None:
    token = (await site.client.post("/api/auth/token", json={"name": "kim", "password": PASSWORD})).json()["access_token"]
    async with httpx.AsyncClient(base_url=site.url, headers={"Authorization": f"Bearer {token}"}) as program:
        for current, new, status in (
            ("wrong password", "another password", 401),
            (PASSWORD, "short", 400),
            (PASSWORD, "another password", 204),
            ("another password", "a third password", 401),
        ):
            answer = await program.post("/api/auth/password", json={"current": current, "new": new})
            assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)


async def test_a_personal_token_changes_no_password(site: Site) -> None:
    answer = await site.client.post("/api/auth/password", json={"current": "", "new": "another password"})
    assert (answer.status_code, "personal token cannot change a password" in answer.json()["detail"]) == (401, True)


async def test_somebody_who_is_disabled_is_out_everywhere_at_once(site: Site, kim: User) -> None:
    async with browser(site) as page:
        await page.sign_in()
        bearer = (await page.post("/api/auth/token", json={"name": "kim", "password": PASSWORD})).json()["access_token"]
        code = await link(site.world, kim)
        token = await site.token(identity.principal_of(kim))
        await site.world.write(lambda uow: identity.disable(uow, kim))

        assert await page.name() is None
        for credential in (bearer, token):
            answer = await site.client.get("/api/me", headers={"Authorization": f"Bearer {credential}"})
            assert answer.status_code == 401
        assert (await page.visit("/welcome", params={"code": code})).status_code == 401
        assert told(await page.sign_in()) == WRONG


# --- the hasher ---


async def test_passwords_are_argon2id_and_unknown_names_cost_as_much() -> None:
    hasher, loop = Argon2(), asyncio.get_running_loop()
    hashed = await hasher.hash(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert hashed != await hasher.hash(PASSWORD)
    assert await hasher.verify(PASSWORD, hashed)
    assert not await hasher.verify(PASSWORD, "no hash")

    async def seconds(hashed: str | None) -> float:
        """The least of three: other work on the machine only adds to it."""
        taken = []
        for _ in range(3):
            began = loop.time()
            assert not await hasher.verify("wrong password", hashed)
            taken.append(loop.time() - began)
        return min(taken)

    unknown, wrong = await seconds(None), await seconds(hashed)
    assert 0.4 < unknown / wrong < 2.5


async def test_more_passwords_than_can_be_looked_at_are_sent_away_and_the_rest_wait() -> None:
    hasher = Argon2(max_waiting=1)
    async with asyncio.timeout(30):
        ended = await asyncio.gather(*(hasher.verify(PASSWORD, None) for _ in range(AT_ONCE + 3)), return_exceptions=True)

    assert [type(each).__name__ for each in ended] == ["bool"] * (AT_ONCE + 1) + ["RateLimited"] * 2
    assert not await hasher.verify(PASSWORD, "no hash")
