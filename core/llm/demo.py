"""The offline demo: a responder of fixed rules, no language model. Given a conversation and the tools, it says something or calls tools."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.llm import summary
from core.text import clip

SECONDS_PER_WORD = 0.015
"""The pace of a streamed answer; tests set 0."""

JSON = Mapping[str, Any]

INTRODUCTION = (
    "I am Onethread's offline demo: fixed rules, no language model. "
    "For a real one set ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY, or ONETHREAD_MODEL for any other."
)
ABILITIES = """I can work on tasks and show how Onethread behaves. Try:

- create a task to buy milk
- list my tasks, or: show tasks in progress
- show OT-3, start OT-3, mark OT-3 done, rename OT-3 to Buy oat milk
- delete OT-3
- search milk
- ask me whether to use tea or coffee
- count to 50, or: write 300 words (long answers, to try Stop)"""


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say and which tools to call."""

    text: str = ""
    calls: tuple[Call, ...] = field(default=())


def answer(messages: Sequence[JSON], tools: Sequence[JSON]) -> Answer:
    """The next round of a conversation in OpenAI's chat format. Only `tools` are called."""
    if messages and messages[0].get("content") == summary.INSTRUCTIONS:
        return Answer(text=_digest(_last_user_text(messages)))
    offered = frozenset(str(tool.get("function", {}).get("name")) for tool in tools)
    results = tuple(_results(messages))
    if results:
        return Answer(text=_introduced(messages, "\n\n".join(_render(result) for result in results)))
    said = _last_user_text(messages)
    wanted = _actions(said)
    calls = tuple(call for call in wanted if call.name in offered)
    if calls and len(calls) == len(wanted):
        asks = any(call.name == "ask_user" for call in calls)
        return Answer(text=_introduced(messages, "") if asks else "", calls=calls)
    if wanted:
        return Answer(text=_introduced(messages, _unavailable(wanted, offered)))
    return Answer(text=_introduced(messages, _say(said) or _puzzled(messages, said)))


def words(text: str) -> Iterator[str]:
    """`text` in pieces of one word, which joined give it back."""
    return (match.group() for match in re.finditer(r"\s*\S+\s*?(?=\s|$)|\s+", text))


# --- reading the conversation ------------------------------------------------------------------------------------

_CONTEXT_BLOCK = re.compile(r"\s*<context>.*?</context>\s*\Z", re.DOTALL)
_SPEAKER = re.compile(r"\A\[[^\]\n]{1,64}\] ")
"""Stands before what people say where several of them do."""


@dataclass(frozen=True, slots=True)
class _Result:
    name: str
    arguments: JSON
    value: Any


def _results(messages: Sequence[JSON]) -> Iterator[_Result]:
    """The tool results that came after the last message of a person, in the order of the calls."""
    last_user = max((place for place, message in enumerate(messages) if message.get("role") == "user"), default=-1)
    open_calls: list[JSON] = []
    for message in messages[last_user + 1 :]:
        open_calls += message.get("tool_calls") or []
        if message.get("role") == "tool":
            call = _take(open_calls, message.get("tool_call_id"))
            function = call.get("function", {})
            yield _Result(str(function.get("name", "")), _object(function.get("arguments")), _loaded(_text_of(message)))


def _take(open_calls: list[JSON], call_id: Any) -> JSON:
    """The first open call of that id: ids may repeat."""
    place = next((place for place, call in enumerate(open_calls) if call.get("id") == call_id), None)
    return open_calls.pop(place) if place is not None else {}


def _last_user_text(messages: Sequence[JSON]) -> str:
    said = next((message for message in reversed(messages) if message.get("role") == "user"), {})
    return _SPEAKER.sub("", _CONTEXT_BLOCK.sub("", _text_of(said))).strip()


def _answers_question(messages: Sequence[JSON]) -> bool:
    """Whether the person's last message answers a question of ours."""
    places = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    before = messages[places[-2] + 1 : places[-1]] if len(places) > 1 else ()
    calls = [call for message in before for call in message.get("tool_calls") or ()]
    return bool(calls) and calls[-1].get("function", {}).get("name") == "ask_user"


def _digest(conversation: str) -> str:
    """In place of a summary, which takes understanding."""
    said = [line.removeprefix("User: ") for line in conversation.splitlines() if line.startswith("User: ")]
    return "The last that was said before:\n" + "\n".join(f"- {clip(line, 100)}" for line in said[-20:])


