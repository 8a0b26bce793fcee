"""What may be logged of an exception: its kind and where it was raised, never its text, which may quote what somebody wrote or a key."""

import traceback
from pathlib import PurePath
from typing import Any


def place_of(error: BaseException) -> dict[str, Any]:
    """Fields for a log entry: the kind of the error, of its cause, and the innermost frames."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    cause = error.__cause__ or error.__context__
    return {
        "error": type(error).__name__,
        "cause": type(cause).__name__ if cause else None,
        "at": [f"{PurePath(frame.filename).parent.name}/{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
    }
