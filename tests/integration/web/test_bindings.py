"""Where a conversation is followed, over HTTP: listed, begun by a link, changed, ended; who may, and who is asked first."""

from datetime import timedelta
from uuid import UUID

import httpx
import pytest

from core import bindings
from core.access import Principal
from core.ids import new_id
from core.models import Account, BindingCheck, BindingMode, ChannelKind, Identity, Place
from core.ports import UnitOfWork
from tests.integration.conftest import World
from tests.integration.web.conftest import Site

SLACK = Account(surface="slack", id="T0123456789")
LINK = "https://acme.slack.com/archives/C0123456789"
OPS = "slack:T0123456789:C0000000001"


async def link(world: World, who: Principal, account: Account = SLACK) -> None:
    """Makes them known on a platform, which some process serves."""

    async def add(uow: UnitOfWork) -> None:
        known = Identity(
            surface=account.surface,
            account=account.id,
            external_id=f"U{who.user_id.hex[-8:].upper()}",
            user_id=who.user_id,
            name="somebody",
            created_at=uow.now,
        )
        await uow.identities.add(known)
        await uow.account_leases.take(account, new_id(), until=uow.now + timedelta(minutes=1), now=uow.now)

    await world.write(add)


async def follow_in_ops(world: World, who: Principal, conversation: UUID, *, label: str = "#ops") -> UUID:
    """Has it followed in the open channel that OPS is the key of, and the platform asked."""

    async def follow(uow: UnitOfWork) -> UUID:
        binding = await bindings.follow(
            uow,
            who,
            conversation,
            Place(account=SLACK, channel="C0000000001"),
            mode=BindingMode.TWO_WAY,
            kind=ChannelKind.OPEN,
            check=BindingCheck.PERSON,
            confirmed=True,
            source="web",
        )
        url, thread = "https://app.slack.com/client/T/C", "1700000000.000100"
        spot = await bindings.checked(
            uow, binding, channel=binding.channel, thread=thread, opened=True, kind=ChannelKind.OPEN, label=label, url=url
        )
        return spot.id

    return await world.write(follow)


def path_of(conversation_id: UUID) -> str:
    return f"/api/conversations/{conversation_id}/bindings"


async def notices(client: httpx.AsyncClient, conversation_id: UUID) -> list[str]:
    messages = (await client.get(f"/api/conversations/{conversation_id}/messages")).json()["messages"]
    return [each["metadata"]["notice"] for each in messages if each["role"] == "system"]


async def test_a_link_is_followed_once_others_may_read_a_private_conversation(site: Site) -> None:
    world = site.world
    kim = await world.user("kim")
    chat = await world.chat(kim)
    async with site.calling(kim) as calling:
        nothing = (await calling.get(path_of(chat.id))).json()
        unlinked = await calling.post(path_of(chat.id), json={"place": LINK})
        await link(world, kim)
        asked = await calling.post(path_of(chat.id), json={"place": LINK, "mode": "watch"})
        made = await calling.post(path_of(chat.id), json={"place": LINK, "mode": "watch", "confirmed": True})
        found = (await calling.get(path_of(chat.id))).json()
        shown = (await calling.get(f"/api/conversations/{chat.id}")).json()["bindings"]

    assert nothing == {"bindings": [], "also": "", "places": [], "platforms": []}
    assert (unlinked.status_code, unlinked.json()["error_code"]) == (409, "CONFLICT")
    assert "Link your Slack account first: type `/link` in Slack, or see Settings > Accounts." in unlinked.json()["detail"]
    assert (asked.status_code, asked.json()["confirm"]) == (409, True)
    assert "only kim reads it" in asked.json()["detail"]
    assert made.status_code == 201
    binding = made.json()
    place = {"surface": "slack", "kind": None, "label": "", "url": "", "home": False, "by": "kim"}
    assert binding.items() >= {**place, "mode": "watch", "state": "pending", "reason": None, "why": ""}.items()
    assert found == {"bindings": [binding], "also": "", "places": [], "platforms": [{"surface": "slack", "linked": True}]}
    assert [each["id"] for each in shown] == [binding["id"]]