def _text_of(message: JSON) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _introduced(messages: Sequence[JSON], text: str) -> str:
    """The first words of a conversation say who speaks; earlier rounds of the same turn that only called tools do not count."""
    spoke = any(message.get("role") == "assistant" and _text_of(message) for message in messages)
    return text if spoke else f"{INTRODUCTION}\n\n{text}".strip()


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _object(text: Any) -> JSON:
    value = _loaded(text) if isinstance(text, str) else text
    return value if isinstance(value, Mapping) else {}


# --- understanding -----------------------------------------------------------------------------------------------

_Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], Call | None]]

_REF = r"(?P<ref>[a-z][a-z0-9]{0,9}-\d+)"
_LONGEST_TITLE = 200
_LEVEL = "low|medium|high|urgent"
_POLITE = re.compile(
    r"^(?:(?:ok|okay|hi|hey|hello|now|then|so|also|please|and|well)[,!.]?\s+"
    r"|(?:can|could|would|will) you (?:please )?|i(?:'d| would) like (?:you )?to )+",
    re.IGNORECASE,
)
_STATUS_WORDS = {
    "todo": "todo",
    "to do": "todo",
    "to-do": "todo",
    "open": "todo",
    "new": "todo",
    "in progress": "in_progress",
    "in_progress": "in_progress",
    "started": "in_progress",
    "running": "in_progress",
    "in review": "in_review",
    "in_review": "in_review",
    "review": "in_review",
    "done": "done",
    "completed": "done",
    "complete": "done",
    "finished": "done",
    "closed": "done",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
_STATUS = "|".join(re.escape(word) for word in sorted(_STATUS_WORDS, key=len, reverse=True))
_VERBS = {
    "complete": "done",
    "finish": "done",
    "close": "done",
    "start": "in_progress",
    "begin": "in_progress",
    "review": "in_review",
    "cancel": "cancelled",
    "reopen": "todo",
}
_PRIORITY = re.compile(
    rf"[,;]?\s*(?:\(|with |at )?(?P<priority>{_LEVEL})[ -]priority\)?|\s*[,;(]\s*priority:? (?P<named>{_LEVEL})\)?",
    re.IGNORECASE,
)


def _actions(said: str) -> tuple[Call, ...]:
    """The actions asked for; none unless every part of the message is one."""
    whole = _action(said)
    parts = [part for line in re.split(r"[;\n]+", said) for part in _parts(_POLITE.sub("", line.strip())) if part.strip()]
    found = [_action(part) for part in parts]
    calls = tuple(call for call in found if call is not None)
    if len(calls) > 1 and len(calls) == len(found):
        return calls
    return (whole,) if whole is not None else ()


_NEXT_ACTION = re.compile(
    r",?\s+(?:and|then)(?:\s+then|\s+also)?\s+(?=(?:please\s+)?(?:create|add|make|list|show|mark|set|move|complete|finish|close|start|begin|review|cancel"
    r"|reopen|rename|delete|remove|search|find|ask me|(?:an?|another) task)\b)|\.\s+(?=\S)",
    re.IGNORECASE,
)


_SEVERAL_REFS = re.compile(r"[a-z][a-z0-9]{0,9}-\d+(?:(?:\s*,\s*|\s*,?\s+and\s+)[a-z][a-z0-9]{0,9}-\d+)+", re.IGNORECASE)


def _parts(line: str) -> list[str]:
    """`line` cut at its actions; one action on several tasks becomes one on each."""
    parts = _NEXT_ACTION.split(re.sub(r"^(?:[-*•]|\d+[.)])\s+", "", line))
    return [one for part in parts for one in _each_ref(part)]


def _each_ref(part: str) -> list[str]:
    several = _SEVERAL_REFS.search(part)
    if several is None:
        return [part]
    return [part[: several.start()] + ref + part[several.end() :] for ref in re.split(r"[\s,]+(?:and\s+)?", several.group())]


_REQUEST = re.compile(r"(?:please,?\s+)?(?:can|could|would|will) you\b", re.IGNORECASE)


def _action(part: str) -> Call | None:
    said = part.strip()
    text = _POLITE.sub("", said).strip().rstrip(".!")
    text = (text.rstrip("?") if _REQUEST.match(said) else text).strip()
    for pattern, build in _RULES:
        match = pattern.fullmatch(text)
        if match and (call := build(match)) is not None:
            return call
    return None


def _create(match: re.Match[str]) -> Call | None:
    title, _, description = match["title"].strip().partition("\n")
    arguments: dict[str, Any] = {"description": description.strip()} if description.strip() else {}
    if level := match.groupdict().get("level"):
        arguments["priority"] = level.lower()
    if priority := _PRIORITY.search(title):
        arguments["priority"] = (priority["priority"] or priority["named"]).lower()
        title = (title[: priority.start()] + title[priority.end() :]).strip()
    title = _unquoted(title)[:_LONGEST_TITLE]
    return Call("create_task", {"title": title[:1].upper() + title[1:]} | arguments) if title else None


def _list(match: re.Match[str]) -> Call:
    named = match["before"] or match["after"]
    return Call("list_tasks", {"status": _STATUS_WORDS[named.lower()]} if named else {})


def _set_status(match: re.Match[str]) -> Call:
    return Call("update_task", {"ref": match["ref"].upper(), "status": _STATUS_WORDS[match["status"].lower()]})


def _verb_status(match: re.Match[str]) -> Call:
    return Call("update_task", {"ref": match["ref"].upper(), "status": _VERBS[match["verb"].lower()]})


def _set_priority(match: re.Match[str]) -> Call:
    return Call("update_task", {"ref": match["ref"].upper(), "priority": match["priority"].lower()})


def _rename(match: re.Match[str]) -> Call:
    return Call("update_task", {"ref": match["ref"].upper(), "title": _unquoted(match["title"])})


def _show(match: re.Match[str]) -> Call:
    return Call("get_task", {"ref": match["ref"].upper()})


def _delete(match: re.Match[str]) -> Call:
    return Call("delete_task", {"ref": match["ref"].upper()})


def _search(match: re.Match[str]) -> Call:
    return Call("search", {"query": _unquoted(match["query"].rstrip("?"))})


_ASK_CHOICE = re.compile(
    r"(?:whether|if)\s+(?:to\s+|(?:i|we)\s+(?:should|want|prefer|like)\s+)?(?:(?:use|have|take|do|drink|buy|choose|pick)\s+)?(?P<options>.+)",
    re.IGNORECASE,
)


def _ask(match: re.Match[str]) -> Call:
    about = match["about"].strip().rstrip("?").strip()
    choice = _ASK_CHOICE.fullmatch(about)
    options = [_unquoted(one) for one in re.split(r"\s*,\s*(?:or\s+)?|\s+or\s+", choice["options"] if choice else about) if one.strip()]
    question = re.sub(r"^(?:whether|if)\s+(?:to\s+)?", "", about, flags=re.IGNORECASE)
    return Call("ask_user", {"question": question[:1].upper() + question[1:] + "?"} | ({"options": options} if len(options) > 1 else {}))


def _ask_anything(_: re.Match[str]) -> Call:
    return Call("ask_user", {"question": "What would you like me to do?"})


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and (text[0], text[-1]) in {('"', '"'), ("'", "'"), ("“", "”"), ("`", "`")} else text


def _rule(pattern: str, build: Callable[[re.Match[str]], Call | None]) -> _Rule:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL), build


