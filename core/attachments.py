"""Files that come with a message: checked, stored, and given to the model where they are text."""

import codecs
import hashlib
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from uuid import UUID

from core.access import Principal, require
from core.errors import InvalidInput, NotFound
from core.ids import new_id
from core.models import Attachment, Message
from core.ports import UnitOfWork
from core.text import clean

MAX_BYTES = 10 * 1024 * 1024
MAX_FILES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file as it came in. `media_type` is guessed from the name where it is empty."""

    name: str
    data: bytes
    media_type: str = ""


async def add(uow: UnitOfWork, message: Message, uploads: Sequence[Upload]) -> list[Attachment]:
    if len(uploads) > MAX_FILES:
        raise InvalidInput(f"A message has at most {MAX_FILES} files; this one has {len(uploads)}.")
    return [await _add(uow, message, upload) for upload in uploads]


def sifted(uploads: Sequence[Upload]) -> tuple[list[Upload], list[str]]:
    """The files that `add` would take, and why not the others."""
    able = [upload for upload in uploads if _problem(upload) is None]
    problems = [problem for upload in uploads if (problem := _problem(upload))]
    beyond = [f"The file {_name(upload.name)!r} was left out: a message has at most {MAX_FILES}." for upload in able[MAX_FILES:]]
    return able[:MAX_FILES], problems + beyond


def name_of(upload: Upload) -> str:
    """Under which it is stored."""
    return _name(upload.name)


async def copies(uow: UnitOfWork, message: Message) -> list[Upload]:
    """A message's files, for posting it anew."""
    found = await uow.attachments.of_messages([message.id])
    return [Upload(name=each.name, media_type=each.media_type, data=await uow.attachments.data(each.id)) for each in found]


async def get(uow: UnitOfWork, principal: Principal, attachment_id: UUID) -> Attachment:
    """Of a message in a conversation that this person may see."""
    require(principal, "chat")
    attachment = await uow.attachments.get(attachment_id)
    message = await uow.messages.get(attachment.message_id) if attachment else None
    if attachment is None or message is None or await uow.conversations.get(message.conversation_id, principal) is None:
        raise NotFound(f"There is no attachment {attachment_id}.")
    return attachment


async def remove(uow: UnitOfWork, message_id: UUID) -> None:
    await uow.attachments.remove_of_message(message_id)


def as_text(head: bytes) -> str | None:
    """The beginning of a text file from its first bytes; None for any other file."""
    if b"\x00" in head:
        return None
    try:
        return clean(codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=False))
    except UnicodeDecodeError:
        return None


async def _add(uow: UnitOfWork, message: Message, upload: Upload) -> Attachment:
    if problem := _problem(upload):
        raise InvalidInput(problem)
    name = name_of(upload)
    attachment = Attachment(
        id=new_id(),
        message_id=message.id,
        name=name,
        media_type=(upload.media_type or mimetypes.guess_type(name)[0] or "application/octet-stream")[:128],
        size=len(upload.data),
        sha256=hashlib.sha256(upload.data).hexdigest(),
    )
    await uow.attachments.add(attachment, upload.data)
    return attachment


def _problem(upload: Upload) -> str | None:
    if not upload.data:
        return f"The file {name_of(upload)!r} is empty."
    return too_large(upload.name, len(upload.data)) if len(upload.data) > MAX_BYTES else None


def too_large(name: str, size: int) -> str:
    """What is said of a file of more than MAX_BYTES."""
    return f"The file {_name(name)!r} has {size / 1e6:.1f} MB; {MAX_BYTES / 1e6:.1f} MB is the most."


def _name(name: str) -> str:
    base = PureWindowsPath(PurePosixPath(clean(name)).name).name
    name = "".join(each for each in base if each.isprintable())[:255]
    return name if name.strip(". ") else "file"
