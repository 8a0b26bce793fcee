"""The command line as it is installed: its commands, their errors, `chat` in a pipe, and what `--help` may cost."""

import asyncio
import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.e2e.conftest import Prompt, Shell
from tests.postgres import Server
from tests.serving import ONETHREAD, environment

COMMANDS = ["chat", "serve", "mcp", "mcp config", "worker", "doctor", "db prune", "db export", "db import"]
COMMANDS += ["bind", "link", "link list", "link remove", "user add", "user link", "user disable", "token create", "project edit"]
HEAVY = {"litellm", "sqlalchemy", "pydantic", "slack_sdk", "slack_bolt", "discord", "mcp", "fastapi", "uvicorn", "jwt"}


# --- what it costs to ask ---


def test_help_needs_less_than_300_ms_of_cpu(shell: Shell) -> None:
    shell.run_installed("--help")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    helped = shell.run_installed("--help")

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "chat" in helped.out
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_command_line_imports_nothing_heavy() -> None:
    program = f"import sys, onethread.cli; print(*sorted({HEAVY!r} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30).stdout == "\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(prompt: Prompt, command: str) -> None:
    explained = prompt.run(*command.split(), "--help")

    assert explained.code == 0
    assert explained.out.startswith(f"Usage: onethread {command}")


def test_version_is_told(prompt: Prompt) -> None:
    assert prompt.run("--version").out == "onethread, version 0.1.0\n"


# --- errors ---


def test_wrong_usage_ends_with_2_and_an_error_of_ours_with_1_and_one_sentence(prompt: Prompt) -> None:
    assert prompt.run("frobnicate").code == 2
    assert prompt.run("chat", "OT-1", "--last").code == 2

    unknown = prompt.run("chat", "OT-99", "--json")

    assert (unknown.code, unknown.out, unknown.err) == (1, "", "Error: No task 'OT-99'.\n")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("{bad", "ONETHREAD_MODEL_LIMITS: It is no JSON."),
        ('{"demo/offline": {"requests_per_minute": -1}}', "ONETHREAD_MODEL_LIMITS (demo/offline, requests_per_minute): Input should be gr"),
        ('{"demo/offline": {"requests_at_onec": 1}}', "ONETHREAD_MODEL_LIMITS (demo/offline, requests_at_onec): Extra inputs are not p"),
        ('{"claude": {"requests_at_once": 1}}', "ONETHREAD_MODEL_LIMITS: Value error, 'claude' is no litellm id: write the provider too"),
    ],
)
def test_limit_that_would_not_work_is_refused(prompt: Prompt, limits: str, said: str) -> None:
    assert f"A setting is wrong. {said}" in prompt.run("user", "list", ONETHREAD_MODEL_LIMITS=limits).err


def test_what_is_written_is_for_its_user_alone(shell: Shell) -> None:
    shell.data_dir.mkdir(mode=0o755, exist_ok=True)
    shell.run("chat", "--json", stdin="hello\n")

    assert {path.stat().st_mode & 0o077 for path in shell.data_dir.iterdir()} == {0}


def test_fallback_is_told_in_a_pipe(shell: Shell) -> None:
    talk = shell.run("chat", stdin="hello\n", ONETHREAD_MODEL="openai/gpt-4o", ONETHREAD_FALLBACK_MODELS="demo/offline")

    assert talk.code == 0
    assert talk.err == "demo/offline answered instead of openai/gpt-4o, which has no key.\n"


def test_an_approval_is_waited_for_as_long_as_is_set(shell: Shell) -> None:
    shell.run("chat", "--json", stdin="create a task to buy milk\ndelete OT-1\n", ONETHREAD_APPROVAL_HOURS="0.5")

    with sqlite3.connect(shell.data_dir / "onethread.db") as connection:
        times = connection.execute("SELECT created_at, expires_at FROM approvals").fetchall()
    connection.close()

    assert [datetime.fromisoformat(end) - datetime.fromisoformat(begin) for begin, end in times] == [timedelta(minutes=30)]


