"""The driver's errors that tell of an unreachable, locked, full or damaged database, or of a lost race, told as errors of the core."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, NotSupportedError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.errors import Conflict, StorageUnavailable

READ_ONLY = "25006"


@contextmanager
def told_in_our_words() -> Iterator[None]:
    """Raises StorageUnavailable or Conflict in place of such an error; lets all others through."""
    try:
        yield
    except PoolTimeout:
        raise StorageUnavailable("The database is overloaded: no connection became free. Try again in a moment.") from None
    except DBAPIError as error:
        match getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None):
            case "23505":  # SQLite's writers come one after another: there it would be a defect
                raise Conflict("Somebody else stored the same at this moment, and it must be unique. Look again.") from None
            case "23503" | "SQLITE_CONSTRAINT_FOREIGNKEY":
                raise Conflict("Somebody else removed at this moment what this belongs to. Look again.") from None
        if (sentence := _sentence(error)) is None:
            raise
        raise StorageUnavailable(sentence) from None


def sentence_of(sqlstate: str | None) -> str | None:
    """What PostgreSQL's SQLSTATE means for a person; None where it tells of a defect rather than of the database."""
    if not sqlstate:
        return None
    return _STATES.get(sqlstate) or _CLASSES.get(sqlstate[:2])


def _sentence(error: DBAPIError) -> str | None:
    if sqlstate := getattr(error.orig, "sqlstate", None):
        return sentence_of(sqlstate)
    if isinstance(error, NotSupportedError):
        return "The database's tables were changed a moment ago. Try again."  # the driver's prepared statements are stale, once
    if error.connection_invalidated:
        return _LOST
    text = str(error.orig).lower()
    return next((sentence for sign, sentence in _SENTENCES.items() if sign in text), None)


_LOST = "The database connection was lost. Try again in a moment."
_RESTARTS = "The database server is starting or stopping. Try again in a moment."
_COLLISION = "Two changes got into each other's way. Try again."
_TOO_SLOW = "The database took too long. Try again in a moment."
_NO_ACCESS = "The database refuses the user or password in ONETHREAD_DATABASE_URL."
_DAMAGED = "The database is damaged. Restore it from a backup."

_STATES = {
    READ_ONLY: "The database takes no changes at the moment, perhaps because another server took over. Try again in a moment.",
    "25P03": _LOST,
    "3D000": "ONETHREAD_DATABASE_URL names a database that does not exist. Create it first, for example with createdb.",
    "40001": _COLLISION,
    "40P01": _COLLISION,
    "42501": "The database user may not do this. It must own the database or its schema.",
    "53100": "The database server's disk is full, so nothing was stored. Free some space and try again.",
    "53300": "The database has no connection left. Try again in a moment, or raise the server's max_connections.",
    "55P03": _TOO_SLOW,
    "57014": _TOO_SLOW,
    "57P01": _RESTARTS,
    "57P02": _RESTARTS,
    "57P03": _RESTARTS,
    "57P04": "The database was removed.",
    "58030": "The database server's disk is full or reports an error. Free some space, or check it.",
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}
_CLASSES = {
    "08": _LOST,
    "28": _NO_ACCESS,
    "53": "The database server is overloaded. Try again in a moment.",
}
_SENTENCES = {
    "disk is full": "The disk is full, so nothing was stored. Free some space and try again.",
    "database is locked": "The database is locked by another program. Try again in a moment.",
    "readonly database": "The database file cannot be written to. Check its permissions and those of its folder.",
    "unable to open": "The database file cannot be opened. Check that its folder exists and may be written to.",
    "disk i/o error": "The disk is full or reports an error. Free some space, or check the disk of the data directory.",
    "malformed": "The database file is damaged. Restore it from a backup.",
    "not a database": "The database file is no SQLite database. Restore it from a backup, or set ONETHREAD_DATABASE_URL to another one.",
}
