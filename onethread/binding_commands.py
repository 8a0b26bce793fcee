"""`onethread bind` and `onethread link`: where conversations are followed on chat platforms, and whose the accounts there are."""

import sys
from collections.abc import Callable
from uuid import UUID

import click

from core import addresses, bindings, linking, naming, wording
from core.errors import Conflict, InvalidInput, NotConfirmed
from core.frames import binding_json, bindings_json
from core.models import JSON, Account, Binding, BindingCheck, BindingMode, Identity
from onethread.bootstrap import App
from onethread.links import read_place
from onethread.settings import people_map
from onethread.table import print_rows

SOURCE = "terminal"
_FORM = "slack:T0123ABCD:U0456EFGH"
"""How an account is written."""

# --- where a conversation is followed --------------------------------------------------------------------------------


async def show(app: App, name: str) -> None:
    """Raises NotFound for a conversation that is not there, as all of these do."""
    places = await _places(app, name)
    if not places:
        click.echo(f"It is followed nowhere else. To have it followed: onethread bind {name} LINK", err=True)
    print_rows([(str(number), *_row(each)) for number, each in enumerate(places, 1)])


async def follow(app: App, name: str, where: str, *, mode: str | None, confirmed: bool) -> None:
    """`where` is a link to a place, or the number of one in the list, of which the mode changes. Raises NotConfirmed as bindings do."""
    if where.isdecimal() and mode is None:
        raise InvalidInput(f"Say what to change: onethread bind {name} {where} --mode watch, or onethread bind {name} --off {where}")
    wanted = BindingMode(mode or BindingMode.TWO_WAY)
    await (_change if where.isdecimal() else _follow)(app, name, where, wanted, confirmed=confirmed)


def asking_first(work: Callable[[bool], None], *, yes: bool) -> None:
    """Does `work(confirmed)`, and where others would come to read what is private only if the person at the terminal says so."""
    try:
        work(yes)
    except NotConfirmed as error:
        if not sys.stdin.isatty():
            raise NotConfirmed(f"{error} To have it so, add --yes.") from None
        if not click.confirm(f"{error} Go on?", err=True):
            raise Conflict("Nothing was changed.") from None
        work(True)


async def unfollow(app: App, name: str, which: str) -> None:
    """`which` is a number in the list, or `all`: then all of them, or none."""
    principal = await app.principal()
    async with app.storage.write() as uow:
        places = await bindings_json(uow, (await naming.conversation(uow, principal, name)).id)
        left = [each for each in places if each["state"] != "off"] if which == "all" else [_numbered(name, places, which)]
        for each in left:
            await bindings.change_mode(uow, principal, UUID(each["id"]), BindingMode.OFF, source=SOURCE)
    if not left:
        raise Conflict("It is followed nowhere else.")
    for each in left:
        already = each["state"] == "off"
        click.echo(f"{'It is off already' if already else 'Not followed any more'} in {wording.place(each)}.", err=True)


async def _follow(app: App, name: str, link: str, mode: BindingMode, *, confirmed: bool) -> None:
    address = read_place(link)
    principal = await app.principal()
    async with app.storage.write() as uow:
        conversation = await naming.conversation(uow, principal, name)
        binding = await bindings.follow(
            uow,
            principal,
            conversation.id,
            await addresses.place_anywhere(uow, address),
            mode=mode,
            kind=None,
            check=BindingCheck.PLACE,
            confirmed=confirmed,
            source=SOURCE,
        )
        is_new = binding.updated_at == uow.now
    _say(binding, is_new)


async def _change(app: App, name: str, number: str, mode: BindingMode, *, confirmed: bool) -> None:
    binding_id = UUID(_numbered(name, await _places(app, name), number)["id"])
    principal = await app.principal()
    async with app.storage.write() as uow:
        check = BindingCheck.PLACE
        binding = await bindings.change_mode(uow, principal, binding_id, mode, check=check, confirmed=confirmed, source=SOURCE)
        is_new = binding.updated_at == uow.now
    _say(binding, is_new)


def _say(binding: Binding, is_new: bool) -> None:
    """`is_new`: whether anything was changed."""
    shown = binding_json(binding, {})
    if shown["state"] == "pending":
        asked = "It" if is_new else "It was asked for already, and"
        about = f"as soon as `onethread serve` has asked {wording.surface(binding.surface)} what it is"
        click.echo(f"{asked} is shown there {about}.", err=True)
    else:
        since = "from now on" if is_new else "already"
        click.echo(f"{wording.standing(shown).capitalize()} in {wording.place(shown)} {since}.", err=True)


async def _places(app: App, name: str) -> list[JSON]:
    principal = await app.principal()
    async with app.storage.read() as uow:
        return await bindings_json(uow, (await naming.conversation(uow, principal, name)).id)


def _numbered(name: str, places: list[JSON], number: str) -> JSON:
    if not number.isdecimal() or not 1 <= int(number) <= len(places):
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
    minutes = round(linking.LIFETIME.total_seconds() / 60)
    how = f"Type /link {made.text} in Slack or Discord, within {minutes} minutes, and confirm it"
    click.echo(f"{how}: you are {person.name} there, too.", err=True)


async def show_accounts(app: App) -> None:
    people = people_map(app.settings)
    async with app.storage.read() as uow:
        names = {person.id: person.name for person in await uow.users.all()}
        found = sorted(await uow.identities.all(), key=lambda each: names[each.user_id])
    if not found:
        click.echo("Nobody has written on Slack or Discord yet, or linked an account there.", err=True)
    print_rows([_account_row(names[each.user_id], each, (each.surface, each.account, each.external_id) in people) for each in found])


async def unlink(app: App, account: str) -> None:
    """`account` is written as the list shows it. Raises NotFound for one that nobody writes with, and Conflict as linking does."""
    parts = account.split(":")
    if len(parts) != 3:
        raise InvalidInput(f"{account!r} is no account: write it as {_FORM}. See them with: onethread link list")
    surface, team, external_id = parts
    async with app.storage.write() as uow:
        person = await linking.unlink_account(uow, Account(surface=surface, id=team), external_id, people_map(app.settings))
    click.echo(f"Unlinked {account}, which was {person.name}'s. Whoever writes with it next is somebody new.", err=True)


def _account_row(name: str, account: Identity, mapped: bool) -> tuple[str, str, str, str]:
    linked = f"linked {account.linked_at:%Y-%m-%d}" if account.linked_at else f"came {account.created_at:%Y-%m-%d}"
    written = f"{account.surface}:{account.account}:{account.external_id}"
    return name, written, account.name, f"{linked}, by [people]" if mapped else linked
