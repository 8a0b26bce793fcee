"""Text between Discord and the model: what Discord writes for mentions, emoji and times as plain markdown; and back, with what Discord
does not show of markdown (tables, rules, images, small headings) as something that it does."""

import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markdown_it import MarkdownIt
from markdown_it.token import Token

from bots.discord.tables import Table
from bots.markdown import neutral
from bots.mentions import UNTOUCHED, written_out

_JOINER = "\u2060"  # WORD JOINER: no width, no line break
_ID = r"\d{15,20}"

_USER = re.compile(rf"<@!?({_ID})>")
_ROLE = re.compile(rf"<@&({_ID})>")
_CHANNEL = re.compile(rf"<#({_ID})>")
_CODE = re.compile(r"(?P<fence>```.+?```)|(?P<code>(?<!`)(?P<ticks>`{1,2})(?!`).+?(?<!`)(?P=ticks)(?!`))", re.DOTALL)
_REFERENCE = re.compile(
    rf"<(?:@!?(?P<user>{_ID})|@&(?P<role>{_ID})|#(?P<channel>{_ID})|/(?P<command>[^<>:\n]{{1,100}}):{_ID}"
    rf"|a?:(?P<emoji>\w{{1,64}}):{_ID}|t:(?P<time>-?\d{{1,12}})(?::[a-zA-Z])?)>"
)
_TIDY_FENCE = re.compile(r"```[\w+#.\-]*\n(?:.*\n)?```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mentions:
    """Ids."""

    users: frozenset[str]
    roles: frozenset[str]
    channels: frozenset[str]


def to_markdown(text: str, names: Mapping[str, str]) -> str:
    """A message's content as markdown for the model. `names` maps ids of users, roles and channels to names; an id without one is shown."""
    pieces, end = [], 0
    for found in _CODE.finditer(text):
        pieces += [_read(text[end : found.start()], names), _fence(found) if found["fence"] else found[0]]
        end = found.end()
    return "".join([*pieces, _read(text[end:], names)])


def mentions(text: str) -> Mentions:
    """Whom and what a message's content mentions."""
    return Mentions(
        users=frozenset(_USER.findall(text)),
        roles=frozenset(_ROLE.findall(text)),
        channels=frozenset(_CHANNEL.findall(text)),
    )


def from_markdown(text: str, members: Mapping[str, str]) -> str:
    """The model's markdown as Discord shows it, which may be longer.

    `members` maps casefolded names to user ids: outside of code and addresses @name becomes that person's mention, and there is no
    other one, nor one of a crowd.
    """
    return next(forms(text, members))


def forms(text: str, members: Mapping[str, str]) -> Iterator[str]:
    """What from_markdown() gives, then shorter forms that lack something, at last the markdown itself."""
    yield "\n".join(_blocks(text, members, Table.aligned))
    yield "\n".join(_blocks(text, {}, Table.plain))
    yield _masked(text, frozenset())


def line(markdown: str) -> str:
    """A line of ours as Discord shows it, without mentions."""
    return _inline(" ".join(markdown.split()), {})


# --- from Discord ----------------------------------------------------------------------------------------------------


def _read(text: str, names: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda found: _name(found, names), text)


def _name(found: re.Match[str], names: Mapping[str, str]) -> str:
    kind = found.lastgroup or ""
    value = found[kind]
    match kind:
        case "command":
            return f"/{value}"
        case "emoji":
            return f":{value}:"
        case "time":
            return _time(int(value)) or found[0]
    return ("#" if kind == "channel" else "@") + (" ".join(names.get(value, "").split()) or value)


def _time(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return ""


def _fence(found: re.Match[str]) -> str:
    """A code block with its fences on lines of their own. Discord takes them around the code, where markdown would see none."""
    if "\n" not in found[0] or _TIDY_FENCE.fullmatch(found[0]):
        return found[0]
    before = "" if found.start() == 0 or found.string[found.start() - 1] == "\n" else "\n"
    after = "" if found.string.startswith("\n", found.end()) or found.end() == len(found.string) else "\n"
    inner = found[0][3:-3]
    info = re.match(r"[\w+#.\-]*\n", inner)
    code = inner[info.end() :] if info else inner
    return f"{before}```{info[0].strip() if info else ''}\n{code}" + ("" if code.endswith("\n") else "\n") + f"```{after}"


# --- to Discord: blocks ----------------------------------------------------------------------------------------------

_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_PARSER.core.ruler.enableOnly(["normalize", "block"])
_CODE_BLOCKS = frozenset({"fence", "code_block"})
_CHANGED = _CODE_BLOCKS | {"table_open", "heading_open", "hr"}
_INFO = re.compile(r"[\w+#.\-]{1,40}")
_RULE = "———"
_HEADINGS = 3  # levels that Discord has


def _blocks(text: str, members: Mapping[str, str], table: Callable[[Table], str]) -> Iterator[str]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    end = 0
    for token, inner in _changed(_PARSER.parse("\n".join(lines))):
        assert token.map
        first, behind = token.map
        if first < end:  # within what was changed already
            continue
        if end < first:
            yield _inline("\n".join(lines[end:first]), members)
        yield from _block(token, inner, lines[first:behind], members, table)
        end = behind
    if end < len(lines):
        yield _inline("\n".join(lines[end:]), members)


def _changed(tokens: Sequence[Token]) -> Iterator[tuple[Token, Sequence[Token]]]:
    """The blocks that are shown otherwise, each with the tokens up to its end; of those inside lists and quotes code alone."""
    for number, token in enumerate(tokens):
        if token.map and token.type in _CHANGED and (token.level == 0 or token.type in _CODE_BLOCKS):
            closing = token.type.replace("_open", "_close")
            inner = [] if token.nesting == 0 else _until(tokens[number + 1 :], closing, token.level)
            yield token, inner


def _until(tokens: Iterable[Token], closing: str, level: int) -> list[Token]:
    inner: list[Token] = []
    for token in tokens:
        if token.type == closing and token.level == level:
            break
        inner.append(token)
    return inner


def _block(
    token: Token,
    inner: Sequence[Token],
    lines: Sequence[str],
    members: Mapping[str, str],
    table: Callable[[Table], str],
) -> Iterator[str]:
    if token.level > 0:  # code within a list or a quote, whose signs stand before each line
        yield "\n".join(lines)
        return
    match token.type:
        case "fence" | "code_block":
            yield _code(token)
        case "table_open":
            yield _code_block(table(Table.of(inner)))
        case "heading_open":
            yield _inline(_heading(token, inner), members)
        case "hr":
            yield _RULE
    if token.type != "fence":
        yield from ("" for each in _blank_at_end(lines))


def _blank_at_end(lines: Sequence[str]) -> Iterator[str]:
    for each in reversed(lines):
        if each.strip():
            return
        yield each


def _code(token: Token) -> str:
    info = token.info.split()[0] if token.info.split() else ""
    return _code_block(token.content.removesuffix("\n"), info if _INFO.fullmatch(info) else "")


def _code_block(code: str, info: str = "") -> str:
    return f"```{info}\n{_unfenced(code)}\n```"


def _unfenced(code: str) -> str:
    """Discord ends a code block at the first three backticks, wherever they stand."""
    return code.replace("```", f"`{_JOINER}``")


def _heading(token: Token, inner: Sequence[Token]) -> str:
    said = " ".join(each.content for each in inner if each.type == "inline").strip()
    level = int(token.tag[1:])
    if level <= _HEADINGS or not said:
        return f"{'#' * level} {said}"
    return f"**{said.replace('**', '')}**"


# --- to Discord: what stands in them ---------------------------------------------------------------------------------

_SMALL_HEADING = re.compile(r"^((?:[ \t]|>|[-*+] |\d{1,9}[.)] )*)#{4,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
_TASK = re.compile(r"^([ \t>]*)[-*+] \[([ xX])\] ", re.MULTILINE)
_PLUS = re.compile(r"^([ \t>]*)\+ ", re.MULTILINE)
_QUOTE = re.compile(rf"^([ \t]*)>(?=[^\s>{_JOINER}])", re.MULTILINE)
_REST_QUOTE = re.compile(r"^>>> ", re.MULTILINE)  # all that follows would be one quote
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
_BOLD = re.compile(r"(?<![\w_\\])__(?=[^\s_])(.+?)(?<=[^\s_\\])__(?![\w_])")
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)


def _inline(text: str, members: Mapping[str, str]) -> str:
    pieces, end = [], 0
    for found in UNTOUCHED.finditer(text):
        before, kept = text[end : found.start()], _without_mentions(found[0])
        if kept.startswith("[") and before.endswith("!"):  # an image: Discord has links
            before, kept = before[:-1], kept.replace("[](", "[image](", 1)
        pieces += [_said(before, members), kept]
        end = found.end()
    return "".join([*pieces, _said(text[end:], members)])


def _said(text: str, members: Mapping[str, str]) -> str:
    text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    text = _BREAK.sub("\n", text)
    text = _SMALL_HEADING.sub(lambda found: f"{found[1]}**{found[2].replace('**', '')}**", text)
    text = _TASK.sub(lambda found: f"{found[1]}- {'☐' if found[2] == ' ' else '☑'} ", text)
    text = _PLUS.sub(r"\1- ", text)
    text = _REST_QUOTE.sub(f">{_JOINER}>> ", text)
    text = _QUOTE.sub(r"\1> ", text)
    text = _BOLD.sub(r"**\1**", text).replace("||", r"\|\|")
    return written_out(_masked(text, frozenset(members.values())), members, lambda user_id: f"<@{user_id}>")


def _masked(text: str, known: frozenset[str]) -> str:
    """`text` in which nobody is mentioned but those who are known."""
    return _USER.sub(lambda found: found[0] if found[1] in known else f"<{_JOINER}{found[0][1:]}", neutral(text))


def _without_mentions(link: str) -> str:
    """What a link says may hold a mention, which would be one; in code there is none."""
    return _masked(link, frozenset()) if link.startswith("[") else link
