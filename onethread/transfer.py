"""`onethread db export` and `onethread db import`: the file, and how far they have come."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from core.errors import Conflict, InvalidInput, StorageUnavailable
from onethread.bootstrap import App
from storage.transfer import Progress

STANDARD = "-"
"""Stands for standard input or output."""
_SPARSE_SECONDS = 10.0


async def export(app: App, name: str, *, force: bool) -> None:
    """Raises Conflict for a file that exists, unless forced."""
    with _output(name, force=force) as file, _progress() as progress:
        rows = await app.transfer.export_to(file, progress)
    where = "" if name == STANDARD else f" to {name}"
    click.echo(f"Exported {rows:,} rows{where}. They hold what people wrote: keep them as safe as the database.", err=True)


async def load(app: App, name: str) -> None:
    with _input(name) as file, _progress() as progress:
        rows = await app.transfer.import_from(file, progress)
    click.echo(f"Imported {rows:,} rows into {app.settings.database_shown}", err=True)


def sparse_lines(say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Progress:
    """Progress for who reads a log: a line every ten seconds."""
    said = clock()

    def tell(table: str, done: int, total: int) -> None:
        nonlocal said
        if clock() - said >= _SPARSE_SECONDS:
            said = clock()
            say(f"{done:,} of {total:,} rows ({table})")

    return tell


@contextmanager
def _progress() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield sparse_lines(lambda line: click.echo(line, err=True))
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda table, done, total: bar.update(task, description=table, completed=done, total=total)


@contextmanager
def _output(name: str, *, force: bool) -> Iterator[IO[bytes]]:
    if name == STANDARD:
        if sys.stdout.isatty():
            raise InvalidInput("This is not for a screen. Name a file, or send the output to another program.")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name).expanduser().resolve()
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{name!r} is no file. For standard output write {STANDARD!r}.")
    if path.exists() and not force:
        raise Conflict(f"{name!r} exists. Name another file, or replace it with --force.")
    try:
        with _whole(path) as file:
            yield file
    except OSError as error:
        raise StorageUnavailable(f"{name!r} cannot be written: {error.strerror}.") from None


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file for its owner's eyes only, which has its name once it is complete."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False) as file:
        unfinished = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def _input(name: str) -> Iterator[IO[bytes]]:
    if name == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        with Path(name).expanduser().open("rb") as file:
            yield file
    except OSError as error:
        raise StorageUnavailable(f"{name!r} cannot be read: {error.strerror}.") from None
