"""The commands and the menu's entry as Discord shows them, and how Discord is told of them. What they do is in `interactions.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import discord
import structlog
from discord import app_commands

from bots.commands import SUBCOMMANDS
from bots.discord.failures import translated
from bots.surface import SurfaceError
from core.models import JSON

MAKE_TASK = "Make a task"
_ENTRY_POINT = 4
"""The type of the command that Discord makes for an app by itself. It must stay."""
_MEANT: Mapping[str, Any] = {
    "name": "",
    "description": "",
    "type": 1,
    "required": False,
    "autocomplete": False,
    "min_length": None,
    "max_length": None,
    "contexts": None,
    "integration_types": None,
}
"""What is compared of a command or an option, with what is meant where it is left out."""
_OF_PLACES = frozenset({"contexts", "integration_types"})
"""Some servers of Discord's protocol know nothing of these."""
_log = structlog.get_logger()
Asked = discord.Interaction[discord.Client]
Choices = list[app_commands.Choice[str]]


class Obeys(Protocol):
    """Does what people ask. Nothing raises."""

    async def command(self, asked: Asked, text: str, *, ref: str = "") -> None: ...
    async def link(self, asked: Asked, text: str) -> None: ...
    async def make_task(self, asked: Asked, message_id: str) -> None: ...
    async def refs(self, asked: Asked, typed: str) -> Choices: ...
    async def models(self, asked: Asked, typed: str) -> Choices: ...
    async def unknown(self, asked: Asked, error: Exception) -> None: ...


class Tree(app_commands.CommandTree[discord.Client]):
    """All commands of one client, for servers and direct messages."""

    def __init__(self, client: discord.Client, obeys: Obeys) -> None:
        super().__init__(
            client,
            allowed_installs=app_commands.AppInstallationType(guild=True),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True),
        )
        self._obeys = obeys
        self.add_command(_task(obeys))
        self.add_command(_help(obeys))
        self.add_command(_link(obeys))
        self.add_command(_make_task(obeys))

    async def on_error(self, interaction: Asked, error: app_commands.AppCommandError, /) -> None:
        await self._obeys.unknown(interaction, error)

    def described(self) -> list[JSON]:
        """As Discord is told of them."""
        return [command.to_dict(self) for command in self.get_commands()]


async def synced(tree: Tree) -> bool:
    """Tells Discord which commands there are, if it has others; False where that failed."""
    client, described = tree.client, tree.described()
    assert client.application_id
    try:
        with translated():
            registered: Sequence[Any] = await client.http.get_global_commands(client.application_id) or ()
            if _compared(registered, described) != _compared(described, registered):
                kept = [dict(each) for each in registered if each.get("type") == _ENTRY_POINT]
                await client.http.bulk_upsert_global_commands(client.application_id, payload=[*described, *kept])
                _log.info("discord.commands_registered")
    except SurfaceError as error:
        _log.warning("discord.commands_not_registered", error=type(error).__name__, reason=getattr(error, "reason", None))
        return False
    return True


def _compared(commands: Sequence[JSON], others: Sequence[JSON]) -> list[JSON]:
    """What matters of commands, but for what the others leave open."""
    by_name = {_name(each): each for each in others}
    ours = [each for each in commands if each.get("type") != _ENTRY_POINT]
    return [_compared_to(each, by_name.get(_name(each), {})) for each in sorted(ours, key=_name)]


def _compared_to(command: JSON, other: JSON) -> JSON:
    left_open = {name for name in _OF_PLACES if command.get(name) is None or other.get(name) is None}
    found = {name: command.get(name) or usual for name, usual in _MEANT.items() if name not in left_open}
    return {**found, "options": [_compared_to(each, {}) for each in command.get("options") or ()]}


def _name(command: JSON) -> tuple[int, str]:
    return command.get("type") or 1, command.get("name") or ""


# --- what there is ---------------------------------------------------------------------------------------------------

_REF = "Such as OT-12. In the thread of a task it may be left out"


