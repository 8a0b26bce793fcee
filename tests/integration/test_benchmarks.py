"""`make bench` works: the cheapest measurement, in its quick form."""

import subprocess
import sys

from tests.conftest import ROOT


def test_a_quick_measurement_gives_its_figures() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "-k", "memory"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "a followed conversation",
        "a followed conversation with its snapshot",
    ]


def test_a_word_that_no_measurement_has_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "-k", "nothing"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 2
    assert "durable_turns" in done.stderr
