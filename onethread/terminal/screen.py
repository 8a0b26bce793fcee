"""The terminal's screen: finished lines scroll up as paper, below them the live rows and the input, which never block each other."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.application.current import get_app
from prompt_toolkit.completion import Completer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys as Key
from prompt_toolkit.output import create_output
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.shortcuts import PromptSession
from prompt_toolkit.styles import Style

from onethread.terminal.text import Fragments

_STYLE = Style.from_dict(
    {
        "prompt": "bold",
        "mine": "bold",
        "name": "ansimagenta bold",
        "heading": "bold",
        "bold": "bold",
        "code": "ansicyan",
        "dim": "ansibrightblack",
        "ok": "ansigreen",
        "error": "ansired",
        "key": "ansiyellow bold",
        "ask": "ansiyellow bold",
        "idle": "ansibrightblack",
        "thinking": "ansiblue",
        "executing": "ansigreen",
        "waiting_for_user": "ansiyellow",
        "completion-menu": "noinherit",
        "completion-menu.completion": "noinherit",
        "completion-menu.completion.current": "noinherit reverse",
        "completion-menu.meta.completion": "noinherit ansibrightblack",
        "completion-menu.meta.completion.current": "noinherit ansibrightblack",
    }
)
_MAX_WIDTH = 120
_REFRESH_SECONDS = 0.25
Keys = Callable[[KeyBindings, "Screen"], None]


class Screen:
    """`live` gives the rows above the input; `on_line` gets what is entered; `bind` adds keys."""

    def __init__(
        self, *, history: Path, completer: Completer, live: Callable[[], Iterable[Fragments]], on_line: Callable[[str], None], bind: Keys
    ) -> None:
        self._live = live
        self._on_line = on_line
        self._printed: Fragments = []
        self._output = create_output(always_prefer_tty=True)
        self._output.enable_cpr = False  # type: ignore[attr-defined]  # its answers would come 20 times a second
        self._prompt: PromptSession[None] = PromptSession(
            message=self._message,
            style=_STYLE,
            multiline=True,
            completer=completer,
            complete_while_typing=Condition(lambda: self.text.startswith("/") and not self.text.startswith("//")),
            reserve_space_for_menu=6,
            history=FileHistory(str(history)),
            prompt_continuation=lambda width, _number, _soft: " " * width,
            key_bindings=self._keys(bind),
            erase_when_done=True,
            enable_suspend=True,
            refresh_interval=_REFRESH_SECONDS,
            output=self._output,
        )

    @property
    def width(self) -> int:
        """Columns that a row may have."""
        return max(min(self._output.get_size().columns - 1, _MAX_WIDTH), 20)

    @property
    def text(self) -> str:
        """What stands in the input."""
        return self._prompt.default_buffer.text

    @text.setter
    def text(self, text: str) -> None:
        self._prompt.default_buffer.text = text
        self._prompt.default_buffer.cursor_position = len(text)

    def print(self, fragments: Fragments) -> None:
        """Puts a line onto the paper. Lines of one moment are drawn at once."""
        if not self._printed:
            asyncio.get_running_loop().call_soon(self.flush)
        self._printed += [*fragments, ("", "\n")]

    def refresh(self) -> None:
        self._prompt.app.invalidate()

    def exit(self) -> None:
        if self._prompt.app.is_running and not self._prompt.app.is_done:
            self._prompt.app.exit()

    async def run(self) -> None:
        """Until `exit`."""
        with self._prompt.input.raw_mode():
            self._take_what_was_typed_before()
            await self._prompt.prompt_async(handle_sigint=False)
        self.flush()

    def _take_what_was_typed_before(self) -> None:
        """Until now the terminal made a line feed of each Enter, which is another key here."""
        keys = self._prompt.input.read_keys()
        store_typeahead(self._prompt.input, [KeyPress(Key.ControlM) if key.key == Key.ControlJ else key for key in keys])

    def flush(self) -> None:
        """Draws what was printed."""
        lines, self._printed = self._printed, []
        if not lines:
            return
        app = self._prompt.app
        if app.is_running:
            app.renderer.erase()
        print_formatted_text(self._output, FormattedText(lines), _STYLE)
        self._output.reset_attributes()
        self._output.flush()
        if app.is_running:
            app._redraw()

    def _message(self) -> StyleAndTextTuples:
        above: StyleAndTextTuples = []
        for row in self._live():
            above += [*row, ("", "\n")]
        return [*above, ("class:prompt", "❯ ")]

    def _keys(self, bind: Keys) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _enter(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            text = buffer.text
            if text.strip():
                buffer.append_to_history()
                buffer.reset()
                self._on_line(text)

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def _new_line(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("c-d", filter=Condition(lambda: not self.text))
        def _leave(_: KeyPressEvent) -> None:
            get_app().exit()

        bind(keys, self)
        return keys
