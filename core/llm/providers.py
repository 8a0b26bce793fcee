"""The providers of language models that Onethread knows by name, and the keys that they need. Reads no environment and loads no vendor."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import InvalidInput
from core.text import clean

DEMO_MODEL = "demo/offline"
MAX_MODEL = 200
"""Characters of a model's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """`id` is the prefix of its model ids, as litellm spells them."""

    id: str
    label: str
    key_names: tuple[str, ...]
    """Environment variables, any one of which suffices; none where no key is needed."""
    default_model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model that one may choose. Others may be named too: these are those that Onethread knows of."""

    id: str
    provider: str
    available: bool
    """Whether it can be asked with the keys that are set."""
    missing: tuple[str, ...]
    """The variables of which one must be set first."""
    default: bool
    """Whether it answers where nobody chose a model."""


PROVIDERS: tuple[Provider, ...] = (
    Provider(id="anthropic", label="Anthropic", key_names=("ANTHROPIC_API_KEY",), default_model="anthropic/claude-sonnet-5-5"),
    Provider(id="openai", label="OpenAI", key_names=("OPENAI_API_KEY",), default_model="openai/gpt-6-sol"),
    Provider(id="gemini", label="Google Gemini", key_names=("GEMINI_API_KEY", "GOOGLE_API_KEY"), default_model="gemini/gemini-3.8-flash"),
    Provider(id="groq", label="Groq", key_names=("GROQ_API_KEY",), default_model="groq/openai/gpt-oss-120b"),
    Provider(id="mistral", label="Mistral", key_names=("MISTRAL_API_KEY",), default_model="mistral/mistral-medium-latest"),
    Provider(id="deepseek", label="DeepSeek", key_names=("DEEPSEEK_API_KEY",), default_model="deepseek/deepseek-v4-pro"),
    Provider(id="xai", label="xAI", key_names=("XAI_API_KEY",), default_model="xai/grok-4.7"),
    Provider(
        id="openrouter", label="OpenRouter", key_names=("OPENROUTER_API_KEY",), default_model="openrouter/anthropic/claude-sonnet-5-5"
    ),
    Provider(
        id="together_ai",
        label="Together AI",
        key_names=("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_API_KEY"),
        default_model="together_ai/openai/gpt-oss-120b",
    ),
    Provider(id="cohere", label="Cohere", key_names=("COHERE_API_KEY", "CO_API_KEY"), default_model="cohere/command-a-03-2025"),
    Provider(id="cerebras", label="Cerebras", key_names=("CEREBRAS_API_KEY",), default_model="cerebras/gpt-oss-120b"),
    Provider(id="perplexity", label="Perplexity", key_names=("PERPLEXITYAI_API_KEY",), default_model="perplexity/sonar-pro"),
    Provider(
        id="azure",
        label="Azure OpenAI",
        key_names=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_AD_TOKEN"),
        default_model="azure/gpt-5.4",
    ),
    Provider(
        id="bedrock",
        label="Amazon Bedrock",
        key_names=(
            "AWS_ACCESS_KEY_ID",
            "AWS_BEARER_TOKEN_BEDROCK",
            "AWS_PROFILE",
            "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ),
        default_model="bedrock/us.anthropic.claude-sonnet-5-5",
    ),
    Provider(
        id="vertex_ai",
        label="Google Vertex AI",
        key_names=("VERTEXAI_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS"),
        default_model="vertex_ai/gemini-3.8-flash",
    ),
    Provider(id="ollama", label="Ollama", key_names=(), default_model="ollama_chat/llama3.1"),
    Provider(id="lm_studio", label="LM Studio", key_names=(), default_model="lm_studio/local"),
    Provider(id="hosted_vllm", label="vLLM", key_names=(), default_model="hosted_vllm/local"),
    Provider(id="demo", label="Demo (offline)", key_names=(), default_model=DEMO_MODEL),
)

_BY_ID = {provider.id: provider for provider in PROVIDERS}
_ALIASES = {"ollama_chat": "ollama", "cohere_chat": "cohere", "vertex_ai_beta": "vertex_ai", "bedrock_converse": "bedrock"}
_ID = re.compile(r"[\w][\w.:@+/-]*", re.ASCII)
_ONE_OF_EACH = tuple(provider.default_model for provider in PROVIDERS)
_PREFERRED = ("anthropic", "openai", "gemini")
_BARE_NAMES = (
    (re.compile(r"(ft:)?(gpt|chatgpt|chat)-|o\d($|-)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "gemini"),
    (re.compile(r"command-"), "cohere"),
    (re.compile(r"([a-z-]+\.)?anthropic\."), "bedrock"),
)


def provider_of(model: str) -> Provider | None:
    """Who serves `model`; None for a provider that is not in the catalogue."""
    prefix, slash, _ = model.partition("/")
    if slash:
        return _BY_ID.get(_ALIASES.get(prefix, prefix))
    return next((_BY_ID[provider_id] for pattern, provider_id in _BARE_NAMES if pattern.match(model)), None)


def qualified(model: str) -> str:
    """`model` with its provider's prefix, so that a bare name never depends on a vendor's guess."""
    provider = provider_of(model)
    return model if "/" in model or provider is None else f"{provider.id}/{model}"


def checked(model: str, *, any_provider: bool) -> str:
    """A model's id as somebody typed it; raises InvalidInput for what cannot be one.

    Providers outside the catalogue are for admins: of some, litellm takes the address from the id, or writes files.
    """
    model = clean(model).strip()
    if not _ID.fullmatch(model) or "//" in model or ".." in model or len(qualified(model)) > MAX_MODEL:
        raise InvalidInput(f"A model's id has 1-{MAX_MODEL} characters and no spaces, for example 'anthropic/claude-sonnet-5-5'.")
    if provider_of(model) is None and not any_provider:
        known = ", ".join(provider.id for provider in PROVIDERS)
        raise InvalidInput(f"Only an admin may choose a model of another provider than these: {known}.")
    return model


def missing_keys(model: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The variables of which one must be set before `model` can be asked; empty if one is, or if the provider is unknown."""
    provider = provider_of(model)
    if provider is None or key_of(provider, environ) is not None:
        return ()
    return provider.key_names


