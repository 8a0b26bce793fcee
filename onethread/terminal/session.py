"""A person at a screen: which conversation is open, what is typed, and which keys decide what waits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog
from prompt_toolkit.completion import Completer
from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent

from core import approvals, conversations, messages, turns, wording
from core.access import Principal
from core.attachments import Upload
from core.errors import NotFound, OnethreadError, StorageUnavailable
from core.follow import Follower
from core.identity import principal_of
from core.ids import new_id
from core.logs import place_of
from core.models import Decision, User
from core.talk import Talk
from onethread.bootstrap import App
from onethread.terminal.screen import Screen
from onethread.terminal.status import approval_line, held_lines, status_line, yes_or_no
from onethread.terminal.text import Fragments, one_line
from onethread.terminal.transcript import Transcript

SOURCE = "terminal"
HISTORY_FILE = "terminal_history"
_HINT = timedelta(seconds=4)
_FIRST_FRAME_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_log = structlog.get_logger()
Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Something that is done when the person says yes."""

    question: str
    work: Work


class Session:
    """`command` runs a line that begins with a slash."""

    def __init__(self, app: App, user: User, command: Callable[["Session", str], Awaitable[None]], completer: Completer) -> None:
        self.app = app
        self.user = user
        self.principal: Principal = principal_of(user)
        self.conversation_id: UUID | None = None
        self.model: str | None = None
        """For the next new conversation."""
        self.uploads: list[Upload] = []
        self.chats: list[UUID] = []
        """The numbered list that was shown last."""
        self.confirmation: Confirmation | None = None
        self.talk = Talk()
        self.history_file: Path = app.settings.data_dir / HISTORY_FILE
        self.screen = Screen(history=self.history_file, completer=completer, live=self._live, on_line=self._entered, bind=self._bind)
        self._transcript = Transcript(self.screen, self.talk, user.name)
        self._command = command
        self._hint = ("", datetime.min.replace(tzinfo=UTC))
        self._work: asyncio.Queue[Work] = asyncio.Queue()
        self._posting = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    async def run(self, begin: Work) -> None:
        """Until the person leaves."""
        self.do(begin)
        working = asyncio.create_task(self._do_work(), name="terminal.work")
        try:
            await self.screen.run()
        finally:
            working.cancel()
            await asyncio.wait({working})
            self._say_goodbye()
            await self._unfollow()

    def do(self, work: Work) -> None:
        """Does it after what was asked for before."""
        self._work.put_nowait(work)

    def note(self, sentence: str, style: str = "class:dim") -> None:
        self._transcript.note(sentence, style)

    def hint(self, sentence: str) -> None:
        """Shows it for a few seconds."""
        self._hint = (sentence, self.app.clock.now() + _HINT)
        self.screen.refresh()

    # --- conversations ---

    async def open(self, conversation_id: UUID, *, fresh: bool = False, mine: UUID | None = None) -> None:
        """Shows a conversation and follows it from now on; raises NotFound."""
        async with self.app.storage.read() as uow:
            await conversations.get(uow, self.principal, conversation_id)
        await self._unfollow()
        self.conversation_id = conversation_id
        self.talk = Talk()
        self._transcript = Transcript(self.screen, self.talk, self.user.name, fresh=fresh)
        if mine:
            self._transcript.mine.add(str(mine))
        begun = asyncio.Event()
        self._following = asyncio.create_task(self._follow(conversation_id, self._transcript, begun), name="terminal.follow")
        async with asyncio.timeout(_FIRST_FRAME_SECONDS):
            await begun.wait()

    async def leave(self) -> None:
        """Back to no conversation: the next message begins a new one."""
        await self._unfollow()
        self.conversation_id = None
        self.talk = Talk()
        self._transcript = Transcript(self.screen, self.talk, self.user.name, fresh=True)

    def _say_goodbye(self) -> None:
        """How to come back, and what becomes of an answer that is not finished."""
        if self.talk.known:
            back = f"onethread chat {self.talk.task['ref'] if self.talk.task else '--last'}"
            self.note(f"The answer goes on with: {back}" if self.talk.turn else f"Come back with: {back}")
            self.screen.flush()

    async def _unfollow(self) -> None:
        if self._following:
            self._following.cancel()
            await asyncio.wait({self._following})
            self._following = None

    async def _follow(self, conversation_id: UUID, transcript: Transcript, begun: asyncio.Event) -> None:
        try:
            while not await self._follow_to_its_end(conversation_id, transcript, begun):
                self.hint("The database is away; trying again …")
            self.do(partial(self._gone, conversation_id))
        except Exception as error:  # noqa: BLE001  # an outermost loop: the person must see that the screen stands still
            self._broke(error)
        finally:
            begun.set()

    async def _follow_to_its_end(self, conversation_id: UUID, transcript: Transcript, begun: asyncio.Event) -> bool:
        """True when the conversation is gone, False a moment after the database was away."""
        follower = Follower(self.app.storage, self.app.live, self.principal, conversation_id)
        try:
            async with aclosing(follower.frames()) as frames:
                async for frame in frames:
                    async with self._posting:
                        transcript.apply(frame)
                    begun.set()
                    self.screen.refresh()
        except NotFound:
            return True
        except StorageUnavailable as error:
            self.hint(str(error))
            await asyncio.sleep(_RETRY_SECONDS)
            return False
        return True

    async def _gone(self, conversation_id: UUID) -> None:
        if conversation_id == self.conversation_id:
            await self.leave()
            self.note("This conversation was deleted. Your next message begins a new one.")

    # --- what the person does ---

    async def say(self, text: str) -> None:
        """Posts a message, and makes its conversation where there is none yet."""
        try:
            await self._post(text)
        except OnethreadError:
            self.screen.text = self.screen.text or text
            raise

    async def _post(self, text: str) -> None:
        rules, known = self.app.rules, self.conversation_id
        async with self._posting:
            async with self.app.storage.write() as uow:
                here = known or (await conversations.create(uow, self.principal, model=self.model)).id
                posted = await messages.post(uow, self.principal, here, text, rules=rules, source=SOURCE, uploads=self.uploads)
            self._transcript.mine.add(str(posted.message_id))
        self.uploads, self.model = [], None
        if known is None:
            await self.open(here, fresh=True, mine=posted.message_id)

    async def note_down(self, text: str) -> None:
        """Stores context that asks for no answer."""
        known = self.conversation_id
        async with self._posting:
            async with self.app.storage.write() as uow:
                here = known or (await conversations.create(uow, self.principal, model=self.model)).id
                posted = await messages.note(uow, self.principal, here, text, rules=self.app.rules, source=SOURCE)
            self._transcript.mine.add(str(posted.message_id))
        if known is None:
            await self.open(here, fresh=True, mine=posted.message_id)

    async def stop(self) -> None:
        """Stops the answer that is being written."""
        if self.conversation_id is None:
            return
        async with self.app.storage.write() as uow:
            unfinished = await uow.turns.unfinished(self.conversation_id)
            if unfinished:
                await turns.cancel(uow, self.principal, unfinished[0].id)
        if not unfinished:
            self.hint("Nothing is being answered.")

    async def decide(self, approval_id: str, decision: Decision) -> None:
        async with self.app.storage.write() as uow:
            await approvals.decide(uow, self.principal, UUID(approval_id), decision)

    async def answer(self, message_id: str, option: str) -> None:
        async with self._posting:
            async with self.app.storage.write() as uow:
                posted = await messages.answer(uow, self.principal, UUID(message_id), option, rules=self.app.rules, source=SOURCE)
            self._transcript.mine.add(str(posted.message_id))

    def _entered(self, text: str) -> None:
        self.confirmation = None
        if text.startswith("/") and not text.startswith("//"):
            self.do(lambda: self._run_command(text))
        else:
            self.do(lambda: self.say(text.removeprefix("/")))

    async def _run_command(self, text: str) -> None:
        self.screen.print([("", "")])
        self.screen.print([("class:dim", one_line(f"❯ {text}", self.screen.width))])
        await self._command(self, text)

    async def _do_work(self) -> None:
        while True:
            work = await self._work.get()
            try:
                await work()
            except OnethreadError as error:
                self.note(f"✕ {error}", "class:error")
            except Exception as error:  # noqa: BLE001  # the outermost loop of this surface
                self._broke(error)
            self.screen.refresh()

    def _broke(self, error: Exception) -> None:
        reference = str(new_id())
        _log.error("terminal.broke", reference=reference, **place_of(error))
        self.note(f"✕ That failed unexpectedly (reference {reference}; see {self.app.settings.log_file}).", "class:error")

    # --- keys ---

    def _bind(self, keys: KeyBindings, screen: Screen) -> None:
        empty = Condition(lambda: not screen.text)
        asked = Condition(lambda: self.confirmation is not None or self.talk.approval is not None)

        @keys.add("c-c")
        def _interrupt(_: KeyPressEvent) -> None:
            self._interrupted()

        for key in "ynYN":

            @keys.add(key, filter=empty & asked)
            def _decide(event: KeyPressEvent) -> None:
                self._decided(yes=event.data.lower() == "y")

        for number in range(1, 10):
            offered = Condition(partial(self._offers, number))

            @keys.add(str(number), filter=empty & offered)
            def _choose(event: KeyPressEvent) -> None:
                self._chosen(int(event.data))

    def _interrupted(self) -> None:
        if self.confirmation:
            self.confirmation = None
        elif self.talk.turn:
            self.do(self.stop)
        elif self.screen.text:
            self.screen.text = ""
        else:
            self.hint("Ctrl-D or /quit leaves.")

    def _decided(self, *, yes: bool) -> None:
        confirmation, self.confirmation = self.confirmation, None
        approval = self.talk.approval
        if confirmation:
            if yes:
                self.do(confirmation.work)
        elif approval:
            decision = Decision.APPROVE if yes else Decision.DENY
            self.do(lambda: self.decide(approval["approval_id"], decision))

    def _option(self, number: int) -> str | None:
        question = self.talk.question
        return question.options[number - 1] if question and number <= len(question.options) else None

    def _offers(self, number: int) -> bool:
        return self._option(number) is not None

    def _chosen(self, number: int) -> None:
        question, option = self.talk.question, self._option(number)
        if question and option:
            self.do(lambda: self.answer(question.message_id, option))

    # --- what stands below the paper ---

    def _live(self) -> Iterator[Fragments]:
        width = self.screen.width
        yield from self._transcript.growing()
        yield []
        yield from held_lines(self.talk, width)
        if self.uploads:
            files = ", ".join(f"{upload.name} ({wording.size(len(upload.data))})" for upload in self.uploads)
            yield [("class:dim", one_line(f"  + {files}, with your next message", width))]
        if self.confirmation:
            yield [("class:ask", one_line(self.confirmation.question, width - 18)), *yes_or_no("yes", "no")]
        elif approval := self.talk.approval:
            yield from approval_line(approval, width)
        elif question := self.talk.question:
            yield [("class:key", f"[1-{len(question.options)}]"), ("", " chooses; or type an answer")]
        yield self._status(width)

    def _status(self, width: int) -> Fragments:
        now = self.app.clock.now()
        hint, until = self._hint
        if now < until:
            return [("class:key", one_line(hint, width))]
        model = self.talk.conversation.get("model") or self.model or self.app.rules.default_model
        title = self.talk.title if self.talk.known else "New chat"
        return status_line(self.talk, f"{title} · {model}", width, now)
