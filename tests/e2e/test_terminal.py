"""`onethread chat` as a person at a terminal meets it, answered by the offline demo. The tests share one running terminal, in order."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from core import bindings, identity, tasks
from core.models import Account, BindingMode, ChannelKind, Place
from onethread.bootstrap import running
from onethread.settings import Settings
from tests.e2e.conftest import Terminal, Terminals

pytestmark = pytest.mark.requires("tmux")


@pytest.fixture(scope="module")
def terminal(terminals: Terminals) -> Terminal:
    """It loads its model library in the background: the first reply takes seconds, all others none."""
    return terminals.open()


@pytest.fixture
def chat(terminal: Terminal) -> Terminal:
    """The shared terminal in a new chat, its screen and input empty, and what was answered there before is answered."""
    terminal.clear()
    terminal.wait_until_idle()
    terminal.enter("/new")
    terminal.wait_for("A new private chat")
    terminal.clear()
    return terminal


def test_first_message_streams_its_reply_creates_a_task_and_shows_what_it_cost(terminal: Terminal) -> None:
    terminal.enter("create a task to buy milk")  # typed before the program has begun to listen

    screen = terminal.wait_for(r"demo/offline · [\d,]+ in · \d+ out · \$0 · [\d.]+ s")

    assert "/help lists the commands" in screen
    assert "❯ create a task to buy milk" in screen
    assert "✔ create_task {title: Buy milk}" in screen
    assert "Created OT-1 Buy milk (todo, medium)." in screen


def test_ctrl_c_stops_the_reply_and_not_the_program(chat: Terminal) -> None:
    chat.enter("count to 500")
    chat.wait_for(" 60 61")
    chat.type("half a thought")

    chat.key("C-c")
    chat.wait_for("■ Stopped")
    chat.wait_for("❯ half a thought")

    assert " 499 " not in chat.screen
    chat.key("C-c")
    chat.wait_until_idle()
    chat.key("C-c")
    chat.wait_for("Ctrl-D or /quit leaves")
    chat.enter("thanks")
    chat.wait_for("You are welcome.")


def test_y_approves_and_n_denies(chat: Terminal) -> None:
    chat.enter("create a task to water plants")
    task = re.search(r"Created (OT-\d+) Water plants", chat.wait_for("Created OT-\\d+ Water plants"))
    assert task

    for key, outcome in (("n", f"✕ delete_task {{ref: {task[1]}}}: denied"), ("y", f"Deleted {task[1]}.")):
        chat.wait_until_idle()
        chat.enter(f"delete {task[1]}")
        chat.wait_for(re.escape(f"May I run delete_task {{ref: {task[1]}}}?  [y] approve  [n] deny"))
        chat.key(key)
        chat.wait_for(re.escape(outcome))


def test_question_is_answered_by_its_number(chat: Terminal) -> None:
    chat.enter("ask me whether to use rooibos or mate")
    chat.wait_for(r"\[2\] mate")
    chat.wait_for(r"\[1-2\] chooses")

    chat.key("2")

    chat.wait_for("❯ mate\n")


def test_task_is_made_listed_opened_and_completed_by_commands(chat: Terminal) -> None:
    chat.enter("/new Paint the fence")
    ref = re.search(r"── (OT-\d+) Paint the fence \(todo, medium\)", chat.wait_for("Paint the fence \\(todo"))
    assert ref

    chat.enter(f"mark {ref[1]} done")
    chat.wait_for(f"{ref[1]} is now done")
    chat.wait_for("is now done\\.")
    chat.wait_until_idle()
    chat.enter("/tasks done")
    chat.wait_for(f"{ref[1]} Paint the fence  \\(done, medium\\)")
    chat.enter("/new")
    chat.enter(f"/open {ref[1].lower()}")
    chat.wait_for(re.escape(f"── {ref[1]} Paint the fence (done, medium)"))
    chat.enter("/chats")
    chat.wait_for(rf"\d+ {ref[1]} Paint the fence  \(2 messages")  # behind what else is answered at the time


def test_conversation_is_put_away_and_the_next_message_brings_it_back(chat: Terminal) -> None:
    chat.enter("/archive")
    chat.wait_for("There is nothing to archive yet")
    chat.enter("/note the fence is green")
    chat.wait_for("❯ the fence is green")

    chat.enter("/archive")
    chat.wait_for("Archived\\.")
    chat.enter("/chats archived")
    chat.wait_for(r" 1 .*\(1 message, now\)")
    chat.enter("/note and the gate is red")
    chat.wait_for("❯ and the gate is red")

    chat.enter("/chats archived")
    chat.wait_for("No archived conversations\\.")


def test_where_else_a_conversation_is_followed_is_told_at_once_and_when_asked(chat: Terminal, terminals: Terminals) -> None:
    chat.enter("/where")
    chat.wait_for("Nothing is begun yet")
    chat.enter("/new Plant a tree")
    ref = re.search(r"── (OT-\d+) Plant a tree", chat.wait_for("── OT-\\d+ Plant a tree"))
    assert ref
    chat.enter("/where")
    chat.wait_for("Followed nowhere else\\.")

    asyncio.run(_follow(terminals.data_dir, ref[1]))

    chat.wait_for("admin follows this in a direct message on Slack from now on, read-only\\.")
    chat.clear()
    chat.enter(f"/open {ref[1]}")
    chat.wait_for("also read-only in a direct message on Slack")
    chat.enter("/where")
    chat.wait_for("1 a direct message on Slack\n +read-only · by admin")


async def _follow(data_dir: Path, ref: str) -> None:
    """What another process does."""
    place = Place(account=Account(surface="slack", id="T1"), channel="D1")
    async with running(Settings(data_dir=data_dir)) as app, app.storage.write() as uow:
        admin = identity.principal_of(await identity.local_admin(uow))
        task = await tasks.get(uow, admin, ref)
        mode, kind = BindingMode.WATCH, ChannelKind.DIRECT
        await bindings.follow(uow, admin, task.conversation_id, place, mode=mode, kind=kind, source="slack")


def test_retry_answers_a_stopped_message_again(chat: Terminal) -> None:
    chat.enter("count to 90")
    chat.wait_for(" 20 21")
    chat.key("C-c")
    chat.wait_for("■ Stopped")

    chat.enter("/retry")

    chat.wait_for("↻ answering again")
    chat.wait_for(" 89 90\n")


def test_last_message_is_edited_and_deleted(chat: Terminal) -> None:
    chat.enter("/note we meet on Monday")
    chat.wait_for("❯ we meet on Monday")

    chat.enter("/edit we meet on Tuesday")
    chat.wait_for("changed “we meet on Monday” to: we meet on Tuesday")
    chat.enter("/delete")
    chat.wait_for("Delete “we meet on Tuesday”\\?")
    chat.key("y")

    chat.wait_for("admin deleted: we meet on Tuesday")


def test_model_is_listed_and_chosen(chat: Terminal) -> None:
    chat.enter("/model")
    chat.wait_for("○ OpenAI +set OPENAI_API_KEY")
    chat.wait_for("✔ Demo \\(offline\\) +demo/offline")

    chat.enter("/model openai/gpt-4o")
    chat.wait_for("Its key is missing: set OPENAI_API_KEY")
    chat.enter("hello")
    chat.wait_for("✕ openai/gpt-4o needs a key of OpenAI: set OPENAI_API_KEY")
    chat.enter("/model default")

    chat.enter("hello")
    chat.wait_for("Hello! I can work on tasks")


def test_unknown_command_gets_the_closest_one_and_two_slashes_send_one(chat: Terminal) -> None:
    chat.enter("/taskz")
    chat.wait_for("no command /taskz. Did you mean /tasks\\?")

    chat.enter("//etc is a folder")

    chat.wait_for("❯ /etc is a folder")
    chat.wait_until_idle()


def test_help_usage_and_status_tell_what_there_is(chat: Terminal) -> None:
    chat.enter("/help")
    chat.wait_for(r"/attach FILE +adds a file to your next message")
    chat.enter("hello")
    chat.wait_for(r"\$0 · [\d.]+ s")

    chat.enter("/usage")
    chat.wait_for(r"This conversation: [\d,]+ tokens in, \d+ out, \$0\.")
    chat.enter("/status")
    chat.wait_for(r"workers +1 alive, 0 messages queued or running")


def test_file_goes_with_the_next_message(chat: Terminal, tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text("Monday: paint", encoding="utf-8")

    chat.enter(f"/attach {tmp_path / 'plan.txt'}")
    chat.wait_for(r"\+ plan.txt \(13 bytes\), with your next message")
    chat.enter("thanks")

    chat.wait_for(r"❯ thanks\n  \+ plan.txt \(13 bytes\)\n")
    chat.enter("/attach /nonexistent")
    chat.wait_for("✕ There is no file '/nonexistent'")


def test_message_may_have_several_lines_typed_or_pasted(chat: Terminal) -> None:
    chat.type("first")
    chat.key("C-j")
    chat.type("second")
    chat.key("M-Enter")
    chat.paste("third\nfourth")
    chat.key("Enter")

    chat.wait_for("❯ first\n  second\n  third\n  fourth\n")


def test_tab_completes_commands_and_task_refs(chat: Terminal) -> None:
    chat.type("/sta")
    chat.wait_for("/status +who, where")
    chat.key("Tab")
    chat.wait_for("❯ /status")
    chat.key("C-u")

    chat.type("/open O")
    chat.wait_for("OT-1 +Buy milk")
    chat.key("C-u")


def test_escape_sequences_of_others_are_not_obeyed(chat: Terminal) -> None:
    chat.paste("create a task to \x1b]0;owned\x07\x1b[31mbuy \x9b2Jred paint")
    chat.key("Enter")
    chat.wait_for("Created OT-\\d+ .*red paint")
    chat.enter("/tasks red paint")
    chat.wait_for("red paint  \\(todo")

    title = chat._call("display-message", "-p", "-t", chat._target, "#{pane_title}")
    assert "owned" not in title
    assert "buy 2Jred paint" in chat.screen


def test_what_other_processes_say_appears_with_name_and_origin_while_it_streams(terminals: Terminals, terminal: Terminal) -> None:
    other = terminals.open("chat", "OT-1")
    terminal.key("C-u")
    terminal.enter("/open OT-1")
    other.wait_for("── OT-1 Buy milk")
    terminal.wait_for("── OT-1 Buy milk")

    terminal.enter("count to 300")
    other.wait_for(r"admin \(terminal\)\n❯ count to 300")
    other.wait_for(" 50 51")

    assert " 299 300" not in other.screen
    other.wait_for(" 299 300\n")
    terminal.wait_for(" 299 300\n")
    assert len(re.findall(r"\b150\b", other.screen)) == 1
    other.key("C-d")
    assert other.wait_for_end() == 0
    assert re.search(r"(Come back|The answer goes on) with: onethread chat OT-1", other.screen)


def test_killed_in_mid_reply_it_finishes_the_reply_when_it_starts_again(terminals: Terminals, chat: Terminal) -> None:
    chat.enter("create a task to survive")
    chat.wait_for("Created OT-\\d+ Survive")
    chat.enter("count to 210")
    chat.wait_for(" 80 81")

    os.kill(chat.pid, signal.SIGKILL)
    assert chat.wait_for_end() == 128 + signal.SIGKILL
    second = terminals.open("chat", "--last")

    second.wait_for(" 209 210\n", seconds=40)
    second.wait_until_idle()
    assert len(re.findall(r"\b150\b", second.screen)) == 1
    second.enter("/tasks survive")
    second.wait_for(r"OT-\d+ Survive  \(todo")
    assert len(re.findall(r"OT-\d+ Survive  \(todo", second.screen)) == 1


def test_narrow_screen_wraps_at_words_and_shows_all(terminals: Terminals) -> None:
    narrow = terminals.open("chat", "OT-1", columns=40, lines=20)
    narrow.wait_until_idle()

    narrow.enter("/help")
    narrow.wait_for("/quit\n +leaves; what is not answered yet\n +goes on later")

    assert max(len(line) for line in narrow.visible.splitlines()) <= 40
    narrow.enter("/quit")
    assert narrow.wait_for_end() == 0


def test_nothing_but_the_conversation_is_on_the_screen(terminals: Terminals) -> None:
    log = (terminals.data_dir / "onethread.log").read_text(encoding="utf-8")

    assert "turn.claimed" in log
    assert "terminal.broke" not in log
    assert (terminals.data_dir / "terminal_history").read_text(encoding="utf-8").count("create a task to buy milk") == 1
