"""One person with several accounts is one user: linked by a private link, by a code, or because the operator says so; and unlinked."""

import asyncio
import io
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import pytest

from core import bindings, conversations, identity, linking, search, tasks, usage
from core.access import Principal
from core.errors import Conflict, NotAuthenticated, NotConfirmed, NotFound, RateLimited
from core.events import ConversationChanged, TaskChanged
from core.ids import new_id
from core.linking import PeopleMap
from core.models import Account, BindingMode, ChannelKind, Decision, Identity, InboxEntry, InboxKey, Place, Task, TurnStatus, User
from tests.databases import on_both
from tests.fakes import Call, ManualClock, ScriptedModel
from tests.integration.conftest import Start, World

new_database = on_both
SLACK, DISCORD = Account(surface="slack", id="T1"), Account(surface="discord", id="9")
NOBODY: PeopleMap = {}
HIS = ("slack", "T1", "U1")


class Linked:
    """What people do about their accounts in a world; as an operator's map says, where there is one."""

    def __init__(self, world: World, people: PeopleMap = NOBODY) -> None:
        self.world = world
        self.people = people

    async def comes(self, name: str = "mo", external_id: str = "U1", account: Account = SLACK) -> Principal:
        """Somebody writes on a platform."""
        user, _ = await self.world.write(lambda uow: linking.meet(uow, account, external_id, name, self.people))
        return identity.principal_of(user)

    async def begin(self, external_id: str = "U1", account: Account = SLACK) -> str:
        return await self.world.write(lambda uow: linking.begin(uow, account, external_id, self.people))

    async def peek(self, who: Principal, secret: str) -> Identity:
        return await self.world.read(lambda uow: linking.peek(uow, who, secret, self.people))

    async def confirm(self, who: Principal, secret: str) -> Identity:
        return await self.world.write(lambda uow: linking.confirm(uow, who, secret, self.people))

    async def code(self, who: Principal) -> str:
        return (await self.world.write(lambda uow: linking.code(uow, who))).text

    async def use(self, text: str, external_id: str = "U1", account: Account = SLACK, *, confirmed: bool = True) -> User:
        return await linking.use_code(self.world.app.storage, account, external_id, text, self.people, confirmed=confirmed)

    async def unlink(self, who: Principal, external_id: str = "U1", account: Account = SLACK) -> None:
        await self.world.write(lambda uow: linking.unlink(uow, who, account, external_id, self.people))

    async def accounts(self, who: Principal) -> list[str]:
        return [each.external_id for each in await self.world.read(lambda uow: linking.accounts_of(uow, who))]

    async def named(self, name: str) -> User | None:
        return await self.world.read(lambda uow: uow.users.by_name(name))


@pytest.fixture
async def linked(world: World) -> Linked:
    return Linked(world)


async def mia_of(world: World) -> Principal:
    """Somebody who signs in with a password."""
    mia = await world.user("mia")
    await world.write(lambda uow: uow.users.set_password(mia.user_id, "hash", uow.now))
    return mia


# --- what comes along ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Conversations of somebody who did all that one can do."""

    own: UUID
    hers: UUID
    """Where they are a member, and it belongs to who they will be joined with."""
    common: UUID
    """Where both are members."""
    foreign: UUID
    """Where only they are one."""
    task: Task


async def lives(world: World, mo: Principal, mia: Principal) -> Past:
    """`mo` asks, decides, writes, reads and has things shown; needs a model that asks for a deletion of OT-1, then ends."""
    await world.task("To be deleted", mo)
    own, hers, common, foreign = [(await world.chat(who)).id for who in (mo, mia, world.admin, world.admin)]
    async with world.working():
        asked = await world.post(own, "Delete the first", mo)
        await world.comes_to(asked, TurnStatus.WAITING)
        await world.decide(await world.approval(asked), Decision.APPROVE, mo)
        await world.comes_to(asked, TurnStatus.SUCCEEDED)
    task = await world.task("For mo", mo, assignee="mo")
    async with world.app.storage.write() as uow:
        await tasks.update(uow, mo, task.ref, {"title": "Still for mo"})
        for who, conversation_id in ((mo, hers), (mo, common), (mia, common), (mo, foreign)):
            await conversations.join(uow, who, conversation_id)
        place = Place(account=SLACK, channel="D1")
        await bindings.follow(uow, mo, own, place, mode=BindingMode.TWO_WAY, kind=ChannelKind.DIRECT, opened=True, source="slack")
        for who in (mo, mia):
            key = InboxKey(source="task", scope=str(who.user_id), event_id="the same")
            await uow.inbox.add(InboxEntry(key=key, body_sha256=""), user_id=who.user_id, at=uow.now)
    for conversation_id, text in ((hers, "A pelican"), (common, "First"), (common, "Second")):
        await world.note(conversation_id, text, mo)
    async with world.app.storage.write() as uow:
        for who, seq in ((mo, 2), (mia, 1)):
            await conversations.mark_read(uow, who, common, seq)
    return Past(own=own, hers=hers, common=common, foreign=foreign, task=task)


