"""The command: runs the measurements one after another, prints what each gives, and writes the page."""

import asyncio
import inspect
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path

import click

from tests.benchmarks.figures import Figure, Result, line
from tests.benchmarks.page import machine, markdown

MEASUREMENTS = (
    "durable_turns",
    "chunk_cpu",
    "first_delta",
    "delta_lag",
    "litellm_streams",
    "conversation_memory",
    "database_growth",
    "message_load",
    "socket_load",
    "mcp_start",
    "mcp_calls",
    "slack_staleness",
    "discord_staleness",
    "browser",
)
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
Measure = Callable[[str], tuple[str, Sequence[Result]]]
"""Gives the explanation and the results of the measurement of that name."""


@click.command()
@click.option("-k", "word", default="", help="Only the measurements that have this in their name.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that the measurements work, and little more.")
def main(word: str, *, quick: bool) -> None:
    """Measures; exits with 1 if a target is missed. The page is written by a whole run only."""
    chosen = [name for name in MEASUREMENTS if word in name]
    if not chosen:
        raise click.BadParameter(f"none of {', '.join(MEASUREMENTS)} has {word!r} in its name", param_hint="-k")
    whole = chosen == list(MEASUREMENTS) and not quick
    sys.exit(run(chosen, partial(_apart, "QUICK" if quick else "FULL"), PAGE if whole else None))


def run(names: Sequence[str], measure: Measure, page: Path | None) -> int:
    """The exit code: 1 if a target was missed. The page is written at the end; a run that is interrupted leaves it as it was."""
    sections: dict[str, Sequence[Result]] = {}
    for name in names:
        click.echo(f"{name} ...", err=True)
        explanation, results = measure(name)
        sections[explanation] = results
        click.echo("\n".join(line(result) for result in results))
    if page:
        page.write_text(markdown(machine(), sections), encoding="utf-8")
    return int(any(isinstance(result, Figure) and result.missed for results in sections.values() for result in results))


def _apart(size: str, name: str) -> tuple[str, Sequence[Result]]:
    """Measures in a fresh process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure, size, name).result()


def _measure(size: str, name: str) -> tuple[str, Sequence[Result]]:
    measurement = import_module(f"tests.benchmarks.{name}")
    return inspect.getdoc(measurement) or name, asyncio.run(measurement.measure(getattr(measurement, size)))
