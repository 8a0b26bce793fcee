"""Progress of long work, told to who reads a log."""

from onethread.transfer import sparse_lines


def test_a_line_comes_every_ten_seconds_and_not_more_often() -> None:
    said: list[str] = []
    now = 100.0
    tell = sparse_lines(said.append, lambda: now)

    for seconds, rows in ((5, 10), (9.9, 20), (10, 1_000), (19, 2_000), (20, 3_000)):
        now = 100.0 + seconds
        tell("messages", rows, 4_000)

    assert said == ["1,000 of 4,000 rows (messages)", "3,000 of 4,000 rows (messages)"]
