"""docs/benchmarks.md: what was measured, how, on what kind of machine, and what came out."""

import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from tests.benchmarks.figures import Figure, NotMeasured, Result, number, target
from tests.postgres import programs

_INTRODUCTION = """\
# Benchmarks

Written by `make bench`. Each figure stands beside a *reference*: something simpler, measured on the same machine in the same run. The
*ratio* of the two says what Onethread adds, and changes little from machine to machine; the figures themselves do. `make bench` fails if a
target is missed. `make bench ARGS="-k turns"` measures only what has "turns" in its name, `make bench ARGS=--quick` is a short trial;
both leave this page as it is.
"""
_HEAD = "| Figure | Measured | Reference | Ratio | Target | |\n|---|---|---|---|---|---|"


def markdown(machine: str, sections: Mapping[str, Sequence[Result]]) -> str:
    """The page. `sections` has the results of each measurement under its explanation, whose first line becomes a heading."""
    parts = [_INTRODUCTION, f"Measured on: {machine}.\n"]
    for explanation, results in sections.items():
        heading, _, text = explanation.strip().partition("\n")
        rows = [_row(result) for result in results]
        parts += [f"## {heading.rstrip('.')}\n", *([f"{text.strip()}\n"] if text.strip() else []), "\n".join([_HEAD, *rows]) + "\n"]
    return "\n".join(parts)


def machine() -> str:
    """This machine in general terms."""
    system = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    databases = f"SQLite {sqlite3.sqlite_version}, {_postgresql()}"
    return f"{system}, Python {platform.python_version()}, {databases}, litellm {version('litellm')}"


def _postgresql() -> str:
    folder = programs()
    if folder is None:
        return "no PostgreSQL"
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    return f"PostgreSQL {told.split()[2]}"


def _row(result: Result) -> str:
    match result:
        case NotMeasured():
            return f"| {result.name} | not measured: {result.reason} | | | | |"
        case Figure(reference=reference):
            beside = f"{reference.name}: {number(reference.value)} {reference.unit or result.unit}"
            cells = (result.name, f"{number(result.value)} {result.unit}", beside, number(result.ratio), target(result), result.verdict)
            return f"| {' | '.join(cells)} |"
