"""Links that Slack gives to a channel or a message in it. It needs no library of Slack: page and command line read links."""

import re
from urllib.parse import SplitResult, parse_qs

from bots.slack.config import SOURCE
from core.addresses import Address

EXAMPLE = "https://your-team.slack.com/archives/C0123456789/p1700000000000100"
_CHANNEL = r"(?P<channel>[CDG][A-Z0-9]{5,20})"
_TS = r"\d{10}\.\d{6}"
_ARCHIVES = re.compile(rf"/archives/{_CHANNEL}(?:/p(?P<seconds>\d{{10}})(?P<rest>\d{{6}}))?/?")
_CLIENT = re.compile(rf"/client/(?P<team>[TE][A-Z0-9]{{5,20}})/{_CHANNEL}(?:/thread/(?P=channel)-(?P<thread>{_TS}))?/?")


def read(link: SplitResult) -> Address | None:
    """The thread that it points into, or the one that is on its message or may be; the channel, where it is a channel's.

    None where it is none of Slack's.
    """
    host = link.hostname or ""
    if not host.endswith(".slack.com"):
        return None
    if host == "app.slack.com":
        found = _CLIENT.fullmatch(link.path)
        team = found["team"] if found and found["team"].startswith("T") else ""  # otherwise it is a whole organisation
        return found and Address(surface=SOURCE, account=team, channel=found["channel"], thread=found["thread"] or "")
    found = _ARCHIVES.fullmatch(link.path)
    if not found:
        return None
    message = f"{found['seconds']}.{found['rest']}" if found["seconds"] else ""
    (root,) = parse_qs(link.query).get("thread_ts", [""])[:1]
    thread = root if message and re.fullmatch(_TS, root) else message
    return Address(surface=SOURCE, channel=found["channel"], thread=thread)
