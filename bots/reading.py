"""What people said on a platform, read from it: as markdown, with its files, and with what was said before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from bots.markdown import plain
from bots.surface import ChatSurface, PlaceClosed, RemoteFile, Said, SurfaceError
from core import messages
from core.attachments import MAX_FILES, Upload
from core.errors import InvalidInput
from core.models import Place
from core.ports import Clock
from core.text import clip

MAX_TITLE = 200
_ONLY_A_MENTION = "(a mention, without a word)"
_BEFORE = "Said in this thread before:"
_ANSWERED = "Said before, in the message that the next one replies to:"
_GAP = "\n\n"
_CUT = "…"
_SHORTEST_QUOTE = 200
"""Characters: less is not worth to be begun."""
_NAME_CHARACTERS = 100
_log = structlog.get_logger()
Line = tuple[str, str]
"""Who said something, and what. Without a name it is a remark of ours."""
_UNREADABLE: Line = ("", "(What was said before could not be read.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingRules:
    earlier_messages: int = 200
    """Of a thread into which the bot is called, so many of those before."""
    patience_seconds: float = 120.0
    """So long the platform's trouble with a file, or with what was said before, holds its message up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    text: str
    """Markdown. Not empty, but where there are files."""
    uploads: tuple[Upload, ...]

    @property
    def title(self) -> str:
        """For a task that is made of it."""
        return title_of(self.text) or next((clip(file.name, MAX_TITLE) for file in self.uploads), _ONLY_A_MENTION)


class Reading:
    """Of one account."""

    def __init__(self, surface: ChatSurface, clock: Clock, rules: ReadingRules = ReadingRules()) -> None:
        self._surface = surface
        self._clock = clock
        self._rules = rules

    async def content(self, said: Said, received_at: datetime) -> Content:
        """What a message says, with its files."""
        uploads, missing = await self._fetched(said.files, received_at)
        text = await self._surface.markdown(said.text)
        if not (text.strip() or said.files):
            text = _ONLY_A_MENTION
        return Content(text="\n\n".join((text, *(f"({sentence})" for sentence in missing))).strip(), uploads=tuple(uploads))

    async def before(self, place: Place, said: Said, received_at: datetime) -> Sequence[Line]:
        """What was said in its thread before a message, or that it could not be read."""
        if not said.thread:
            return ()
        try:
            return await self._surface.earlier(place, said.remote_id, limit=self._rules.earlier_messages)
        except PlaceClosed:
            raise
        except SurfaceError as error:
            if self._is_patient(received_at):
                raise
            _log.warning("intake.thread_not_read", error=type(error).__name__)
            return [_UNREADABLE]

    async def earlier(self, place: Place, said: Said, received_at: datetime) -> str:
        """What was said before a message, for the model: in its thread, or in the message that it replies to. Empty where nothing was."""
        if lines := await self.before(place, said, received_at):
            return quoted(lines)
        if said.answered is None:
            return ""
        name, text = said.answered
        return quoted([(name, await self._surface.markdown(text))], _ANSWERED)

    async def _fetched(self, files: Sequence[RemoteFile], received_at: datetime) -> tuple[list[Upload], list[str]]:
        """The files, and a sentence for each that cannot be had."""
        uploads: list[Upload] = []
        missing = [f"Only the first {MAX_FILES} files were taken."] if len(files) > MAX_FILES else []
        for file in files[:MAX_FILES]:
            try:
                uploads.append(await self._surface.fetch(file))
            except InvalidInput as error:
                missing.append(str(error))
            except SurfaceError:
                if self._is_patient(received_at):
                    raise
                missing.append(f"The file {clip(file.name, 100)!r} could not be fetched.")
        return uploads, missing

    def _is_patient(self, received_at: datetime) -> bool:
        return self._clock.now() - received_at < timedelta(seconds=self._rules.patience_seconds)


def title_of(text: str) -> str:
    """Its first line. Empty where that says nothing."""
    return plain(next((line for line in text.splitlines() if line.strip()), ""), MAX_TITLE)


def quoted(lines: Sequence[Line], heading: str = _BEFORE) -> str:
    """The newest of them, as much as is taken."""
    found: list[str] = []
    room = messages.MAX_IMPORTED - len(heading)
    for name, text in reversed(lines):
        quote, fits = _quote(name, text), room - len(_GAP)
        if len(quote) > fits:
            found += [quote[: fits - len(_CUT)] + _CUT] if fits >= _SHORTEST_QUOTE else []
            break
        found.append(quote)
        room = fits - len(quote)
    return _GAP.join((heading, *reversed(found)))


def _quote(name: str, text: str) -> str:
    if not name:
        return text
    return f"**{plain(name, _NAME_CHARACTERS)}**:\n" + "\n".join(f"> {each}" for each in text.splitlines() or [""])