_A_TASK = r"(?:me\s+)?(?:an?\s+|the\s+|another\s+)?(?:new\s+)?(?:task|todo|to-do)"
_NAMED = r"\s*(?::|-|\bto\b|\bcalled\b|\bnamed\b|\bfor\b|\btitled\b)?\s*(?P<title>.+)"
_LISTS = r"(?:list|show|what are|which are|see|give)(?:\s+me)?(?:\s+all)?(?:\s+of)?(?:\s+(?:my|our|the))?"
_WHICH = r"(?:\s+(?:that are|which are|with status|in status|are))?"
_CHANGE = r"(?:mark|set|move|put|change|update)\s+(?:task\s+)?(?:the\s+status\s+of\s+)?"
_RULES: tuple[_Rule, ...] = (
    _rule(r"ask me(?:\s+(?:a question|something))?", _ask_anything),
    _rule(r"ask me(?:\s+a question)?(?:\s+about)?:?\s+(?P<about>.+)", _ask),
    _rule(rf"(?:create|add|make|new|open)\s+{_A_TASK}\b{_NAMED}", _create),
    _rule(rf"(?:create|add|make)\s+(?:an?\s+)?(?:new\s+)?(?P<level>{_LEVEL})(?:[ -]priority)?\s+task\b{_NAMED}", _create),
    _rule(rf"(?:an?|another|new|one more)\s+(?:task|todo)\b{_NAMED}", _create),
    _rule(r"(?:task|todo):\s*(?P<title>.+)", _create),
    _rule(r"remind me to\s+(?P<title>.+)", _create),
    _rule(rf"{_LISTS}(?:\s+(?P<before>{_STATUS}))?\s+(?:tasks|todos|board){_WHICH}(?:\s+(?P<after>{_STATUS}))?\??", _list),
    _rule(rf"(?:my\s+)?(?:(?P<before>{_STATUS})\s+)?(?:tasks|todos)(?:\s+(?P<after>{_STATUS}))?\??", _list),
    _rule(rf"{_CHANGE}{_REF}\s+(?:as\s+|to\s+|into\s+|status\s+)*(?P<status>{_STATUS})", _set_status),
    _rule(rf"{_REF}\s+is\s+(?:now\s+)?(?P<status>{_STATUS})", _set_status),
    _rule(rf"(?P<verb>{'|'.join(_VERBS)})\s+(?:task\s+)?{_REF}", _verb_status),
    _rule(rf"(?:set|change)\s+(?:the\s+)?priority\s+of\s+{_REF}\s+to\s+(?P<priority>{_LEVEL})", _set_priority),
    _rule(rf"(?:mark|set|make)\s+{_REF}\s+(?:to\s+|as\s+)?(?P<priority>{_LEVEL})(?:\s+priority)?", _set_priority),
    _rule(rf"(?:rename|retitle)\s+(?:task\s+)?{_REF}\s+(?:to|as|into)\s+(?P<title>.+)", _rename),
    _rule(rf"(?:show|get|open|read|describe|view|what is|what about)(?:\s+me)?\s+(?:task\s+)?{_REF}\??", _show),
    _rule(rf"(?:task\s+)?{_REF}\??", _show),
    _rule(rf"(?:delete|remove|drop)\s+(?:task\s+)?{_REF}", _delete),
    _rule(r"(?:search|find|look)(?:\s+(?:for|up))?:?\s+(?P<query>.+)", _search),
)


