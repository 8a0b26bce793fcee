"""What goes wrong between us and Slack, sorted by who can mend it. Slack's own words go no further: of an answer only its code is kept."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError

from bots.surface import (
    AccountClosed,
    Busy,
    MessageGone,
    PermissionMissing,
    PlaceClosed,
    Refused,
    SurfaceError,
    TooLong,
    Unclear,
    Unreachable,
)

UNKNOWN = "an unknown error"
UNFIT = frozenset({"invalid_blocks", "invalid_blocks_format"})
"""Slack does not understand the blocks. The text alone may still pass."""
_BUSY = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_BUSY_SECONDS = 5.0  # where Slack does not say how long
_UNCLEAR = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "update_failed", "messaging_processing_failed"}
)
_LATER = frozenset({"external_channel_migrating", "team_added_to_org"})  # nothing was done, and it passes
_TOO_LONG = frozenset({"msg_too_long", "msg_blocks_too_long", "msg_blocks_too_many"})
_GONE = frozenset(
    {
        "message_not_found",
        "cant_update_message",
        "edit_window_closed",
        "cant_delete_message",
        "compliance_exports_prevent_deletion",
        "block_mismatch",
    }
)

_INVITE = "Onethread is not in this channel. Invite it with /invite, then write again."
_THREAD = "Slack takes no replies in this thread any more. Start a new one."
_ADMINS = "This workspace's settings forbid Onethread to write here. An admin of the workspace can change that."
PLACES: Mapping[str, str] = {
    "not_in_channel": _INVITE,
    "channel_not_found": _INVITE,
    "is_archived": "This channel is archived. Unarchive it, then write again.",
    "is_inactive": "This channel is frozen, archived or deleted.",
    "thread_not_found": "This thread is not there any more.",
    "cannot_reply_to_message": _THREAD,
    "restricted_action_thread_locked": "This thread is locked. Unlock it, or start a new one.",
    "restricted_action_non_threadable_channel": "This channel takes no replies in threads.",
    "restricted_action_thread_only_channel": "In this channel everything must stand in a thread.",
    "restricted_action_read_only_channel": "This channel can only be read.",
    "restricted_action": _ADMINS,
    "ekm_access_denied": _ADMINS,
    "channel_is_limited_access": _ADMINS,
    "posting_to_channel_denied": _ADMINS,
    "app_access_restricted": _ADMINS,
    "messages_tab_disabled": (
        "Onethread takes no direct messages in this workspace. Allow them in the app's settings: App Home, Messages Tab."
    ),
    "method_not_supported_for_channel_type": "Slack does not let apps write here.",
    "user_disabled": "This person's account is deactivated.",
    "user_not_found": "Slack knows nobody by this id.",
    "user_not_visible": "Slack does not let Onethread see this person.",
    "cannot_dm_bot": "Slack lets no app write to another app.",
}
"""What is said where nothing can be written to a place until somebody changes something there, by Slack's code."""

_TOKEN = "Slack does not accept SLACK_BOT_TOKEN any more. Install the app anew, and set the token that it then shows: docs/slack.md."  # noqa: S105
_ACCESS = "Slack does not let the app work in this workspace. An admin of the workspace must allow it: docs/slack.md."
ACCOUNTS: Mapping[str, str] = {
    **dict.fromkeys(("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "user_is_bot"), _TOKEN),
    **dict.fromkeys(("app_uninstalled", "not_allowed_token_type", "as_user_not_supported"), _TOKEN),
    **dict.fromkeys(("no_permission", "access_denied", "org_login_required", "team_access_not_granted", "team_not_found"), _ACCESS),
    **dict.fromkeys(("accesslimited", "two_factor_setup_required", "enterprise_is_restricted", "forbidden_team"), _ACCESS),
    "unknown_method": "What is at ONETHREAD_SLACK_API_URL does not know how to do this.",
}
"""What is said, in the log and by `onethread doctor`, where the bot is not let in any more."""


@contextmanager
def translated() -> Iterator[None]:
    """Around calls of Slack: whatever goes wrong with them comes out as a SurfaceError."""
    try:
        yield
    except (SlackApiError, aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError) as error:
        raise surface_error(error) from None


def surface_error(error: Exception) -> SurfaceError:
    """What a failed call means for us."""
    if isinstance(error, SlackApiError):
        return _refused(error)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Unreachable("Slack cannot be reached.")
    if isinstance(error, aiohttp.InvalidURL):
        return Unreachable("Slack's address, ONETHREAD_SLACK_API_URL, is none.")
    return Unclear("Slack did not answer.")


def code(error: SlackApiError) -> str:
    """Slack's code for it, such as `is_archived`; empty for an answer without one, and UNKNOWN for what is no code."""
    found = _body(error).get("error")
    if not found:
        return "unknown_method" if _status(error) == 404 else ""
    return found if isinstance(found, str) and re.fullmatch(r"[a-z][a-z_]{0,63}", found) else UNKNOWN


def _refused(error: SlackApiError) -> SurfaceError:
    reason, status = code(error), _status(error)
    if status == 429 or reason in _BUSY:
        return Busy(_retry_after(error))
    if status >= 500 or reason in _UNCLEAR or not reason:
        return Unclear("Slack failed, and did not say whether it did what it was asked for.")
    if reason in _LATER:
        return Unreachable("Slack is busy with this channel.")
    if reason in _TOO_LONG or reason in UNFIT:
        return TooLong("Slack does not take a message as long as this.")
    if reason in _GONE:
        return MessageGone("Slack does not let this message be changed any more.")
    return _closed(reason, error)


def _closed(reason: str, error: SlackApiError) -> SurfaceError:
    if reason == "missing_scope":
        needed = _body(error).get("needed")
        scopes = needed if isinstance(needed, str) and re.fullmatch(r"[a-z.:,_]{1,200}", needed) else "more"
        sentence = f"The Slack app lacks the scope {scopes}. Add it under OAuth & Permissions, then install the app anew."
        return PermissionMissing(sentence, reason=reason)
    if reason in ACCOUNTS:
        return AccountClosed(ACCOUNTS[reason], reason=reason)
    if reason in PLACES:
        return PlaceClosed(PLACES[reason], reason=reason)
    return Refused(f"Slack did not take what Onethread wanted to write here ({reason}).", reason=reason)


def _body(error: SlackApiError) -> Mapping[str, Any]:
    """What Slack said; empty for an answer that is no JSON object."""
    data = getattr(error.response, "data", error.response)  # an aiohttp.ClientResponse where the answer was no JSON
    return data if isinstance(data, Mapping) else {}


def _status(error: SlackApiError) -> int:
    found = getattr(error.response, "status_code", None) or getattr(error.response, "status", None)
    return found if isinstance(found, int) else 200


def _retry_after(error: SlackApiError) -> float:
    try:
        return max(float(getattr(error.response, "headers", {}).get("Retry-After", _BUSY_SECONDS)), 0.0)
    except ValueError:
        return _BUSY_SECONDS