async def test_all_that_the_provisional_user_has_said_and_done_is_the_linked_ones(start: Start) -> None:
    async with start(ScriptedModel().will("May I?", Call("delete_task", {"ref": "OT-1"})).will("Gone.")) as world:
        linked, mia = Linked(world), await mia_of(world)
        mo = await linked.comes()
        past = await lives(world, mo, mia)
        with world.app.live.subscribe() as events:
            await linked.confirm(mia, await linked.begin())
            told = events.waiting()

        assert str(mo.user_id) not in await exported(world)
        assert await linked.named("mo") is None
        changed = {each.conversation_id for each in told if isinstance(each, ConversationChanged)}
        assert changed == {past.own, past.hers, past.common, past.foreign, past.task.conversation_id}
        assert TaskChanged(conversation_id=past.task.conversation_id, task_id=past.task.id) in told
        async with world.app.storage.read() as uow:
            assert (await conversations.get(uow, mia, past.own)).owner_id == mia.user_id
            members = await uow.conversations.members_of([past.hers, past.common, past.foreign])
            assert members == {past.common: {mia.user_id}, past.foreign: {mia.user_id}}
            assert await uow.read_marks.of_user(mia.user_id, [past.common]) == {past.common: 2}
            assert [hit.conversation.id for hit in await search.find(uow, mia, "pelican")] == [past.hers]
            assert (await usage.report(uow, mia, uow.now - timedelta(hours=1))).total.tokens_in > 0
            task = await tasks.get(uow, mia, past.task.ref)
            assert (task.assignee_id, task.creator_id) == (mia.user_id, mia.user_id)


async def test_messages_of_all_accounts_count_as_one_persons(start: Start) -> None:
    async with start(clock=ManualClock()) as world:
        linked, mia = Linked(world), await mia_of(world)
        mo = await linked.comes()
        task, chat = await world.task("Ours"), await world.chat(mo)
        await world.note(chat.id, "On Slack", mo)
        waiting = await world.post(chat.id, "On Slack", mo)
        with pytest.raises(Conflict, match="not answered yet"):
            await linked.confirm(mia, await linked.begin())
        await world.cancel(waiting, mo)
        await linked.confirm(mia, await linked.begin())
        with pytest.raises(RateLimited, match="More than 2 messages"):
            await world.post(task.conversation_id, "On the page", mia, rules=replace(world.app.rules, messages_per_minute=2))


# --- by a link ---


async def test_a_link_is_confirmed_once_by_whoever_is_signed_in(linked: Linked) -> None:
    mia, eve = await mia_of(linked.world), await linked.world.user("eve")
    await linked.comes()
    old, secret = await linked.begin(), await linked.begin()
    assert (await linked.peek(eve, secret)).name == "mo"
    for who, wrong, problem in (
        (mia, old, NotAuthenticated),
        (mia, "", NotAuthenticated),
        (replace(mia, token_id=new_id()), secret, NotAuthenticated),
    ):
        with pytest.raises(problem):
            await linked.confirm(who, wrong)
    found = await linked.confirm(mia, secret)
    assert (found.user_id, found.linked_at is not None, await linked.accounts(mia)) == (mia.user_id, True, ["U1"])
    assert await linked.comes() == mia
    with pytest.raises(NotAuthenticated, match="used already"):
        await linked.confirm(eve, secret)
    with pytest.raises(Conflict, match="linked already"):
        await linked.begin()


async def test_links_and_codes_end_after_ten_minutes_and_are_not_each_other(start: Start) -> None:
    clock = ManualClock()
    async with start(clock=clock) as world:
        linked, mia = Linked(world), await mia_of(world)
        await linked.comes()
        secret, code = await linked.begin(), await linked.code(mia)
        with pytest.raises(NotAuthenticated):
            await linked.confirm(mia, code.replace("-", ""))
        with pytest.raises(NotAuthenticated):
            await linked.use(secret)
        clock.advance(601)
        with pytest.raises(NotAuthenticated):
            await linked.confirm(mia, secret)
        with pytest.raises(NotAuthenticated, match="wrong, too old, or was used"):
            await linked.use(code)