# --- saying ------------------------------------------------------------------------------------------------------

_LONGEST_COUNT = 5000
_COUNT = re.compile(r"count (?:up )?(?:from 1 )?to (?P<number>\d+)", re.IGNORECASE)
_WRITE = re.compile(r"(?:write|say|give me|stream)\b.{0,40}?(?P<number>\d+) words", re.IGNORECASE)
_GREETING = re.compile(
    r"(?:hi|hey|hello|good (?:morning|afternoon|evening|day)|greetings|moin|yo)\b[^\w]*(?:there|all|everyone|bot|onethread)?[^\w]*",
    re.IGNORECASE,
)
_THANKS = re.compile(r"(?:many )?(?:thanks|thank you|thx|great|perfect|nice|cool)\b.{0,30}", re.IGNORECASE)
_HELP = re.compile(
    r"help\b.{0,40}|\?|what can you do.{0,20}|commands?|how does this work.{0,5}|who are you.{0,5}|what are you.{0,5}", re.IGNORECASE
)
_FILLER = (
    "Every word of this text is sent alone so that you can watch an answer arrive while it is being written and try what happens when you "
    "stop it or when several people read along in different places at the same time."
)


def _say(said: str) -> str | None:
    """None for what it does not understand."""
    text = _POLITE.sub("", said.strip()).strip()
    if count := _COUNT.search(text):
        return " ".join(str(number) for number in range(1, min(int(count["number"]), _LONGEST_COUNT) + 1))
    if write := _WRITE.search(text):
        return _long_text(min(int(write["number"]), _LONGEST_COUNT))
    if _GREETING.fullmatch(said):
        return f"Hello! {ABILITIES}"
    if _THANKS.fullmatch(text):
        return "You are welcome."
    if _HELP.fullmatch(text):
        return ABILITIES
    return None


def _puzzled(messages: Sequence[JSON], said: str) -> str:
    if _answers_question(messages):
        return f"You chose: {clip(said, 200)}. A language model would go on from there. {ABILITIES}"
    return f"I did not understand that, and I have done nothing. {ABILITIES}"


