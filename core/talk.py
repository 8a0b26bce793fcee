"""A conversation as a surface knows it: the Follower's frames folded into messages, turns and the agent's status."""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from core.frames import Frame
from core.models import JSON, AgentStatus
from core.text import clip, utf16_cut

_ENDED = ("completed", "failed", "cancelled")
_UNFINISHED = ("queued", "running", "waiting")
_NOTICES = 100
"""Kept for who reads them."""


@dataclass(slots=True)
class Entry:
    """A message, its text as far as it has come, and its tool calls by their place."""

    message: JSON
    text: str
    calls: dict[tuple[int, int], JSON] = field(default_factory=dict)
    streamed: bool = False
    """True where its text was seen growing."""
    reopened: int = 0
    """How often it was answered again after it had ended."""

    @property
    def seq(self) -> int:
        return int(self.message["seq"])

    @property
    def is_reply(self) -> bool:
        return bool(self.message["role"] == "assistant")

    @property
    def is_notice(self) -> bool:
        """Whether it tells of what somebody did with the conversation, and nobody said it."""
        return bool(self.message["metadata"].get("notice"))

    @property
    def ended(self) -> bool:
        return self.message["status"] in _ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    message_id: str
    options: tuple[str, ...]


class Talk:
    """The state of one conversation. `notices` are sentences about what changed in what was said before; they quote it."""

    def __init__(self) -> None:
        self.conversation: JSON = {}
        self.task: JSON | None = None
        self.agent: JSON = {"status": AgentStatus.IDLE.value, "message": ""}
        self.turns: dict[str, JSON] = {}
        """The unfinished ones, by id."""
        self.notices: deque[str] = deque(maxlen=_NOTICES)
        self._entries: dict[str, Entry] = {}
        self._handlers: dict[str, Callable[[JSON], None]] = {
            "snapshot": self._snapshot,
            "new_message": self._message,
            "message_changed": self._message,
            "llm_delta": self._delta,
            "llm_complete": self._complete,
            "agent_status": self._agent_status,
            "turn_changed": self._turn,
            "tool_call": self._tool_call,
            "task_changed": self._task_changed,
            "conversation_changed": self._conversation_changed,
        }

    def apply(self, frame: Frame) -> None:
        handler = self._handlers.get(frame.event)
        if handler:
            handler(frame.payload)

    @property
    def known(self) -> bool:
        """True once the first snapshot has come."""
        return bool(self.conversation)

    @property
    def title(self) -> str:
        title = str(self.conversation.get("title") or "New chat")
        return f"{self.task['ref']} {title}" if self.task else title

    @property
    def entries(self) -> list[Entry]:
        """In the order of the conversation."""
        return sorted(self._entries.values(), key=lambda entry: entry.seq)

    def entry(self, message_id: str) -> Entry | None:
        return self._entries.get(message_id)

    def forget(self, *, but: Collection[str]) -> None:
        """Drops the messages that have ended, except some: for whoever reads them elsewhere, and follows what is being written."""
        self._entries = {each: entry for each, entry in self._entries.items() if each in but or (entry.is_reply and not entry.ended)}

    @property
    def unfinished(self) -> Entry | None:
        """The first reply that has not ended."""
        return next((entry for entry in self.entries if entry.is_reply and not entry.ended), None)

    @property
    def held(self) -> Iterator[Entry]:
        """What was said behind the first unfinished reply."""
        first = self.unfinished
        return (entry for entry in self.entries if first and entry.seq > first.seq and not entry.is_reply)

    @property
    def turn(self) -> JSON | None:
        """The turn that is being answered, or the first that waits."""
        return min(self.turns.values(), key=lambda turn: int(turn["position"]), default=None)

    @property
    def approval(self) -> JSON | None:
        """The tool call that waits for a person's decision."""
        calls = (call for entry in self._entries.values() if not entry.ended for call in entry.calls.values())
        return next((call for call in calls if call["state"] == "awaiting_approval" and call.get("approval_id")), None)

    @property
    def question(self) -> Question | None:
        """The question that the conversation ends with, where it has answers to choose from. Notices behind it answer nothing."""
        last = next((entry for entry in reversed(self.entries) if not entry.is_notice), None)
        asked = last.message["metadata"].get("question") if last and last.ended else None
        if last is None or not asked or not asked["options"]:
            return None
        return Question(message_id=last.message["id"], options=tuple(str(option) for option in asked["options"]))

    def last_said_by(self, name: str) -> JSON | None:
        said = [entry.message for entry in self.entries if entry.message["role"] == "user" and entry.message["author"] == name]
        return next((message for message in reversed(said) if not message["deleted_at"]), None)

    # --- frames ---

    def _snapshot(self, state: JSON) -> None:
        self.conversation, self.task = state["conversation"], state["task"]
        self.agent = {"status": self.conversation["agent_status"], "message": self.conversation["agent_status_message"]}
        self.turns = {turn["turn_id"]: turn for turn in state["turns"]}
        for message in state["messages"]:
            self._message(message)

    def _message(self, message: JSON) -> None:
        entry = self._entries.get(message["id"])
        if entry is None:
            entry = self._entries[message["id"]] = Entry(message, message["content"])
        elif entry.is_reply:
            self._reply_changed(entry, message)
        else:
            self._said_changed(entry, message)
        entry.message = message
        for call in message["tool_calls"]:
            entry.calls[call["step"], call["index"]] = call

    def _reply_changed(self, entry: Entry, message: JSON) -> None:
        if message["status"] in _ENDED or message["stream_no"] > entry.message["stream_no"]:
            entry.text = message["content"]
        if message["deleted_at"] and not entry.message["deleted_at"]:
            self.notices.append("An answer was deleted.")
        elif entry.ended and message["status"] not in _ENDED:
            entry.reopened += 1
            entry.text = message["content"]

    def _said_changed(self, entry: Entry, message: JSON) -> None:
        who = clip(message["author"] or "somebody", 40)
        if message["deleted_at"] and not entry.message["deleted_at"]:
            self.notices.append(f"{who} deleted: {clip(entry.text, 60)}")
        elif message["content"] != entry.text:
            self.notices.append(f"{who} changed “{clip(entry.text, 40)}” to: {clip(message['content'], 200)}")
        entry.text = message["content"]

    def _delta(self, delta: JSON) -> None:
        entry = self._entries.get(delta["message_id"])
        if entry and not entry.ended:
            entry.text = utf16_cut(entry.text, delta["offset"]) + delta["delta"]
            entry.streamed = True
            entry.message["stream_no"] = delta["stream_no"]

    def _complete(self, reply: JSON) -> None:
        entry = self._entries.get(reply["message_id"])
        if entry:
            entry.text = reply["content"]
            entry.message |= {key: reply[key] for key in ("content", "status", "metadata")}

    def _agent_status(self, status: JSON) -> None:
        self.agent = status

    def _turn(self, turn: JSON) -> None:
        if turn["status"] in _UNFINISHED:
            self.turns[turn["turn_id"]] = turn
        else:
            self.turns.pop(turn["turn_id"], None)

    def _tool_call(self, call: JSON) -> None:
        if entry := self._entries.get(call["message_id"]):
            entry.calls[call["step"], call["index"]] = call

    def _task_changed(self, task: JSON) -> None:
        before, self.task = self.task, task
        if before and before["status"] != task["status"]:
            self.notices.append(f"{task['ref']} is now {task['status'].replace('_', ' ')}")

    def _conversation_changed(self, conversation: JSON) -> None:
        self.conversation = conversation
