"""`onethread bind`, `onethread link` and `[people]`: where conversations are followed, and whose the accounts on chat platforms are."""

import asyncio
import io
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from core import bindings, conversations, identity, linking, tasks
from core.errors import Conflict
from core.ids import new_id
from core.models import Account, ChannelKind
from core.ports import UnitOfWork
from onethread.bootstrap import running
from onethread.settings import Settings
from tests.e2e.conftest import Prompt

_T = TypeVar("_T")
ACCOUNT = Account(surface="slack", id="T0123ABCD")
THREAD = "https://acme.slack.com/archives/C0123456789/p1700000000000100"
CHANNEL = "https://app.slack.com/client/T0123ABCD/C0123456789"


def stored(prompt: Prompt, work: Callable[[UnitOfWork], Awaitable[_T]]) -> _T:
    """What another process does meanwhile."""

    async def do() -> _T:
        async with running(Settings(data_dir=prompt.data_dir)) as app, app.storage.write() as uow:
            return await work(uow)

    return asyncio.run(do())


async def _served(uow: UnitOfWork) -> str:
    """Slack is served, there is a task OT-1, and a private chat of the admin's, whose id this gives."""
    await uow.account_leases.take(ACCOUNT, new_id(), until=uow.now + timedelta(minutes=1), now=uow.now)
    admin = identity.principal_of(await identity.local_admin(uow))
    await tasks.create(uow, admin, "Buy milk")
    return str((await conversations.create(uow, admin)).id)


async def _looked_up(uow: UnitOfWork) -> None:
    """Slack says what the places are that were asked for."""
    for binding in await uow.bindings.of_account(ACCOUNT):
        url, kind = "https://acme.slack.com/1", ChannelKind.OPEN
        await bindings.checked(uow, binding, channel=binding.channel, thread="1.0", opened=True, kind=kind, label="#ops", url=url)


def test_a_conversation_is_followed_listed_changed_and_unfollowed(prompt: Prompt) -> None:
    stored(prompt, _served)
    assert prompt.run("bind", "ot-1").err == "It is followed nowhere else. To have it followed: onethread bind ot-1 LINK\n"

    begun = prompt.run("bind", "OT-1", THREAD)
    waiting = prompt.run("bind", "OT-1")
    stored(prompt, _looked_up)

    assert (begun.code, begun.out) == (0, "")
    assert begun.err == "It is shown there as soon as `onethread serve` has asked Slack what it is.\n"
    assert waiting.out == "1  a channel on Slack  as soon as Slack was asked  followed by admin\n"
    assert prompt.run("bind", "OT-1").out == "1  #ops on Slack  two-way  followed by admin  https://acme.slack.com/1\n"
    changed = prompt.run("bind", "OT-1", "1", "--mode", "watch")
    assert changed.err == "Read-only in #ops on Slack from now on.\n"
    assert prompt.run("bind", "OT-1", "1", "--mode", "watch").err == "Read-only in #ops on Slack already.\n"
    assert prompt.run("bind", "OT-1", CHANNEL).err == begun.err
    assert (
        prompt.run("bind", "OT-1", "--off", "all").err
        == "Not followed any more in #ops on Slack.\nNot followed any more in a channel on Slack.\n"
    )
    assert prompt.run("bind", "OT-1", "--off", "1").err == "It is off already in #ops on Slack.\n"
    assert prompt.run("bind", "OT-1").out == "1  #ops on Slack  off  followed by admin  https://acme.slack.com/1\n"
    assert prompt.run("bind", "OT-1", "1", "--mode", "two_way").err == begun.err
    again = prompt.run("bind", "OT-1", "1", "--mode", "two_way")
    assert again.err == "It was asked for already, and is shown there as soon as `onethread serve` has asked Slack what it is.\n"


