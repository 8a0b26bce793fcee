"""Which images a model is shown, told from their first bytes."""

import struct
from collections.abc import Sequence

import pytest

from core.ids import new_id
from core.llm import images
from core.llm.images import GIF, JPEG, MAX_SHOWN, PNG, TYPES, WEBP, Image, of
from core.models import Attachment

Files = Sequence[tuple[Attachment, bytes]]


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)


def jpeg(width: int, height: int, before: int = 0) -> bytes:
    """With so many bytes of metadata before its frame header."""
    metadata = b"".join(b"\xff\xe1" + struct.pack(">H", 60_000) + b"x" * 59_998 for _ in range(before // 60_000))
    return b"\xff\xd8" + metadata + b"\xff\xe0\x00\x10" + b"x" * 14 + b"\xff\xff\xc2\x00\x11\x08" + struct.pack(">HH", height, width)


def riff(kind: bytes, rest: bytes) -> bytes:
    return b"RIFF\x00\x00\x00\x00WEBP" + kind + b"\x00\x00\x00\x00" + rest


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (png(640, 480), PNG),
        (jpeg(640, 480), JPEG),
        (b"GIF89a" + struct.pack("<HH", 640, 480), GIF),
        (riff(b"VP8X", b"\x00\x00\x00\x00" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")), WEBP),
        (riff(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14)), WEBP),
        (riff(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 640, 480)), WEBP),
    ],
    ids=["png", "jpeg", "gif", "webp", "webp lossless", "webp lossy"],
)
def test_type_and_size_are_read_from_the_header(head: bytes, media_type: str) -> None:
    assert of(head + b"\x00" * 100) == Image(media_type=media_type, width=640, height=480)
    assert [of(head[:length]) for length in range(len(head))] == [None] * len(head)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"# Title",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dJUNKxxxxxxxx",
        png(0, 480),
        b"\xff\xd8\xff\xda" + b"\x00" * 100,
        b"\xff\xd8" + b"\xff\xe1\x00\x00" * 10_000,
        b"\xff\xd8" + b"\xff" * 10_000,
        riff(b"JUNK", b"\x00" * 100),
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
    ],
)
def test_what_only_looks_like_an_image_is_none(head: bytes) -> None:
    assert of(head) is None


def test_a_photo_may_say_its_size_late() -> None:
    photo = jpeg(4032, 3024, before=240_000)

    assert images.wants_more(photo[:50_000])
    assert not images.wants_more(photo)
    assert of(photo[: images.MAX_HEADER_BYTES]) == Image(media_type=JPEG, width=4032, height=3024)
    assert not images.wants_more(png(1, 1)[:10])


def _file(head: bytes = png(640, 480), size: int = 100_000) -> tuple[Attachment, bytes]:
    return Attachment(id=new_id(), message_id=new_id(), name="a", media_type="image/png", size=size, sha256=""), head


def _shown(messages: Sequence[Files]) -> list[int]:
    """The places of the shown ones among all."""
    shown = images.choose(messages, TYPES).shown
    return [place for place, (attachment, _) in enumerate(file for files in messages for file in files) if attachment.id in shown]


@pytest.mark.parametrize(
    ("file", "able", "why"),
    [
        (_file(), frozenset(), "this model cannot see images"),
        (_file(b"GIF89a\x01\x00\x01\x00"), frozenset({PNG}), "of this type"),
        (_file(size=images.MAX_BYTES + 1), TYPES, "too large"),
        (_file(png(8_001, 10)), TYPES, "too large"),
        (_file(png(7_100, 7_100)), TYPES, "too large"),
        (_file(png(0xFFFFFFFF, 0xFFFFFFFF)), TYPES, "too large"),
    ],
    ids=["blind", "type", "bytes", "wide", "50 megapixels", "bomb"],
)
def test_what_a_model_cannot_see_is_told_why(file: tuple[Attachment, bytes], able: frozenset[str], why: str) -> None:
    choice = images.choose([[file]], able)

    assert choice.shown == {}
    assert why in choice.hidden[file[0].id]


def test_the_type_is_what_the_bytes_say_and_other_files_are_left_alone() -> None:
    photo, text = _file(jpeg(10, 10)), _file(b"# Title")
    choice = images.choose([[photo, text]], TYPES)
    assert (choice.shown, choice.hidden) == ({photo[0].id: JPEG}, {})


def test_after_a_refusal_none_is_shown() -> None:
    file = _file()
    choice = images.choose([[file]], TYPES, refused=True)
    assert choice.shown == {}
    assert "did not accept" in choice.hidden[file[0].id]


def test_images_fall_out_rarely_and_half_of_them_at_once() -> None:
    messages: list[Files] = []
    first, most = [], 0
    for _ in range(50):
        messages.append([_file()])
        shown = _shown(messages)
        assert shown == list(range(shown[0], len(messages)))
        first.append(shown[0])
        most = max(most, len(shown))

    assert most == MAX_SHOWN
    assert [n for n in range(1, 50) if first[n] != first[n - 1]] == list(range(8, 50, 5))


def test_a_message_with_many_images_shows_as_many_as_there_may_be() -> None:
    earlier, many = [_file()], [_file() for _ in range(10)]
    assert _shown([earlier, many]) == list(range(1, 9))


def test_large_images_crowd_out_each_other() -> None:
    large = [[_file(size=3_500_000)] for _ in range(4)]
    assert _shown(large[:3]) == [0, 1, 2]
    assert _shown(large) == [3]


def test_what_fell_out_is_said() -> None:
    files = [_file() for _ in range(9)]
    hidden = images.choose([[file] for file in files], TYPES).hidden
    assert list(hidden) == [file[0].id for file in files[:5]]
    assert all("at most 8 images" in why for why in hidden.values())


def test_an_image_in_a_message_counts_once_and_its_text_stays() -> None:
    message = {"role": "user", "content": [*images.parts("a.png", images.url(PNG, b"x" * 3_000_000)), {"type": "text", "text": "See"}]}
    plain = {"role": "user", "content": "See"}

    assert images.without(message) == {"role": "user", "content": "[image 'a.png']\n\nSee"}
    assert images.without(plain) is plain
    assert images.count([message, plain, {"role": "assistant", "content": None}]) == 1
