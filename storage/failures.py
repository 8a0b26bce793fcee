"""The driver's errors that tell of an unreachable, locked, full or damaged database, told as one error of the core."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.errors import StorageUnavailable


@contextmanager
def told_as_unavailable() -> Iterator[None]:
    """Raises StorageUnavailable in place of such an error; lets all others through."""
    try:
        yield
    except PoolTimeout:
        raise StorageUnavailable("The database is overloaded: no connection became free. Try again in a moment.") from None
    except DBAPIError as error:
        if (sentence := _sentence(error)) is None:
            raise
        raise StorageUnavailable(sentence) from None


def _sentence(error: DBAPIError) -> str | None:
    text = str(error.orig).lower()
    for sign, sentence in _SENTENCES.items():
        if sign in text:
            return sentence
    return "The database connection was lost. Try again in a moment." if error.connection_invalidated else None


_SENTENCES = {
    "disk is full": "The disk is full, so nothing was stored. Free some space and try again.",
    "database is locked": "The database is locked by another program. Try again in a moment.",
    "readonly database": "The database file cannot be written to. Check its permissions and those of its folder.",
    "unable to open": "The database file cannot be opened. Check that its folder exists and may be written to.",
    "disk i/o error": "The disk is full or reports an error. Free some space, or check the disk of the data directory.",
    "malformed": "The database file is damaged. Restore it from a backup.",
    "not a database": "ONETHREAD_DATABASE_URL names a file that is no SQLite database.",
}