def test_all_places_are_left_or_none(prompt: Prompt) -> None:
    stored(prompt, _served)
    for link in (THREAD, CHANNEL):
        prompt.run("bind", "OT-1", link)
    change, changed = bindings.change_mode, 0

    async def once(*arguments: Any, **how: Any) -> Any:
        nonlocal changed
        changed += 1
        if changed == 2:
            raise Conflict("The second one fails.")
        return await change(*arguments, **how)

    with prompt.patch.context() as patch:
        patch.setattr(bindings, "change_mode", once)
        failed = prompt.run("bind", "OT-1", "--off", "all")

    assert (failed.code, failed.out, failed.err) == (1, "", "Error: The second one fails.\n")
    assert len(prompt.run("bind", "OT-1").out.splitlines()) == 2


def test_a_private_conversation_is_followed_only_when_the_person_says_so(prompt: Prompt) -> None:
    chat = stored(prompt, _served)

    refused = prompt.run("bind", chat, CHANNEL)

    assert (refused.code, refused.err) == (
        1,
        "Error: This conversation is private: only admin reads it. Everybody in that channel or thread would read it, too, "
        "and whoever writes there takes part from then on: all of it is theirs to read, also when it is unfollowed. "
        "To have it so, add --yes.\n",
    )
    assert prompt.run("bind", chat).out == ""
    assert prompt.run("bind", chat, CHANNEL, "--yes").code == 0
    assert prompt.run("bind", chat).out == "1  a channel on Slack  as soon as Slack was asked  followed by admin\n"


class _Keys(io.StringIO):
    """A terminal at which this is typed."""

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_it_asks_first(prompt: Prompt) -> None:
    chat = stored(prompt, _served)
    asked = "all of it is theirs to read, also when it is unfollowed. Go on? [y/N]: "

    with prompt.patch.context() as patch:
        patch.setattr(sys, "stdin", _Keys("\ny\n"))
        refused = prompt.run("bind", chat, CHANNEL)
        agreed = prompt.run("bind", chat, CHANNEL)

    assert (refused.code, asked in refused.err, refused.err.endswith("Error: Nothing was changed.\n")) == (1, True, True)
    assert (agreed.code, asked in agreed.err) == (0, True)
    assert len(prompt.run("bind", chat).out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["OT-9"], 1, "Error: No task 'OT-9'. Closest: OT-1.\n"),
        (["OT-1", "1"], 1, "Error: Say what to change: onethread bind OT-1 1 --mode watch, or onethread bind OT-1 --off 1\n"),
        (["OT-1", "²"], 1, "Error: That is no link to a channel or thread of Slack or Discord."),
        (["OT-1", "--off", "²"], 1, "Error: There is no place '²' here."),
        (["OT-1", "1", "--mode", "watch"], 1, "Error: There is no place '1' here. See their numbers with: onethread bind OT-1\n"),
        (["OT-1", "--off", "x"], 1, "Error: There is no place 'x' here. See their numbers with: onethread bind OT-1\n"),
        (["OT-1", "--off", "all"], 1, "Error: It is followed nowhere else.\n"),
        (["OT-1", "#ops"], 1, "Error: That is no link to a channel or thread of Slack or Discord."),
        (["OT-1", "https://discord.com/channels/1/123456789012345678"], 1, "Error: Discord is not served here."),
        (["OT-1", "--mode", "watch"], 2, "Usage:"),
        (["OT-1", THREAD, "--off", "1"], 2, "Usage:"),
    ],
)
def test_what_cannot_be_followed_says_what_to_do(prompt: Prompt, arguments: list[str], code: int, said: str) -> None:
    stored(prompt, _served)

    refused = prompt.run("bind", *arguments)

    assert (refused.code, refused.out) == (code, "")
    assert refused.err.startswith(said)


