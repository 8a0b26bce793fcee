"""The panes of the picture, as HTML: Slack's and Discord's messages from what the emulators hold, a terminal from its escape sequences."""

import base64
import re
from collections.abc import Iterable, Mapping
from html import escape
from itertools import groupby

from markdown_it import MarkdownIt

from tests.emulators.discord import DiscordEmulator
from tests.everywhere.surfaces import JSON

_BOT = "Onethread"
_SMALL = "-# "
"""Before what Discord shows in small."""
_STYLES = {1: "primary", 4: "danger"}
"""Of Discord's buttons."""
_MARKDOWN = MarkdownIt("commonmark", {"breaks": True})


def pane(title: str, how: str, kind: str, inner: str) -> str:
    return f'<section><h1>{title} <small>{how}</small></h1><div class="pane {kind}">{inner}</div></section>'


def image(png: bytes) -> str:
    return f'<img src="{address(png)}">'


def address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


# --- Slack ---


def slack_thread(channel: str, messages: Iterable[JSON], names: Mapping[str, str]) -> str:
    """`names` are people's, by id; whoever has none is the bot."""
    said = [(names.get(each["user"], _BOT), each.get("blocks") or [_only(each["text"])]) for each in messages]
    posts = _posts((who, "".join(map(_block, blocks))) for who, blocks in said)
    return f"<header><b>Thread</b> <span># {escape(channel)}</span></header>{posts}"


def _only(text: str) -> JSON:
    return {"type": "markdown", "text": text}


def _block(block: JSON) -> str:
    match block["type"]:
        case "markdown":
            return _html(block["text"])
        case "section":
            fields = "".join(f"<small>{_mrkdwn(field['text'])}</small>" for field in block.get("fields", []))
            return f"<p>{_mrkdwn(block['text']['text'])}</p>{fields}"
        case "context":
            return "".join(f"<small>{_mrkdwn(element['text'])}</small>" for element in block["elements"])
        case "actions":
            return _buttons((element["text"]["text"], element.get("style", "")) for element in block["elements"])
        case kind:
            raise AssertionError(f"a block that is not drawn: {kind}")


def _mrkdwn(text: str) -> str:
    shown = re.sub(r"<[^|>]+\|([^>]+)>", r"<a>\1</a>", text)
    shown = re.sub(r"\*([^*]+)\*", r"<b>\1</b>", shown)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", shown).replace("\n", "<br>")


# --- Discord ---


def discord_thread(discord: DiscordEmulator, thread: str) -> str:
    said = [message for message in discord.messages(thread) if message["content"]]
    posts = _posts((_BOT if each["author"]["id"] == discord.bot_id else each["author"]["username"], _content(each)) for each in said)
    return f"<header><b># {escape(discord.channels[thread].name)}</b></header>{posts}"


def _content(message: JSON) -> str:
    lines = message["content"].splitlines()
    text = _html("\n".join(line for line in lines if not line.startswith(_SMALL)))
    small = "".join(f"<small>{_MARKDOWN.renderInline(line[len(_SMALL) :])}</small>" for line in lines if line.startswith(_SMALL))
    buttons = [each for row in message["components"] for each in row["components"]]
    return text + small + _buttons((each["label"], _STYLES.get(each["style"], "")) for each in buttons)


# --- both ---


def _html(markdown: str) -> str:
    return str(_MARKDOWN.render(markdown))


def _posts(said: Iterable[tuple[str, str]]) -> str:
    """Those of one person that follow one another stand together, as on both platforms."""
    return "".join(_post(who, [body for _, body in bodies]) for who, bodies in groupby(said, lambda each: each[0]))


def _post(who: str, bodies: Iterable[str]) -> str:
    badge = "<i>APP</i>" if who == _BOT else ""
    shown = "".join(f'<div class="message">{body}</div>' for body in bodies)
    return f'<article><span class="face {who}">{who[0].upper()}</span><div><h2>{escape(who)}{badge}</h2>{shown}</div></article>'


def _buttons(buttons: Iterable[tuple[str, str]]) -> str:
    shown = "".join(f'<button class="{style}">{escape(label)}</button>' for label, style in buttons)
    return f"<p>{shown}</p>" if shown else ""


# --- the terminal ---

_COLOURS = {"31": "red", "32": "green", "33": "yellow", "34": "blue", "35": "magenta", "36": "cyan", "90": "dim", "39": ""}
_WEIGHTS = {"1": "bold", "22": ""}


def terminal(raw: str) -> str:
    """What tmux gives, whose escapes are none but colours."""
    colour, weight, shown = "", "", []
    for piece in re.split(r"(\x1b\[[\d;]*m)", raw.rstrip()):
        if piece.startswith("\x1b["):
            for code in piece[2:-1].split(";"):
                colour = "" if code in ("", "0") else _COLOURS.get(code, colour)
                weight = "" if code in ("", "0") else _WEIGHTS.get(code, weight)
        elif piece:
            shown.append(f'<span class="{colour} {weight}">{escape(piece)}</span>')
    return f"<div><pre>{''.join(shown)}</pre></div>"
