"""What Discord refuses, with its documented codes, statuses and shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

JSON = dict[str, Any]

# code: (HTTP status, message), from Discord's table of JSON error codes
REFUSALS: dict[int, tuple[int, str]] = {
    10003: (404, "Unknown Channel"),
    10004: (404, "Unknown Guild"),
    10007: (404, "Unknown Member"),
    10008: (404, "Unknown Message"),
    10011: (404, "Unknown Role"),
    10013: (404, "Unknown User"),
    10015: (404, "Unknown Webhook"),
    10062: (404, "Unknown interaction"),
    10063: (404, "Unknown application command"),
    30046: (429, "Maximum number of edits to messages older than 1 hour reached. Try again later."),
    40005: (413, "Request entity too large. Try sending something smaller in size."),
    40060: (400, "Interaction has already been acknowledged."),
    40062: (429, "Service resource is being rate limited."),
    50001: (403, "Missing Access"),
    50003: (403, "Cannot execute action on a DM channel"),
    50005: (403, "Cannot edit a message authored by another user"),
    50006: (400, "Cannot send an empty message"),
    50007: (403, "Cannot send messages to this user"),
    50008: (400, "Cannot send messages in a non-text channel"),
    50013: (403, "Missing Permissions"),
    50021: (403, "Cannot execute action on a system message"),
    50024: (400, "Cannot execute action on this channel type"),
    50027: (401, "Invalid Webhook Token"),
    50083: (400, "Thread is archived"),
    50109: (400, "The request body contains invalid JSON."),
    160002: (400, "You cannot reply without permission to read message history"),
    160004: (400, "A thread has already been created for this message"),
    160005: (400, "Thread is locked"),
}


class ApiError(Exception):
    """An answer of Discord's that is not a success."""

    def __init__(self, status: int, body: JSON) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


class Limited(Exception):
    """A rate limit that only its 429 tells of; `code` where Discord gives it one."""

    def __init__(self, name: str, retry_after: float, *, code: int = 0) -> None:
        super().__init__(name)
        self.name = name
        self.retry_after = retry_after
        self.code = code


def refusal(code: int) -> ApiError:
    status, message = REFUSALS[code]
    return ApiError(status, {"message": message, "code": code})


def plain(status: int, message: str) -> ApiError:
    """One of those that have no code, such as 401: Unauthorized."""
    return ApiError(status, {"message": f"{status}: {message}", "code": 0})


class Problems:
    """What is wrong with a form, gathered: `problems.add("components.0.label", ...)`; `refuse()` raises if there is anything."""

    def __init__(self) -> None:
        self.found: JSON = {}

    def add(self, path: str, code: str, message: str) -> None:
        place = self.found
        for key in path.split("."):
            place = place.setdefault(key, {})
        place.setdefault("_errors", []).append({"code": code, "message": message})

    def length(self, path: str, value: object, *, least: int = 0, most: int, required: bool = False) -> None:
        """A string of so many code points."""
        if value is None:
            if required:
                self.add(path, "BASE_TYPE_REQUIRED", "This field is required")
        elif not isinstance(value, str):
            self.add(path, "STRING_TYPE_CONVERT", "Could not interpret value as string.")
        elif len(value) < least or len(value) > most:
            self._wrong_length(path, value, least, most)

    def choice(self, path: str, value: object, choices: Sequence[object]) -> bool:
        if value in choices:
            return True
        self.add(path, "BASE_TYPE_CHOICES", f"Value must be one of {set(choices)}.")
        return False

    def refuse(self) -> None:
        if self.found:
            raise ApiError(400, {"message": "Invalid Form Body", "code": 50035, "errors": self.found})

    def _wrong_length(self, path: str, value: str, least: int, most: int) -> None:
        if least:
            self.add(path, "BASE_TYPE_BAD_LENGTH", f"Must be between {least} and {most} in length.")
        else:
            self.add(path, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")


def invalid(path: str, code: str, message: str) -> ApiError:
    """One problem alone."""
    problems = Problems()
    problems.add(path, code, message)
    return ApiError(400, {"message": "Invalid Form Body", "code": 50035, "errors": problems.found})


def whole(query: Mapping[str, str], name: str, *, default: int, least: int, most: int) -> int:
    """A number of the query, within its bounds."""
    text = query.get(name, str(default))
    if not text.lstrip("-").isdecimal():
        raise invalid(name, "NUMBER_TYPE_COERCE", f'Value "{text}" is not int.')
    value = int(text)
    if value < least:
        raise invalid(name, "NUMBER_TYPE_MIN", f"int value should be greater than or equal to {least}.")
    if value > most:
        raise invalid(name, "NUMBER_TYPE_MAX", f"int value should be less than or equal to {most}.")
    return value
