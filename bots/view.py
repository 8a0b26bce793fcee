"""What is shown of a message or a task on a chat platform: its text, the small lines below, and the buttons. Pure: it knows no platform."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from bots.markdown import neutral, plain
from bots.surface import Action, Button
from core import wording
from core.models import JSON, AgentStatus, MessageStatus, Priority, Role, TaskStatus
from core.text import clip

_NAME_CHARACTERS = 40
_NOTE_CHARACTERS = 200
_SENTENCE_CHARACTERS = 600
_ALSO_CHARACTERS = 400
_SUMMARY_CHARACTERS = 600
_QUOTE_CHARACTERS = 300
_PEOPLE_SHOWN = 3
_CALLS_SHOWN = 8
_OPTIONS_SHOWN = 5
_LABEL_CHARACTERS = 70
# Of markdown, in a line: what could open markup. An underscore within a word opens nothing.
_MARKUP = re.compile(r"[\\`*~\[\]<>|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_FROM = {
    "terminal": "in the terminal",
    "web": "on the web",
    "mcp": "by MCP",
    "api": "by the API",
    "slack": "in Slack",
    "discord": "in Discord",
}
_STATUS_ICONS = {
    TaskStatus.TODO: "○",
    TaskStatus.IN_PROGRESS: "◐",
    TaskStatus.IN_REVIEW: "◎",
    TaskStatus.DONE: "✔",
    TaskStatus.CANCELLED: "✕",
}
DELETED = "■ This conversation was deleted."
_CALL_MARKS = {"running": "◉", "done": "✔", "failed": "✕", "awaiting_approval": "◎"}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A message as it is to be shown. The text may need several parts: notes and buttons stand in the last one."""

    text: str
    """Markdown, mass mentions neutralised."""
    notes: tuple[str, ...] = ()
    buttons: tuple[Button, ...] = ()
    speaker: str = ""
    ended: bool = True
    """Whether nothing changes any more by itself."""
    is_card: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What somebody answered a question."""

    by: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What was said in a conversation before it was followed at a place."""

    count: int
    """Of messages."""
    since: datetime | None
    people: Sequence[str] = ()
    summary: str = ""
    first: str = ""
    """What somebody wanted first, and what the agent said last: where there is no summary."""
    last: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a place stands to the conversation that it follows."""

    read_only: bool
    read_by_others: bool
    """Whether people who are not here read what is said here."""
    is_left: bool
    """It follows no longer."""
    also: str = ""
    """Where else it is shown."""


def message(
    shown: JSON,
    *,
    turn: JSON | None = None,
    agent: JSON | None = None,
    answer: Answer | None = None,
    is_past: bool = False,
    behind: int = 0,
) -> View | None:
    """What is shown of a message in its public JSON; None for a deleted one.

    `turn` is its turn's JSON while that is unfinished, `agent` the conversation's status; `answer` was given to the question that it asks,
    whose options are gone then; `is_past` says that another turn came after its own, so that it is not tried again; `behind` counts the
    turns that wait for this one.
    """
    if shown["deleted_at"]:
        return None
    if shown["role"] == Role.SYSTEM:
        return View(text="", notes=(f"→ {inline(shown['content'], _SENTENCE_CHARACTERS)}",))
    if shown["role"] != Role.ASSISTANT:
        return _said(shown)
    match MessageStatus(shown["status"]):
        case MessageStatus.COMPLETED:
            return _completed(shown, answer)
        case MessageStatus.FAILED:
            return _failed(shown, is_past=is_past)
        case MessageStatus.CANCELLED:
            return _stopped(shown, is_past=is_past)
    return _unfinished(shown, turn or {}, agent or {}, behind)


def card(task: JSON, url: str, also: str = "") -> View:
    """The card of a task in its public JSON; `url` is its conversation's, `also` tells where else it is shown."""
    status = TaskStatus(task["status"])
    facts = [f"{_STATUS_ICONS[status]} {status.value.replace('_', ' ').capitalize()}"]
    if task["priority"] != Priority.MEDIUM:
        facts.append(f"{task['priority'].capitalize()} priority")
    if task["assignee"]:
        facts.append(f"for {inline(task['assignee'], _NAME_CHARACTERS)}")
    if task["due_at"]:
        facts.append(f"due {datetime.fromisoformat(task['due_at']):%-d %B %Y}")
    return View(text=_named(task, "", url), notes=(" · ".join(facts), *_also(also)), is_card=True)


