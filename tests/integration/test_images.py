"""Images that people attach: seen by models that can, told as text to the others, and never what ends a conversation."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from core.attachments import Upload
from core.errors import ModelRefused
from core.llm.client import LiteLLM, ModelSettings
from core.llm.images import GIF, TOKENS, TYPES, count, parts, url
from core.models import JSON, MessageStatus
from core.ports import ModelRequest
from core.retries import RetryPolicy
from onethread.bootstrap import running, working
from onethread.settings import Settings
from storage.repositories import Attachments
from tests.databases import on_both
from tests.emulators.raw_provider import RawProvider
from tests.fakes import Call, Item, ScriptedModel
from tests.integration.conftest import RULES, Start, World
from tests.unit.test_images import jpeg

new_database = on_both
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
DATA = base64.b64encode(PIXEL).decode()
DOT = Upload(name="dot.png", data=PIXEL, media_type="image/jpeg")  # as a client may have got it wrong
SHOWN = parts("dot.png", url("image/png", PIXEL))
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm"), pytest.mark.filterwarnings("ignore::UserWarning:pydantic")]


def seeing(*rounds: Sequence[Item]) -> ScriptedModel:
    model = ScriptedModel()
    model.sees = TYPES
    for items in rounds:
        model.will(*items)
    return model


def asked(model: ScriptedModel, n: int = -1) -> Any:
    """What the last person said in the n-th request."""
    return next(message["content"] for message in reversed(model.requests[n].messages) if message["role"] == "user")


@pytest.fixture
async def chat(start: Start) -> AsyncIterator[tuple[World, ScriptedModel, UUID]]:
    model = seeing()
    async with start(model) as world, world.working():
        yield world, model, (await world.chat()).id


Chat = tuple[World, ScriptedModel, UUID]


async def test_a_model_that_sees_is_shown_the_image_and_later_too(chat: Chat) -> None:
    world, model, here = chat
    await world.ask(here, "What is this?", uploads=[DOT])
    await world.ask(here, "And now?")

    assert asked(model, 0)[:2] == SHOWN
    assert asked(model, 0)[2]["text"].startswith("What is this?\n\n<context>")
    assert model.requests[1].messages[1] == {"role": "user", "content": [*SHOWN, {"type": "text", "text": "What is this?"}]}


async def test_a_model_that_does_not_is_told_that_it_cannot(chat: Chat) -> None:
    world, model, here = chat
    model.sees = frozenset()
    await world.ask(here, "What is this?", uploads=[DOT])
    assert "[image 'dot.png', image/jpeg, 70 bytes: this model cannot see images, so you cannot see it" in asked(model)


async def test_an_image_is_read_once_for_all_rounds_and_not_where_nobody_sees_it(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    world, model, here = chat
    read: list[UUID] = []
    data = Attachments.data

    async def watched(repository: Attachments, attachment_id: UUID) -> bytes:
        read.append(attachment_id)
        return await data(repository, attachment_id)

    monkeypatch.setattr(Attachments, "data", watched)
    model.will(Call("list_tasks")).will("Seen.")
    await world.ask(here, "What is this?", uploads=[DOT])
    assert len(model.requests) == 2
    assert asked(model) == asked(model, 0)
    assert len(read) == 1

    for _ in range(9):
        await world.note(here, "Another")
        await world.ask(here, "And this?", uploads=[DOT])
    assert [count(request.messages) for request in model.requests] == [1, 1, 2, 3, 4, 5, 6, 7, 8, 4, 5]

    read.clear()
    model.sees = frozenset()
    await world.ask(here, "And now?")
    assert read == []


async def test_the_image_of_a_deleted_message_is_not_shown_again(chat: Chat) -> None:
    world, model, here = chat
    posted = await world.post(here, "What is this?", uploads=[DOT])
    await world.ended(posted)
    await world.delete(posted.message_id)
    await world.ask(here, "And now?")
    assert count(model.requests[-1].messages) == 0


async def test_a_photo_that_says_its_size_late_is_shown(chat: Chat) -> None:
    world, model, here = chat
    await world.ask(here, "What is this?", uploads=[Upload(name="photo.jpg", data=jpeg(4032, 3024, before=240_000))])
    assert asked(model)[1]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


class _Slow(ScriptedModel):
    """Something happens while it is asked what it sees."""

    meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def image_types(self, model: str) -> frozenset[str]:
        if self.meanwhile:
            await self.meanwhile()
        return TYPES


async def test_an_image_that_is_deleted_meanwhile_is_not_shown(start: Start) -> None:
    model = _Slow()
    async with start(model) as world, world.working():
        here = (await world.chat()).id
        posted = await world.post(here, "What is this?", uploads=[DOT])
        await world.ended(posted)
        model.meanwhile = lambda: world.delete(posted.message_id)
        assert (await world.ask(here, "And now?")).status is MessageStatus.COMPLETED

    assert [count(request.messages) for request in model.requests] == [1, 0]
    assert "it was removed" in str(model.requests[1].messages)


@pytest.mark.parametrize("reason", ["BAD_REQUEST", "CONTENT_POLICY", "CONTEXT_TOO_LONG", "MODEL_UNKNOWN"])
async def test_a_refused_image_is_left_out_and_the_turn_goes_on(chat: Chat, reason: str) -> None:
    world, model, here = chat
    model.will(ModelRefused("No.", reason=reason)).will(Call("list_tasks")).will("I cannot see it.")
    reply = await world.ask(here, "What is this?", uploads=[DOT])

    assert (reply.status, reply.content) == (MessageStatus.COMPLETED, "I cannot see it.")
    assert [count(request.messages) for request in model.requests] == [1, 0, 0]
    assert "the provider did not accept the images" in asked(model)


async def test_what_is_refused_without_images_too_fails_with_its_own_reason(chat: Chat) -> None:
    world, model, here = chat
    model.will(ModelRefused("No.", reason="BAD_REQUEST")).will(ModelRefused("Still no.", reason="CONTENT_POLICY"))
    reply = await world.ask(here, "What is this?", uploads=[DOT])

    assert reply.metadata["error"]["message"] == "Still no."
    assert len(model.requests) == 2


async def test_a_missing_key_has_nothing_to_do_with_images(chat: Chat) -> None:
    world, model, here = chat
    model.will(ModelRefused("No key.", reason="KEY_MISSING"))
    assert (await world.ask(here, "What is this?", uploads=[DOT])).status is MessageStatus.FAILED
    assert len(model.requests) == 1


class _OneSees(ScriptedModel):
    async def image_types(self, model: str) -> frozenset[str]:
        return TYPES if model == "test/model" else frozenset()


async def test_a_fallback_that_does_not_see_is_told_so(start: Start) -> None:
    model = _OneSees(lambda request: (ModelRefused("Gone.", reason="KEY_REJECTED") if request.model == "test/model" else "I am blind.",))
    rules = replace(RULES, retries=RetryPolicy(fallback_models=("test/other",)))
    async with start(model, worker_rules=rules) as world, world.working():
        reply = await world.ask((await world.chat(model="test/model")).id, "What is this?", uploads=[DOT])

    assert reply.content == "I am blind."
    assert {request.model: count(request.messages) for request in model.requests} == {"test/model": 1, "test/other": 0}
    assert "this model cannot see images" in asked(model)


# --- litellm ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "model", "part"),
    [
        ("openai", "openai/gpt-4o", {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}),
        ("responses", "openai/responses/gpt-6-sol", {"type": "input_image", "image_url": f"data:image/png;base64,{DATA}"}),
        ("anthropic", "anthropic/claude-sonnet-4-6", {"source": {"type": "base64", "media_type": "image/png", "data": DATA}}),
        ("gemini", "gemini/gemini-2.5-flash", {"inline_data": {"data": DATA, "mime_type": "image/png"}}),
        ("ollama", "ollama_chat/llava", {"images": [DATA]}),
        ("ollama", "ollama_chat/llama3.1", None),
    ],
)
async def test_each_provider_gets_the_image_in_its_own_format_or_the_text(
    route: str, model: str, part: JSON | None, tmp_path: Path
) -> None:
    async with RawProvider() as provider:
        told = ("ollama_chat/llava", "openai/responses/gpt-6-sol")
        how = ModelSettings(temperature=0.7, max_tokens=100, api_base=provider.api_base(route), vision_models=told)
        settings = Settings(data_dir=tmp_path, model=model)
        async with running(settings, model=LiteLLM(how, {}), worker_rules=RULES, isolated_run=None) as app, working(app):
            world = World(app, ScriptedModel(), await app.principal())
            await world.ask((await world.chat()).id, "What is this?", uploads=[DOT])
        [body] = provider.requests

    if part is None:
        assert DATA not in json.dumps(body)
        assert "this model cannot see images" in json.dumps(body)
    else:
        assert any(part.items() <= each.items() for each in _objects(body))


async def test_who_sees_what_is_litellms_to_say_and_the_settings() -> None:
    model = LiteLLM(ModelSettings(temperature=0, max_tokens=1, api_base=None, vision_models=("lm_studio/local",)), {})
    for sees in ("anthropic/claude-sonnet-5-5", "gpt-4o", "lm_studio/local", "mistral/mistral-medium-latest"):
        assert await model.image_types(sees) == TYPES
    assert await model.image_types("gemini/gemini-2.5-flash") == TYPES - {GIF}
    assert await model.image_types("xai/grok-4.7") == {"image/png", "image/jpeg"}
    for blind in ("demo/offline", "acme/unknown", "ollama_chat/llava", "hosted_vllm/local", "deepseek/deepseek-v4-pro"):
        assert await model.image_types(blind) == frozenset()


async def test_an_image_counts_as_what_it_costs_whatever_its_bytes() -> None:
    model = LiteLLM(ModelSettings(temperature=0, max_tokens=1, api_base=None), {})
    message = {"role": "user", "content": [*parts("a.png", url("image/png", b"x" * 1_000_000)), {"type": "text", "text": "See"}]}
    tokens = await model.count_tokens(ModelRequest(model="openai/gpt-4o", messages=[message]))
    assert TOKENS < tokens < TOKENS + 50


def _objects(value: Any) -> list[JSON]:
    match value:
        case dict():
            return [value, *(each for inner in value.values() for each in _objects(inner))]
        case list():
            return [each for inner in value for each in _objects(inner)]
    return []
