"""`make conformance`: runs everything, prints what came of it and writes it down. Ends with 1 where a check fails that should not."""

import asyncio
import logging
import re
import sys

import structlog

from tests.conformance.suites import Score, Target, run
from tests.conformance.targets import as_installed, with_fixtures
from tests.conftest import COMPONENTS, ROOT

PAGE = ROOT / "docs" / "mcp.md"
_BLOCK = re.compile(r"(<!-- scores: .*? -->\n).*?(<!-- end of scores -->)", re.DOTALL)
_TARGETS: dict[Target, str] = {with_fixtures: "our server, with the fixtures", as_installed: "`onethread serve`"}


def main() -> int:
    program = COMPONENTS["conformance"]
    if not program.is_there():
        sys.stderr.write(f"The conformance program is missing: {program.install}\n")
        return 1
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)  # the scenarios provoke errors
    scores = asyncio.run(_scores())
    unwanted = [f"{score.suite.name}: {each}" for score in scores for each in score.unwanted]
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_BLOCK.sub(lambda found: f"{found[1]}{table(scores)}{found[2]}", page), encoding="utf-8")
    sys.stdout.write("\n".join([table(scores), *unwanted, ""]))
    return 1 if unwanted else 0


async def _scores() -> list[Score]:
    return [score for target in _TARGETS for score in await run(target)]


def table(scores: list[Score]) -> str:
    """As Markdown, with the reasons of what fails or warns."""
    lines = [
        "| Server | Scenarios of @modelcontextprotocol/conformance | Version | Scenarios | Checks passed | Failed | Warnings |",
        "|---|---|---|---:|---:|---:|---:|",
        *map(_row, scores),
    ]
    reasons: dict[str, list[str]] = {reason: [] for score in scores for reason in score.suite.known.values()}
    for score in scores:
        for check, reason in score.suite.known.items():
            reasons[reason].append(f"`{check}`")
    return "\n".join([*lines, "", *(f"- {', '.join(checks)}: {reason}." for reason, checks in reasons.items())]) + "\n"


def _row(score: Score) -> str:
    cells = (_TARGETS[score.suite.target], score.suite.name, score.suite.program.version)
    numbers = (len(score.scenarios), score.passed, len(score.failed), len(score.warned))
    return f"| {' | '.join(cells)} | {' | '.join(map(str, numbers))} |"


if __name__ == "__main__":
    sys.exit(main())