def test_wrong_setting_is_named(prompt: Prompt) -> None:
    wrong = prompt.run("user", "list", ONETHREAD_TEMPERATURE="hot")

    assert wrong.code == 1
    assert wrong.err.startswith("Error: A setting is wrong. ONETHREAD_TEMPERATURE:")


def test_data_directory_that_cannot_be_written_to_is_named(prompt: Prompt) -> None:
    refused = prompt.run("user", "list", ONETHREAD_DATA_DIR="/proc/nowhere")

    assert refused.code == 1
    assert refused.err.startswith("Error: The data directory /proc/nowhere cannot be written to:")


def test_file_that_is_no_database_is_refused_in_a_sentence(prompt: Prompt) -> None:
    (prompt.folder / "letter.txt").write_text("Dear reader, this is a letter. " * 100, encoding="utf-8")

    refused = prompt.run("db", "upgrade", ONETHREAD_DATABASE_URL=f"sqlite+aiosqlite:///{prompt.folder / 'letter.txt'}")

    assert (refused.code, refused.err) == (
        1,
        "Error: The database file is no SQLite database. Restore it from a backup, or set ONETHREAD_DATABASE_URL to another one.\n",
    )


def test_database_of_a_newer_version_is_refused_in_a_sentence(prompt: Prompt) -> None:
    prompt.run("db", "upgrade")
    with sqlite3.connect(prompt.data_dir / "onethread.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    refused = prompt.run("user", "list")

    assert refused.code == 1
    assert refused.err.startswith("Error: The database was made by a newer version of Onethread.")
    assert "✕ database: The database was made by a newer version" in prompt.run("doctor").out


def test_unexpected_error_is_one_neutral_line_and_its_place_is_in_the_log(prompt: Prompt) -> None:
    prompt.run("db", "upgrade")
    with sqlite3.connect(prompt.data_dir / "onethread.db") as connection:
        connection.execute("ALTER TABLE users RENAME COLUMN name TO called")
    connection.close()

    failed = prompt.run("user", "list")

    assert failed.code == 1
    assert failed.err.startswith("Error: That failed unexpectedly (reference ")
    assert "Traceback" not in failed.err
    assert "command.broke" in (prompt.data_dir / "onethread.log").read_text(encoding="utf-8")


def test_foreign_package_named_like_ours_is_noticed(shell: Shell) -> None:
    (shell.folder / "core").mkdir()
    (shell.folder / "core" / "__init__.py").write_text("", encoding="utf-8")

    shadowed = subprocess.run(
        [sys.executable, "-m", "onethread", "user", "list"],
        cwd=shell.folder,
        env=environment(shell.data_dir),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert shadowed.returncode == 1
    assert shadowed.stderr.startswith("Error: The package 'core' that Python finds is not Onethread's")
    assert shell.run_installed("user", "list").code == 0


# --- people, tokens, projects ---


def test_users_are_added_and_listed(prompt: Prompt) -> None:
    assert prompt.run("user", "add", "anna", "--admin").code == 0

    assert prompt.run("user", "add", "Anna").err == "Error: There is a user 'Anna' already.\n"
    assert [line.split()[:2] for line in prompt.run("user", "list").out.splitlines()] == [["admin", "admin"], ["anna", "admin"]]


def test_token_is_printed_alone_and_can_be_revoked(prompt: Prompt) -> None:
    created = prompt.run("token", "create", "ci", "--scope", "chat", "--days", "7")

    assert created.out.startswith("ot_")
    assert len(created.out.split()) == 1
    assert "It acts for admin with chat, valid until" in created.err
    assert created.out.strip() not in prompt.run("token", "list").out
    assert prompt.run("token", "revoke", "ci").code == 0
    assert "revoked" in prompt.run("token", "list").out
    assert prompt.run("token", "revoke", "ci").err == "Error: admin has no token 'ci'. See them with: onethread token list\n"
    assert prompt.run("token", "create", "x", "--scope", "all").err.startswith("Error: Unknown scope 'all'.")


def test_projects_are_added_edited_and_listed(prompt: Prompt) -> None:
    (prompt.folder / "brief.md").write_text("Answer in one sentence.", encoding="utf-8")
    prompt.run("project", "add", "web", "Web site")

    assert prompt.run("project", "edit", "WEB", "--instructions", "@brief.md", "--model", "demo/offline").code == 0

    assert "WEB  Web site   demo/offline   23 characters" in prompt.run("project", "list").out
    assert prompt.run("project", "edit", "WEB").code == 2
    assert prompt.run("project", "edit", "WEB", "--instructions", "@missing.md").err.startswith("Error: 'missing.md' cannot be read:")
    assert prompt.run("project", "add", "1X", "x").err.startswith("Error: '1X' is no project key")


PRUNED = """changes: 0
conversations: 0
cursors: 0
inbound: 0
inbox: 0
links: 0
model_pauses: 0
model_requests: 0
sessions: 0
sign_in_attempts: 0
workers: 0
"""


def test_prune_tells_the_rows_of_each_table(prompt: Prompt) -> None:
    assert prompt.run("db", "prune").out == PRUNED


def test_prune_removes_what_nobody_used_and_a_dry_run_only_tells(shell: Shell, prompt: Prompt) -> None:
    shell.run("chat", "--json", stdin="hello\n", ONETHREAD_MODEL="openai/gpt-4o")
    with sqlite3.connect(shell.data_dir / "onethread.db") as connection:
        for table in ("conversations", "messages"):
            connection.execute(f"UPDATE {table} SET updated_at = '2020-01-01 00:00:00.000000'")
    connection.close()

    assert "conversations: 0\n" in prompt.run("db", "prune").out
    for arguments, number in ((["--dry-run"], 1), ([], 1), ([], 0)):
        pruned = prompt.run("db", "prune", *arguments, ONETHREAD_RETENTION_DAYS="365")
        assert f"conversations: {number}\n" in pruned.out


# --- export, import ---


def _add_some(prompt: Prompt) -> None:
    prompt.run("user", "add", "anna")
    prompt.run("project", "add", "web", "Web 👩‍🚀 site")


def test_everything_is_exported_and_imported_into_a_new_database(prompt: Prompt) -> None:
    _add_some(prompt)
    file = prompt.folder / "backup.jsonl"

    exported = prompt.run("db", "export", "backup.jsonl")
    new = str(prompt.folder / "new")
    imported = prompt.run("db", "import", "backup.jsonl", ONETHREAD_DATA_DIR=new)

    assert (exported.code, exported.out) == (0, "")
    assert exported.err == "Exported 4 rows to backup.jsonl. They hold what people wrote: keep them as safe as the database.\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (imported.code, imported.out) == (0, "")
    assert imported.err == f"Imported 4 rows into sqlite+aiosqlite:///{prompt.folder}/new/onethread.db\n"
    people = [prompt.run("user", "list", ONETHREAD_DATA_DIR=place).out.splitlines() for place in (str(prompt.data_dir), new)]
    assert [line.split("since")[0] for line in people[1]] == [line.split("since")[0] for line in people[0]]
    assert prompt.run("db", "export", ONETHREAD_DATA_DIR=new).out.splitlines()[1:] == file.read_text(encoding="utf-8").splitlines()[1:]


def test_export_replaces_a_file_only_with_force(prompt: Prompt) -> None:
    file = prompt.folder / "backup.jsonl"
    file.write_text("precious", encoding="utf-8")

    refused = prompt.run("db", "export", "backup.jsonl")

    assert (refused.code, refused.err) == (1, "Error: 'backup.jsonl' exists. Name another file, or replace it with --force.\n")
    assert file.read_text(encoding="utf-8") == "precious"
    assert prompt.run("db", "export", "--force", "backup.jsonl").code == 0
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4
    assert prompt.run("db", "export", "--force", "/dev/null").err.startswith("Error: '/dev/null' is no file.")
    assert prompt.run("db", "export", "nowhere/backup.jsonl").err == (
        "Error: 'nowhere/backup.jsonl' cannot be written: No such file or directory.\n"
    )


def test_export_that_breaks_leaves_no_file(prompt: Prompt) -> None:
    prompt.run("db", "upgrade")
    with sqlite3.connect(prompt.data_dir / "onethread.db") as connection:
        connection.execute("ALTER TABLE tool_calls RENAME COLUMN result TO outcome")
    connection.close()

    assert prompt.run("db", "export", "backup.jsonl").code == 1

    assert list(prompt.folder.iterdir()) == []


def test_import_is_refused_in_a_sentence(prompt: Prompt) -> None:
    _add_some(prompt)
    prompt.run("db", "export", "backup.jsonl")
    (prompt.folder / "letter.txt").write_text("Dear reader", encoding="utf-8")

    assert prompt.run("db", "import", "missing.jsonl").err == "Error: 'missing.jsonl' cannot be read: No such file or directory.\n"
    assert prompt.run("db", "import", "letter.txt").err == "Error: This is no export of Onethread: its first line does not say so.\n"
    occupied = prompt.run("db", "import", "backup.jsonl")
    assert occupied.code == 1
    assert occupied.err.startswith("Error: The database is not empty: there is something in projects.")
    assert prompt.run("db", "import").code == 2


def test_export_can_be_piped_into_an_import(shell: Shell, prompt: Prompt) -> None:
    prompt.run("user", "add", "anna")
    command = f"{ONETHREAD} db export | ONETHREAD_DATA_DIR={shell.folder}/new {ONETHREAD} db import -"

    piped = subprocess.run(
        ["sh", "-c", command], env=environment(shell.data_dir), cwd=shell.folder, capture_output=True, text=True, check=False, timeout=60
    )

    assert (piped.returncode, piped.stdout) == (0, "")
    assert "Imported 3 rows" in piped.stderr


def test_killed_import_leaves_the_database_as_it_was(shell: Shell, prompt: Prompt) -> None:
    prompt.run("user", "add", "anna")
    lines = prompt.run("db", "export").out.splitlines(keepends=True)
    new = shell.folder / "new"
    empty = prompt.run("db", "export", ONETHREAD_DATA_DIR=str(new)).out.splitlines()[1:]
    importing = subprocess.Popen([ONETHREAD, "db", "import", "-"], stdin=subprocess.PIPE, text=True, env=environment(new), cwd=shell.folder)
    assert importing.stdin
    importing.stdin.writelines(lines[:2])
    importing.stdin.flush()
    _wait_until_locked(new / "onethread.db")

    importing.kill()
    importing.wait(timeout=10)
    with suppress(BrokenPipeError):
        importing.stdin.close()

    assert prompt.run("db", "export", ONETHREAD_DATA_DIR=str(new)).out.splitlines()[1:] == empty


def _wait_until_locked(database: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        connection = sqlite3.connect(database, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return
        finally:
            connection.close()
        time.sleep(0.02)
    pytest.fail("The import did not begin.")


def test_export_shows_how_far_it_is_on_a_screen_and_refuses_to_fill_it(shell: Shell, prompt: Prompt) -> None:
    prompt.run("user", "add", "anna")
    at_screen = pexpect.spawn(ONETHREAD, ["db", "export", "a.jsonl"], env=environment(shell.data_dir), cwd=shell.folder, timeout=30)
    at_screen.expect("100%")
    at_screen.expect(r"Exported 3 rows to a\.jsonl")
    at_screen.expect(pexpect.EOF)
    refused = pexpect.spawn(ONETHREAD, ["db", "export"], env=environment(shell.data_dir), cwd=shell.folder, timeout=30)
    refused.expect("Error: This is not for a screen")
    refused.expect(pexpect.EOF)


# --- people ---


def test_added_person_gets_a_link_that_stands_alone_on_stdout(prompt: Prompt) -> None:
    added = prompt.run("user", "add", "ada")
    again = prompt.run("user", "link", "ada", ONETHREAD_PUBLIC_URL="https://onethread.example.com/")

    assert re.fullmatch(r"http://127\.0\.0\.1:8420/welcome\?code=[\w-]{43}\n", added.out)
    assert re.fullmatch(r"https://onethread\.example\.com/welcome\?code=[\w-]{43}\n", again.out)
    assert added.err.startswith("Added ada. Whoever opens the link sets the password: once, within 7 days.\n")
    assert added.out.partition("code=")[2].strip() not in added.err
    assert prompt.run("user", "link", "bob").err == "Error: There is no user 'bob'. See them with: onethread user list\n"
    assert prompt.run("user", "add", "ada").err == "Error: There is a user 'ada' already.\n"


def test_list_tells_who_is_admin_disabled_and_can_sign_in(prompt: Prompt) -> None:
    prompt.run("user", "add", "ada", "--admin")
    prompt.run("user", "add", "kim")
    prompt.run("user", "disable", "kim")
    today = datetime.now(UTC).date()

    assert prompt.run("user", "list").out.splitlines() == [
        f"admin  admin  since {today}  no password",
        f"ada    admin  since {today}  has a link to set a password",
        f"kim           since {today}  disabled {today}",
    ]
    assert prompt.run("user", "enable", "kim").err == "Enabled kim.\n"
    assert prompt.run("user", "list").out.splitlines()[2] == f"kim           since {today}  no password"


def test_last_admin_cannot_be_disabled(prompt: Prompt) -> None:
    refused = prompt.run("user", "disable", "admin")

    assert (refused.code, refused.err) == (
        1,
        "Error: admin is the last admin. Add another one first: onethread user add NAME --admin\n",
    )


# --- doctor ---


def test_doctor_tells_what_serve_would_refuse_and_never_the_secret_key(prompt: Prompt) -> None:
    key = "a secret key of more than thirty-two characters"
    at_home = prompt.run("doctor")
    unready = prompt.run("doctor", ONETHREAD_PUBLIC_URL="https://onethread.example.com", ONETHREAD_SECRET_KEY="short")
    prompt.run("user", "link", "admin")
    ready = prompt.run("doctor", ONETHREAD_PUBLIC_URL="http://onethread.example.com", ONETHREAD_SECRET_KEY=key)

    assert (
        "✔ web: `onethread serve` would start for this machine alone\n! web: for others than this machine more is needed\n" in at_home.out
    )
    assert "    Set ONETHREAD_SECRET_KEY, the same for every process." in at_home.out
    assert "✕ web: `onethread serve` would refuse to start at https://onethread.example.com\n" in unready.out
    assert "    ONETHREAD_SECRET_KEY has 5 characters and needs 32 or more." in unready.out
    assert "    Let an admin set a password." in unready.out
    assert unready.code == 1
    assert "✔ web: `onethread serve` would start at http://onethread.example.com\n" in ready.out
    assert "! web: http://onethread.example.com is not https\n" in ready.out
    assert "ONETHREAD_SECRET_KEY=47 characters, not shown (from the environment)" in ready.out
    assert key not in ready.out
    assert ready.code == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PUBLIC_URL", "onethread.example.com", "it must look like https://onethread.example.com"),
        ("PUBLIC_URL", "https://example.com/onethread", "it must look like https://onethread.example.com"),
        ("PUBLIC_URL", "https://me:secret@example.com", "it must look like https://onethread.example.com"),
        ("ALLOWED_HOSTS", "one.example.com,two.example.com:80", "'two.example.com:80' is no host name"),
        ("TRUSTED_PROXIES", "127.0.0.1,proxy", "'proxy' is neither an IP address nor a network"),
    ],
)
def test_wrong_setting_of_the_web_surface_is_refused(prompt: Prompt, name: str, value: str, said: str) -> None:
    variables: Any = {f"ONETHREAD_{name}": value}

    refused = prompt.run("user", "list", **variables)

    assert (refused.code, refused.err.startswith(f"Error: A setting is wrong. ONETHREAD_{name}:")) == (1, True)
    assert said in refused.err


def test_doctor_tells_what_is_set_and_never_a_key(prompt: Prompt) -> None:
    well = prompt.run("doctor", OPENAI_API_KEY="sk-very-secret")

    assert well.code == 0
    assert f"ONETHREAD_DATA_DIR={prompt.data_dir} (from the environment)" in well.out
    assert "OpenAI: OPENAI_API_KEY is set" in well.out
    assert "default model: openai/" in well.out
    assert "workers: none is running" in well.out
    assert "sk-very-secret" not in well.out


def test_doctor_ends_with_1_when_the_default_model_has_no_key(prompt: Prompt) -> None:
    ill = prompt.run("doctor", ONETHREAD_MODEL="openai/gpt-4o")

    assert ill.code == 1
    assert "✕ default model: openai/gpt-4o has no key\n    Set OPENAI_API_KEY, or another ONETHREAD_MODEL." in ill.out


@pytest.mark.requires("postgresql")
def test_a_postgresql_database_needs_nothing_but_its_address(shell: Shell, prompt: Prompt, postgres: Server) -> None:
    asyncio.run(postgres.execute("CREATE DATABASE e2e OWNER onethread"))
    address = postgres.url("e2e").set(drivername="postgres", password="open@sesame").render_as_string(hide_password=False)

    talk = shell.run("chat", "--json", stdin="create a task to buy milk\n", ONETHREAD_DATABASE_URL=address)
    well = prompt.run("doctor", ONETHREAD_DATABASE_URL=address)

    assert (talk.code, well.code) == (0, 0)
    assert "OT-1" in talk.out
    assert f"database: postgres://onethread:***@127.0.0.1:{postgres.port}/e2e (PostgreSQL " in well.out
    assert "sesame" not in well.out + talk.out + talk.err


def test_doctor_shows_the_fallbacks_and_which_of_them_has_no_key(prompt: Prompt) -> None:
    seen = prompt.run("doctor", ONETHREAD_FALLBACK_MODELS="gpt-4o, ollama_chat/llama3.1", ONETHREAD_MODEL="demo/offline")

    assert seen.code == 0
    assert "ONETHREAD_FALLBACK_MODELS=openai/gpt-4o,ollama_chat/llama3.1 (from the environment)" in seen.out
    assert "! fallback model: openai/gpt-4o has no key\n    It is passed over. Set OPENAI_API_KEY." in seen.out
    assert "✔ fallback model: ollama_chat/llama3.1\n" in seen.out


# --- chat in a pipe, worker ---


def test_json_lines_are_the_frames_and_each_line_is_sent_when_the_one_before_is_answered(shell: Shell) -> None:
    said = "create a task to buy milk\n\ndelete OT-1\nask me whether to use tea or coffee\n" + "x" * 10_001 + "\ncount to 5\n"

    ran = shell.run("chat", "--json", stdin=said, seconds=60)

    frames: list[dict[str, Any]] = [json.loads(line) for line in ran.out.splitlines()]
    events = [frame["event"] for frame in frames]
    assert (events[0], frames[0]["payload"]["messages"]) == ("snapshot", [])
    turns = [frame["payload"]["status"] for frame in frames if frame["event"] == "turn_changed"]
    answered = [each for each in turns if each in ("waiting", "succeeded")]
    assert answered == ["succeeded", "waiting", "succeeded", "succeeded", "succeeded"]  # the line after the waiting one denies it
    errors = [frame["payload"] for frame in frames if frame["event"] == "error"]
    assert [error["error_code"] for error in errors] == ["VALIDATION_ERROR"]
    assert "at most 10,000 characters" in errors[0]["detail"]
    replies = [frame["payload"]["content"] for frame in frames if frame["event"] == "llm_complete"]
    assert "Created **OT-1** Buy milk" in replies[0]
    assert replies[-1] == "1 2 3 4 5"
    assert "".join(frame["payload"]["delta"] for frame in frames if frame["event"] == "llm_delta").endswith("1 2 3 4 5")
    assert ran.code == 1  # one line was refused
    assert ran.err == ""


def test_json_ends_with_1_and_names_the_missing_key(shell: Shell) -> None:
    ran = shell.run("chat", "--json", stdin="hello\n", ONETHREAD_MODEL="openai/gpt-4o")

    failed = next(frame for frame in map(json.loads, ran.out.splitlines()) if frame["event"] == "llm_error")
    assert failed["payload"]["error_code"] == "KEY_MISSING"
    assert "OPENAI_API_KEY" in failed["payload"]["error"]
    assert ran.code == 1


def test_closed_output_ends_quietly(shell: Shell) -> None:
    shell.run("chat", "--json", stdin="hello\n", ONETHREAD_MODEL="openai/gpt-4o")
    command = f"{ONETHREAD} chat --last --json | head -1"

    ended = subprocess.run(
        ["sh", "-c", command],
        input="hello\nhello again\n",
        env=environment(shell.data_dir, ONETHREAD_MODEL="openai/gpt-4o"),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert json.loads(ended.stdout)["event"] == "snapshot"
    assert ended.stderr == ""


def test_pipe_without_json_prints_whole_replies_and_errors_apart(shell: Shell) -> None:
    answered = shell.run("chat", stdin="count to 3\nthanks\n", seconds=60)
    failed = shell.run("chat", stdin="hello\n", ONETHREAD_MODEL="openai/gpt-4o")

    assert answered.code == 0
    assert answered.out.endswith("\n\n1 2 3\nYou are welcome.\n")
    assert "\x1b" not in answered.out
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("Error: openai/gpt-4o needs a key of OpenAI: set OPENAI_API_KEY")


def test_worker_answers_until_nothing_is_left(shell: Shell) -> None:
    shell.run("chat", "--json", stdin="hello\n", ONETHREAD_MODEL="openai/gpt-4o")
    with sqlite3.connect(shell.data_dir / "onethread.db") as connection:
        connection.execute("UPDATE turns SET status = 'queued', finished_at = NULL")
    connection.close()

    ran = shell.run("worker", "--until-idle")

    assert ran.code == 0
    assert "turn.claimed" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_stops_on_a_signal_with_0(shell: Shell, number: signal.Signals) -> None:
    running = subprocess.Popen([ONETHREAD, "worker"], stderr=subprocess.PIPE, text=True, env=environment(shell.data_dir), cwd=shell.folder)
    assert running.stderr
    assert "worker.started" in running.stderr.readline()

    os.kill(running.pid, number)

    assert running.wait(timeout=15) == 0
    assert "worker.stopping" in running.stderr.read()
    running.stderr.close()


def test_suspects_are_answered_apart_and_then_it_ends(shell: Shell) -> None:
    shell.run("chat", "--json", stdin="hello\n", ONETHREAD_MODEL="openai/gpt-4o")
    with sqlite3.connect(shell.data_dir / "onethread.db") as connection:
        connection.execute("UPDATE turns SET status = 'queued', finished_at = NULL, rescues = 2")
    connection.close()

    ran = shell.run("worker", "--suspects")

    assert ran.code == 0
    assert "turn.claimed" in ran.err
