"""Where log entries go: events with fields, as JSON lines or for a console, to standard error or to a file."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal

import structlog

from core.logs import place_of

_FILE_BYTES = 5_000_000
_FILES_KEPT = 3
_OURS = "onethread"


def to_stderr(log_format: Literal["console", "json"]) -> None:
    _configure(logging.StreamHandler(sys.stderr), log_format, colors=sys.stderr.isatty())


def to_file(path: Path, log_format: Literal["console", "json"]) -> None:
    """For commands whose terminal belongs to a person or a protocol."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False  # a full disk must not be told on the screen, once for each entry
    handler = _File(path, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8", delay=True)
    _configure(handler, log_format, colors=False)


class _File(RotatingFileHandler):
    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802  # as the standard library names it
        """Goes by what is in the file: the standard one formats every entry a second time, to know beforehand."""
        self.stream = self.stream or self._open()
        return self.stream.tell() >= self.maxBytes


def _place_instead_of_traceback(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A traceback quotes the exception's text, and a console's also local variables: what people wrote, and keys."""
    raised = entry.pop("exc_info", None)
    error = raised[1] if isinstance(raised, tuple) else sys.exc_info()[1] if raised is True else raised
    return {**place_of(error), **entry} if isinstance(error, BaseException) else entry


def _configure(handler: logging.Handler, log_format: Literal["console", "json"], *, colors: bool) -> None:
    renderer: Any = structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer(colors=colors)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _place_instead_of_traceback,
    ]
    handler.setFormatter(_Formatter(foreign_pre_chain=shared, processors=[_Formatter.remove_processors_meta, renderer]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("apscheduler", "alembic", "asyncio", "httpx", "uvicorn", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings quote what somebody sent
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=lambda *_: _Lines(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def _at(level: int) -> Callable[["_Lines", str], None]:
    return lambda _, line: logging.getLogger().handle(logging.LogRecord(_OURS, level, "", 0, line, (), None))


class _Lines:
    """Gives our own entries to the handlers as finished lines. Rendered there, as those of libraries are, each would cost twice as much."""

    info, warning, error, critical = map(_at, (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL))


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """For what libraries log."""

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg) if record.name == _OURS else super().format(record)
