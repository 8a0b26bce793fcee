"""What the other tests lean on: a forked process is like one that was started."""

import asyncio
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests import forking
from tests.e2e.conftest import Shell
from tests.serving import environment


@pytest.mark.parametrize("arguments", [["user", "list", "--all"], ["chat", "OT-99", "--json"]])
def test_forked_command_does_what_the_installed_one_does(shell: Shell, arguments: list[str]) -> None:
    assert shell.run(*arguments) == shell.run_installed(*arguments)


async def test_its_environment_folder_and_input_are_its_own_and_its_end_is_told(shell: Shell) -> None:
    (shell.folder / ".env").write_text("ONETHREAD_MODEL=demo/offline", encoding="utf-8")
    environ = environment(shell.data_dir)

    said = await asyncio.to_thread(forking.run, ["chat"], env=environ, cwd=shell.folder, stdin="thanks\n", seconds=60)
    examined = await asyncio.to_thread(forking.run, ["doctor"], env=environ, cwd=shell.folder, seconds=60)

    assert (said.returncode, said.stdout.splitlines()[-1], said.stderr) == (0, "You are welcome.", "")
    assert f"ONETHREAD_DATA_DIR={shell.data_dir} (from the environment)" in examined.stdout
    assert f"ONETHREAD_MODEL=demo/offline (from {shell.folder}/.env)" in examined.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
async def test_signal_ends_it_as_it_ends_others(tmp_path: Path, number: signal.Signals, code: int) -> None:
    pipe, log = asyncio.subprocess.PIPE, tmp_path / "log"
    with log.open("wb") as errors:
        process = await forking.start(["worker"], env=environment(tmp_path / "data"), cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=errors)
    async with asyncio.timeout(60):
        while True:
            if "worker.started" in log.read_text(encoding="utf-8"):
                break
            await asyncio.sleep(0.02)

    assert process.returncode is None
    process.send_signal(number)

    async with asyncio.timeout(60):
        assert await process.wait() == code
    assert process.returncode == code
    assert process.stdout
    assert await process.stdout.read() == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
async def test_signal_to_what_others_start_ends_what_is_forked(tmp_path: Path, number: signal.Signals, code: int) -> None:
    data = tmp_path / "data"
    process = await asyncio.create_subprocess_exec(
        *forking.program(), "worker", env=environment(data), cwd=tmp_path, stderr=asyncio.subprocess.DEVNULL
    )
    await _until(lambda: bool(_workers(data)))
    ((pid,),) = _workers(data)

    process.send_signal(number)

    async with asyncio.timeout(60):
        assert await process.wait() == code
    await _until(lambda: not Path(f"/proc/{pid}").exists())
    assert pid != process.pid


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)


def _workers(data_dir: Path) -> list[tuple[int]]:
    """Their process ids; none as long as there are no tables."""
    try:
        with closing(sqlite3.connect(f"file:{data_dir}/onethread.db?mode=ro", uri=True)) as database:
            return database.execute("SELECT pid FROM workers").fetchall()
    except sqlite3.OperationalError:
        return []
