"""All settings, as one frozen tree. The only place that reads the environment."""

import errno
import ipaddress
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from core.errors import InvalidInput, StorageUnavailable
from core.limits import ANY_OTHER
from core.llm.providers import default_model, qualified, unserved
from onethread.platform_settings import (
    ChannelSettings,
    DiscordApiUrl,
    DiscordGatewayUrl,
    DiscordSettings,
    People,
    SlackApiUrl,
    SlackSettings,
    discord_problem,
    slack_problem,
)

if TYPE_CHECKING:
    from bots.discord.config import DiscordConfig
    from bots.policy import ChannelRules
    from bots.slack.config import SlackConfig

CONFIG_FILE = "onethread.toml"
LOCAL_URL = "http://127.0.0.1:8420"
"""Where `onethread serve` is when nothing else is said."""
LOCAL_NAMES = frozenset({"127.0.0.1", "::1", "localhost"})
_WITHOUT_DOTENV = "ONETHREAD_WITHOUT_DOTENV"
_OF_SLACK = ("slack", "slack_bot_token", "slack_app_token", "slack_signing_secret", "slack_api_url")
_OF_DISCORD = ("discord", "discord_token", "discord_api_url", "discord_gateway_url")
_OF_SERVE = ("secret_key", "public_url", "allowed_hosts", "trusted_proxies", "people", *_OF_SLACK, *_OF_DISCORD)