async def test_whoever_is_somebody_by_other_ways_too_is_not_joined_into_others(linked: Linked) -> None:
    world, mia = linked.world, await mia_of(linked.world)
    await linked.comes()
    secret = await linked.begin()
    mo = await linked.named("mo")
    assert mo
    await world.write(lambda uow: identity.create_token(uow, mo, "mine", scopes=frozenset({"chat"}), lifetime=None))
    with pytest.raises(Conflict, match="linked already"):
        await linked.confirm(mia, secret)
    await linked.comes("ann", "U2")
    secret = await linked.begin("U2")
    ann = await linked.named("ann")
    assert ann
    await world.write(lambda uow: identity.disable(uow, ann))
    with pytest.raises(NotAuthenticated):
        await linked.confirm(mia, secret)
    with pytest.raises(NotAuthenticated):
        await linked.begin("U2")
    with pytest.raises(NotFound):
        await linked.begin("U3")


# --- by a code ---


async def test_a_code_says_whose_it_is_before_it_links(linked: Linked) -> None:
    mia = await mia_of(linked.world)
    await linked.comes("mo", "7", DISCORD)
    code = await linked.code(mia)
    assert re.fullmatch(r"[A-Z2-9]{4}-[A-Z2-9]{4}", code)
    with pytest.raises(NotConfirmed, match="a code of mia"):
        await linked.use(code, "7", DISCORD, confirmed=False)
    assert (await linked.use(f" {code.lower()} ", "7", DISCORD)).name == "mia"
    with pytest.raises(NotAuthenticated):
        await linked.use(code, "7", DISCORD)
    assert await linked.accounts(mia) == ["7"]
    assert await linked.comes("mo", "7", DISCORD) == mia


async def test_codes_cannot_be_guessed(start: Start) -> None:
    clock = ManualClock()
    async with start(clock=clock) as world:
        linked, mia = Linked(world), await mia_of(world)
        guessers = [f"G{number}" for number in range(7)]
        for each in guessers:
            await linked.comes(each, each)
        await linked.comes()
        code = await linked.code(mia)
        refused = 0
        for each in guessers:
            for _ in range(5):
                try:
                    await linked.use("ABCD-EFGH", each)
                except RateLimited:
                    refused += 1
                except NotAuthenticated:
                    pass
        assert refused == 5  # thirty in a minute from one workspace, whoever they are
        with pytest.raises(RateLimited):
            await linked.use(code)
        clock.advance(61)
        for _ in range(5):
            with pytest.raises(NotAuthenticated):
                await linked.use("ABCD-EFGH", "G0")
        with pytest.raises(RateLimited):
            await linked.use("ABCD-EFGH", "G0")
        assert (await linked.use(code)).name == "mia"


async def test_a_whole_workspace_may_link_in_one_minute(linked: Linked) -> None:
    for number in range(31):
        await linked.comes("mo", f"U{number}")
        await linked.use(await linked.code(linked.world.admin), f"U{number}")
    assert len(await linked.accounts(linked.world.admin)) == 31


async def test_of_two_processes_that_use_the_same_at_the_same_moment_one_succeeds(start: Start) -> None:
    async with start() as one, start() as two:
        here, there, mia = Linked(one), Linked(two), await mia_of(one)
        ann = await one.user("ann")
        await here.comes()
        secret, code = await here.begin(), await here.code(mia)
        got = await asyncio.gather(
            here.confirm(ann, secret), there.confirm(mia, secret), here.use(code), there.use(code), return_exceptions=True
        )
        errors = [each for each in got if isinstance(each, BaseException)]
        assert len(errors) == 3
        assert all(isinstance(each, Conflict | NotAuthenticated) for each in errors), errors
        assert await here.named("mo") is None
        assert sorted([await here.accounts(ann), await here.accounts(mia)]) == [[], ["U1"]]


async def test_what_is_being_posted_at_the_moment_of_joining_is_not_lost(start: Start) -> None:
    async with start() as one, start() as two:
        here, mia = Linked(one), await mia_of(one)
        mo = await here.comes()
        chat = await one.chat(mo)
        secret = await here.begin()
        said, joined = await asyncio.gather(two.note(chat.id, "Hello", mo), here.confirm(mia, secret), return_exceptions=True)
        stored = [(each.content, each.author_id) for each in await one.read(lambda uow: uow.messages.since(chat.id, 1))]
        if isinstance(said, BaseException):
            assert isinstance(said, Conflict | NotFound)
            assert stored == []
        else:
            author = mo if isinstance(joined, Conflict) else mia
            assert stored == [("Hello", author.user_id)]


async def test_who_was_let_in_before_the_joining_and_acts_after_it_is_told_to_look_again(linked: Linked) -> None:
    world, mia = linked.world, await mia_of(linked.world)
    mo, task = await linked.comes(), await linked.world.task("Ours")
    await linked.confirm(mia, await linked.begin())
    for late in (world.chat(mo), world.post(task.conversation_id, "Hello", mo), world.task("Mine", mo)):
        with pytest.raises(Conflict):
            await late


