"""Users, tokens, projects, tasks and files: what is taken, and what is refused with which sentence."""

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from core import attachments, conversations, identity, messages, projects, tasks
from core.access import ALL_SCOPES
from core.attachments import Upload
from core.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from core.events import ConversationChanged, TaskChanged
from core.models import Attachment, Priority, Task, TaskStatus, Visibility
from tests.unit.conftest import Desk

# --- users and tokens ---


async def test_of_a_token_only_its_sha256_is_stored(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        token, secret = await identity.create_token(uow, desk.owner, "laptop", scopes=frozenset({"chat"}), lifetime=None)
        assert await uow.tokens.by_sha256(hashlib.sha256(secret.encode()).hexdigest()) == token
    async with desk.storage._reader.connect() as connection:
        stored = str((await connection.execute(text("SELECT * FROM tokens"))).all())
    assert secret.startswith("ot_")
    assert secret.removeprefix("ot_") not in stored


async def test_a_token_gives_its_scopes_and_not_more(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        _, some = await identity.create_token(uow, desk.owner, "some", scopes=frozenset({"tasks:read"}), lifetime=None)
        _, every = await identity.create_token(uow, desk.owner, "all", scopes=ALL_SCOPES, lifetime=None)
        limited, full = await identity.authenticate(uow, some), await identity.authenticate(uow, every)

    assert (limited.user_id, limited.scopes, limited.admin) == (desk.owner.id, frozenset({"tasks:read"}), False)
    assert (full.scopes, full.admin) == (ALL_SCOPES, True)


@pytest.mark.parametrize("end", ["expired", "revoked", "never made"])
async def test_a_token_ends(desk: Desk, end: str) -> None:
    async with desk.storage.write() as uow:
        _, secret = await identity.create_token(uow, desk.owner, "laptop", scopes=ALL_SCOPES, lifetime=timedelta(hours=1))
        assert (await identity.authenticate(uow, secret)).user_id == desk.owner.id
        if end == "revoked":
            await identity.revoke_token(uow, desk.owner, "laptop")
    if end == "expired":
        desk.clock.advance(3_600)
    async with desk.storage.read() as uow:
        with pytest.raises(NotAuthenticated, match="unknown, expired or revoked"):
            await identity.authenticate(uow, "ot_guess" if end == "never made" else secret)


async def test_a_tokens_name_is_free_again_after_it_was_revoked(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        await identity.create_token(uow, desk.owner, "laptop", scopes=ALL_SCOPES, lifetime=None)
        with pytest.raises(Conflict, match="has a token 'laptop' already"):
            await identity.create_token(uow, desk.owner, "laptop", scopes=ALL_SCOPES, lifetime=None)
        await identity.revoke_token(uow, desk.owner, "laptop")
        await identity.create_token(uow, desk.owner, "laptop", scopes=ALL_SCOPES, lifetime=None)
        with pytest.raises(NotFound):
            await identity.revoke_token(uow, desk.owner, "desktop")


async def test_scopes_are_checked_when_a_token_is_made(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        kim = await identity.user_named(uow, "kim")
        with pytest.raises(InvalidInput, match="Unknown scope 'root'"):
            await identity.create_token(uow, kim, "x", scopes=frozenset({"root"}), lifetime=None)
        with pytest.raises(InvalidInput, match="is no admin"):
            await identity.create_token(uow, kim, "x", scopes=frozenset({"admin"}), lifetime=None)


@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 65, "a\x00", "a/b", ".."])
async def test_a_name_that_is_none_is_refused(desk: Desk, name: str) -> None:
    async with desk.storage.write() as uow:
        with pytest.raises(InvalidInput, match="is no user name"):
            await identity.add_user(uow, name)


async def test_user_names_differ_in_more_than_case(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        with pytest.raises(Conflict, match="'KIM' already"):
            await identity.add_user(uow, "KIM")
        assert (await identity.user_named(uow, "Kim")).name == "kim"
        with pytest.raises(NotFound, match="no user 'lee'"):
            await identity.user_named(uow, "lee")


async def test_the_local_admin_is_made_once(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        assert (await identity.local_admin(uow)).id == desk.owner.id


# --- projects ---


async def test_a_project_gives_its_tasks_their_refs(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        web = await projects.add(uow, desk.admin, "web", "  The page ")
        assert (web.key, web.name) == ("WEB", "The page")
        made = [await tasks.create(uow, desk.admin, "x", project=project) for project in (web, None, web)]
        assert [task.ref for task in made] == ["WEB-1", "OT-1", "WEB-2"]
        assert (await projects.get(uow, "Web")).id == web.id
        with pytest.raises(Conflict, match="'WEB' already"):
            await projects.add(uow, desk.admin, "WEB", "Again")


async def test_only_admins_change_projects(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        for attempt in (projects.add(uow, desk.kim, "WEB", "x"), projects.edit(uow, desk.kim, "OT", {"name": "x"})):
            with pytest.raises(NotAuthenticated, match="Only an admin"):
                await attempt
        with pytest.raises(NotFound, match="Projects: OT"):
            await projects.edit(uow, desk.admin, "NO", {"name": "x"})


@pytest.mark.parametrize("key", ["", "A", "1A", "TOOLONGAKEY", "A-B", "Ä1", "A\n"])
async def test_a_project_key_that_is_none_is_refused(desk: Desk, key: str) -> None:
    async with desk.storage.write() as uow:
        with pytest.raises(InvalidInput, match="is no project key"):
            await projects.add(uow, desk.admin, key, "x")


async def test_a_project_is_edited(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        await projects.edit(uow, desk.admin, "OT", {"instructions": "Be brief.\x00", "model": "a/b"})
        edited = await projects.edit(uow, desk.admin, "OT", {"name": "New", "model": ""})
        assert (edited.instructions, edited.model, edited.name) == ("Be brief.\ufffd", None, "New")
        with pytest.raises(InvalidInput, match="at most 20000"):
            await projects.edit(uow, desk.admin, "OT", {"instructions": "x" * 20_001})


# --- tasks ---


async def _made(desk: Desk, title: str = "Buy milk", **fields: Any) -> Task:
    return await desk.do(lambda uow: tasks.create(uow, desk.admin, title, fields))


async def test_a_task_begins_with_a_conversation_of_its_own(desk: Desk) -> None:
    task = await _made(desk, "  Buy\n milk ", description=" two ", priority="high", assignee="KIM", labels=["a", " b ", "a"])

    assert (task.ref, task.title, task.description, task.status) == ("OT-1", "Buy milk", "two", TaskStatus.TODO)
    assert (task.priority, task.assignee_id, task.labels, task.version) == (Priority.HIGH, desk.kim.user_id, ("a", "b"), 1)
    conversation = await desk.do(lambda uow: conversations.get(uow, desk.kim, task.conversation_id))
    assert (conversation.task_ref, conversation.task_id, conversation.title) == ("OT-1", task.id, "Buy milk")


async def test_a_task_is_found_by_ref_in_any_case_and_by_id(desk: Desk) -> None:
    task = await _made(desk)
    async with desk.storage.read() as uow:
        for ref in ("OT-1", "ot-1", " Ot-1 ", str(task.id)):
            assert await tasks.get(uow, desk.kim, ref) == task
        with pytest.raises(NotFound, match=r"No task 'OT-2'\. Closest: OT-1\."):
            await tasks.get(uow, desk.kim, "OT-2")


async def test_an_update_changes_what_is_named_and_raises_the_version(desk: Desk) -> None:
    task = await _made(desk, assignee="kim", due_at="2026-12-24")
    changed = await desk.do(lambda uow: tasks.update(uow, desk.kim, "OT-1", {"status": "done", "assignee": None, "title": "New"}))

    assert changed == replace(task, status=TaskStatus.DONE, assignee_id=None, title="New", version=2, updated_at=changed.updated_at)
    assert (await desk.do(lambda uow: conversations.get(uow, desk.kim, task.conversation_id))).title == "New"


async def test_who_read_an_older_version_is_told(desk: Desk) -> None:
    await _made(desk)
    await desk.do(lambda uow: tasks.update(uow, desk.kim, "OT-1", {"title": "One"}, expected_version=1))
    with pytest.raises(Conflict, match="at version 2 now"):
        await desk.do(lambda uow: tasks.update(uow, desk.admin, "OT-1", {"title": "Two"}, expected_version=1))
    assert (await desk.do(lambda uow: tasks.get(uow, desk.kim, "OT-1"))).title == "One"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "Say what to change"),
        ({"title": " "}, "1-200 characters; this one has 0"),
        ({"title": "x" * 201}, "this one has 201"),
        ({"description": "x" * 10_001}, "10000 characters"),
        ({"status": "finished"}, "Statuses: todo, in_progress, in_review, done, cancelled"),
        ({"priority": "huge"}, "Priorities: low, medium, high, urgent"),
        ({"assignee": "nobody"}, "Users: admin, kim"),
        ({"due_at": "tomorrow"}, "is no date. Example"),
        ({"labels": ["x"] * 5 + [""]}, "1-50 characters"),
        ({"labels": [str(number) for number in range(21)]}, "at most 20 labels"),
        ({"colour": "red"}, "A task has no 'colour'"),
    ],
)
async def test_what_a_task_cannot_be_is_refused(desk: Desk, changes: dict[str, Any], told: str) -> None:
    before = await _made(desk)
    with pytest.raises(InvalidInput) as refused:
        await desk.do(lambda uow: tasks.update(uow, desk.admin, "OT-1", changes))
    assert told in str(refused.value)
    assert await desk.do(lambda uow: tasks.get(uow, desk.admin, "OT-1")) == before


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("2026-12-24", datetime(2026, 12, 24, tzinfo=UTC)),
        ("2026-12-24T17:00:00+02:00", datetime(2026, 12, 24, 15, tzinfo=UTC)),
        ("2026-12-24T17:00:00Z", datetime(2026, 12, 24, 17, tzinfo=UTC)),
        (date(2026, 12, 24), datetime(2026, 12, 24, tzinfo=UTC)),
        ("", None),
        (None, None),
    ],
)
async def test_a_due_date_is_stored_in_utc(desk: Desk, given: Any, stored: datetime | None) -> None:
    assert (await _made(desk, due_at=given)).due_at == stored


@pytest.mark.parametrize("due", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_date_beyond_time_is_refused(desk: Desk, due: str) -> None:
    with pytest.raises(InvalidInput, match="is no date"):
        await _made(desk, due_at=due)


async def test_a_private_task_is_its_readers_alone(desk: Desk) -> None:
    task = await desk.do(lambda uow: tasks.create(uow, desk.admin, "Ours", visibility=Visibility.PRIVATE))
    with pytest.raises(NotFound):
        await desk.do(lambda uow: tasks.get(uow, desk.kim, task.ref))
    await desk.do(lambda uow: conversations.join(uow, desk.kim, task.conversation_id))
    assert await desk.do(lambda uow: tasks.get(uow, desk.kim, task.ref)) == task


async def test_a_conversation_becomes_a_task_with_the_same_readers(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        web = await projects.add(uow, desk.admin, "WEB", "Website")
        chat = await conversations.add(uow, desk.admin, title="", visibility=Visibility.PRIVATE, project=web)
        posted = await messages.post(uow, desk.admin, chat.id, "Hello", rules=desk.rules, source="test")
    with desk.storage._live.subscribe() as events:
        task = await desk.do(lambda uow: tasks.promote(uow, desk.admin, chat.id, "  Buy   milk "))
        told = events.waiting()
    async with desk.storage.read() as uow:
        found = await conversations.get(uow, desk.admin, chat.id)
        assert await uow.messages.get(posted.message_id)
        with pytest.raises(NotFound):
            await tasks.get(uow, desk.kim, task.ref)
    assert (task.ref, task.title, task.status, task.creator_id) == ("WEB-1", "Buy milk", TaskStatus.TODO, desk.admin.user_id)
    assert (found.task_ref, found.title, found.visibility) == ("WEB-1", "Buy milk", Visibility.PRIVATE)
    assert told == [TaskChanged(conversation_id=chat.id, task_id=task.id), ConversationChanged(conversation_id=chat.id)]


async def test_a_conversation_becomes_a_task_once(desk: Desk) -> None:
    async with desk.storage.write() as uow:
        chat = await conversations.create(uow, desk.admin)
        await tasks.promote(uow, desk.admin, chat.id, "Buy milk")
    with pytest.raises(Conflict, match="belongs to OT-1 already"):
        await desk.do(lambda uow: tasks.promote(uow, desk.admin, chat.id, "Buy bread"))


async def test_nobody_makes_a_task_of_what_they_do_not_see_or_with_a_token_that_may_not(desk: Desk) -> None:
    chat = await desk.do(lambda uow: conversations.create(uow, desk.admin))
    with pytest.raises(NotFound):
        await desk.do(lambda uow: tasks.promote(uow, desk.kim, chat.id, "Mine"))
    with pytest.raises(NotAuthenticated, match="tasks:write"):
        await desk.do(lambda uow: tasks.promote(uow, replace(desk.admin, scopes=frozenset({"chat"})), chat.id, "Mine"))
    with pytest.raises(InvalidInput, match="1-200 characters"):
        await desk.do(lambda uow: tasks.promote(uow, desk.admin, chat.id, " "))


# --- files ---


async def _sent(desk: Desk, *uploads: Upload) -> list[Attachment]:
    async with desk.storage.write() as uow:
        chat = await conversations.create(uow, desk.admin)
        posted = await messages.post(uow, desk.admin, chat.id, "See", rules=desk.rules, source="test", uploads=uploads)
        return await uow.attachments.of_messages([posted.message_id])


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a.txt", "a.txt"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("a/b\\c.txt", "c.txt"),
        ("..", "file"),
        ("", "file"),
        ("line\nbreak\x00.txt", "linebreak\ufffd.txt"),
        ("x" * 300, "x" * 255),
    ],
)
async def test_a_file_keeps_the_last_part_of_its_name(desk: Desk, name: str, stored: str) -> None:
    (file,) = await _sent(desk, Upload(name=name, data=b"x"))
    assert file.name == stored


async def test_a_file_is_stored_with_its_type_size_and_sum(desk: Desk) -> None:
    data = bytes(range(256))
    guessed, given = await _sent(desk, Upload(name="a.png", data=data), Upload(name="a.png", data=data, media_type="x/y"))

    assert (guessed.media_type, given.media_type) == ("image/png", "x/y")
    assert (guessed.size, guessed.sha256) == (256, hashlib.sha256(data).hexdigest())
    async with desk.storage.read() as uow:
        assert await uow.attachments.data(guessed.id) == data
        assert await uow.attachments.head(guessed.id, 3) == b"\x00\x01\x02"


async def test_files_have_a_largest_and_a_smallest_size_and_number(desk: Desk) -> None:
    (file,) = await _sent(desk, Upload(name="a", data=b"x" * attachments.MAX_BYTES))
    assert file.size == 10 * 1024 * 1024
    with pytest.raises(InvalidInput, match=r"'a' has 10\.5 MB"):
        await _sent(desk, Upload(name="a", data=b"x" * (attachments.MAX_BYTES + 1)))
    with pytest.raises(InvalidInput, match="'a' is empty"):
        await _sent(desk, Upload(name="a", data=b""))
    with pytest.raises(InvalidInput, match="at most 10 files; this one has 11"):
        await _sent(desk, *[Upload(name="a", data=b"x")] * 11)


async def test_a_refused_file_leaves_no_message(desk: Desk) -> None:
    with pytest.raises(InvalidInput):
        await _sent(desk, Upload(name="good", data=b"x"), Upload(name="bad", data=b""))
    async with desk.storage.read() as uow:
        assert await uow.conversations.count(desk.admin) == 0
