"""Text as every surface and database can hold it: cleaned, and measured in UTF-16 code units as JavaScript and Discord do."""

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_HIGH_SURROGATES = ("\ud800", "\udbff")


def clean(text: str) -> str:
    """`text` with surrogate pairs joined, and U+0000 and lone surrogates replaced by U+FFFD."""
    if _UNSTORABLE.search(text) is None:
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNSTORABLE.sub("\ufffd", joined)


class StreamCleaner:
    """Cleans text that arrives in pieces, where one character's surrogates may be torn apart."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown of `piece` and of what was held back before it."""
        text = self._held + piece
        self._held = ""
        if text and _HIGH_SURROGATES[0] <= text[-1] <= _HIGH_SURROGATES[1]:
            self._held, text = text[-1], text[:-1]
        return clean(text)

    def finish(self) -> str:
        """What was still held back when the stream ended."""
        return clean(self._held)


def utf16_len(text: str) -> int:
    """Length in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def utf16_cut(text: str, units: int) -> str:
    """The first `units` UTF-16 code units of `text`; a character that they would split is left out."""
    if text.isascii():
        return text[:units]
    return text.encode("utf-16-le")[: units * 2].decode("utf-16-le", "ignore")


def clip(text: str, characters: int) -> str:
    """`text` on one line, at most `characters` long, with an ellipsis where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"
