"""Links that Discord gives to a channel, a thread or a message. It needs no library of Discord: page and command line read links."""

import re
from urllib.parse import SplitResult

from bots.discord.config import SOURCE
from core.addresses import Address

EXAMPLE = "https://discord.com/channels/123456789012345678/234567890123456789"
_HOST = re.compile(r"(?:(?:www|ptb|canary)\.)?discord(?:app)?\.com")
_ID = r"\d{1,20}"
_PATH = re.compile(rf"/channels/(?:@me|{_ID})/(?P<channel>{_ID})(?:/threads/(?P<thread>{_ID}))?(?:/{_ID})?/?")


def read(link: SplitResult) -> Address | None:
    """The channel, which may be a thread: only Discord knows. A message's link is its channel's. None where it is none of Discord's."""
    found = _PATH.fullmatch(link.path) if _HOST.fullmatch(link.hostname or "") else None
    return found and Address(surface=SOURCE, channel=found["thread"] or found["channel"])