# --- what is linked ---


async def test_an_account_that_is_unlinked_begins_anew_and_what_was_said_stays(linked: Linked) -> None:
    world, mia = linked.world, await mia_of(linked.world)
    mo = await linked.comes()
    with pytest.raises(Conflict, match="not linked with anybody"):
        await world.write(lambda uow: linking.unlink_account(uow, SLACK, "U1", NOBODY))
    chat = await world.chat(mo)
    await linked.confirm(mia, await linked.begin())
    await linked.comes("mo", "U2")
    await linked.confirm(mia, await linked.begin("U2"))
    assert await linked.accounts(mia) == ["U1", "U2"]
    with pytest.raises(NotFound):
        await linked.unlink(await world.user("eve"))
    with pytest.raises(NotAuthenticated):
        await linked.unlink(replace(mia, token_id=new_id()))
    await linked.unlink(mia)
    assert (await world.write(lambda uow: linking.unlink_account(uow, SLACK, "U2", NOBODY))).name == "mia"
    again = await linked.comes()
    assert again.user_id not in (mia.user_id, mo.user_id)
    with pytest.raises(NotFound):
        await world.read(lambda uow: conversations.get(uow, again, chat.id))
    assert (await world.read(lambda uow: conversations.get(uow, mia, chat.id))).owner_id == mia.user_id


async def test_a_provisional_user_can_be_what_others_are_joined_into(linked: Linked) -> None:
    """Whoever never signs in may still be one user in Slack and Discord, by a code that an operator makes for them."""
    mo = await linked.comes()
    with pytest.raises(Conflict, match="already"):
        await linked.use(await linked.code(mo))
    await linked.comes("mo", "7", DISCORD)
    await linked.use(await linked.code(mo), "7", DISCORD)
    assert await linked.accounts(mo) == ["7", "U1"]
    with pytest.raises(Conflict, match="linked already"):
        await linked.begin()


# --- as the operator says ---


async def test_the_operators_map_wins_on_contact(linked: Linked) -> None:
    world = linked.world
    mo = await linked.comes()
    chat = await world.chat(mo)
    mapped = Linked(world, {HIS: "Mia", ("discord", "9", "7"): "mia"})
    assert await mapped.comes() == mo  # nobody of that name yet
    assert (await mapped.comes("Mia", "U5")).user_id != mo.user_id
    assert await mapped.named("mia") is None  # a name that the map gives away is taken by nobody else
    mia = await world.user("mia")
    posted = await world.post(chat.id, "Wait", mo)
    assert await mapped.comes() == mo
    await world.cancel(posted, mo)
    assert (await mapped.comes(), await mapped.comes("x", "7", DISCORD)) == (mia, mia)
    assert (await world.read(lambda uow: conversations.get(uow, mia, chat.id))).owner_id == mia.user_id
    with pytest.raises(Conflict, match="Whoever runs Onethread"):
        await mapped.unlink(mia)
    with pytest.raises(Conflict, match="Whoever runs Onethread"):
        await world.write(lambda uow: linking.unlink_account(uow, SLACK, "U1", mapped.people))


async def test_a_changed_map_moves_the_account_and_nothing_else(linked: Linked) -> None:
    world, mia, bob = linked.world, await mia_of(linked.world), await linked.world.user("bob")
    assert await Linked(world, {HIS: "mia"}).comes() == mia
    chat = await world.chat(mia)
    changed = Linked(world, {HIS: "bob"})
    assert await changed.comes() == bob
    assert (await world.read(lambda uow: uow.conversations.find(chat.id))).owner_id == mia.user_id  # type: ignore[union-attr]
    assert await linked.comes() == bob  # a line that is taken out unlinks nobody
    await world.write(lambda uow: identity.disable(uow, User(id=mia.user_id, name="mia", admin=False, created_at=uow.now)))
    with pytest.raises(NotAuthenticated):
        await Linked(world, {HIS: "mia"}).comes()


async def test_nobody_links_an_account_that_the_map_gives_to_somebody_else(linked: Linked) -> None:
    world, mia = linked.world, await mia_of(linked.world)
    await linked.comes()
    secret, code = await linked.begin(), await linked.code(mia)
    mapped = Linked(world, {HIS: "bob"})
    for attempt in (mapped.peek(mia, secret), mapped.confirm(mia, secret), mapped.use(code), mapped.begin()):
        with pytest.raises(Conflict, match="Whoever runs Onethread"):
            await attempt


async def exported(world: World) -> str:
    file = io.BytesIO()
    await world.app.transfer.export_to(file, lambda *_: None)
    return file.getvalue().decode()