def intro(task: JSON | None, title: str, url: str, before: Before, standing: Standing) -> View:
    """What a place is told first of the conversation that it follows from then on: a task's, or one of this title."""
    # What was said stands in notes, in which nobody is mentioned.
    return View(text=f"Follows {_named(task, title, url)}", notes=(*_before(before), *_standing(standing)))


def changed(shown: JSON) -> View:
    """Says at the place where somebody wrote a message that they changed it elsewhere, or deleted it."""
    who = inline(shown["author"] or "Somebody", _NAME_CHARACTERS)
    if shown["deleted_at"]:
        return View(text="", notes=(f"✕ {who} deleted elsewhere what they wrote here. It is not part of the conversation any more.",))
    return View(text="", notes=(f"✎ {who} changed elsewhere what they wrote here: {inline(shown['content'], _SENTENCE_CHARACTERS)}",))


def back(url: str) -> View:
    """Says at a place that the conversation is shown there again."""
    return View(text="", notes=(f"→ This goes on here again. What was said meanwhile is [on the web]({url}).",))


def read_only(shown: View, url: str) -> View:
    """As it is shown where nothing comes in: without buttons."""
    asks = any(button.action in (Action.APPROVE, Action.ANSWER) for button in shown.buttons)
    notes = (*shown.notes, f"Read-only here: [answer on the web]({url})") if asks else shown.notes
    return replace(shown, notes=notes, buttons=())


def left(shown: View, url: str) -> View:
    """As the last that is shown of it where the conversation is not followed any more."""
    notes = shown.notes if shown.ended else (goes_on(url),)
    return replace(shown, notes=notes, buttons=(), ended=True)


def goes_on(url: str) -> str:
    """Below a text that is not shown to its end."""
    return f"This goes on [on the web]({url})."


def left_out(count: int, url: str) -> View:
    """Stands for the messages of a long backlog that are not delivered."""
    return View(text=f"{count:,} earlier messages are not shown here. [Read them all]({url})")


def doing(turn: JSON | None, agent: JSON) -> tuple[AgentStatus, str]:
    """What the agent does about an unfinished turn, and in a sentence; idle where there is none."""
    if turn is None:
        return AgentStatus.IDLE, ""
    if turn["status"] != "queued":
        status = AgentStatus(agent.get("status", AgentStatus.THINKING))
        # A turn that runs is never idle: what the agent does is told a moment later than that it runs.
        return (status, str(agent["message"])) if status is not AgentStatus.IDLE else (AgentStatus.THINKING, "")
    return AgentStatus.THINKING, _waits_for(turn)


def page(url: str, conversation_id: UUID) -> str:
    """Where the conversation is read on the web."""
    return f"{url}/conversations/{conversation_id}"


def inline(text: str, characters: int) -> str:
    """What somebody wrote, on one line and clipped, as markdown that shows it as it is."""
    return _MARKUP.sub(r"\\\g<0>", neutral(clip(text, characters)))


def code(text: str, characters: int) -> str:
    """Likewise as inline code; empty for nothing."""
    line = neutral(clip(text, characters)).replace("`", "'")
    return f"`{line}`" if line else ""


# --- what a place shows ----------------------------------------------------------------------------------------------


def _named(task: JSON | None, title: str, url: str) -> str:
    if task:
        return f"**[{task['ref']}]({url})** {inline(task['title'], _NOTE_CHARACTERS)}"
    return f"**[{inline(title or 'a conversation', _NOTE_CHARACTERS)}]({url})**"


def _also(also: str) -> Sequence[str]:
    return [inline(also[0].upper() + also[1:], _ALSO_CHARACTERS)] if also else []