def _long_text(count: int) -> str:
    sentence = _FILLER.split()
    return " ".join((sentence * (count // len(sentence) + 1))[:count])


_TOOL_NAMES = {"ask_user": "ask you a question", "search": "search", "delete_task": "delete tasks", "create_task": "create tasks"}


def _unavailable(wanted: Sequence[Call], offered: frozenset[str]) -> str:
    missing = sorted({_TOOL_NAMES.get(call.name, "do that with tasks") for call in wanted if call.name not in offered})
    return f"I have no tool here to {' or '.join(missing)}, so I have done nothing."


# --- telling what the tools did ----------------------------------------------------------------------------------


def _render(result: _Result) -> str:
    value = result.value
    if not isinstance(value, Mapping):
        return f"The tool {result.name or 'called'} returned: {value}" if value else f"The tool {result.name or 'called'} returned nothing."
    if problem := _problem(value):
        return f"{_ATTEMPTS.get(result.name, 'That did not work')}: {problem}"
    render = _RENDERERS.get(result.name)
    return (
        render(result.arguments, value)
        if render
        else f"The tool {result.name or 'called'} returned:\n\n```json\n{json.dumps(value, ensure_ascii=False)}\n```"
    )


_ATTEMPTS = {
    "create_task": "I could not create the task",
    "list_tasks": "I could not list the tasks",
    "get_task": "I could not read the task",
    "update_task": "I could not change the task",
    "delete_task": "I could not delete the task",
    "search": "I could not search",
    "ask_user": "I could not ask",
}
_NOT_DONE = frozenset({"denied", "rejected", "expired", "cancelled", "failed", "error", "unknown", "interrupted"})


def _problem(value: JSON) -> str:
    """Why a result is not a success; empty if it is one. A task that is cancelled is no failure: it has a ref."""
    if error := value.get("error"):
        return str(error.get("message", error) if isinstance(error, Mapping) else error)
    if value.get("ok") is False or value.get("denied"):
        return str(value.get("message") or "it was not allowed.")
    outcome = str(value.get("outcome") or value.get("decision") or ("" if "ref" in value else value.get("status") or ""))
    return str(value.get("message") or f"it was {outcome}.") if outcome.lower() in _NOT_DONE else ""


def _render_created(_: JSON, task: JSON) -> str:
    return f"Created {_line(task)}." if "ref" in task else _render_unclear(task)


def _render_list(arguments: JSON, value: JSON) -> str:
    if "tasks" not in value:
        return _render_unclear(value)
    tasks = value["tasks"] or []
    kind = f"{str(arguments['status']).replace('_', ' ')} tasks" if arguments.get("status") else "tasks"
    if not tasks:
        return f"There are no {kind}."
    total = int(value.get("total") or len(tasks))
    more = "more than " if value.get("total_at_least") else ""
    shown = f" (the first {len(tasks)} of {more}{total})" if total > len(tasks) else ""
    return f"Your {kind}{shown}:\n\n" + "\n".join(f"- {_line(task)}" for task in tasks)


def _render_task(_: JSON, task: JSON) -> str:
    if "ref" not in task:
        return _render_unclear(task)
    facts = [f"- {label}: {_plain(task[name])}" for name, label in _TASK_FACTS if task.get(name)]
    description = f"\n\n{task['description']}" if task.get("description") else ""
    return f"**{task['ref']}** {task.get('title', '')}\n\n" + "\n".join(facts) + description


_TASK_FACTS = (
    ("status", "status"),
    ("priority", "priority"),
    ("assignee", "assignee"),
    ("due", "due"),
    ("due_at", "due"),
    ("labels", "labels"),
)


def _render_updated(arguments: JSON, task: JSON) -> str:
    if "ref" not in task:
        return _render_unclear(task)
    if "status" in arguments and task.get("status"):
        return f"{task['ref']} ({task.get('title', '')}) is now {_plain(task['status'])}."
    return f"Changed {_line(task)}."


def _render_deleted(_: JSON, value: JSON) -> str:
    return f"Deleted {value['deleted']}." if value.get("deleted") else _render_unclear(value)


def _render_found(arguments: JSON, value: JSON) -> str:
    if "results" not in value:
        return _render_unclear(value)
    found = value["results"] or []
    query = arguments.get("query", "")
    if not found:
        return f"Nothing found for “{query}”."
    return f"Found for “{query}”:\n\n" + "\n".join(f"- {_found(one)}" for one in found)


def _found(one: JSON) -> str:
    head = " ".join(str(one[name]) for name in ("ref", "title") if one.get(name)) or str(one.get("kind", ""))
    excerpt = " ".join(str(one.get("excerpt") or "").split())
    return f"**{head}**: {excerpt}" if excerpt else f"**{head}**"


def _render_asked(_: JSON, value: JSON) -> str:
    return f"You answered: {value['answer']}" if value.get("answer") else "I have asked; please answer above."


def _render_unclear(value: JSON) -> str:
    return f"I cannot tell whether that worked; the tool returned: `{json.dumps(value, ensure_ascii=False)}`"


def _line(task: JSON) -> str:
    notes = ", ".join(_plain(task[name]) for name in ("status", "priority") if task.get(name))
    return f"**{task.get('ref', '?')}** {task.get('title', '')}" + (f" ({notes})" if notes else "")


def _plain(value: Any) -> str:
    return ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value).replace("_", " ")


_RENDERERS: Mapping[str, Callable[[JSON, JSON], str]] = {
    "create_task": _render_created,
    "list_tasks": _render_list,
    "get_task": _render_task,
    "update_task": _render_updated,
    "delete_task": _render_deleted,
    "search": _render_found,
    "ask_user": _render_asked,
}
