"""The command line. Each command imports what it needs when it runs, so that `onethread --help` answers at once."""

import asyncio
import gc
import importlib.util
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onethread.table import print_rows

if TYPE_CHECKING:
    from core.models import User
    from core.ports import UnitOfWork
    from onethread.bootstrap import App
    from onethread.mcp_config import Written
    from onethread.settings import Settings

_OURS = ("core", "storage", "web", "mcp_server", "bots")
_INTERRUPTED = 130
CLIENTS = ("claude-code", "claude-desktop", "cursor", "vscode", "zed")
"""Programs that `onethread mcp config` knows."""
_ABOUT_LINK = "Whoever opens the link sets the password: once, within 7 days."


def main() -> None:
    """Runs the command line and ends the process: 0 done, 1 it could not be done, 2 wrong usage, 130 interrupted."""
    sys.exit(_run())


def _run() -> int:
    os.umask(0o077)  # what people write here is not for other users of the machine
    try:
        _check_ours()
        result = onethread.main(prog_name="onethread", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered must not raise again
        return 0
    except Exception as error:  # noqa: BLE001  # the outermost edge: unknown errors become one neutral line
        return _failed(error)


def _failed(error: Exception) -> int:
    from core.errors import OnethreadError

    if isinstance(error, OnethreadError):
        click.echo(f"Error: {error}", err=True)
        return 1
    import structlog

    from core.ids import new_id
    from core.logs import place_of

    reference = str(new_id())
    structlog.get_logger().error("command.broke", reference=reference, **place_of(error))
    where = f" The log says where: {_log_file}" if _log_file else ""
    click.echo(f"Error: That failed unexpectedly (reference {reference}).{where}", err=True)
    return 1


_log_file: Path | None = None
"""Where this process logs, once it does."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="onethread", prog_name="onethread")
def onethread() -> None:
    """One task, one conversation: in Slack, in Discord, in the IDE and in the browser."""


# --- talking ---------------------------------------------------------------------------------------------------------


@onethread.command()
@click.argument("task", metavar="[OT-12]", required=False)
@click.option("--last", is_flag=True, help="Go on with the conversation that was used last.")
@click.option("--json", "as_json", is_flag=True, help="Read messages from stdin, one a line; print each event as a line of JSON.")
def chat(task: str | None, last: bool, as_json: bool) -> int:
    """Talk with the agent: in a new chat, or about a task.

    In a pipe each line of stdin is a message, and each reply is printed when it is whole.
    """
    if task and last:
        raise click.UsageError("Name a task or use --last, not both.")
    settings = _settings()
    _log_to_file(settings)
    from onethread.terminal.chat import at_screen, has_screen, through_pipe

    if has_screen() and not as_json:
        asyncio.run(at_screen(settings, task=task, last=last))
    good = asyncio.run(through_pipe(settings, task=task, last=last, as_json=as_json))
    return 0 if good else 1


@onethread.command()
@click.option("--until-idle", is_flag=True, help="End when nothing is left to be answered.")
@click.option("--linger", type=float, default=0.0, hidden=True)
@click.option("--suspects", is_flag=True, hidden=True)
def worker(until_idle: bool, linger: float, suspects: bool) -> None:
    """Answer messages that any surface has stored. Ctrl-C hands back what is not finished."""
    from onethread import bootstrap, logs, service

    settings = _settings()
    logs.to_stderr(settings.log_format)
    if suspects:
        rules = replace(bootstrap.worker_rules_of(settings), concurrency=1, suspects_only=True)
        _do(settings, service.answer_suspects, worker_rules=rules)
    else:
        _do(settings, partial(service.work_until_idle, linger=linger) if until_idle else service.work)


@onethread.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 for all of this machine.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8420, show_default=True, help="0 for any that is free.")
@click.option("--open", "open_page", is_flag=True, help="Open it in the browser.")
@click.option("--no-worker", is_flag=True, help="Leave answering to `onethread worker`.")
def serve(host: str, port: int, open_page: bool, no_worker: bool) -> None:
    """Serve the HTTP API, the live WebSocket, MCP and Slack where its tokens are set, and answer messages, in one process.

    For this machine alone nothing needs to be set: it prints a link that signs you in. For others set ONETHREAD_SECRET_KEY and
    ONETHREAD_PUBLIC_URL, and give an admin a password: onethread user link NAME. Ctrl-C hands back what is not answered.
    """
    from onethread import logs
    from onethread import serve as server

    settings = _settings()
    logs.to_stderr(settings.log_format)
    with server.listening(settings, host, port) as door:
        _do(settings, lambda app: server.serve(app, door, worker=not no_worker, open_page=open_page))


@onethread.group(invoke_without_command=True)
@click.option("--read-only", is_flag=True, help="Offer only the tools that change nothing.")
@click.option("--tools", metavar="A,B", help="Offer only these tools.")
@click.pass_context
def mcp(context: click.Context, read_only: bool, tools: str | None) -> None:
    """Serve tasks and the agent to an IDE's assistant, by MCP on standard input and output.

    The IDE starts this by itself: `onethread mcp config` says how to tell it. It acts for ONETHREAD_USER, or the local admin. Messages are
    answered by whatever worker runs; where none does it starts one, which goes on when the IDE is closed.
    """
    if context.invoked_subcommand:
        return
    if sys.stdin and sys.stdin.isatty():
        click.echo("An IDE starts this, and speaks MCP with it: see onethread mcp config --help. Ctrl-C ends it.", err=True)
    gc.disable()  # worth an eighth of the time to the first answer; onethread.mcp_stdio turns it on again
    sys.modules["rich"] = None  # type: ignore[assignment]  # structlog and the SDK load it, for coloured tracebacks that nobody sees here
    from onethread import mcp_stdio

    mcp_stdio.main(read_only=read_only, tools=_names(tools))


@mcp.command("config")
@click.argument("client", metavar="CLIENT", type=click.Choice(CLIENTS))
@click.option("--write", is_flag=True, help="Add it to the client's file. What is there stays, and is kept beside it.")
@click.option("--url", metavar="URL", help="Of a running `onethread serve`, instead of a program that the client starts.")
@click.pass_context
def mcp_config(context: click.Context, client: str, write: bool, url: str | None) -> None:
    """Print what tells an MCP client of Onethread, and say where it belongs.

    CLIENT is claude-code, claude-desktop, cursor, vscode or zed. Options of `onethread mcp` become part of it, as in: onethread mcp
    --read-only config cursor. It never holds a token, a key or a password; what must be set beside it is said.
    """
    from onethread import mcp_config
    from onethread.settings import load

    assert context.parent
    read_only, tools = context.parent.params["read_only"], _names(context.parent.params["tools"])
    set_before = frozenset(os.environ)
    configuration = mcp_config.made(client, load(), read_only=read_only, tools=tools, url=url)
    if from_file := sorted(name for name in os.environ.keys() - set_before if name in configuration.text):
        click.echo(f"From the file .env in this folder: {', '.join(from_file)}. Whoever wrote it decides what the client starts.", err=True)
    if write:
        click.echo(_told(mcp_config.write(configuration), configuration.path), err=True)
    else:
        click.echo(configuration.text, nl=False)
        click.echo(f"It belongs into {configuration.path}, where --write would put it.", err=True)
    for sentence in configuration.advice:
        click.echo(sentence, err=True)


# --- looking after it ------------------------------------------------------------------------------------------------


@onethread.command()
def doctor() -> int:
    """Say what is configured, what is missing, and how to fix it."""
    from onethread import doctor as checks

    findings = asyncio.run(checks.examine())
    for finding in findings:
        click.echo(f"{click.style(finding.mark, fg=finding.color)} {finding.text}")
        for line in finding.advice.splitlines():
            click.echo(f"    {line}")
    return 1 if any(finding.level == "broken" for finding in findings) else 0


@onethread.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the database to the tables of this version. Every other command does that too."""

    async def upgrade(app: "App") -> None:
        click.echo(f"The database is up to date: {app.settings.database_shown}")

    _run_in_app(upgrade)


@db.command("prune")
@click.option("--dry-run", is_flag=True, help="Remove nothing, only print what would go.")
def db_prune(dry_run: bool) -> None:
    """Remove what is only kept for a while, and print how many rows of each table went.

    With ONETHREAD_RETENTION_DAYS also conversations that nobody used for so long, with their finished tasks and their files. What they
    cost stays known.
    """
    from core import retention

    async def prune(app: "App") -> None:
        work = retention.prunable if dry_run else retention.prune
        for table, rows in sorted((await work(app.storage, app.clock, app.settings.kept)).items()):
            click.echo(f"{table}: {rows}")

    _run_in_app(prune)


@db.command("export")
@click.argument("file", metavar="[FILE|-]", default="-")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def db_export(file: str, force: bool) -> None:
    """Write everything as JSON Lines: a backup, or the way to another database. Others may go on meanwhile.

    Without FILE it goes to standard output. It holds what people wrote, their files, and the hashes of passwords and tokens: only you
    may read FILE.
    Left out is what lasts for minutes: running workers, the feed of live events, requests to models and their pauses.
    """
    from onethread import transfer

    _run_in_app(lambda app: transfer.export(app, file, force=force))


@db.command("import")
@click.argument("file", metavar="FILE|-")
def db_import(file: str) -> None:
    """Read what `onethread db export` wrote into a new, empty database; all of it or, if anything is wrong, nothing.

    The file must come from the same version of the tables. Answers that were being written when it was made are begun anew by the next
    worker. Nothing else may use the database meanwhile.
    """
    from onethread import transfer

    _run_in_app(lambda app: transfer.load(app, file))


# --- people ----------------------------------------------------------------------------------------------------------


@onethread.group()
def user() -> None:
    """People."""


@user.command("add")
@click.argument("name")
@click.option("--admin", is_flag=True, help="May change projects and see to everything.")
def user_add(name: str, admin: bool) -> None:
    """Add a person, and print the link by which they set their password, alone, this once."""
    from core import identity

    async def add(app: "App") -> None:
        async with app.storage.write() as uow:
            added = await identity.add_user(uow, name, admin=admin)
            link = await _password_link(app, uow, added)
        click.echo(link)
        click.echo(f"Added {added.name}. {_ABOUT_LINK}", err=True)
        click.echo(f"For a program of theirs: onethread token create NAME --user {added.name}", err=True)

    _run_in_app(add)


@user.command("link")
@click.argument("name")
def user_link(name: str) -> None:
    """Print a new link by which a person sets their password, when they forgot it or the first one is spent. The old password holds
    until then.
    """
    from core import identity

    async def make(app: "App") -> None:
        async with app.storage.write() as uow:
            person = await identity.user_named(uow, name)
            link = await _password_link(app, uow, person)
        click.echo(link)
        click.echo(f"For {person.name}. {_ABOUT_LINK}", err=True)

    _run_in_app(make)


@user.command("disable")
@click.argument("name")
def user_disable(name: str) -> None:
    """Let somebody in no more: sessions, tokens and links of theirs are refused. What they wrote stays."""
    from core import identity

    async def disable(app: "App") -> None:
        async with app.storage.write() as uow:
            person = await identity.disable(uow, await identity.user_named(uow, name))
        click.echo(f"Disabled {person.name}. Back again: onethread user enable {person.name}", err=True)

    _run_in_app(disable)


@user.command("enable")
@click.argument("name")
def user_enable(name: str) -> None:
    """Let somebody in again, with the password and the tokens that they had."""
    from core import identity

    async def enable(app: "App") -> None:
        async with app.storage.write() as uow:
            person = await identity.enable(uow, await identity.user_named(uow, name))
        click.echo(f"Enabled {person.name}.", err=True)

    _run_in_app(enable)


@user.command("list")
def user_list() -> None:
    """List everybody: who is an admin, and who can sign in on the web."""

    async def show(app: "App") -> None:
        async with app.storage.read() as uow:
            people = [(person, await _sign_in_of(uow, person)) for person in await uow.users.all()]
        print_rows([(each.name, "admin" if each.admin else "", f"since {each.created_at:%Y-%m-%d}", entry) for each, entry in people])

    _run_in_app(show)


@onethread.group()
def token() -> None:
    """Tokens, with which programs act for a person."""


@token.command("create")
@click.argument("name")
@click.option("--user", "owner", default="", metavar="NAME", help="Whom it acts for. Default: you.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="tasks:read, tasks:write, chat or admin; again for more.")
@click.option("--days", type=click.IntRange(1, 3650), help="How long it is valid. Default: until it is revoked.")
def token_create(name: str, owner: str, scopes: tuple[str, ...], days: int | None) -> None:
    """Make a token and print it, alone, this once. Without --scope it may do tasks and chat.

    Whoever may chat may have the agent read and change tasks.
    """
    from core import identity

    async def create(app: "App") -> None:
        person = await app.person(owner)
        wanted = frozenset(scopes) or frozenset({"tasks:read", "tasks:write", "chat"})
        lifetime = timedelta(days=days) if days else None
        async with app.storage.write() as uow:
            made, secret = await identity.create_token(uow, person, name, scopes=wanted, lifetime=lifetime)
        click.echo(secret)
        until = f", valid until {made.expires_at:%Y-%m-%d}" if made.expires_at else ""
        click.echo(f"It acts for {person.name} with {' '.join(sorted(wanted))}{until}. It is not shown again.", err=True)

    _run_in_app(create)


@token.command("list")
def token_list() -> None:
    """List all tokens, without their secrets."""

    async def show(app: "App") -> None:
        async with app.storage.read() as uow:
            found = [(person, each) for person in await uow.users.all() for each in await uow.tokens.of_user(person.id)]
        rows = [(each.name, person.name, " ".join(sorted(each.scopes)), _validity(each, app.clock.now())) for person, each in found]
        if not rows:
            click.echo("No tokens. Create one: onethread token create NAME", err=True)
        print_rows(rows)

    _run_in_app(show)


@token.command("revoke")
@click.argument("name")
@click.option("--user", "owner", default="", metavar="NAME", help="Whose it is. Default: yours.")
def token_revoke(name: str, owner: str) -> None:
    """Make a token useless."""
    from core import identity

    async def revoke(app: "App") -> None:
        person = await app.person(owner)
        async with app.storage.write() as uow:
            await identity.revoke_token(uow, person, name)
        click.echo(f"Revoked {name}.", err=True)

    _run_in_app(revoke)


# --- where conversations are followed, and who is who there ----------------------------------------------------------


@onethread.command()
@click.argument("conversation", metavar="OT-12")
@click.argument("place", metavar="[LINK|N]", required=False)
@click.option("--mode", type=click.Choice(["two_way", "watch"]), help="watch: what is said there does not come in. Default: two_way.")
@click.option("--off", metavar="N|all", help="Show nothing there any more.")
@click.option("--yes", is_flag=True, help="Do not ask before others come to read a private conversation.")
def bind(conversation: str, place: str | None, mode: str | None, off: str | None, yes: bool) -> None:
    """Say where a conversation is followed on Slack and Discord; with LINK, have it followed there too.

    LINK is what Slack or Discord copies as the link of a channel, a thread or a message: of a channel, a new thread is begun there. N is
    a number of the list that comes without it. The conversation is a task's ref, its own id, or the address of its page.
    """
    from onethread import binding_commands as commands

    if off and (place or mode):
        raise click.UsageError("--off stands alone: onethread bind OT-12 --off 1")
    if mode and not place:
        raise click.UsageError("Say where: onethread bind OT-12 1 --mode watch")
    if off:
        _run_in_app(lambda app: commands.unfollow(app, conversation, off))
    elif place:
        commands.asking_first(
            lambda confirmed: _run_in_app(lambda app: commands.follow(app, conversation, place, mode=mode, confirmed=confirmed)), yes=yes
        )
    else:
        _run_in_app(lambda app: commands.show(app, conversation))


@onethread.group(invoke_without_command=True)
@click.option("--user", "owner", default="", metavar="NAME", help="Whose the account is. Default: yours.")
@click.pass_context
def link(context: click.Context, owner: str) -> None:
    """Make an account on Slack or Discord a person's: print a code, alone, that they type there as /link CODE."""
    from onethread import binding_commands as commands

    if context.invoked_subcommand and owner:
        raise click.UsageError("--user is whose code it shall be: it goes with no other command.")
    if not context.invoked_subcommand:
        _run_in_app(lambda app: commands.make_code(app, owner))


@link.command("list")
def link_list() -> None:
    """List the accounts on Slack and Discord, with whose they are."""
    from onethread import binding_commands as commands

    _run_in_app(commands.show_accounts)


@link.command("remove")
@click.argument("account", metavar="slack:T0123:U0456")
def link_remove(account: str) -> None:
    """Unlink an account: whoever writes with it next is somebody new. What was said with it stays."""
    from onethread import binding_commands as commands

    _run_in_app(lambda app: commands.unlink(app, account))


# --- projects --------------------------------------------------------------------------------------------------------


@onethread.group()
def project() -> None:
    """Projects: they give tasks their refs and instruct the agent."""


@project.command("list")
def project_list() -> None:
    """List the projects."""

    async def show(app: "App") -> None:
        async with app.storage.read() as uow:
            found = await uow.projects.all()
        print_rows([(each.key, each.name, each.model or "default model", f"{len(each.instructions)} characters") for each in found])

    _run_in_app(show)


@project.command("add")
@click.argument("key")
@click.argument("name")
def project_add(key: str, name: str) -> None:
    """Add a project; KEY begins its tasks' refs, like OT in OT-12."""
    from core import projects

    async def add(app: "App") -> None:
        principal = await app.principal()
        async with app.storage.write() as uow:
            added = await projects.add(uow, principal, key, name)
        click.echo(f"Added {added.key} {added.name}.", err=True)

    _run_in_app(add)


@project.command("edit")
@click.argument("key")
@click.option("--name")
@click.option("--instructions", metavar="TEXT|@FILE", help="What the agent is told in each of its conversations.")
@click.option("--model", metavar="ID", help="A litellm id; `default` goes back to the default model.")
def project_edit(key: str, name: str | None, instructions: str | None, model: str | None) -> None:
    """Change a project."""
    from core import projects

    changes: dict[str, str | None] = {} if name is None else {"name": name}
    if instructions is not None:
        changes["instructions"] = _text_or_file(instructions)
    if model is not None:
        changes["model"] = None if model == "default" else model
    if not changes:
        raise click.UsageError("Say what to change: --name, --instructions or --model.")

    async def edit(app: "App") -> None:
        principal = await app.principal()
        async with app.storage.write() as uow:
            changed = await projects.edit(uow, principal, key, changes)
        click.echo(f"Changed {changed.key}: {', '.join(sorted(changes))}.", err=True)

    _run_in_app(edit)


# --- how commands run ------------------------------------------------------------------------------------------------


def _settings() -> "Settings":
    """The settings, with a data directory that can be written to."""
    from onethread.settings import load, prepare_data_dir

    settings = load()
    prepare_data_dir(settings)
    return settings


def _told(written: "Written", path: Path) -> str:
    if not written.changed:
        return f"{path} has it already."
    return f"Added it to {path}; as it was: {written.backup}" if written.backup else f"Made {path}."


def _names(listed: str | None) -> list[str] | None:
    return None if listed is None else [name for each in listed.split(",") if (name := each.strip())]


def _log_to_file(settings: "Settings") -> None:
    from onethread import logs

    global _log_file  # noqa: PLW0603  # the outermost edge tells people where to look
    _log_file = settings.log_file
    logs.to_file(settings.log_file, settings.log_format)


def _run_in_app(work: "Callable[[App], Awaitable[None]]") -> None:
    """For short commands: what they print is theirs alone, so the log goes to its file."""
    settings = _settings()
    _log_to_file(settings)
    _do(settings, work)


def _do(settings: "Settings", work: "Callable[[App], Awaitable[None]]", **overrides: Any) -> None:
    from onethread.bootstrap import running

    async def do() -> None:
        async with running(settings, **overrides) as app:
            await work(app)

    asyncio.run(do())


def _check_ours() -> None:
    """Our packages have common names, and `python -m onethread` looks into the working directory first."""
    home = Path(__file__).resolve().parent.parent
    for name in _OURS:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found is None or found.parent.parent != home:
            raise click.ClickException(
                f"The package {name!r} that Python finds is not Onethread's: {found or 'there is none'}. "
                "Start it with the command `onethread`, or from another folder."
            )


async def _password_link(app: "App", uow: "UnitOfWork", person: "User") -> str:
    from core import identity
    from core.models import LinkPurpose

    code = await identity.create_link(uow, person, LinkPurpose.SET_PASSWORD, lifetime=identity.PASSWORD_LINK_LIFETIME)
    return f"{app.settings.url}/welcome?code={code}"


async def _sign_in_of(uow: "UnitOfWork", person: "User") -> str:
    from core.models import LinkPurpose

    if person.disabled_at:
        return f"disabled {person.disabled_at:%Y-%m-%d}"
    if person.password_set_at:
        return "signs in by password"
    return "has a link to set a password" if await uow.links.has_open(person.id, LinkPurpose.SET_PASSWORD) else "no password"


def _text_or_file(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{text[1:]!r} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{text[1:]!r} is no text in UTF-8.") from None


def _validity(token: Any, now: Any) -> str:
    if token.revoked_at:
        return f"revoked {token.revoked_at:%Y-%m-%d}"
    if token.expires_at is None:
        return "valid"
    return f"{'expired' if token.expires_at <= now else 'until'} {token.expires_at:%Y-%m-%d}"
