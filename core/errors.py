"""The errors that Onethread raises, split by who can mend them.

    OnethreadError
    ├── InvalidInput          VALIDATION_ERROR     the caller, by sending something else
    ├── NotAuthenticated      UNAUTHORIZED         the caller, by signing in
    ├── NotFound              NOT_FOUND            nobody: absent and invisible look the same
    ├── Conflict              CONFLICT             the caller, after reading the present state
    │   └── NotConfirmed                           the caller, by asking the person and saying so
    ├── RateLimited           RATE_LIMITED         the caller, by waiting `retry_after` seconds
    ├── StorageUnavailable    SERVICE_UNAVAILABLE  the operator (disk, database); often passes by itself
    ├── ModelError            AI_SERVICE_ERROR     see `reason`
    │   ├── ModelBusy         429, 503, refused connection: the model is paused, the turn is not charged
    │   ├── ModelFaltered     500, time-out, cut or empty stream: tried again, at most three times
    │   └── ModelRefused      no key, bad request, policy, too long: a person must change something
    └── LeaseLost             INTERNAL             nobody: another worker owns the turn, drop everything

`code` is stable and public; the text of an error is a sentence that a person may read. It never holds a secret, nor what somebody wrote.
"""

from typing import ClassVar


class OnethreadError(Exception):
    """Something went wrong in Onethread."""

    code: ClassVar[str] = "INTERNAL"


class InvalidInput(OnethreadError):
    """What was sent cannot be accepted; the text says what to send instead."""

    code = "VALIDATION_ERROR"


class NotAuthenticated(OnethreadError):
    """Nobody is signed in, or the token is unknown, expired or revoked."""

    code = "UNAUTHORIZED"


class NotFound(OnethreadError):
    """There is no such thing, or this person may not see it."""

    code = "NOT_FOUND"


class Conflict(OnethreadError):
    """The present state forbids it: somebody was faster, or the same key came with another body."""

    code = "CONFLICT"


class NotConfirmed(Conflict):
    """It has consequences that the person must know of first: the text tells them. The same call, confirmed, does it."""


class RateLimited(OnethreadError):
    """Too much in too short a time."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds until the same call is accepted."""


class StorageUnavailable(OnethreadError):
    """The database cannot be reached or written to just now. Nothing of the call was stored."""

    code = "SERVICE_UNAVAILABLE"


class LeaseLost(OnethreadError):
    """This worker does not own the turn any more. Nothing may be written for it."""


class ModelError(OnethreadError):
    """A model did not answer.

    `reason` is a stable upper-case word for programs, for example `STREAM_CUT`; the text is the sentence for people.
    """

    code = "AI_SERVICE_ERROR"

    def __init__(self, message: str, *, reason: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after
        """Seconds that the provider asked to wait, where it did."""


class ModelBusy(ModelError):
    """The provider turns everybody away for now."""


class ModelFaltered(ModelError):
    """This one attempt failed; the next may succeed."""


class ModelRefused(ModelError):
    """The same call will fail again until a person changes something."""
