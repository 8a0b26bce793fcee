"""Slack's limit on edits, which its emulator enforces: ten threads that stream at once stay within it, and every reply is shown whole."""

from tests.benchmarks.slack_staleness import QUICK, THREADS, paced, stream, unpaced
from tests.emulators.slack import SlackEmulator


async def test_ten_streams_at_once_are_never_refused_and_all_end_whole(slack: SlackEmulator) -> None:
    outcome = await stream(slack, QUICK, paced(QUICK.quicker))
    assert (outcome.refused, outcome.whole) == (0, THREADS)
    assert all(len(each.shown) >= 3 for each in outcome.streams), "some were not seen growing"


async def test_without_pacing_slack_refuses_and_yet_all_end_whole(slack: SlackEmulator) -> None:
    outcome = await stream(slack, QUICK, unpaced(QUICK.quicker))
    assert outcome.refused > 0
    assert outcome.whole == THREADS
