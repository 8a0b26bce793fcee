"""Who calls: one person on stdio, whoever's token a request shows over HTTP; and which tools the request wants to see."""

from typing import Any, cast
from uuid import UUID

import pytest
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from starlette.requests import Request

from core.access import ALL_SCOPES, Principal
from core.errors import InvalidInput, NotAuthenticated
from mcp_server.callers import Bearer, Fixed, PersonalToken
from mcp_server.offer import Selection

ADA = Principal(user_id=UUID(int=1), scopes=frozenset({"tasks:read"}), token_id=UUID(int=2))


def context(user: object = None, *, over_http: bool = True, **headers: str) -> ServerRequestContext[Any, Any]:
    """A request as the transport hands it on."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "headers": fields, "user": user}) if over_http else None
    session = cast("Any", None)  # callers have no business with it
    return ServerRequestContext(
        session=session, lifespan_context={}, protocol_version="2026-07-28", method="tools/list", params={}, request=request
    )


def signed_in(who: Principal) -> AuthenticatedUser:
    return AuthenticatedUser(PersonalToken(token="", client_id="2", scopes=sorted(who.scopes), principal=who))


async def test_over_http_the_caller_is_whoever_the_requests_token_belongs_to() -> None:
    caller, ctx = Bearer(), context(signed_in(ADA))
    assert await caller.principal(ctx) == ADA
    assert caller.scopes(ctx) == {"tasks:read"}


@pytest.mark.parametrize(
    "ctx",
    [
        context(),
        context(over_http=False),
        context(AuthenticatedUser(AccessToken(token="ot_x", client_id="x", scopes=["chat"]))),
    ],
    ids=["nobody", "not over HTTP", "a token that nobody verified as ours"],
)
async def test_without_a_personal_token_nobody_calls(ctx: ServerRequestContext[Any, Any]) -> None:
    with pytest.raises(NotAuthenticated, match="Authorization: Bearer ot_"):
        await Bearer().principal(ctx)
    with pytest.raises(NotAuthenticated):
        Bearer().scopes(ctx)


def test_a_token_that_is_shown_or_logged_hides_whose_it_is() -> None:
    token = PersonalToken(token="", client_id="2", scopes=[], principal=ADA)
    assert "principal" not in repr(token)
    assert "principal" not in token.model_dump()


def test_a_request_selects_its_tools_by_a_header() -> None:
    assert Bearer().selection(context()) == Selection()
    assert Bearer().selection(context(x_mcp_tools=" list_tasks, get_task,")) == Selection.of(names=["list_tasks", "get_task"])
    assert Bearer().selection(context(x_mcp_tools="")) == Selection.of(names=[])


def test_a_header_that_names_an_unknown_tool_names_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"There is no tool 'drop_tables'\. Tools: agent_status, cancel_turn, .*update_task\."):
        Bearer().selection(context(x_mcp_tools="list_tasks,drop_tables"))


async def test_on_stdio_the_one_person_is_looked_up_for_each_call_and_not_before_they_are_needed() -> None:
    looked_up: list[None] = []

    async def find() -> Principal:
        looked_up.append(None)
        return ADA

    caller = Fixed(find)
    assert caller.scopes(context(over_http=False)) == ALL_SCOPES
    assert caller.selection(context(over_http=False)) == Selection()
    assert looked_up == []
    assert await caller.principal(context(over_http=False)) == ADA
    assert await caller.principal(context(over_http=False)) == ADA
    assert len(looked_up) == 2  # they may have been disabled meanwhile