def choices(default_model: str, environ: Mapping[str, str], *, any_key: bool = False) -> list[ModelChoice]:
    """The default model, then one of each provider. With `any_key` no key is missed: another endpoint answers for all."""
    default = qualified(default_model)
    return [_choice(model, default, environ, any_key=any_key) for model in dict.fromkeys((default, *_ONE_OF_EACH))]


def unserved(environ: Mapping[str, str]) -> frozenset[str]:
    """The prefixes of the models whose provider's key is missing."""
    without = {provider.id for provider in PROVIDERS if provider.key_names and key_of(provider, environ) is None}
    return frozenset(without | {alias for alias, provider_id in _ALIASES.items() if provider_id in without})


def key_of(provider: Provider, environ: Mapping[str, str]) -> str | None:
    """The value of the first of its variables that is set and not blank."""
    return next((environ[name] for name in provider.key_names if environ.get(name, "").strip()), None)


def default_model(environ: Mapping[str, str]) -> str:
    """The model of the first preferred provider that has a key, else the offline demo."""
    ready = (_BY_ID[provider_id] for provider_id in _PREFERRED if key_of(_BY_ID[provider_id], environ) is not None)
    return next((provider.default_model for provider in ready), DEMO_MODEL)


def _choice(model: str, default: str, environ: Mapping[str, str], *, any_key: bool) -> ModelChoice:
    provider = provider_of(model)
    missing = () if any_key else missing_keys(model, environ)
    named = provider.id if provider else model.partition("/")[0]
    return ModelChoice(id=model, provider=named, available=not missing, missing=missing, default=model == default)
