"""Mentions in the model's markdown: `@name` becomes a platform's own mention of that person, outside of code and addresses."""

import re
from collections.abc import Callable, Iterator, Mapping

UNTOUCHED = re.compile(
    r"^[ \t>*+\-0-9.)]*(?P<fence>`{3,}|~{3,})[^\n]*(?:\n.*?(?:^[ \t>]*(?P=fence)[`~]*[ \t]*$|\Z)|\Z)"
    r"|(?<!`)(?P<code>`+)(?!`).+?(?<!`)(?P=code)(?!`)"
    r"|\[[^\[\]\n]*\]\([^()\s]*"
    r"|[a-z][a-z0-9+.\-]*://\S+",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
"""Code, and links with what they say."""
_AT_NAME = re.compile(r"(?<![\w@/.\\<])@(\w[\w.'’\-]*(?: \w[\w.'’\-]*){0,3})")


def written_out(text: str, members: Mapping[str, str], mention: Callable[[str], str]) -> str:
    """`text`, in which nothing is UNTOUCHED, with the mentions of members. `members` maps casefolded names to user ids."""
    return _AT_NAME.sub(
        lambda found: _mention(found[1], found.string[found.end() : found.end() + 1], members, mention) or found[0],
        text,
    )


def _mention(words: str, following: str, members: Mapping[str, str], mention: Callable[[str], str]) -> str | None:
    """The mention for the longest name that `words` begin with, and the rest of them."""
    for name, rest in _beginnings(words):
        user_id = members.get(name.casefold())
        if user_id is not None and not (rest or following).startswith("/"):
            return f"{mention(user_id)}{rest}"
    return None


def _beginnings(words: str) -> Iterator[tuple[str, str]]:
    """`words`, then ever fewer of them, with and without the punctuation at their end."""
    for length in range(len(words.split(" ")), 0, -1):
        name = " ".join(words.split(" ")[:length])
        for shorter in (name, name.rstrip(".'’-"), re.sub(r"['’]s?[.\-]*$", "", name)):
            yield shorter, words[len(shorter) :]
