"""The catalogue of providers: whose a model is, which key is missing, and which model is taken when nobody chose one."""

import pytest

from core.errors import InvalidInput
from core.llm.providers import PROVIDERS, checked, choices, default_model, missing_keys, provider_of, qualified


@pytest.mark.parametrize(
    ("model", "provider_id"),
    [
        ("anthropic/claude-sonnet-5-5", "anthropic"),
        ("claude-sonnet-5-5", "anthropic"),
        ("gpt-6-sol", "openai"),
        ("chatgpt-4o-latest", "openai"),
        ("ft:gpt-4o:team::id", "openai"),
        ("o3", "openai"),
        ("o3-mini", "openai"),
        ("gemini-3.8-flash", "gemini"),
        ("vertex_ai/gemini-3.8-flash", "vertex_ai"),
        ("ollama/llama3.1", "ollama"),
        ("ollama_chat/llama3.1", "ollama"),
        ("groq/openai/gpt-oss-120b", "groq"),
        ("openrouter/anthropic/claude-sonnet-5-5", "openrouter"),
        ("us.anthropic.claude-sonnet-5-5", "bedrock"),
        ("cohere_chat/command-a-03-2025", "cohere"),
        ("demo/offline", "demo"),
    ],
)
def test_a_model_is_served_by_the_provider_that_its_name_says(model: str, provider_id: str) -> None:
    provider = provider_of(model)

    assert provider is not None
    assert provider.id == provider_id


@pytest.mark.parametrize("model", ["", "opal", "llama3", "acme/gpt-4o", "o", "open/claude-1"])
def test_a_model_of_an_unknown_provider_is_nobodys_and_misses_no_key(model: str) -> None:
    assert provider_of(model) is None
    assert missing_keys(model, {}) == ()
    assert qualified(model) == model


def test_a_bare_name_gets_the_prefix_of_its_provider() -> None:
    assert qualified("gemini-3.8-flash") == "gemini/gemini-3.8-flash"
    assert qualified("groq/openai/gpt-oss-120b") == "groq/openai/gpt-oss-120b"


def test_any_one_of_the_keys_suffices() -> None:
    assert missing_keys("gemini/gemini-3.8-flash", {}) == ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    assert missing_keys("gemini/gemini-3.8-flash", {"GOOGLE_API_KEY": "k"}) == ()


def test_a_blank_key_counts_as_missing() -> None:
    assert missing_keys("gpt-6-sol", {"OPENAI_API_KEY": "  "}) == ("OPENAI_API_KEY",)


@pytest.mark.parametrize("model", ["demo/offline", "ollama_chat/llama3.1", "hosted_vllm/local"])
def test_local_providers_need_no_key(model: str) -> None:
    assert missing_keys(model, {}) == ()


@pytest.mark.parametrize(
    ("keys", "provider_id"),
    [
        ({"GEMINI_API_KEY": "k", "OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, "anthropic"),
        ({"GEMINI_API_KEY": "k", "OPENAI_API_KEY": "k"}, "openai"),
        ({"GOOGLE_API_KEY": "k"}, "gemini"),
        ({"GROQ_API_KEY": "k"}, "demo"),
        ({"ANTHROPIC_API_KEY": ""}, "demo"),
        ({}, "demo"),
    ],
)
def test_the_default_model_is_the_first_preferred_providers_whose_key_is_set(keys: dict[str, str], provider_id: str) -> None:
    provider = provider_of(default_model(keys))

    assert provider is not None
    assert provider.id == provider_id


def test_every_default_model_belongs_to_its_provider() -> None:
    assert [provider_of(provider.default_model) for provider in PROVIDERS] == list(PROVIDERS)


def test_the_choices_begin_with_the_default_and_tell_what_is_missing() -> None:
    default, *others = choices("gpt-6-sol", {"GROQ_API_KEY": "k"})
    by_provider = {choice.provider: choice for choice in others}

    assert (default.id, default.default, default.available, default.missing) == ("openai/gpt-6-sol", True, False, ("OPENAI_API_KEY",))
    assert len(others) == len(PROVIDERS) - 1  # OpenAI's default model is the default
    assert (by_provider["groq"].available, by_provider["groq"].missing) == (True, ())
    assert (by_provider["ollama"].available, by_provider["demo"].available) == (True, True)
    assert not any(choice.default for choice in others)


def test_with_another_endpoint_no_key_is_missing() -> None:
    assert all(choice.available and not choice.missing for choice in choices("acme/one", {}, any_key=True))


@pytest.mark.parametrize(
    "model", ["", "  ", "two words", "a\nb", "x" * 201, "gpt-" + "x" * 195, "oobabooga/http://127.0.0.1/any", "openai/../x", "x#y"]
)
def test_what_can_be_no_models_id_is_refused(model: str) -> None:
    with pytest.raises(InvalidInput, match="no spaces"):
        checked(model, any_provider=True)


def test_a_models_id_is_taken_without_the_space_around_it() -> None:
    assert checked(" acme/one ", any_provider=True) == "acme/one"
    assert checked("vertex_ai/claude-sonnet@20260101", any_provider=False) == "vertex_ai/claude-sonnet@20260101"


def test_only_an_admin_may_choose_a_provider_that_the_catalogue_does_not_have() -> None:
    """Of some providers litellm takes the address from the id, and would send a conversation there."""
    with pytest.raises(InvalidInput, match="Only an admin"):
        checked("oobabooga/one", any_provider=False)