def _task(obeys: Obeys) -> app_commands.Group:
    group = app_commands.Group(name="task", description="What is to be done, and what becomes of it")
    _add_places(group, obeys)

    @group.command(name="new", description=_about("new"))
    @app_commands.describe(title="What is to be done")
    async def new(interaction: Asked, title: app_commands.Range[str, 1, 200]) -> None:
        await obeys.command(interaction, f"new {title}")

    @group.command(name="list", description=_about("list"))
    @app_commands.describe(status_or_words="Such as done, in review, or words of the title")
    async def listed(interaction: Asked, status_or_words: app_commands.Range[str, 1, 200] = "") -> None:
        await obeys.command(interaction, f"list {status_or_words}")

    @group.command(name="show", description=_about("show"))
    @app_commands.describe(ref=_REF)
    async def show(interaction: Asked, ref: app_commands.Range[str, 1, 40] = "") -> None:
        await obeys.command(interaction, "show", ref=ref)

    @group.command(name="assign", description=_about("assign"))
    @app_commands.describe(who="A name, a mention, me or nobody", ref=_REF)
    async def assign(interaction: Asked, who: app_commands.Range[str, 1, 100], ref: app_commands.Range[str, 1, 40] = "") -> None:
        await obeys.command(interaction, f"assign {who}", ref=ref)

    @group.command(name="done", description=_about("done"))
    @app_commands.describe(ref=_REF)
    async def done(interaction: Asked, ref: app_commands.Range[str, 1, 40] = "") -> None:
        await obeys.command(interaction, "done", ref=ref)

    @group.command(name="model", description=_about("model"))
    @app_commands.describe(model_id="Left out, the models are shown", ref=_REF)
    @app_commands.rename(model_id="id")
    async def model(interaction: Asked, model_id: app_commands.Range[str, 1, 200] = "", ref: app_commands.Range[str, 1, 40] = "") -> None:
        await obeys.command(interaction, f"model {model_id}", ref=ref)

    @group.command(name="help", description=_about("help"))
    async def shown(interaction: Asked) -> None:
        await obeys.command(interaction, "help")

    show.autocomplete("ref")(obeys.refs)
    assign.autocomplete("ref")(obeys.refs)
    done.autocomplete("ref")(obeys.refs)
    model.autocomplete("ref")(obeys.refs)
    model.autocomplete("model_id")(obeys.models)
    return group


def _add_places(group: app_commands.Group, obeys: Obeys) -> None:
    """What is followed where."""

    @group.command(name="follow", description=_about("follow"))
    @app_commands.describe(
        ref="Such as OT-12, or its page's address",
        read_only="Whether it can only be read here",
        confirm="Whether others may read here what is private so far",
    )
    async def follow(interaction: Asked, ref: app_commands.Range[str, 1, 200], read_only: bool = False, confirm: bool = False) -> None:
        await obeys.command(interaction, f"follow {'read-only ' * read_only}{'confirm' * confirm}", ref=ref)

    @group.command(name="unfollow", description=_about("unfollow"))
    @app_commands.describe(ref=_REF)
    async def unfollow(interaction: Asked, ref: app_commands.Range[str, 1, 200] = "") -> None:
        await obeys.command(interaction, "unfollow", ref=ref)

    @group.command(name="where", description=_about("where"))
    @app_commands.describe(ref=_REF)
    async def where(interaction: Asked, ref: app_commands.Range[str, 1, 200] = "") -> None:
        await obeys.command(interaction, "where", ref=ref)

    follow.autocomplete("ref")(obeys.refs)
    unfollow.autocomplete("ref")(obeys.refs)
    where.autocomplete("ref")(obeys.refs)


def _help(obeys: Obeys) -> app_commands.Command[Any, ..., Any]:
    @app_commands.command(name="help", description="Shows what Onethread does here")
    async def shown(interaction: Asked) -> None:
        await obeys.command(interaction, "help")

    return shown


def _link(obeys: Obeys) -> app_commands.Command[Any, ..., Any]:
    @app_commands.command(name="link", description="Says who you are in Onethread: gives you a link, or takes a code")
    @app_commands.describe(code="From the page, Settings > Accounts; off undoes it", confirm="Whether you are whose code it is")
    async def linked(interaction: Asked, code: app_commands.Range[str, 1, 40] = "", confirm: bool = False) -> None:
        await obeys.link(interaction, f"{code} {'confirm' * confirm}")

    return linked


def _make_task(obeys: Obeys) -> app_commands.ContextMenu:
    async def chosen(interaction: Asked, message: discord.Message) -> None:
        await obeys.make_task(interaction, str(message.id))

    return app_commands.ContextMenu(name=MAKE_TASK, callback=chosen)


def _about(subcommand: str) -> str:
    summary = SUBCOMMANDS[subcommand].summary
    return summary[:1].upper() + summary[1:]
