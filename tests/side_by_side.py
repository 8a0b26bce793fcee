"""How the tests are dealt out to several processes: one by one, the longest first, except where they share what takes long to start.

pytest-xdist has `--dist loadgroup` for this, which since pytest 9.2 takes no notice of its groups (pytest-xdist issue 1386).
"""

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

TOGETHER = (
    "tests/chaos/",  # mostly waits; both databases at once would leave each of them half a machine
    "tests/everywhere/test_scene.py",  # likewise
    "tests/page/test_s",  # one browser, one server; the half of its tests that begins so, for a core each
    "tests/page/",
    "tests/e2e/test_mcp_clients.py",
    "tests/e2e/test_terminal.py",
    "tests/e2e/test_readme.py",
    "tests/integration/test_llm_turns.py",
    "tests/integration/test_two_processes.py",
)
"""Files and folders whose tests run in one process, one after another. They come before all others, the longest first, so that no process
is left alone with one of them at the end."""
BESIDE = dict.fromkeys(
    (
        "tests/integration/test_canary.py",
        "tests/integration/test_litellm_client.py",
        "tests/integration/test_prompt_caching.py",
        "tests/contract/test_chat_model.py",
        "tests/contract/test_tool_schemas.py",
    ),
    "tests/integration/test_llm_turns.py",
)
"""Files whose tests run in the same process as those of another one: these all load litellm, which takes seconds in each."""
THEN = (
    "tests/everywhere/",
    "tests/e2e/test_schemathesis.py",
    "tests/e2e/test_slack.py",
    "tests/e2e/test_discord.py",
    "tests/e2e/test_mcp_conformance.py",
    "tests/e2e/test_serve.py",
    "tests/everywhere/",
    "tests/e2e/",
    "tests/integration/",
    "tests/contract/",
    "tests/unit/",
)
"""What comes behind them, in this order, for the same reason: at the end are those that take no time."""
_ORDER = TOGETHER + THEN


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_position)


def _position(item: pytest.Item) -> int:
    here = _place(item.nodeid) or item.nodeid
    return next((number for number, place in enumerate(_ORDER) if here.startswith(place)), len(_ORDER))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lambda nodeid: _place(nodeid) or nodeid
    return scheduler


def _place(nodeid: str) -> str | None:
    return BESIDE.get(nodeid.partition("::")[0]) or next((place for place in TOGETHER if nodeid.startswith(place)), None)