def _before(before: Before) -> Sequence[str]:
    if not before.count or before.since is None:
        return ["Nothing was said in it before."]
    who = wording.listed([inline(name, _NAME_CHARACTERS) for name in before.people], at_most=_PEOPLE_SHOWN)
    messages = f"{before.count:,} message{'s' if before.count > 1 else ''} since {before.since:%-d %B %Y}{f', by {who}' if who else ''}."
    quotes = [("So far", before.summary, _SUMMARY_CHARACTERS)] if before.summary else []
    quotes += [("First", before.first, _QUOTE_CHARACTERS), ("Last answer", before.last, _QUOTE_CHARACTERS)]
    said = [(name, inline(plain(text, characters), characters)) for name, text, characters in quotes]
    return [messages, *(f"**{name}:** {text}" for name, text in said if text)]


def _standing(standing: Standing) -> Sequence[str]:
    if standing.is_left:
        return ["■ Not followed here any more."]
    if standing.read_only:
        how = "Read-only: what is said here does not become part of it."
    elif standing.read_by_others:
        how = "What is said here becomes part of it: everybody who reads it elsewhere reads that, too."
    else:
        how = "What is said here becomes part of it."
    return [f"{how} `!unfollow` ends this.", *_also(standing.also)]


# --- people ----------------------------------------------------------------------------------------------------------


def _said(shown: JSON) -> View:
    who = clip(shown["author"] or "Somebody", _NAME_CHARACTERS)
    where = _FROM.get(shown["source"], f"by {clip(shown['source'], _NAME_CHARACTERS)}")
    unanswered = shown["metadata"].get("unanswered")
    notes = [_file(each) for each in shown["attachments"]]
    if unanswered:
        notes.append(inline(unanswered["message"], _SENTENCE_CHARACTERS))
    return View(text=neutral(shown["content"]), notes=tuple(notes), speaker=neutral(f"{who}, {where}"))


def _file(attachment: JSON) -> str:
    return f"+ {inline(attachment['name'], 80)} ({wording.size(attachment['size'])})"


# --- replies ---------------------------------------------------------------------------------------------------------


def _unfinished(shown: JSON, turn: JSON, agent: JSON, behind: int) -> View:
    call = next((call for call in shown["tool_calls"] if call["state"] == "awaiting_approval" and call.get("approval_id")), None)
    waiting = _waiting(behind)
    if call:
        return _asking(shown, call, waiting)
    notes = [*_calls(shown), *_progress(shown, turn, agent), *waiting]
    stop = Button(action=Action.STOP, label="Stop", value=shown["turn_id"])
    return View(text=neutral(shown["content"]), notes=tuple(notes), buttons=(stop,), ended=False)


def _progress(shown: JSON, turn: JSON, agent: JSON) -> Sequence[str]:
    if turn.get("status") == "queued" and turn["position"]:
        return [f"○ Queued · {wording.before(turn['position'])}"]
    if any(call["state"] == "running" for call in shown["tool_calls"]):
        return []  # the calls say it
    status, sentence = doing(turn or {"status": "running"}, agent)
    said = f" · {inline(sentence, _SENTENCE_CHARACTERS)}" if sentence else ""
    return [f"{status.style.icon} {status.style.label}{said}"]


def _waiting(behind: int) -> Sequence[str]:
    """How many messages are answered next."""
    return [f"○ {behind} more message{' is' if behind == 1 else 's are'} answered after this"] if behind else []


def _asking(shown: JSON, call: JSON, waiting: Sequence[str]) -> View:
    asked = f"◎ May I run {inline(call['name'], _NAME_CHARACTERS)} {code(_arguments(call), _NOTE_CHARACTERS)}".rstrip() + "?"
    approve = Button(action=Action.APPROVE, label="Approve", value=call["approval_id"], style="primary")
    deny = Button(action=Action.DENY, label="Deny", value=call["approval_id"], style="danger")
    return View(text=neutral(shown["content"]), notes=(*_calls(shown, but=call), *waiting, asked), buttons=(approve, deny), ended=False)