class Limit(BaseModel):
    """How much one model may be asked, by all workers together. What is not set is not limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_at_once: int | None = Field(None, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)


class Settings(BaseSettings):
    """What can be set, by `ONETHREAD_...` variables, by `.env` of the working directory, and by `onethread.toml` of the data directory."""

    model_config = SettingsConfigDict(env_prefix="ONETHREAD_", frozen=True, extra="ignore", env_ignore_empty=True)

    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("onethread", appauthor=False)))
    database_url: str = ""
    """Default: the SQLite file `onethread.db` in the data directory."""
    user: str = ""
    """Who the terminal and `onethread mcp` act for. Default: the local admin."""
    model: str = ""
    """A litellm id. Default: the first of Anthropic, OpenAI, Gemini whose key is set, else demo/offline."""
    fallback_models: Annotated[tuple[str, ...], NoDecode] = Field(default_factory=tuple)
    """Asked in this order where the model cannot answer; separated by commas in the environment."""
    vision_models: Annotated[tuple[str, ...], NoDecode] = Field(default_factory=tuple)
    """They see images although litellm does not know it, such as local ones; separated by commas in the environment."""
    model_api_base: str | None = None
    temperature: float = Field(0.7, ge=0, le=2)
    max_tokens: int = Field(4096, ge=1, le=1_000_000)
    log_format: Literal["console", "json"] = "console"
    worker_concurrency: int = Field(100, ge=1, le=1_000)
    model_limits: dict[str, Limit] = Field(default_factory=dict)
    """By litellm id, `*` for all that are not named."""
    messages_per_minute: int = Field(60, ge=1)
    """For each user."""
    approval_hours: float = Field(24.0, gt=0, le=8_760)
    """How long the agent waits for somebody to allow what it asks for; then it is denied."""
    retention_days: int | None = Field(None, ge=1, le=36_500)
    """How long conversations are kept that nobody uses and whose task, if there is one, is finished. Default: for ever."""
    public_url: str = ""
    """What people type to get to the web surface, without a path. Default: the loopback address."""
    secret_key: SecretStr = SecretStr("")
    """Signs what the web surface gives to programs. Default, on loopback only: one that is made and kept in the data directory."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(default_factory=tuple)
    """Further host names under which the web surface answers, without ports; separated by commas in the environment."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ("127.0.0.1",)
    """The addresses or networks of reverse proxies, whose word on who calls is taken; separated by commas in the environment."""
    slack_bot_token: SecretStr = Field(SecretStr(""), validation_alias="slack_bot_token")
    """`SLACK_BOT_TOKEN`, as Slack's own documentation calls it. Likewise the next two."""
    slack_app_token: SecretStr = Field(SecretStr(""), validation_alias="slack_app_token")
    """For Socket Mode, which is used where it is set."""
    slack_signing_secret: SecretStr = Field(SecretStr(""), validation_alias="slack_signing_secret")
    """For HTTP, at `/slack/events`."""
    slack_api_url: SlackApiUrl = ""
    """Another address of Slack's API. Default: Slack's own."""
    slack: SlackSettings = Field(default_factory=SlackSettings)
    discord_token: SecretStr = Field(SecretStr(""), validation_alias="discord_token")
    """`DISCORD_TOKEN`, as everybody calls it: the bot's."""
    discord_api_url: DiscordApiUrl = ""
    """Another address of Discord's API, with its version. Default: Discord's own. Likewise the next one."""
    discord_gateway_url: DiscordGatewayUrl = ""
    discord: DiscordSettings = Field(default_factory=DiscordSettings)
    people: People = Field(default_factory=dict)
    """The table `[people]` of onethread.toml. It counts more than what people linked themselves."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        directory = os.environ.get("ONETHREAD_DATA_DIR") or platformdirs.user_data_dir("onethread", appauthor=False)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(directory) / CONFIG_FILE)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("fallback_models", "vision_models", mode="before")
    @classmethod
    def _listed(cls, models: Any) -> Any:
        return [qualified(model) for model in _items(models)] if isinstance(models, str) else models

    @field_validator("model_limits")
    @classmethod
    def _of_whole_ids(cls, limits: dict[str, Limit]) -> dict[str, Limit]:
        whole = {qualified(model): limit for model, limit in limits.items()}
        for model in whole:
            if model != ANY_OTHER and "/" not in model:
                raise ValueError(f"{model!r} is no litellm id: write the provider too, as in anthropic/claude-sonnet-5-5")
        return whole

    @field_validator("public_url")
    @classmethod
    def _without_path(cls, url: str) -> str:
        try:
            parts = urlsplit(url.strip())
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port that is no number, half an IPv6 address
            good = False
        if url and (not good or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc):
            raise ValueError("it must look like https://onethread.example.com: http or https and a host, no path")
        return f"{parts.scheme}://{parts.netloc.lower()}" if url else ""

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _host_names(cls, hosts: Any) -> Any:
        return tuple(host.lower().strip("[]") for host in _items(hosts)) if isinstance(hosts, str | list) else hosts

    @field_validator("allowed_hosts")
    @classmethod
    def _bare_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if "/" in host or (re.search(r":\d+$", host) and host.count(":") == 1):
                raise ValueError(f"{host!r} is no host name: write it without http:// and without a port")
        return hosts

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _proxies(cls, proxies: Any) -> Any:
        return _items(proxies) if isinstance(proxies, str | list) else proxies

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                if proxy != "*":
                    raise ValueError(f"{proxy!r} is neither an IP address nor a network such as 10.0.0.0/8") from None
        return proxies

    @property
    def url(self) -> str:
        """The web surface's address, always set: what links for people begin with."""
        return self.public_url or LOCAL_URL

    @property
    def database(self) -> str:
        """The database's address, always set."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'onethread.db'}"

    @property
    def database_shown(self) -> str:
        """The database's address without its password."""
        return masked(self.database)

    @property
    def kept(self) -> timedelta | None:
        """`retention_days` as a length of time."""
        return timedelta(days=self.retention_days) if self.retention_days else None

    @property
    def default_model(self) -> str:
        return self.model or default_model(os.environ)

    @property
    def unserved(self) -> frozenset[str]:
        """The prefixes of the models that cannot be asked from here, because a key is missing."""
        return frozenset() if self.model_api_base else unserved(os.environ)

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables in which the providers' keys are."""
        return os.environ

    @property
    def log_file(self) -> Path:
        return self.data_dir / "onethread.log"

    @property
    def config_file(self) -> Path:
        return self.data_dir / CONFIG_FILE


def load(*, dotenv: bool = True) -> Settings:
    """The settings as they are now; raises InvalidInput that names the variable.

    With `dotenv`, variables that are not set come from `.env` of the working directory, the providers' keys too.
    """
    if dotenv and not os.environ.get(_WITHOUT_DOTENV):
        for name, value in dotenv_values(".env").items():
            if value and not os.environ.get(name):
                os.environ[name] = value
    try:
        return Settings()
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{CONFIG_FILE} in the data directory is no TOML: {error}") from None
    except OSError as error:
        raise StorageUnavailable(f"{CONFIG_FILE} in the data directory cannot be read: {error.strerror}.") from None
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = variable(field[1]) if field else "ONETHREAD_..."
        raise InvalidInput(f"A setting is wrong. {name}: It is no JSON. See .env.example.") from None
    except ValidationError as error:
        raise InvalidInput("A setting is wrong. " + "; ".join(map(_problem, error.errors(include_input=False)))) from None


def variable(field: str) -> str:
    """The name in the environment of a field of Settings."""
    return field.upper() if Settings.model_fields[field].validation_alias else f"ONETHREAD_{field.upper()}"


