"""Which of the images that people attached a model is shown. Nothing is decoded: type and size are read from a file's first bytes."""

import base64
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from core.models import JSON, Attachment

PNG, JPEG, GIF, WEBP = "image/png", "image/jpeg", "image/gif", "image/webp"
TYPES = frozenset({PNG, JPEG, GIF, WEBP})
MAX_BYTES = 3_750_000
"""5 MB in base64, which is Anthropic's limit for one image; Amazon Bedrock's is 3.75 MB."""
MAX_SIDE = 8_000
"""Pixels. Anthropic and Amazon Bedrock refuse more; all providers scale down to far less."""
MAX_PIXELS = 40_000_000
MAX_SHOWN = 8
"""In one request. Anthropic accepts large images up to 20 of them, others fewer."""
MAX_SHOWN_BYTES = 12_000_000
"""Of them together: 16 MB in base64. A request to Amazon Bedrock may have 20 MB, to Anthropic 32 MB, to OpenAI 50 MB."""
TOKENS = 1_600
"""About what one costs with most models (Anthropic: a token for 28 x 28 pixels, after scaling to 1,568 pixels)."""
MAX_HEADER_BYTES = 512_000
"""In which a JPEG must have said its size; cameras put previews before it."""
GONE = "it was removed"
_CUT_TO = 0.5
_MOST_SEGMENTS = 200
_BLIND = "this model cannot see images, so you cannot see it; say so where it matters"
_REFUSED = "the provider did not accept the images of this conversation, so you cannot see it; say so where it matters"
_OTHER_TYPE = "this model cannot see images of this type, so you cannot see it; say so where it matters"
_TOO_LARGE = f"too large for you to see; {MAX_BYTES / 1e6:.2f} MB and {MAX_SIDE:,} pixels a side are the most"
_CROWDED = f"not shown, because you see at most {MAX_SHOWN} images at once; ask for it again if you need it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    media_type: str
    """By its bytes, whatever the file is called: providers refuse an image of another type than it is said to be."""
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """By an attachment's id: the type of each image that is shown, and of each that is not why, in words for the model."""

    shown: Mapping[UUID, str]
    hidden: Mapping[UUID, str]


def of(head: bytes) -> Image | None:
    """The image that begins with these bytes; None for another file, and for one whose header does not tell its size."""
    for media_type, begins, size_of in _FORMATS:
        if begins(head):
            try:
                width, height = size_of(head)
            except struct.error:  # it ends within its header
                return None
            return Image(media_type=media_type, width=width, height=height) if width and height else None
    return None


def wants_more(head: bytes) -> bool:
    """Whether this is the beginning of a JPEG that says its size later only."""
    return _is_jpeg(head) and of(head) is None


def choose(messages: Iterable[Sequence[tuple[Attachment, bytes]]], able: Collection[str], *, refused: bool = False) -> Choice:
    """What a model that sees the media types `able` is shown of the images among these files, each with its first bytes.

    The newest are. They fall out rarely and many at once, as the window moves, so that nearly every request begins as the one before.
    """
    hidden: dict[UUID, str] = {}
    shown: list[tuple[Attachment, str]] = []
    for files in messages:
        fitting: list[tuple[Attachment, str]] = []
        for attachment, head in files:
            if (image := of(head)) is None:
                continue
            if obstacle := _REFUSED if refused else _obstacle(attachment, image, able):
                hidden[attachment.id] = obstacle
            elif _fits([*fitting, (attachment, image.media_type)]):
                fitting.append((attachment, image.media_type))
            else:
                hidden[attachment.id] = _CROWDED
        if not _fits([*shown, *fitting]):
            while shown and not _fits([*shown, *fitting], _CUT_TO):
                hidden[shown.pop(0)[0].id] = _CROWDED
        shown += fitting
    return Choice(shown={attachment.id: media_type for attachment, media_type in shown}, hidden=hidden)


def url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def parts(name: str, address: str) -> list[JSON]:
    """An image as a part of a message's content, with its name before it."""
    return [{"type": "text", "text": f"[image {name!r}]"}, {"type": "image_url", "image_url": {"url": address}}]


def without(message: JSON) -> JSON:
    """The message with its text only."""
    content = message["content"]
    if not isinstance(content, list):
        return message
    return {**message, "content": "\n\n".join(part["text"] for part in content if part["type"] == "text")}


def count(messages: Iterable[JSON]) -> int:
    contents = (message["content"] for message in messages)
    return sum(part["type"] == "image_url" for content in contents if isinstance(content, list) for part in content)


def _obstacle(attachment: Attachment, image: Image, able: Collection[str]) -> str:
    if not able:
        return _BLIND
    if image.media_type not in able:
        return _OTHER_TYPE
    large = attachment.size > MAX_BYTES or max(image.width, image.height) > MAX_SIDE or image.width * image.height > MAX_PIXELS
    return _TOO_LARGE if large else ""


def _fits(images: Sequence[tuple[Attachment, str]], share: float = 1) -> bool:
    return len(images) <= MAX_SHOWN * share and sum(attachment.size for attachment, _ in images) <= MAX_SHOWN_BYTES * share


def _is_png(head: bytes) -> bool:
    return head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR"


def _is_jpeg(head: bytes) -> bool:
    return head.startswith(b"\xff\xd8\xff")


def _is_gif(head: bytes) -> bool:
    return head.startswith((b"GIF87a", b"GIF89a"))


def _is_webp(head: bytes) -> bool:
    return head.startswith(b"RIFF") and head[8:12] == b"WEBP"


def _png(head: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def _gif(head: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", head, 6)
    return width, height


def _jpeg(head: bytes) -> tuple[int, int]:
    """From its frame header, which stands behind other segments; no size where there is none before the picture itself."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        begin, marker, length = struct.unpack_from(">BBH", head, at)
        if begin != 0xFF or marker == 0xDA:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + length
    return 0, 0


def _webp(head: bytes) -> tuple[int, int]:
    match head[12:16]:
        case b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", head, 24)
            return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
    return 0, 0


_FORMATS = ((PNG, _is_png, _png), (JPEG, _is_jpeg, _jpeg), (GIF, _is_gif, _gif), (WEBP, _is_webp, _webp))