def _completed(shown: JSON, answer: Answer | None) -> View:
    options = (shown["metadata"].get("question") or {}).get("options") or []
    buttons = [] if answer else [_option(shown["id"], number, str(option)) for number, option in enumerate(options[:_OPTIONS_SHOWN])]
    notes = [*_calls(shown), *_answered(options, answer), _spent(shown["metadata"])]
    return View(text=neutral(shown["content"]), notes=tuple(filter(None, notes)), buttons=tuple(buttons))


def _answered(options: Sequence[object], answer: Answer | None) -> Sequence[str]:
    if not (options and answer):
        return []
    text = inline(answer.text, _LABEL_CHARACTERS)
    return [f"✔ Answered by {inline(answer.by, _NAME_CHARACTERS)}{f': {text}' if text else ''}"]


def _option(reply_id: str, number: int, option: str) -> Button:
    return Button(action=Action.ANSWER, label=clip(option, _LABEL_CHARACTERS) or str(number + 1), value=f"{reply_id} {number}")


def _failed(shown: JSON, *, is_past: bool) -> View:
    sentence = (shown["metadata"].get("error") or {}).get("message", "The answer failed.")
    return _broken_off(shown, f"✕ {inline(sentence, _SENTENCE_CHARACTERS)}", is_past=is_past)


def _stopped(shown: JSON, *, is_past: bool) -> View:
    return _broken_off(shown, "■ Stopped.", is_past=is_past)


def _broken_off(shown: JSON, note: str, *, is_past: bool) -> View:
    retry = Button(action=Action.RETRY, label="Retry", value=shown["turn_id"])
    return View(text=neutral(shown["content"]), notes=(*_calls(shown), note), buttons=() if is_past else (retry,))


def _waits_for(turn: JSON) -> str:
    if turn.get("no_worker"):
        return f"{wording.NO_WORKER} {wording.START_WORKER}"
    if turn["retry_at"]:
        at = datetime.fromisoformat(turn["retry_at"])
        return f"Trying again at {at:%H:%M:%S} UTC: {turn.get('error') or wording.MODEL_PAUSED}"
    if turn["position"]:
        return f"Queued: {wording.before(turn['position'])}"
    return str(turn.get("error") or wording.WAITS_FOR_WORKER)


# --- tool calls ------------------------------------------------------------------------------------------------------


def _calls(shown: JSON, but: JSON | None = None) -> Sequence[str]:
    """A line for each, the newest; a question is shown as the text that it is."""
    calls = [call for call in shown["tool_calls"] if call is not but and call["name"] != "ask_user"]
    earlier = len(calls) - _CALLS_SHOWN
    lines = [_call(call) for call in calls[-_CALLS_SHOWN:]]
    return [f"… {earlier} more tool call{'s' if earlier > 1 else ''} before these", *lines] if earlier > 0 else lines


def _call(call: JSON) -> str:
    running = "Running " if call["state"] == "running" else ""
    line = f"{_CALL_MARKS[call['state']]} {running}{inline(call['name'], _NAME_CHARACTERS)} {code(_arguments(call), _NOTE_CHARACTERS)}"
    outcome = inline(wording.outcome(call), _NOTE_CHARACTERS)
    separator = " · " if wording.decided(call) else ": "
    return line.rstrip() + (f"{separator}{outcome}" if outcome else "")


def _arguments(call: JSON) -> str:
    return " ".join(f"{name}={wording.value(value)}" for name, value in call["arguments"].items())


# --- what it cost ----------------------------------------------------------------------------------------------------


def _spent(metadata: JSON) -> str:
    """`demo/offline · ~1,234 → 56 tokens · $0.0010`"""
    facts = [_model(str(metadata.get("model", ""))), wording.instead(metadata, _model)]
    if "tokens_in" in metadata:
        about = "~" if metadata.get("estimated") else ""
        facts += [f"{about}{metadata['tokens_in']:,} → {metadata['tokens_out']:,} tokens", wording.price(metadata.get("cost"))]
    return " · ".join(fact for fact in facts if fact)


def _model(name: str) -> str:
    return inline(name, 60)
