"""What Slack tells, as a surface's events. Pure: everything is in the payload, which `kept` makes small enough to be stored."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from bots.slack.text import leading_mention, mentioned
from bots.surface import Edited, Event, Promoted, RemoteFile, Removed, Said, Stopped
from core.models import JSON

MAKE_TASK = "onethread_make_task"
"""The callback id of the shortcut."""
_SAID = frozenset({None, "file_share", "thread_broadcast", "me_message"})
"""The subtypes of what people say."""
_SLACKBOT = "USLACKBOT"
_KEPT = ("type", "subtype", "user", "text", "ts", "thread_ts", "channel", "deleted_ts", "hidden", "bot_id", "app_id")
_KEPT_OF_FILES = ("id", "name", "mimetype", "size", "url_private", "file_access", "mode")
_DIRECT = re.compile("D[A-Z0-9]+")
"""The ids of direct messages."""
_ID = re.compile(r"[A-Za-z0-9._\-]{1,100}")
"""Of anything; times, which name messages, are ids too."""


def event(payload: JSON, bot_user_id: str) -> Event | None:
    """None for what needs nothing done, and for what is not as Slack describes it."""
    try:
        return _event(payload, bot_user_id)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):  # the last two: of times
        return None


def kept(event: JSON) -> JSON:
    """What is stored of an event: what `event` reads, and no more."""
    small = {name: event[name] for name in _KEPT if event.get(name) is not None}
    small |= {name: kept(event[name]) for name in ("message", "previous_message", "edited") if isinstance(event.get(name), dict)}
    if isinstance(files := event.get("files"), list):
        described = [file for file in files if isinstance(file, dict)]
        small["files"] = [{name: file[name] for name in _KEPT_OF_FILES if file.get(name) is not None} for file in described]
    return small


def is_described(body: JSON) -> bool:
    """Whether a request is as Slack describes those that are listened to. Nothing else of it need be looked at."""
    try:
        return _is_described(body) and all(isinstance(each, dict) for each in _parts(body))
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def pressed(body: JSON) -> JSON:
    """What is stored of a message shortcut."""
    message = kept(body["message"])
    return {"type": "message_action", "user": body["user"]["id"], "channel": body["channel"]["id"], "message": message}


def key(payload: JSON, event_id: str) -> str:
    """Under which an event is stored once. A mention comes as `message` and as `app_mention`, each with an id of its own.

    Slack tells an edited message that mentions the bot as another `app_mention`, with the ts of the first.
    """
    if payload["type"] in ("message", "app_mention") and payload.get("subtype") in _SAID:
        edited = f":{payload['edited']['ts']}" if payload.get("edited") else ""
        return f"message:{payload['channel']}:{payload['ts']}{edited}"
    return f"event:{event_id}"


def lane(told: Event, is_chat: Callable[[str], bool]) -> str:
    """What must be taken in in order: a thread with its root, or a channel that is itself one conversation."""
    match told:
        case Promoted():
            return lane(told.said, is_chat)
        case Stopped():
            root = told.thread
        case Said() | Edited() | Removed():
            is_flat = is_chat(told.channel) or _DIRECT.fullmatch(told.channel)
            root = told.thread or ("" if is_flat else told.remote_id)
    return f"{told.channel}:{root}" if root else told.channel


def _is_described(body: JSON) -> bool:
    match body.get("type"):
        case "url_verification":
            return isinstance(body["challenge"], str)
        case "event_callback":
            return isinstance(body["event"]["type"], str) and _are_ids(body["event_id"])
        case "block_actions":
            message = body.get("message") or {}
            are_actions = all(isinstance(each["action_id"], str) for each in body["actions"])
            return are_actions and _are_ids(body["user"]["id"], body["channel"]["id"], message.get("thread_ts") or "none")
        case "message_action":
            are_ids = _are_ids(body["user"]["id"], body["channel"]["id"], body["action_ts"])
            return are_ids and isinstance(body["callback_id"], str) and isinstance(body["message"], dict)
        case None if "command" in body:
            return _are_ids(body["user_id"], body["channel_id"], body["trigger_id"], body.get("thread_ts") or "none")
    return "ssl_check" in body


def _parts(body: JSON) -> list[object]:
    """Which the library looks into, wherever they stand."""
    names = ("team", "enterprise", "user", "channel", "view")
    within = [found for name in names if not isinstance(found := body.get(name), str | None)]
    return [*within, *(body.get("authorizations") or ())]


def _are_ids(*values: object) -> bool:
    return all(isinstance(value, str) and _ID.fullmatch(value) for value in values)


def _id(value: str) -> str:
    if not _are_ids(value):
        raise ValueError("This is no id of Slack's.")
    return value


def _event(payload: JSON, bot: str) -> Event | None:
    match payload["type"]:
        case "message" | "app_mention":
            return _message(payload, bot)
        case "agent_session_stopped":
            return Stopped(channel=_id(payload["channel"]), thread=_id(payload["thread_ts"]), by=_id(payload["user"]))
        case "message_action":
            return Promoted(said=_said(payload["message"], payload["channel"], bot), by=_id(payload["user"]))
    return None


def _message(payload: JSON, bot: str) -> Event | None:
    match payload.get("subtype"):
        case "message_changed":
            return _changed(payload, bot)
        case "message_deleted":
            before = payload["previous_message"]
            return _removed(before, payload["channel"]) if _is_a_persons(before, bot) else None
        case subtype if subtype in _SAID and not payload.get("hidden") and _is_a_persons(payload, bot):
            return _edited_mention(payload, bot) if payload.get("edited") else _said(payload, payload["channel"], bot)
    return None


def _changed(payload: JSON, bot: str) -> Event | None:
    after, before, channel = payload["message"], payload["previous_message"], payload["channel"]
    if not _is_a_persons(before, bot):
        return None
    if after.get("subtype") == "tombstone":  # a thread's root, deleted; its replies stay
        return _removed(before, channel)
    if after.get("subtype") not in _SAID or after.get("text") == before.get("text"):
        return None  # a link was unfolded, or the first reply came
    return Edited(
        remote_id=_id(after["ts"]),
        channel=_id(channel),
        thread=_thread(after),
        author=_id(after["user"]),
        text=leading_mention(after["text"], bot),
        at=_time((after.get("edited") or payload)["ts"]),
    )


def _edited_mention(payload: JSON, bot: str) -> Said:
    return replace(_said(payload, payload["channel"], bot), edited_at=_time(_id(payload["edited"]["ts"])))


def _removed(message: JSON, channel: str) -> Removed:
    return Removed(remote_id=_id(message["ts"]), channel=_id(channel), thread=_thread(message))


def _said(message: JSON, channel: str, bot: str) -> Said:
    text = message.get("text", "")
    people = mentioned(text)
    return Said(
        remote_id=_id(message["ts"]),
        channel=_id(channel),
        thread=_thread(message),
        author=_id(message["user"]) if message.get("user") else "",
        text=leading_mention(text, bot),
        to_bot=bot in people or message.get("type") == "app_mention" or bool(_DIRECT.fullmatch(channel)),
        to_others=bool(people - {bot}),
        files=tuple(_file(each) for each in message.get("files", ()) if each.get("mode") != "tombstone"),
        at=_time(message["ts"]),
    )


def _file(file: JSON) -> RemoteFile:
    name = str(file.get("name") or file["id"])
    return RemoteFile(name=name, media_type=str(file.get("mimetype", "")), size=int(file.get("size", 0)), source=file)


def _time(ts: str) -> datetime:
    return datetime.fromtimestamp(float(ts), UTC)


def _thread(message: JSON) -> str:
    """Empty for a thread's root, too."""
    root = message.get("thread_ts") or ""
    return "" if root in ("", message["ts"]) else _id(root)


def _is_a_persons(message: JSON, bot: str) -> bool:
    is_bots = message.get("bot_id") or message.get("app_id") or message.get("subtype") == "bot_message"
    return bool(message.get("user")) and message["user"] not in (bot, _SLACKBOT) and not is_bots