def test_an_account_is_linked_by_a_code_listed_and_unlinked(prompt: Prompt) -> None:
    prompt.run("user", "add", "mia")
    assert prompt.run("link", "list").err == "Nobody has written on Slack or Discord yet, or linked an account there.\n"
    stored(prompt, lambda uow: linking.meet(uow, ACCOUNT, "U0456EFGH", "Mia Berg", {}))

    made = prompt.run("link", "--user", "mia")

    assert re.fullmatch(r"[A-Z2-9]{4}-[A-Z2-9]{4}\n", made.out)
    assert made.err == f"Type /link {made.out.strip()} in Slack or Discord, within 10 minutes, and confirm it: you are mia there, too.\n"
    assert prompt.run("link", "list").out.startswith("mia-berg  slack:T0123ABCD:U0456EFGH  Mia Berg  came ")
    asyncio.run(_typed(prompt, made.out))
    prompt.capture.readouterr()  # what was logged
    assert prompt.run("link", "list").out.startswith("mia  slack:T0123ABCD:U0456EFGH  Mia Berg  linked ")
    assert prompt.run("link", "remove", "slack:T0123ABCD:U0456EFGH").err == (
        "Unlinked slack:T0123ABCD:U0456EFGH, which was mia's. Whoever writes with it next is somebody new.\n"
    )
    assert prompt.run("link", "list").out == ""
    assert prompt.run("link", "remove", "slack:T0123ABCD:U0456EFGH").err == "Error: Nobody has written with this account yet.\n"
    assert prompt.run("link", "remove", "foo").err == (
        "Error: 'foo' is no account: write it as slack:T0123ABCD:U0456EFGH. See them with: onethread link list\n"
    )
    for other in (["list"], ["remove", "slack:T0123ABCD:U0456EFGH"]):
        refused = prompt.run("link", "--user", "mia", *other)
        assert (refused.code, refused.out, refused.err.startswith("Usage:")) == (2, "", True)


async def _typed(prompt: Prompt, code: str) -> None:
    async with running(Settings(data_dir=prompt.data_dir)) as app:
        await linking.use_code(app.storage, ACCOUNT, "U0456EFGH", code, {}, confirmed=True)


# --- the admin's map ---

WHO = '[people]\nadmin = "slack:T0123ABCD:U0456EFGH"\nmia = ["discord:112233445566778899:223344556677889900", "slack:T0123ABCD:U0789"]\n'


def test_the_map_links_whoever_comes_and_doctor_says_whom_it_names_in_vain(prompt: Prompt) -> None:
    prompt.data_dir.mkdir(parents=True)
    (prompt.data_dir / "onethread.toml").write_text(WHO, encoding="utf-8")

    early = prompt.run("doctor")
    prompt.run("user", "add", "mia")
    ready = prompt.run("doctor")
    prompt.run("user", "disable", "mia")
    late = prompt.run("doctor")

    assert "! people: accounts on Slack are named, which is not set up: admin and mia\n" in early.out
    assert "! people: accounts on Discord are named, which is not set up: mia\n" in early.out
    assert "Set its token: docs/slack.md. Or remove them under [people] in onethread.toml.\n" in early.out
    assert "! people: there is no user 'mia'\n" in early.out
    assert "Add them: onethread user add mia\n" in early.out
    assert "✔ people: all are known whose accounts are named: admin, mia\n" in ready.out
    assert "! people: mia is disabled, and turned away on the chat platforms, too\n" in late.out
    assert {early.code, ready.code, late.code} == {0}


@pytest.mark.parametrize(
    ("people", "said"),
    [
        ('{"mia": ["slack:U0456EFGH"]}', "(mia, 0): Value error, 'slack:U0456EFGH' is no account: write slack:WORKSPACE:USER or discord:"),
        (
            '{"mia": ["slack:T0123ABCD:mia"]}',
            "(mia, 0): Value error, 'mia' is no user's id: Slack's begin with U or W, and are not its name",
        ),
        ('{"mia": "discord:mia:223344556677889900"}', "(mia, 0): Value error, 'mia' is no application's id: Discord's are 15 to 20 digits"),
        (
            '{"mia": ["slack:T012:U045"], "kim": ["slack:T012:U045"]}',
            ": Value error, 'slack:T012:U045' is mia's and kim's: an account belongs",
        ),
    ],
)
def test_a_map_that_would_not_work_is_refused(prompt: Prompt, people: str, said: str) -> None:
    refused = prompt.run("user", "list", ONETHREAD_PEOPLE=people)

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"Error: A setting is wrong. ONETHREAD_PEOPLE {said}".replace("PEOPLE :", "PEOPLE:"))
