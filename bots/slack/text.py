"""Text between Slack and the model: Slack's mrkdwn to plain markdown, and back. Only here one knows how Slack writes mentions and links."""

import re
from collections.abc import Iterator, Mapping

from slackify_markdown import slackify_markdown

from bots.markdown import cut, neutral, piece, plain
from bots.mentions import UNTOUCHED, written_out

_FALLBACK_LIMIT = 3_000  # chat.update refuses a `text` of more than 4,000
_JOINER = "\u2060"  # WORD JOINER: no width, no line break

_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">"}
_ENTITY = re.compile("|".join(_ENTITIES))
_USER = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^<>]*)?>")
_REFERENCE = re.compile(
    r"@(?P<user>[UW][A-Z0-9]+)|#(?P<channel>[CDG][A-Z0-9]+)|!subteam\^(?P<group>S[A-Z0-9]+)|!(?P<crowd>here|channel|everyone)"
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.\-]*:", re.IGNORECASE)
_MRKDWN = re.compile(
    r"(?P<fence>```.+?```)"
    r"|(?P<code>`[^`\n]+`)"
    r"|<(?P<reference>[^<>\n]+)>"
    r"|(?<![\w*])\*(?=[^\s*])(?P<bold>(?:<[^<>\n]+>|`[^`\n]+`|[^*\n`<])+)(?<=\S)\*(?![\w*])"
    r"|(?<![\w~])~(?=[^\s~])(?P<struck>(?:<[^<>\n]+>|`[^`\n]+`|[^~\n`<])+)(?<=\S)~(?![\w~])",
    re.DOTALL,
)
_TIDY_FENCE = re.compile(r"```[\w+#.\-]*\n(?:.*\n)?```", re.DOTALL)

_SPECIAL = re.compile(r"<[@!][^<>]*>")


def to_markdown(text: str, names: Mapping[str, str]) -> str:
    """An event's mrkdwn as markdown for the model. `names` maps ids of users, channels and groups to names; an id without one is shown."""
    return "".join(_converted(text, names))


def leading_mention(text: str, bot_user_id: str) -> str:
    """mrkdwn `text` without the bot's mention at its start and the colon or comma behind it. Other mentions stay."""
    return re.sub(rf"\A\s*<@{re.escape(bot_user_id)}(?:\|[^<>]*)?>\s*[:,]?\s*", "", text)


def mentioned(text: str) -> frozenset[str]:
    """The ids of the users whom mrkdwn `text` mentions."""
    return frozenset(_USER.findall(text))


def from_markdown(text: str, members: Mapping[str, str]) -> str:
    """The model's markdown for Slack's markdown block: it mentions members only, and no crowd.

    `members` maps casefolded names to user ids. Outside of code and addresses, @name becomes that person's mention.
    """
    known = frozenset(members.values())
    masked = _USER.sub(lambda found: found[0] if found[1] in known else f"<{_JOINER}{found[0][1:]}", neutral(text))
    pieces, end = [], 0
    for untouched in UNTOUCHED.finditer(masked):
        pieces += [_with_mentions(masked[end : untouched.start()], members), untouched[0]]
        end = untouched.end()
    return "".join([*pieces, _with_mentions(masked[end:], members)])


def fallback(text: str) -> str:
    """What from_markdown() gave, as mrkdwn of at most 3,000 characters: the `text` beside blocks, for notifications and search."""
    for limit in (_FALLBACK_LIMIT, _FALLBACK_LIMIT // 2, _FALLBACK_LIMIT // 5):
        end = cut(text, 0, limit - 2)
        shown = _as_mrkdwn(piece(text, 0, end)) + ("" if end is None else " …")
        if len(shown) <= _FALLBACK_LIMIT:
            return shown
    return _escaped(plain(text, _FALLBACK_LIMIT // 5))


# --- from Slack ------------------------------------------------------------------------------------------------------


def _converted(text: str, names: Mapping[str, str]) -> Iterator[str]:
    end = 0
    for found in _MRKDWN.finditer(text):
        yield _unescaped(text[end : found.start()])
        yield _element(found, names)
        end = found.end()
    yield _unescaped(text[end:])


def _element(found: re.Match[str], names: Mapping[str, str]) -> str:
    match found.lastgroup:
        case "fence":
            return _unescaped(_fence(found))
        case "code":
            return _unescaped(found[0])
        case "bold":
            return f"**{to_markdown(found['bold'], names)}**"
        case "struck":
            return f"~~{to_markdown(found['struck'], names)}~~"
        case _:
            return _reference(found["reference"], names)


def _fence(found: re.Match[str]) -> str:
    """A code block with its fences on lines of their own. Slack's users write them around the code, where markdown would see none."""
    if "\n" not in found[0] or _TIDY_FENCE.fullmatch(found[0]):
        return found[0]
    before = "" if found.start() == 0 or found.string[found.start() - 1] == "\n" else "\n"
    after = "" if found.string.startswith("\n", found.end()) or found.end() == len(found.string) else "\n"
    code = found[0][3:-3].removeprefix("\n")
    return f"{before}```\n{code}" + ("" if code.endswith("\n") else "\n") + f"```{after}"


def _reference(reference: str, names: Mapping[str, str]) -> str:
    target, _, label = reference.partition("|")
    label = " ".join(_unescaped(label).split())
    found = _REFERENCE.fullmatch(target)
    if found is not None:
        identity = found[found.lastgroup or 0]
        sign = "#" if found["channel"] else "@"
        return sign + (" ".join(names.get(identity, "").split()) or label.removeprefix(sign) or identity)
    if target.startswith("!"):  # a date, or what Slack will think of next: the label is what people see
        return label or _unescaped(target)
    return _link(target, label) if _SCHEME.match(target) else f"<{_unescaped(reference)}>"


def _link(target: str, label: str) -> str:
    url = _unescaped(target.replace("&lt;", "%3C").replace("&gt;", "%3E"))
    if label in ("", url, url.removeprefix("mailto:")):
        return label or url
    escaped = re.sub(r"([\\\[\]])", r"\\\1", label)
    return f"[{escaped}](<{url}>)" if re.search(r"[()\s]", url) else f"[{escaped}]({url})"


def _unescaped(text: str) -> str:
    return _ENTITY.sub(lambda found: _ENTITIES[found[0]], text)


# --- to Slack --------------------------------------------------------------------------------------------------------


def _with_mentions(text: str, members: Mapping[str, str]) -> str:
    return written_out(text, members, lambda user_id: f"<@{user_id}>")


def _as_mrkdwn(markdown: str) -> str:
    """slackify_markdown() lets every <@…> and <!…> through, and makes some of links: only the mentions that stood there before are kept."""
    mentions = frozenset(_USER.findall(markdown))
    mrkdwn = slackify_markdown(markdown).strip("\n")
    return _SPECIAL.sub(lambda found: found[0] if found[0][2:-1] in mentions else f"<{_JOINER}{found[0][1:]}", mrkdwn)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
