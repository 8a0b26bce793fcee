"""What Discord's failures mean for us, by its codes, and that nothing of its words is kept."""

from types import SimpleNamespace
from typing import Any

import aiohttp
import discord
import pytest

from bots.discord.failures import ACCOUNTS, PLACES, THREADS, is_of_reply, surface_error, thread_error, translated
from bots.surface import AccountClosed, Busy, MessageGone, NoThread, PlaceClosed, Refused, SurfaceError, TooLong, Unclear, Unreachable


def failed(status: int, code: int = 0, errors: dict[str, Any] | None = None) -> discord.HTTPException:
    response: Any = SimpleNamespace(status=status, reason="words of Discord's")
    return discord.HTTPException(response, {"code": code, "message": "words of Discord's", "errors": errors})


def invalid(field: str, code: str) -> discord.HTTPException:
    return failed(400, 50035, {field: {"_errors": [{"code": code, "message": "words of Discord's"}]}})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (failed(404, 10008), MessageGone),
        (failed(403, 50005), MessageGone),
        (failed(400, 30046), Busy),
        (failed(429), Busy),
        (failed(400, 40004), Unreachable),
        (failed(403, 40333), Unreachable),
        (failed(413), TooLong),
        (failed(413, 40005), TooLong),
        (invalid("content", "BASE_TYPE_MAX_LENGTH"), TooLong),
        (invalid("components", "BASE_TYPE_BAD_LENGTH"), Refused),
        (invalid("content", "BASE_TYPE_REQUIRED"), Refused),
        (failed(302), Unclear),
        (failed(408), Unclear),
        (failed(524), Unclear),
        (failed(401), AccountClosed),
        (failed(401, 50001), AccountClosed),
        (failed(404), Refused),
        (failed(403), Refused),
        (failed(403, 50001), PlaceClosed),
        (discord.RateLimited(3.0), Busy),
        (discord.LoginFailure("words"), AccountClosed),
        (discord.ClientException("words"), Unclear),
        (aiohttp.ClientConnectorError(SimpleNamespace(), OSError("words")), Unreachable),  # type: ignore[arg-type]
        (aiohttp.ConnectionTimeoutError(), Unreachable),
        (aiohttp.InvalidURL("words"), Unreachable),
        (aiohttp.ServerDisconnectedError(), Unclear),
        (ConnectionResetError(), Unclear),
        (TimeoutError(), Unclear),
    ],
)
def test_each_failure_is_what_can_be_done_about_it(error: Exception, kind: type[SurfaceError]) -> None:
    with pytest.raises(SurfaceError) as raised, translated():
        raise error
    assert type(raised.value) is kind
    assert "words" not in str(raised.value)


def test_the_reason_is_discords_code() -> None:
    for code, sentence in PLACES.items():
        found = surface_error(failed(403, code))
        assert isinstance(found, PlaceClosed)
        assert (str(found), found.reason) == (sentence, str(code))
    for code, sentence in ACCOUNTS.items():
        found = surface_error(failed(401 if code == 401 else 403, code))
        assert isinstance(found, AccountClosed)
        assert (str(found), found.reason) == (sentence, str(code))


def test_what_keeps_only_a_thread_from_being_made_closes_nothing() -> None:
    for code, sentence in THREADS.items():
        found = thread_error(failed(403, code))
        assert isinstance(found, NoThread)
        assert str(found) == sentence
    assert isinstance(thread_error(failed(400, 99_999)), NoThread)
    assert isinstance(thread_error(failed(404, 10008)), MessageGone)
    assert isinstance(thread_error(failed(404, 10003)), PlaceClosed)
    assert isinstance(thread_error(failed(500)), Unclear)


@pytest.mark.parametrize(
    ("code", "because_of"),
    [(50013, "channel"), (160006, "channel"), (50024, "channel"), (50068, "root"), (99_999, "root"), (200001, "title")],
)
def test_what_keeps_one_message_from_having_a_thread_is_told_from_what_keeps_all(code: int, because_of: str) -> None:
    found = thread_error(failed(400, code))
    assert isinstance(found, NoThread)
    assert found.because_of == because_of


def test_a_reply_that_may_not_be_one_is_known() -> None:
    assert is_of_reply(failed(400, 160002))
    assert is_of_reply(invalid("message_reference", "REPLIES_CANNOT_REPLY_TO_SYSTEM_MESSAGE"))
    assert not is_of_reply(invalid("content", "BASE_TYPE_MAX_LENGTH"))
    assert not is_of_reply(failed(403, 50013))
