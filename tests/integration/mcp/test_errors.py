"""Errors at the surface's edge: in the protocol's own words, bounded, and of defects nothing but a reference."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, ErrorData, Tool
from pydantic import TypeAdapter
from structlog.testing import capture_logs

from core.errors import InvalidInput, LeaseLost, NotAuthenticated, NotFound, OnethreadError, RateLimited, StorageUnavailable
from mcp_server import errors
from mcp_server.offer import Selection
from tests.integration.mcp.conftest import As, Office, refusal
from tests.integration.mcp.test_tasks_extension import client_of
from tests.mcp_client import RpcError

LONG = "OT-" + "9" * 900_000


async def error_of(call: Awaitable[object]) -> ErrorData:
    with pytest.raises(MCPError) as caught:
        await call
    return caught.value.error


class _Broken(As):
    """Somebody of whom nobody can say what they may do."""

    def __init__(self, office: Office, fails: Callable[[], object]) -> None:
        super().__init__(office.world.admin, Selection())
        self._fails = fails

    def scopes(self, _ctx: ServerRequestContext[Any, Any]) -> frozenset[str]:
        self._fails()
        return frozenset()


def client_before(office: Office, era: str, fails: Callable[[], object]) -> Any:
    server = office.server()
    server._caller = _Broken(office, fails)
    return office.client(era, server=server)


@pytest.mark.parametrize(
    ("error", "code", "data"),
    [
        (InvalidInput("Do it like this."), INVALID_PARAMS, {"error_code": "VALIDATION_ERROR"}),
        (NotAuthenticated("Sign in."), INVALID_PARAMS, {"error_code": "UNAUTHORIZED"}),
        (NotFound("It is not there."), INVALID_PARAMS, {"error_code": "NOT_FOUND"}),
        (StorageUnavailable("Not just now."), INTERNAL_ERROR, {"error_code": "SERVICE_UNAVAILABLE"}),
        (RateLimited("Slowly.", retry_after=1.5), INTERNAL_ERROR, {"error_code": "RATE_LIMITED", "retry_after": 1.5}),
    ],
)
async def test_an_error_of_a_request_says_what_it_is(office: Office, era: str, error: OnethreadError, code: int, data: object) -> None:
    def fails() -> None:
        raise error

    async with client_before(office, era, fails) as client:
        told = await error_of(client.list_tools())
    assert (told.code, told.message, told.data) == (code, str(error), data)


def _any() -> None:
    raise ValueError("the-secret")


def _a_model_of_ours() -> None:
    TypeAdapter(int).validate_python("the-secret")


def _a_model_of_the_sdk() -> None:
    Tool.model_validate({"name": "the-secret"})


def _an_error_that_nobody_outside_can_mend() -> None:
    raise LeaseLost("the-secret")


@pytest.mark.parametrize("defect", [_any, _a_model_of_ours, _a_model_of_the_sdk, _an_error_that_nobody_outside_can_mend])
async def test_a_defect_is_logged_under_a_reference_and_tells_nothing(
    office: Office, era: str, defect: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    async with client_before(office, era, defect) as client:
        with caplog.at_level(0), capture_logs() as logged:
            told = await error_of(client.list_tools())
    (entry,) = logged
    assert (entry["event"], entry["method"]) == ("mcp.request_failed", "tools/list")
    assert (told.code, told.data) == (INTERNAL_ERROR, None)
    assert told.message == f"That failed unexpectedly. The log says more under the reference {entry['reference']}."
    assert "the-secret" not in f"{entry} {caplog.text}"
    assert "Traceback" not in caplog.text


async def test_params_that_do_not_fit_are_told_as_the_sdk_tells_it(office: Office) -> None:
    async with client_of(office.server()) as client:
        with capture_logs() as logged, pytest.raises(RpcError) as of_the_protocol:
            await client.request("completion/complete", {"argument": 1})
        with capture_logs() as logged_too, pytest.raises(RpcError) as of_the_extension:
            await client.request("tasks/get", {"taskId": {}})
    for each in (of_the_protocol, of_the_extension):
        assert (each.value.code, each.value.message, each.value.data) == (INVALID_PARAMS, "Invalid request parameters", "")
    assert logged == logged_too == []


@pytest.mark.parametrize(
    ("name", "arguments", "begins"),
    [
        ("get_task", {"ref": LONG}, "NOT_FOUND: No task has a ref of more than 40 characters."),
        ("send_message", {"text": "Hello", "ref": LONG}, "NOT_FOUND: No task has a ref of more than 40 characters."),
        ("list_tasks", {"updated_since": LONG}, "VALIDATION_ERROR: "),
        ("list_tasks", {"assignee": LONG}, "VALIDATION_ERROR: "),
        ("create_task", {"title": "Buy milk", "due_at": LONG}, "VALIDATION_ERROR: "),
        (LONG, {}, "VALIDATION_ERROR: There is no tool 'OT-999"),
    ],
)
async def test_what_is_too_long_is_not_repeated_to_an_assistant(
    office: Office, era: str, name: str, arguments: dict[str, Any], begins: str
) -> None:
    async with office.client(era) as client:
        sentence = refusal(await client.call_tool(name, arguments))
    assert sentence.startswith(begins)
    assert len(sentence) <= 2_000


async def test_an_unknown_tool_with_a_long_name_still_names_those_there_are(office: Office, era: str) -> None:
    async with office.client(era) as client:
        sentence = refusal(await client.call_tool(LONG, {}))
    assert sentence.endswith("send_message, update_task.")


async def test_what_is_too_long_is_not_repeated_to_a_client(office: Office, era: str) -> None:
    async with office.client(era) as client:
        told = await error_of(client.read_resource(f"nowhere://{LONG}"))
    assert told.code == INVALID_PARAMS
    assert told.message.startswith("Unknown resource: nowhere://OT-999")
    assert len(told.message) == 2_000
    assert len(told.data["uri"]) == 2_000


async def test_a_job_with_a_long_name_is_not_there(office: Office) -> None:
    job_id = LONG[:7_000]  # as much as fits in the header that names it
    async with client_of(office.server()) as client:
        with pytest.raises(RpcError) as error:
            await client.request("tasks/get", {"taskId": job_id})
    assert (error.value.code, error.value.data) == (INVALID_PARAMS, {"error_code": "NOT_FOUND"})
    assert len(error.value.message) <= 2_000


async def test_who_asks_too_often_hears_how_long_to_wait() -> None:
    said = errors.failed(RateLimited("More than 60 messages in a minute. Try again in 12 s.", retry_after=12.2))
    silent = errors.failed(RateLimited("20 messages here wait for an answer. Wait for one or stop some.", retry_after=5.0))
    assert refusal(said) == "RATE_LIMITED: More than 60 messages in a minute. Try again in 12 s."
    assert refusal(silent) == "RATE_LIMITED: 20 messages here wait for an answer. Wait for one or stop some. Try again in 5 s."
    assert silent.meta == {"onethread/error_code": "RATE_LIMITED", "onethread/retry_after": 5.0}
