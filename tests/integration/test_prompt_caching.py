"""How much of what a long conversation sends its provider is known to the provider's cache: the real app, worker and litellm."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core import tasks
from core.attachments import Upload
from core.llm.client import LiteLLM, ModelSettings, load
from core.models import JSON, Task
from onethread.bootstrap import running, working
from onethread.settings import Settings
from tests.emulators.prompt_cache import BYTES_PER_TOKEN, AnthropicCache, OpenAICache, PromptCache
from tests.emulators.raw_provider import RawProvider, Reply, ToolUse, Usage
from tests.fakes import ManualClock, ScriptedModel
from tests.integration.conftest import RULES, World

CACHES: dict[str, Callable[[], PromptCache]] = {"openai": OpenAICache, "anthropic": AnthropicCache}
MODELS = {"openai": "openai/gpt-4o", "anthropic": "anthropic/claude-sonnet-4-6"}
SAID = "Tell me more of how the third part of the plan hangs together with what we said about the first two. " * 3
ANSWER = ("The third part ", "builds on the first two: " * 20)
LIST = ToolUse(name="list_tasks", fragments=('{"status": "todo"}',))
routes = pytest.mark.parametrize("route", MODELS)


@dataclass(slots=True)
class CachingScript:
    """Calls a tool in each of a turn's first rounds, then answers, and counts what its cache knows."""

    cache: PromptCache
    rounds: int = 1
    counted: list[Usage] = field(default_factory=list)

    def __call__(self, body: JSON, _: int) -> Reply:
        usage = self.cache.usage(body)
        self.counted.append(usage)
        if body.get("tools") and _results(body["messages"]) < self.rounds:
            return Reply(text=("Let me look.",), tools=(LIST,), finish="tool_calls", usage=usage)
        return Reply(text=ANSWER, usage=usage)

    def share(self, since: int = 0) -> float:
        """Of the tokens in the requests from this one on, how many were known."""
        return sum(each.tokens_cached for each in self.counted[since:]) / sum(each.tokens_in for each in self.counted[since:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    world: World
    provider: RawProvider
    script: CachingScript
    clock: ManualClock


@asynccontextmanager
async def stage(directory: Path, route: str, *, rounds: int = 1, window_tokens: int = 0) -> AsyncIterator[Stage]:
    await asyncio.to_thread(load)
    script, clock = CachingScript(CACHES[route](), rounds), ManualClock()
    async with RawProvider(script=script) as provider:
        how = ModelSettings(temperature=0.7, max_tokens=1000, api_base=provider.api_base(route))
        model = _Narrow(how, {}, window_tokens) if window_tokens else LiteLLM(how, {})
        settings = Settings(data_dir=directory, model=MODELS[route], messages_per_minute=1_000)
        async with running(settings, model=model, clock=clock, worker_rules=RULES, isolated_run=None) as app, working(app):
            yield Stage(world=World(app, ScriptedModel(), await app.principal()), provider=provider, script=script, clock=clock)


class _Narrow(LiteLLM):
    """With a smaller context window than litellm's map says."""

    def __init__(self, settings: ModelSettings, environ: dict[str, str], window_tokens: int) -> None:
        super().__init__(settings, environ)
        self._window_tokens = window_tokens

    async def context_window(self, model: str) -> int:
        return self._window_tokens


@routes
@pytest.mark.parametrize(("turns", "rounds", "share"), [(30, 1, 0.9), (8, 8, 0.94)], ids=["many turns", "long turns"])
async def test_nearly_all_of_a_long_conversation_is_found_in_the_cache(
    route: str, turns: int, rounds: int, share: float, tmp_path: Path
) -> None:
    async with stage(tmp_path, route, rounds=rounds) as on:
        task = await on.world.task("Plan the year")
        for number in range(turns):
            await _talk_on(on, task, number)

        assert len(on.script.counted) == turns * (rounds + 1)
        assert on.script.share() > share
        assert all(_known(each) for each in on.script.counted[1:])


@routes
async def test_a_new_time_and_a_changed_task_break_nothing_before_the_last_message(route: str, tmp_path: Path) -> None:
    async with stage(tmp_path, route) as on:
        task = await on.world.task("Plan the year")
        for number in range(3):
            await _talk_on(on, task, number)
        _, earlier, later = (body for body in on.provider.requests if _results(body["messages"]) == 0)

        assert _plain(later)["tools"] == _plain(earlier)["tools"]
        assert [tool["name"] for tool in _tools(later)] == sorted(tool["name"] for tool in _tools(later))
        assert _plain(later).get("system") == _plain(earlier).get("system")
        last_said = len(earlier["messages"]) - 1
        assert _plain(later)["messages"][:last_said] == _plain(earlier)["messages"][:last_said]
        changed = [json.dumps(body["messages"][last_said]) for body in (earlier, later)]
        assert ["<context>" in message for message in changed] == [True, False]


@routes
async def test_moving_the_window_breaks_the_cache_once_only(route: str, tmp_path: Path) -> None:
    async with stage(tmp_path, route, window_tokens=6_000) as on:
        task = await on.world.task("Plan the year")
        for number in range(17):
            await _talk_on(on, task, number)

        moves = [number for number, body in enumerate(on.provider.requests) if not body.get("tools")]
        unknown = [number for number, usage in enumerate(on.script.counted) if usage.tokens_cached < usage.tokens_in / 2]
        [move] = moves
        assert unknown == [0, move, move + 1]


@routes
async def test_an_image_is_found_in_the_cache_like_any_text(route: str, tmp_path: Path) -> None:
    image = Upload(name="a.png", data=b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01" + bytes(60_000))
    image_tokens = 60_000 * 4 / 3 / BYTES_PER_TOKEN
    async with stage(tmp_path, route) as on:
        task = await on.world.task("Plan the year")
        await on.world.ask(task.conversation_id, SAID, uploads=[image])
        for number in range(2):
            await _talk_on(on, task, number)

        known = [usage.tokens_in > usage.tokens_cached > image_tokens for usage in on.script.counted]
        assert known == [False, True, route == "openai", True, True, True]  # as the text beside it


async def _talk_on(on: Stage, task: Task, number: int) -> None:
    """A turn at another time, with the task changed."""
    on.clock.advance(90)
    await on.world.write(lambda uow: tasks.update(uow, on.world.admin, task.ref, {"priority": ("high", "low")[number % 2]}))
    await on.world.ask(task.conversation_id, f"{number}: {SAID}")


def _known(usage: Usage) -> bool:
    """Whether more than the system text and the tools were found."""
    return usage.tokens_cached > 1_000


def _tools(body: JSON) -> list[JSON]:
    return [tool.get("function", tool) for tool in body["tools"]]


def _plain(body: JSON) -> JSON:
    """Without the marks, of which the provider's cache takes no account."""
    plain: JSON = json.loads(json.dumps(body), object_hook=lambda part: {key: each for key, each in part.items() if key != "cache_control"})
    return plain


def _results(messages: list[JSON]) -> int:
    """Tool results since somebody last said something."""
    found = 0
    for message in reversed(messages):
        if _is_said(message):
            return found
        found += message["role"] == "tool" or (message["role"] == "user")
    return found


def _is_said(message: JSON) -> bool:
    content: Any = message["content"]
    return message["role"] == "user" and not (isinstance(content, list) and content[0]["type"] == "tool_result")
