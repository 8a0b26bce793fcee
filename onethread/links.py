"""Links to places on chat platforms, as people paste them on the page and in the command line."""

from urllib.parse import urlsplit

from bots.discord import links as discord
from bots.slack import links as slack
from core.addresses import Address
from core.errors import InvalidInput

MAX_LINK = 500
_EXAMPLES = f"{slack.EXAMPLE} or {discord.EXAMPLE}"


def read_place(link: str) -> Address:
    """Raises InvalidInput that says what a link looks like."""
    text = link.strip().removeprefix("<").removesuffix(">")
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("https", "http") and len(text) <= MAX_LINK
        found = (slack.read(parts) or discord.read(parts)) if known else None
    except ValueError:  # no address at all
        found = None
    if found is None:
        raise InvalidInput(f"That is no link to a channel or thread of Slack or Discord. Copy it there: it looks like {_EXAMPLES}.")
    return found
