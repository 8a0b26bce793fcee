"""Which scenarios are run against what, and which of their checks may fail."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from tests.conformance.program import COMING, RELEASED, Program, Scenario
from tests.conformance.targets import as_installed, with_fixtures

Target = Callable[[], AbstractAsyncContextManager[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Scenarios for one kind of server. Without `only`: all that the program runs."""

    name: str
    target: Target
    program: Program
    arguments: tuple[str, ...] = ()
    only: frozenset[str] | None = None
    known: Mapping[str, str] = field(default_factory=dict)
    """Checks that fail or warn, and why that is as it should be."""

    async def run(self, url: str) -> "Score":
        found = await self.program.run(url, *self.arguments)
        if self.only is not None:
            missing = self.only - found.keys()
            assert not missing, f"not run: {sorted(missing)}"
            found = {name: scenario for name, scenario in found.items() if name in self.only}
        return Score(suite=self, scenarios=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    suite: Suite
    scenarios: Mapping[str, Scenario]

    @property
    def passed(self) -> int:
        """Checks."""
        return sum(each.passed for each in self.scenarios.values())

    @property
    def failed(self) -> list[str]:
        return [failure.check for each in self.scenarios.values() for failure in each.failures]

    @property
    def warned(self) -> list[str]:
        """What is recommended, and not so."""
        return [warning.check for each in self.scenarios.values() for warning in each.warnings]

    @property
    def unwanted(self) -> list[str]:
        """Failures and warnings of which nobody knew, in words. What is known and does not come is one, too."""
        came = {*self.failed, *self.warned}
        news = [
            f"{name}: {found.check}: {found.message}"
            for name, scenario in self.scenarios.items()
            for found in (*scenario.failures, *scenario.warnings)
            if found.check not in self.suite.known
        ]
        return news + [f"{check} is known to fail or warn, and passes" for check in self.suite.known if check not in came]


_ANY_SERVER = frozenset({"dns-rebinding-protection", "prompts-list", "resources-list", "server-sse-multiple-streams", "tools-list"})
_OLDER = _ANY_SERVER | {"ping", "server-initialize"}
_NEWEST = _ANY_SERVER | {"caching", "http-header-validation", "sep-2164-resource-not-found", "server-stateless"}
"""Scenarios that ask for no fixture. Others that name one pass or fail for want of it, and say nothing of the server."""
_NO_FIXTURE = "it calls a fixture that only the server with fixtures has"
_NOT_RESUMED = "a stream that broke is not resumed; the reply goes on all the same, and get_reply gives it"

SUITES = (
    Suite(name="all that is active", target=with_fixtures, program=RELEASED),
    Suite(
        name="2025-11-25",
        target=with_fixtures,
        program=COMING,
        arguments=("--requirements", "2025-11-25"),
        known={"server-sse-priming-event": _NOT_RESUMED, "server-sse-retry-field": _NOT_RESUMED},
    ),
    Suite(name="2026-07-28, with tasks", target=with_fixtures, program=COMING, arguments=("--requirements", "2026-07-28")),
    Suite(name="what needs no fixture", target=as_installed, program=RELEASED, only=_OLDER),
    Suite(
        name="2025-11-25, what needs no fixture",
        target=as_installed,
        program=COMING,
        arguments=("--requirements", "2025-11-25"),
        only=_OLDER | {"server-session-lifecycle"},
    ),
    Suite(
        name="2026-07-28, what needs no fixture",
        target=as_installed,
        program=COMING,
        arguments=("--requirements", "2026-07-28"),
        only=_NEWEST,
        known={
            "sep-2575-server-rejects-undeclared-capability": _NO_FIXTURE,
            "sep-2575-missing-capability-http-400": _NO_FIXTURE,
            "sep-2575-server-sends-prompts-list-changed-on-subscription": _NO_FIXTURE,
            "sep-2575-server-sends-tools-list-changed-on-subscription": _NO_FIXTURE,
        },
    ),
)


async def run(target: Target) -> list[Score]:
    """All suites of one target."""
    async with target() as url:
        return [await suite.run(url) for suite in SUITES if suite.target is target]
