"""Errors: always a Problem, with a sentence and a code, and nothing from the inside."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from core.models import Token
from tests.integration.web.conftest import Site


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    body = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert set(body) >= {"type", "title", "status", "detail", "error_code"}
    return bool(body["error_code"] == code)


_NOWHERE = ["/nothing", "/api", "/api/nothing", "/api/tasks/", "/api//tasks", "/api/tasks/OT-1/x", "/%00", "/docs", "/redoc"]


async def test_an_address_where_nothing_is(site: Site) -> None:
    for path in _NOWHERE:
        assert is_problem(await site.client.get(path), 404, "NOT_FOUND")


_METHODS = [
    ("PUT", "/api/conversations/x", "DELETE, GET, PATCH"),
    ("DELETE", "/api/tasks", "GET, POST"),
    ("GET", "/api/chat", "POST"),
    ("POST", "/api/tasks/OT-1", "DELETE, GET, PATCH"),
    ("TRACE", "/api/models", "GET"),
    ("WHATEVER", "/api/messages/x", "DELETE, PATCH"),
]


async def test_a_method_that_an_address_does_not_take_names_all_that_it_takes(site: Site) -> None:
    for method, path, allowed in _METHODS:
        answer = await site.client.request(method, path)

        assert is_problem(answer, 405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == allowed


async def test_a_body_that_is_no_json_says_what_to_send(site: Site) -> None:
    for content_type in ("text/plain", "application/xml", "multipart/form-data; boundary=x"):
        answer = await site.client.post("/api/tasks", content=b'{"title": "x"}', headers={"Content-Type": content_type})

        assert is_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
        assert "Content-Type: application/json" in answer.json()["detail"]
    assert is_problem(await site.client.post("/api/tasks", content=b'{"title": "x"}'), 415, "UNSUPPORTED_MEDIA_TYPE")


_USELESS = [
    b"",
    b"{",
    b'{"title": "x",}',
    b"[" * 200_000,
    b'{"a":' * 50_000,
    b'"x"',
    b"[]",
    b"null",
    b'{"title": "\xff\xfe"}',
    b'{"title": "x", "expected": NaN}',
    b'{"title": 1e999}',
    b'{"title": ' + b"9" * 10_000 + b"}",
    b'{"\\ud800": "\\udfff"}',
    json.dumps({f"field {n}": n for n in range(2_000)}).encode(),
]


async def test_a_body_that_nobody_can_use_is_refused_in_few_words(site: Site) -> None:
    for body in _USELESS:
        answer = await site.client.post("/api/tasks", content=body, headers={"Content-Type": "application/json"})

        assert is_problem(answer, 400, "VALIDATION_ERROR")
        assert len(answer.content) < 10_000


async def test_an_error_never_repeats_what_was_sent(site: Site) -> None:
    answer = await site.client.post("/api/tasks", json={"title": ["hunter2"], "priority": "hunter2", "labels": "hunter2"})

    assert is_problem(answer, 400, "VALIDATION_ERROR")
    assert "hunter2" not in answer.text


async def test_a_body_that_is_too_large_is_cut_off(site: Site) -> None:
    large = b'{"title": "' + b"x" * 1_000_000 + b'"}'
    told = await site.client.post("/api/tasks", content=large, headers={"Content-Type": "application/json"})
    untold = await site.client.post("/api/tasks", content=_pieces(large), headers={"Content-Type": "application/json"})
    unread = await site.client.request("GET", "/api/models", content=large)

    for answer in (told, untold, unread):
        assert is_problem(answer, 413, "TOO_LARGE")


async def _pieces(data: bytes) -> Any:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def test_what_nobody_foresaw_shows_a_reference_and_nothing_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_down(*_: Any, **__: Any) -> list[Token]:
        raise RuntimeError("secret-internal-detail")

    monkeypatch.setattr("core.usage.report", break_down)

    answer = await site.client.get("/api/usage")

    assert is_problem(answer, 500, "INTERNAL")
    assert answer.json()["reference"] in answer.json()["detail"]
    assert "secret-internal-detail" not in answer.text
    assert "RuntimeError" not in answer.text


async def test_nobody_is_let_in_without_a_credential(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url) as client:
        answers = await asyncio.gather(
            *(client.get(path) for path in ("/api/models", "/api/tasks", "/api/conversations", "/api/usage", "/api/projects"))
        )

    assert all(is_problem(answer, 401, "UNAUTHORIZED") for answer in answers)
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


_WRONG = ["limit=5&limit=6", "query=a&query=b", "cursor=x", "status=open", "limit=%00", "limit=%ff", "query=" + "x" * 201]


async def test_a_parameter_that_cannot_be_is_named(site: Site) -> None:
    for query in _WRONG:
        answer = await site.client.get(f"/api/tasks?{query}")

        assert is_problem(answer, 400, "VALIDATION_ERROR")
        assert query.partition("=")[0] in answer.json()["detail"]


async def test_odd_text_in_parameters_finds_nothing_and_breaks_nothing(site: Site) -> None:
    for query in ("query=%00", "query=%ff", "query=%25_%5C", "query=%ED%A0%80", "unknown=1"):
        answer = await site.client.get(f"/api/tasks?{query}")

        assert (answer.status_code, answer.json()["tasks"]) == (200, [])
