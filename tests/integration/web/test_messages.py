"""Messages over HTTP: changed, erased, and questions answered."""

from uuid import uuid4

from core.models import Posted
from tests.fakes import Call
from tests.integration.conftest import World
from tests.integration.web.conftest import Site

SENT = {
    "id",
    "conversation_id",
    "turn_id",
    "seq",
    "role",
    "content",
    "status",
    "author",
    "source",
    "metadata",
    "tool_calls",
    "attachments",
    "created_at",
    "updated_at",
    "edited_at",
    "deleted_at",
}


async def post(world: World) -> Posted:
    return await world.post((await world.chat()).id, "Helo")


async def test_a_message_that_waits_is_changed_before_it_is_answered(site: Site) -> None:
    posted = await post(site.world)

    answer = await site.client.patch(f"/api/messages/{posted.message_id}", json={"content": "Hello"})

    assert answer.status_code == 200
    assert set(answer.json()) == SENT
    assert (answer.json()["content"], answer.json()["edited_at"]) == ("Hello", None)


async def test_a_message_that_was_answered_is_marked_as_edited(site: Site) -> None:
    async with site.world.working():
        posted = await post(site.world)
        await site.world.ended(posted)

    answer = await site.client.patch(f"/api/messages/{posted.message_id}", json={"content": "Hello"})

    assert answer.json()["edited_at"]


async def test_a_deleted_message_says_nothing_and_its_answer_stops(site: Site) -> None:
    posted = await post(site.world)

    answers = [await site.client.delete(f"/api/messages/{posted.message_id}") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 204]
    (message, reply) = (await site.client.get(f"/api/conversations/{posted.conversation_id}")).json()["messages"]
    assert message["content"] == ""
    assert message["deleted_at"]
    assert reply["status"] == "cancelled"


async def test_only_who_wrote_a_message_changes_it(site: Site) -> None:
    task = await site.world.task("Shared")
    posted = await site.world.post(task.conversation_id, "Mine")

    async with site.calling(await site.world.user("other")) as client:
        edited = await client.patch(f"/api/messages/{posted.message_id}", json={"content": "Theirs"})
        deleted = await client.delete(f"/api/messages/{posted.message_id}")

    assert (edited.status_code, deleted.status_code) == (409, 409)
    assert (await site.world.message(posted.message_id)).content == "Mine"


async def test_somebody_elses_message_looks_like_none(site: Site) -> None:
    stranger = await site.world.user("stranger")
    theirs = await site.world.post((await site.world.chat(stranger)).id, "Hi", stranger)

    for message_id in (theirs.message_id, uuid4(), "x"):
        edited = await site.client.patch(f"/api/messages/{message_id}", json={"content": "Mine"})
        deleted = await site.client.delete(f"/api/messages/{message_id}")
        answered = await site.client.post(f"/api/messages/{message_id}/answer", json={"option": "Tea"})

        assert {edited.status_code, deleted.status_code, answered.status_code} == {404}


async def test_the_first_answer_to_a_question_counts(site: Site) -> None:
    site.world.model.will(Call("ask_user", {"question": "Tea or coffee?", "options": ["Tea", "Coffee"]}))
    async with site.world.working():
        reply = await site.world.ended(await post(site.world))

    first = await site.client.post(f"/api/messages/{reply.id}/answer", json={"option": "Tea"})
    again = await site.client.post(f"/api/messages/{reply.id}/answer", json={"option": "Coffee"})

    assert first.status_code == 202
    assert first.json()["user_message"]["content"] == "Tea"
    assert first.headers["location"] == f"/api/turns/{first.json()['turn_id']}"
    assert (again.status_code, again.json()["detail"]) == (409, "admin answered this question already.")


async def test_a_message_that_asks_nothing_cannot_be_answered(site: Site) -> None:
    posted = await post(site.world)

    answer = await site.client.post(f"/api/messages/{posted.reply_id}/answer", json={"option": "Tea"})

    assert (answer.status_code, answer.json()["detail"]) == (409, "This message asks nothing.")