def slack_config(settings: Settings) -> "SlackConfig | None":
    """How Slack is served; None where it is not. Raises InvalidInput with what to do where the tokens are none, or are not enough."""
    from bots.slack.config import API_URL, SlackConfig

    bot, app, secret = (
        each.get_secret_value() for each in (settings.slack_bot_token, settings.slack_app_token, settings.slack_signing_secret)
    )
    if not (bot or app or secret):
        return None
    if problem := slack_problem(bot, app, secret):
        raise InvalidInput(f"{problem} See docs/slack.md.")
    lists = settings.slack
    return SlackConfig(
        bot_token=bot,
        app_token=app,
        signing_secret=secret,
        api_url=settings.slack_api_url or API_URL,
        workspaces=frozenset(lists.workspaces),
        channels=frozenset(lists.channels),
        users=frozenset(lists.users),
        guests=lists.guests,
        channel_rules=_channel_rules(lists.channel),
        native_streams=lists.native_streams,
    )


def discord_config(settings: Settings) -> "DiscordConfig | None":
    """How Discord is served; None where it is not. Raises InvalidInput with what to do where the token is none."""
    from bots.discord.config import API_URL, GATEWAY_URL, DiscordConfig

    token = settings.discord_token.get_secret_value().removeprefix("Bot ")  # as the Authorization header has it
    if not token:
        return None
    if problem := discord_problem(token):
        raise InvalidInput(f"{problem} See docs/discord.md.")
    lists = settings.discord
    return DiscordConfig(
        token=token,
        api_url=settings.discord_api_url or API_URL,
        gateway_url=settings.discord_gateway_url or GATEWAY_URL,
        guilds=frozenset(lists.guilds),
        channels=frozenset(lists.channels),
        users=frozenset(lists.users),
        roles=frozenset(lists.roles),
        channel_rules=_channel_rules(lists.channel),
    )


def people_map(settings: Settings) -> dict[tuple[str, str, str], str]:
    """Who is who on the chat platforms, as the admin says: (surface, account, id there) -> user name."""
    found: dict[tuple[str, str, str], str] = {}
    for name, accounts in settings.people.items():
        for surface, account, external_id in (each.split(":") for each in accounts):
            found[surface, account, external_id] = name
    return found


def elsewhere(settings: Settings) -> tuple[dict[str, str], list[str]]:
    """What is set in the environment, for a program in another folder that works with the same Onethread, its paths whole; and the names of
    those variables, left out, that hold a password.
    """
    names = [variable(field) for field in Settings.model_fields if field not in _OF_SERVE]
    given = {name: value for name in names if (value := os.environ.get(name))}
    if "ONETHREAD_DATA_DIR" in given or os.environ.get("XDG_DATA_HOME"):
        given["ONETHREAD_DATA_DIR"] = str(settings.data_dir)
    if (url := given.get("ONETHREAD_DATABASE_URL", "")).startswith("sqlite"):
        scheme, _, path = url.partition("///")
        given["ONETHREAD_DATABASE_URL"] = f"{scheme}///{Path(path).absolute()}"
    secret = [name for name, value in given.items() if masked(value) != value]
    return {name: value for name, value in given.items() if name not in secret}, secret


def masked(address: str) -> str:
    """An address without the password in it, and without what its query calls a key, a token or the like."""
    without_password = re.sub(r"(//[^/:@]*):.*@", r"\1:***@", address)
    return re.sub(r"([?&][^=&]*(?:key|token|secret|pass|pwd|auth|sig)[^=&]*=)[^&]*", r"\1***", without_password, flags=re.IGNORECASE)


def without_dotenv(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process in somebody else's folder, and for those that it starts: none of them reads the `.env` there."""
    return {**environ, _WITHOUT_DOTENV: "1"}


def _channel_rules(channels: Mapping[str, ChannelSettings]) -> "dict[str, ChannelRules]":
    from bots.policy import ChannelRules

    return {name: ChannelRules(mode=each.mode, answer=each.answer) for name, each in channels.items()}


def _items(listed: str | list[str]) -> list[str]:
    return [item.strip() for item in (listed.split(",") if isinstance(listed, str) else listed) if item.strip()]


def _problem(error: ErrorDetails) -> str:
    name, *inside = map(str, error["loc"])
    place = f" ({', '.join(inside)})" if inside else ""
    return f"{variable(name)}{place}: {error['msg']}"


def prepare_data_dir(settings: Settings) -> None:
    """Makes the data directory; raises StorageUnavailable where nothing can be written to it."""
    directory = settings.data_dir
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=directory):
            return
    except OSError as error:
        advice = "Free some space." if error.errno == errno.ENOSPC else "Check its permissions, or set ONETHREAD_DATA_DIR to another one."
        raise StorageUnavailable(f"The data directory {directory} cannot be written to: {error.strerror}. {advice}") from None