async def test_a_mode_is_changed_and_what_ended_is_asked_for_again(site: Site) -> None:
    world = site.world
    kim = await world.user("kim")
    await link(world, kim)
    task = await world.task("Release", kim)
    binding_id = await follow_in_ops(world, kim, task.conversation_id)
    path = f"/api/bindings/{binding_id}"

    async def end(uow: UnitOfWork) -> None:
        binding = await uow.bindings.get(binding_id)
        assert binding
        await bindings.end(uow, binding, "is_archived")

    async with site.calling(kim) as calling:
        listed = (await calling.get(path_of(task.conversation_id))).json()
        watched = (await calling.patch(path, json={"mode": "watch"})).json()
        await world.write(end)
        (ended,) = (await calling.get(path_of(task.conversation_id))).json()["bindings"]
        gone = [(await calling.delete(path)).status_code for _ in range(2)]
        (off,) = (await calling.get(path_of(task.conversation_id))).json()["bindings"]
        again = (await calling.patch(path, json={"mode": "watch"})).json()
        wrong = [(await calling.patch(path, json=body)).status_code for body in ({}, {"mode": "off"}, {"mode": "watch", "x": 1})]
        forgotten = [(await calling.delete(path)).status_code for _ in range(2)]
        told = await notices(calling, task.conversation_id)

    assert listed["also"] == "also in #ops on Slack"
    assert listed["places"] == [{"key": OPS, "surface": "slack", "label": "#ops"}]
    assert (watched["mode"], watched["state"]) == ("watch", "live")
    assert (ended["state"], ended["reason"], ended["why"]) == ("ended", "is_archived", "The channel is archived.")
    assert gone == [204, 204]
    assert (off["state"], off["mode"]) == ("off", "off")
    assert (again["state"], again["mode"]) == ("pending", "watch")
    assert wrong == [400, 400, 400]
    assert forgotten == [204, 404]  # nothing was ever shown there since
    assert told == ["followed", "mode", "ended", "unfollowed"]


async def test_a_known_channel_is_chosen_by_its_key_only_by_who_sees_what_is_shown_there(site: Site) -> None:
    world = site.world
    kim, bob = await world.user("kim"), await world.user("bob")
    for each in (kim, bob):
        await link(world, each)
    secret, chat = await world.chat(kim), await world.chat(bob)
    await follow_in_ops(world, kim, secret.id)
    async with site.calling(kim) as calling, site.calling(bob) as other:
        own = (await calling.get(path_of(secret.id))).json()["places"]
        hidden = (await other.get(path_of(chat.id))).json()["places"]
        refused = await other.post(path_of(chat.id), json={"place": OPS, "confirmed": True})
        chosen = await calling.post(path_of((await world.chat(kim)).id), json={"place": OPS, "confirmed": True})

    assert [each["key"] for each in own] == [OPS]
    assert hidden == []
    assert (refused.status_code, "That is no link" in refused.json()["detail"]) == (400, True)
    assert (chosen.status_code, chosen.json()["kind"], chosen.json()["state"]) == (201, "open", "pending")


async def test_a_stranger_who_is_linked_as_well_finds_nothing(site: Site) -> None:
    """Also with a link of the very place, and the ids of the conversation and of the binding."""
    world = site.world
    kim, stranger = await world.user("kim"), await world.user("stranger")
    for each in (kim, stranger):
        await link(world, each)
    chat = await world.chat(kim)
    binding_id = await follow_in_ops(world, kim, chat.id)
    async with site.calling(stranger) as other:
        answers = [
            await other.get(path_of(chat.id)),
            await other.post(path_of(chat.id), json={"place": LINK, "confirmed": True}),
            await other.post(path_of(chat.id), json={"place": "no link", "confirmed": True}),
            await other.patch(f"/api/bindings/{binding_id}", json={"mode": "two_way", "confirmed": True}),
            await other.delete(f"/api/bindings/{binding_id}"),
        ]
        unknown = await other.delete(f"/api/bindings/{new_id()}")
    async with site.calling(kim, scopes=frozenset({"tasks:read"})) as reading:
        out_of_scope = await reading.delete(f"/api/bindings/{binding_id}")
    async with site.calling(kim) as calling:
        (binding,) = (await calling.get(path_of(chat.id))).json()["bindings"]

    assert [each.json()["error_code"] for each in answers] == ["NOT_FOUND"] * 5
    assert answers[-1].json()["detail"].replace(str(binding_id), "") == unknown.json()["detail"].replace(
        unknown.url.path.split("/")[-1], ""
    )
    assert out_of_scope.status_code == 401
    assert (binding["state"], binding["mode"]) == ("live", "two_way")


@pytest.mark.parametrize(
    ("accounts", "place", "sentence"),
    [
        ([SLACK], "https://app.slack.com/client/T9999999999/C0123456789", "another Slack than the one here"),
        ([SLACK, Account(surface="slack", id="T2222222222")], LINK, "There are several accounts of Slack"),
        ([SLACK], "https://discord.com/channels/7/8", "Link your Discord account first"),
        ([SLACK], "#ops", "Copy it there: it looks like https://"),
        ([SLACK], "slack:T0123456789:C0000000001", "Copy it there: it looks like https://"),
    ],
)
async def test_a_place_that_cannot_be_told_is_answered_by_what_to_do(
    site: Site, accounts: list[Account], place: str, sentence: str
) -> None:
    kim = await site.world.user("kim")
    for account in accounts:
        await link(site.world, kim, account)
    chat = await site.world.chat(kim)
    async with site.calling(kim) as calling:
        answer = await calling.post(path_of(chat.id), json={"place": place, "confirmed": True})
        none = (await calling.get(path_of(chat.id))).json()["bindings"]

    status, code = (409, "CONFLICT") if "account first" in sentence else (400, "VALIDATION_ERROR")
    assert (answer.status_code, answer.json()["error_code"], none) == (status, code, [])
    assert sentence in answer.json()["detail"]
