"""Links to channels and threads, as Slack and Discord give them to people."""

import pytest

from core.addresses import Address
from core.errors import InvalidInput
from onethread.links import read_place

TS, ROOT = "1700000000.000100", "1699999999.000200"


def slack(channel: str, thread: str = "", account: str = "") -> Address:
    return Address(surface="slack", account=account, channel=channel, thread=thread)


def discord(channel: str) -> Address:
    return Address(surface="discord", channel=channel)


@pytest.mark.parametrize(
    ("link", "address"),
    [
        ("https://acme.slack.com/archives/C0123456789", slack("C0123456789")),
        ("  <https://acme.slack.com/archives/C0123456789/>\n", slack("C0123456789")),
        ("https://acme.enterprise.slack.com/archives/D0123456789", slack("D0123456789")),
        ("https://acme.slack.com/archives/C0123456789/p1700000000000100", slack("C0123456789", TS)),
        (f"https://acme.slack.com/archives/C0123456789/p1700000000000100?thread_ts={ROOT}&cid=C0123456789", slack("C0123456789", ROOT)),
        ("https://acme.slack.com/archives/C0123456789/p1700000000000100?thread_ts=../x", slack("C0123456789", TS)),
        ("https://app.slack.com/client/T0123456789/C0123456789", slack("C0123456789", account="T0123456789")),
        ("https://app.slack.com/client/E0123456789/C0123456789", slack("C0123456789")),
        (f"https://app.slack.com/client/T0123456789/C0123456789/thread/C0123456789-{TS}", slack("C0123456789", TS, "T0123456789")),
        ("https://discord.com/channels/7/8", discord("8")),
        ("https://ptb.discord.com/channels/7/8/9", discord("8")),
        ("https://discordapp.com/channels/@me/11", discord("11")),
        ("https://discord.com/channels/7/8/threads/10", discord("10")),
    ],
)
def test_link_says_channel_and_thread(link: str, address: Address) -> None:
    assert read_place(link) == address


@pytest.mark.parametrize(
    "link",
    [
        "",
        "#ops",
        "OT-12",
        "https://acme.slack.com/",
        "https://acme.slack.com/archives/../C0123456789",
        "https://acme.slack.com.example.org/archives/C0123456789",
        "https://slack.com.example/archives/C0123456789",
        "https://discord.com.example.org/channels/7/8",
        "https://discord.com/channels/7/8%2F9",
        "https://discord.com/channels/7",
        "javascript:https://discord.com/channels/7/8",
        "https://[discord.com/channels/7/8",
        "https://app.slack.com/client/T0123456789/C0123456789/thread/C9999999999-1700000000.000100",
        "https://discord.com/channels/7/" + "8" * 500,
    ],
)
def test_anything_else_is_answered_by_what_a_link_looks_like(link: str) -> None:
    with pytest.raises(InvalidInput, match=r"Copy it there: it looks like https://.*slack\.com/archives/.*discord\.com/channels/"):
        read_place(link)
