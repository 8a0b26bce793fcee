"""The MCP project's own tests of servers, run against ours. `make conformance` runs the same and writes the scores down."""

import pytest

from tests.conformance.suites import Target, run
from tests.conformance.targets import as_installed, with_fixtures


@pytest.mark.requires("conformance")
@pytest.mark.parametrize("target", [with_fixtures, as_installed])
async def test_every_check_passes_but_those_that_are_listed(target: Target) -> None:
    scores = await run(target)
    assert [each for score in scores for each in score.unwanted] == []
    assert all(score.passed > 0 for score in scores)
