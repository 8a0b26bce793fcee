"""How the tests are dealt out to several processes: one by one, in order, except where they share what takes long to start.

pytest-xdist has `--dist loadgroup` for this, which since pytest 9.2 takes no notice of its groups (pytest-xdist issue 1386).
"""

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

TOGETHER = (
    "tests/chaos/",  # mostly waits; both databases at once would leave each of them half a machine
    "tests/e2e/test_mcp_clients.py",
    "tests/e2e/test_terminal.py",
    "tests/e2e/test_readme.py",
    "tests/integration/test_llm_turns.py",
    "tests/integration/test_two_processes.py",
)
"""Files and folders whose tests run in one process, one after another. They come before all others, the longest first, so that no process
is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: TOGETHER.index(place) if (place := _place(item.nodeid)) else len(TOGETHER))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lambda nodeid: _place(nodeid) or nodeid
    return scheduler


def _place(nodeid: str) -> str | None:
    return next((place for place in TOGETHER if nodeid.startswith(place)), None)
