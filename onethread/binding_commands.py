"""`onethread bind` and `onethread link`: where conversations are followed on chat platforms, and whose the accounts there are."""

import sys
from collections.abc import Awaitable, Callable
from uuid import UUID

import click

from core import addresses, bindings, linking, naming, wording
from core.errors import Conflict, InvalidInput, NotConfirmed
from core.frames import binding_json, bindings_json
from core.models import JSON, Account, Binding, BindingCheck, BindingMode, Identity, User
from onethread.bootstrap import App
from onethread.links import read_place
from onethread.settings import people_map
from onethread.table import print_rows

SOURCE = "terminal"
_TOLD = "It is told in the conversation, and there."

# --- where a conversation is followed --------------------------------------------------------------------------------


async def show(app: App, name: str) -> None:
    """Raises NotFound for a conversation that is not there, as all of these do."""
    places = await _places(app, name)
    if not places:
        click.echo(f"It is followed nowhere else. To have it followed: onethread bind {name} LINK", err=True)
    print_rows([(str(number), *_row(each)) for number, each in enumerate(places, 1)])


async def follow(app: App, name: str, where: str, *, mode: str | None, yes: bool) -> None:
    """`where` is a link to a place, or the number of one in the list, of which the mode changes."""
    if where.isdigit() and mode is None:
        raise InvalidInput(f"Say what to change: onethread bind {name} {where} --mode watch, or onethread bind {name} --off {where}")
    wanted = BindingMode(mode or BindingMode.TWO_WAY)
    work = _change(app, name, where, wanted) if where.isdigit() else _follow(app, name, where, wanted)
    await _asking_first(work, yes=yes)


async def unfollow(app: App, name: str, which: str) -> None:
    """`which` is a number in the list, or `all`."""
    places = await _places(app, name)
    shown = [each for each in places if each["state"] != "off"] if which == "all" else [_numbered(name, places, which)]
    if not shown:
        raise Conflict("It is followed nowhere else.")
    principal = await app.principal()
    for each in shown:
        async with app.storage.write() as uow:
            await bindings.change_mode(uow, principal, UUID(each["id"]), BindingMode.OFF, source=SOURCE)
        click.echo(f"Not shown in {wording.place(each)} any more. {_TOLD}", err=True)


def _follow(app: App, name: str, link: str, mode: BindingMode) -> Callable[[bool], Awaitable[None]]:
    address = read_place(link)

    async def work(confirmed: bool) -> None:
        principal = await app.principal()
        async with app.storage.write() as uow:
            conversation = await naming.conversation(uow, principal, name)
            place = await addresses.place_anywhere(uow, address)
            binding = await bindings.follow(
                uow,
                principal,
                conversation.id,
                place,
                mode=mode,
                kind=None,
                check=BindingCheck.PLACE,
                confirmed=confirmed,
                source=SOURCE,
            )
        _say(binding)

    return work


def _change(app: App, name: str, number: str, mode: BindingMode) -> Callable[[bool], Awaitable[None]]:
    async def work(confirmed: bool) -> None:
        binding_id = UUID(_numbered(name, await _places(app, name), number)["id"])
        principal = await app.principal()
        async with app.storage.write() as uow:
            check = BindingCheck.PLACE
            binding = await bindings.change_mode(uow, principal, binding_id, mode, check=check, confirmed=confirmed, source=SOURCE)
        _say(binding)

    return work


async def _asking_first(work: Callable[[bool], Awaitable[None]], *, yes: bool) -> None:
    """Does it, and where others would come to read what is private only if the person at the terminal says so."""
    try:
        await work(yes)
    except NotConfirmed as error:
        if not sys.stdin.isatty():
            raise NotConfirmed(f"{error} To have it so, add --yes.") from None
        if not click.confirm(f"{error} Go on?", err=True):
            raise Conflict("Nothing was changed.") from None
        await work(True)


def _say(binding: Binding) -> None:
    shown = binding_json(binding, {})
    if shown["state"] == "pending":
        click.echo(f"It is shown there as soon as `onethread serve` has asked {wording.surface(binding.surface)} what it is.", err=True)
    else:
        click.echo(f"{wording.standing(shown).capitalize()} in {wording.place(shown)} from now on. {_TOLD}", err=True)


async def _places(app: App, name: str) -> list[JSON]:
    principal = await app.principal()
    async with app.storage.read() as uow:
        return await bindings_json(uow, (await naming.conversation(uow, principal, name)).id)


def _numbered(name: str, places: list[JSON], number: str) -> JSON:
    if not number.isdigit() or not 1 <= int(number) <= len(places):
        raise InvalidInput(f"There is no place {number!r} here. See their numbers with: onethread bind {name}")
    return places[int(number) - 1]


def _row(place: JSON) -> tuple[str, str, str, str]:
    who = f"{'begun there' if place['home'] else 'followed'} by {place['by'] or 'somebody'}"
    return wording.place(place), wording.standing(place), who, place["url"]


# --- whose an account is ---------------------------------------------------------------------------------------------


async def make_code(app: App, owner: str) -> None:
    """The code stands alone on standard output."""
    principal = await app.principal(owner)
    person = await app.person(owner)
    async with app.storage.write() as uow:
        made = await linking.code(uow, principal)
    click.echo(made.text)
    click.echo(
        f"Type /link {made.text} in Slack or Discord, within 10 minutes, and confirm it: you are {person.name} there, too.", err=True
    )


async def show_accounts(app: App) -> None:
    people = people_map(app.settings)
    async with app.storage.read() as uow:
        found = [(person, each) for person in await uow.users.all() for each in await uow.identities.of_user(person.id)]
    if not found:
        click.echo("Nobody has written on Slack or Discord yet, or linked an account there.", err=True)
    print_rows([_account_row(person, each, (each.surface, each.account, each.external_id) in people) for person, each in found])


async def unlink(app: App, account: str) -> None:
    """`account` is written as the list shows it. Raises NotFound for one that nobody writes with, and Conflict as linking does."""
    surface, _, rest = account.partition(":")
    team, _, external_id = rest.partition(":")
    async with app.storage.write() as uow:
        person = await linking.unlink_account(uow, Account(surface=surface, id=team), external_id, people_map(app.settings))
    click.echo(f"Unlinked {account}, which was {person.name}'s. Whoever writes with it next is somebody new.", err=True)


def _account_row(person: User, account: Identity, mapped: bool) -> tuple[str, str, str, str]:
    linked = f"linked {account.linked_at:%Y-%m-%d}" if account.linked_at else f"came {account.created_at:%Y-%m-%d}"
    written = f"{account.surface}:{account.account}:{account.external_id}"
    return person.name, written, account.name, f"{linked}, by [people]" if mapped else linked
