"""What the model is shown of a conversation, in OpenAI's format."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from core.attachments import as_text
from core.ids import new_id
from core.llm import history, summary, window
from core.llm.history import Transcript
from core.models import (
    JSON,
    AgentStatus,
    Attachment,
    Conversation,
    Message,
    MessageStatus,
    Priority,
    Project,
    Role,
    Step,
    Summary,
    Task,
    TaskStatus,
    ToolCall,
    ToolCallState,
    ToolRequest,
    Turn,
    TurnStatus,
    Visibility,
)
from core.ports import ModelRequest
from tests.fakes import USAGE, ScriptedModel

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
ANN, KIM = new_id(), new_id()
NAMES = {ANN: "ann", KIM: "kim"}
HERE, PROJECT = new_id(), new_id()


class Talk:
    """A conversation as the database would give it. `ask` adds a message; the last one asked is the turn to be answered."""

    def __init__(self, model: str = "openai/gpt", instructions: str = "") -> None:
        self.model = model
        self.instructions = instructions
        self.messages: list[Message] = []
        self.steps: list[Step] = []
        self.calls: list[ToolCall] = []
        self.files: dict[UUID, list[tuple[Attachment, bytes]]] = {}
        self.images: dict[UUID, str] = {}
        self.hidden: dict[UUID, str] = {}
        self.task: Task | None = None
        self.summary: Summary | None = None
        self.turn_id = new_id()

    def ask(self, text: str, who: UUID = ANN, **fields: Any) -> "Talk":
        self.turn_id = new_id()
        return self._add(Role.USER, text, author_id=who, turn_id=self.turn_id, **fields)

    def note(self, text: str, who: UUID = ANN) -> "Talk":
        return self._add(Role.USER, text, author_id=who)

    def step(self, text: str, *requests: ToolRequest, model: str = "", thinking: tuple[JSON, ...] = ()) -> "Talk":
        number = sum(step.turn_id == self.turn_id for step in self.steps)
        self.steps.append(
            Step(
                turn_id=self.turn_id,
                number=number,
                content=text,
                tool_requests=requests,
                finish_reason="stop",
                model=model or self.model,
                usage=USAGE,
                thinking=thinking,
                created_at=NOON,
            )
        )
        return self

    def result(self, step: int, index: int, result: str, state: ToolCallState = ToolCallState.DONE) -> "Talk":
        call = ToolCall(turn_id=self.turn_id, step=step, index=index, name="x", arguments={}, state=state, result=result, created_at=NOON)
        self.calls.append(call)
        return self

    def reply(self, text: str, status: MessageStatus = MessageStatus.COMPLETED, **fields: Any) -> "Talk":
        return self._add(Role.ASSISTANT, text, turn_id=self.turn_id, status=status, **fields)

    def file(self, name: str, data: bytes, size: int | None = None) -> "Talk":
        attachment = Attachment(
            id=new_id(), message_id=self.messages[-1].id, name=name, media_type="x/y", size=size or len(data), sha256=""
        )
        self.files.setdefault(self.messages[-1].id, []).append((attachment, data))
        return self

    def image(self, name: str, hidden: str = "", data: str = "iVBORw0K") -> "Talk":
        self.file(name, b"\x89PNG")
        attachment, _ = self.files[self.messages[-1].id][-1]
        (self.hidden if hidden else self.images)[attachment.id] = hidden or f"data:image/png;base64,{data}"
        return self

    def _add(self, role: Role, text: str, **fields: Any) -> "Talk":
        known: dict[str, Any] = {
            "id": new_id(),
            "conversation_id": HERE,
            "turn_id": None,
            "seq": len(self.messages) + 1,
            "role": role,
            "author_id": None,
            "content": text,
            "status": MessageStatus.COMPLETED,
            "revision": 1,
            "metadata": {},
            "source": "test",
            "created_at": NOON,
            "updated_at": NOON,
        }
        self.messages.append(Message(**{**known, **fields}))
        return self

    def history(self, now: datetime = NOON) -> history.History:
        asked = next(message for message in reversed(self.messages) if message.turn_id == self.turn_id and message.role is Role.USER)
        turn = Turn(
            id=self.turn_id,
            conversation_id=HERE,
            seq=asked.seq,
            user_message_id=asked.id,
            reply_id=new_id(),
            author_id=asked.author_id or ANN,
            model=self.model,
            status=TurnStatus.RUNNING,
            failures=0,
            rescues=0,
            stream_no=0,
            first_step=0,
            run_after=NOON,
            lease_owner=None,
            lease_token=1,
            lease_until=None,
            error_code=None,
            error=None,
            created_at=NOON,
            started_at=NOON,
            finished_at=None,
        )
        transcript = Transcript(
            conversation=_conversation(),
            project=Project(id=PROJECT, key="OT", name="x", instructions=self.instructions, model=None, created_at=NOON, updated_at=NOON),
            turn=turn,
            messages=self.messages,
            steps=self.steps,
            tool_calls=self.calls,
            files=self.files,
            names=NAMES,
            task=self.task,
            assignee="kim" if self.task and self.task.assignee_id else None,
            summary=self.summary,
            images=self.images,
            hidden=self.hidden,
        )
        return history.build(transcript, now)

    def written(self, now: datetime = NOON) -> list[JSON]:
        return self.history(now).messages()


def _conversation() -> Conversation:
    return Conversation(
        id=HERE,
        task_id=None,
        task_ref=None,
        project_id=PROJECT,
        project_model=None,
        owner_id=ANN,
        visibility=Visibility.PRIVATE,
        title="",
        model=None,
        agent_status=AgentStatus.IDLE,
        agent_status_message="",
        next_seq=1,
        window_from_seq=1,
        created_at=NOON,
        updated_at=NOON,
    )


def _call(name: str = "list_tasks", arguments: str = "{}", call_id: str = "call_1") -> ToolRequest:
    return ToolRequest(call_id=call_id, name=name, arguments=arguments)


def _ids(written: list[JSON]) -> list[str]:
    return [call["id"] for message in written for call in message.get("tool_calls", ())]


def test_a_conversation_is_told_in_order_and_the_context_stands_in_the_last_message_only() -> None:
    written = Talk().ask("Hello").step("Hi.").reply("Hi.").ask("How are you?").written()

    assert [message["role"] for message in written] == ["system", "user", "assistant", "user"]
    assert written[1]["content"] == "Hello"
    assert written[2] == {"role": "assistant", "content": "Hi."}
    assert written[3]["content"] == ("How are you?\n\n<context>\nTime: Monday, 2026-03-02 12:00 UTC\nWritten by: ann\n</context>")


def test_the_beginning_is_the_same_to_the_byte_whatever_the_time_and_the_task() -> None:
    talk = Talk(instructions="Be brief.").ask("Hello").step("Hi.").reply("Hi.").ask("And now?")
    before = json.dumps(talk.written()[:-1])
    talk.task = _task()
    later = talk.written(datetime(2027, 1, 1, tzinfo=UTC))

    assert json.dumps(later[:-1]) == before
    assert "Be brief." in later[0]["content"]
    assert "Friday, 2027-01-01" in later[-1]["content"]
    assert "OT-1 'Buy milk' (status todo, priority high, assignee kim, due 2026-03-02 12:00 UTC)" in later[-1]["content"]
    assert "Its description:\nTwo litres." in later[-1]["content"]


def test_the_rounds_of_the_same_turn_only_add_to_what_was_there() -> None:
    talk = Talk().ask("Do it")
    first = talk.written()
    talk.step("I look.", _call()).result(0, 0, '{"tasks": []}')

    second = talk.reply("I look.", MessageStatus.PROCESSING).written()

    assert second[: len(first)] == first
    assert [message["role"] for message in second[len(first) :]] == ["assistant", "tool"]


def test_a_round_with_calls_is_followed_by_their_results() -> None:
    talk = Talk().ask("Do it").step("I do.", _call("a", '{"x": 1}', "c1"), _call("b", "{}", "c2"))
    talk.result(0, 0, '{"ok": 1}').result(0, 1, '{"error": "no"}', ToolCallState.FAILED).reply("I do.", MessageStatus.PROCESSING)

    spoken, one, two = talk.written()[2:]
    assert spoken["content"] == "I do."
    assert [call["function"] for call in spoken["tool_calls"]] == [{"name": "a", "arguments": '{"x": 1}'}, {"name": "b", "arguments": "{}"}]
    assert one == {"role": "tool", "tool_call_id": "c1", "content": '{"ok": 1}'}
    assert two == {"role": "tool", "tool_call_id": "c2", "content": '{"error": "no"}'}


@pytest.mark.parametrize("state", [None, ToolCallState.RUNNING, ToolCallState.AWAITING_APPROVAL])
def test_a_call_that_was_not_carried_out_gets_a_result_that_says_so(state: ToolCallState | None) -> None:
    talk = Talk().ask("Do it").step("", _call())
    if state:
        talk.result(0, 0, "", state)

    written = talk.reply("", MessageStatus.CANCELLED).ask("Go on").written()
    assert json.loads(written[3]["content"])["code"] == "NOT_RUN"
    assert written[3]["tool_call_id"] == _ids(written)[0]


def test_broken_arguments_are_not_sent_back() -> None:
    talk = Talk().ask("Do it").step("", *(_call("x", each, f"c{each}") for each in ('{"a": ', "[1]", '{"a": 1}')))

    written = talk.reply("", MessageStatus.PROCESSING).written()
    assert [call["function"]["arguments"] for call in written[2]["tool_calls"]] == ["{}", "{}", '{"a": 1}']


def test_call_ids_are_never_used_twice() -> None:
    talk = Talk()
    for _ in range(3):
        talk.ask("Again").step("", _call(call_id="same"), _call(call_id="same"), _call(call_id="")).reply("")
    ids = _ids(talk.ask("Now").written())

    assert len(ids) == len(set(ids)) == 9
    assert "" not in ids


def test_another_providers_call_ids_and_thinking_stay_away() -> None:
    talk = Talk(model="anthropic/claude")
    block = {"type": "thinking", "signature": "s"}
    talk.ask("One").step("", _call(call_id="openai-id"), model="openai/gpt", thinking=(block,)).reply("")
    talk.ask("Two").step("", _call(call_id="own-id"), thinking=(block,)).reply("")
    written = talk.ask("Three").written()

    ids = _ids(written)
    assert ids[0].startswith("call_")
    assert ids[1] == "own-id"
    assert [message.get("thinking_blocks") for message in written if message["role"] == "assistant"] == [None, [block]]


def test_two_providers_that_nobody_knows_are_not_the_same() -> None:
    talk = Talk("mine/big").ask("Hi").step("", _call(call_id="theirs"), model="yours/big").result(0, 0, "{}").reply("")
    assert _ids(talk.ask("And?").written()) != ["theirs"]


@pytest.mark.parametrize("text", ["Hi.", ""])
def test_a_round_that_said_no_more_than_its_reply_need_not_be_read(text: str) -> None:
    """To the byte: the provider's cached prefix must not change by it."""
    read = Talk().ask("Hello").step(text).reply(text).ask("And now?").written()
    left_out = Talk().ask("Hello").reply(text).ask("And now?").written()
    assert left_out == read


@pytest.mark.parametrize("status", [MessageStatus.FAILED, MessageStatus.CANCELLED, MessageStatus.PROCESSING])
def test_a_reply_without_a_finished_round_is_told_as_what_it_is(status: MessageStatus) -> None:
    written = Talk().ask("Hello").reply("Hi th", status).ask("And now?").written()
    interrupted = [] if status is MessageStatus.PROCESSING else ["Hi th [interrupted]"]
    assert [message["content"] for message in written if message["role"] == "assistant"] == interrupted


def test_with_several_authors_the_model_is_told_who_speaks() -> None:
    written = Talk().ask("Hello").step("Hi.").reply("Hi.").note("Me too", KIM).ask("And now?", KIM).written()

    assert [message["content"].split("\n")[0] for message in written if message["role"] == "user"] == [
        "[ann] Hello",
        "[kim] Me too",
        "[kim] And now?",
    ]
    assert "Written by: kim" in written[-1]["content"]


def test_of_a_deleted_message_only_its_place_is_told() -> None:
    talk = Talk().ask("", deleted_at=NOON).step("Hi.").reply("", deleted_at=NOON).ask("Next")
    assert [message["content"].split("\n")[0] for message in talk.written()[1:]] == ["(deleted message)", "Next"]


@pytest.mark.parametrize("status", [MessageStatus.CANCELLED, MessageStatus.FAILED])
def test_interrupted_text_is_told_as_interrupted(status: MessageStatus) -> None:
    talk = Talk().ask("Do it").step("First.", _call()).result(0, 0, "{}").reply("First.\n\nAnd th", status)
    written = talk.ask("Go on").written()

    assert [message["role"] for message in written] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert written[4] == {"role": "assistant", "content": "And th [interrupted]"}


def test_a_round_without_text_is_not_empty() -> None:
    written = Talk().ask("Hello").step("").reply("").ask("Hello?").written()
    assert written[2] == {"role": "assistant", "content": "(no answer)"}


def test_text_files_are_shown_and_others_named() -> None:
    talk = Talk().ask("See").file("a.md", b"# Title").file("b.png", b"\x89PNG\x00\x01").file("c.txt", b"begin", size=60_000)
    content = talk.written()[-1]["content"]

    assert "<file name='a.md'>\n# Title\n</file>" in content
    assert "[file 'b.png', x/y, 6 bytes: not text, so you cannot read it]" in content
    assert "begin\n[cut here: the file has 60,000 bytes]" in content


def test_an_image_that_is_shown_stands_before_the_text_of_its_message() -> None:
    talk = Talk().ask("See").image("a.png").file("b.md", b"# Title").step("I see.").reply("I see.").ask("And?")
    shown = talk.written()[1]

    assert shown == {
        "role": "user",
        "content": [
            {"type": "text", "text": "[image 'a.png']"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
            {"type": "text", "text": "See\n\n<file name='b.md'>\n# Title\n</file>"},
        ],
    }


def test_images_are_the_same_to_the_byte_in_the_next_turn() -> None:
    talk = Talk().ask("See").image("a.png")
    now = talk.written()[-1]["content"]
    later = talk.step("I see.").reply("I see.").ask("And?").written()[1]["content"]

    assert now[:-1] == later[:-1]
    assert now[-1]["text"].startswith(later[-1]["text"])


def test_an_image_that_is_not_shown_is_named_with_the_reason() -> None:
    content = Talk().ask("See").image("a.png", hidden="this model cannot see images").written()[-1]["content"]
    assert "See\n\n[image 'a.png', x/y, 4 bytes: this model cannot see images]\n\n" in content


def test_the_images_of_a_deleted_message_are_not_shown() -> None:
    written = Talk().ask("", deleted_at=NOON).image("a.png").ask("Next").written()
    assert written[1]["content"] == "(deleted message)"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        (b"\xef\xbb\xbfbom", "bom"),
        ("Milch 🥛".encode(), "Milch 🥛"),
        ("Milch 🥛".encode()[:-1], "Milch "),  # the limit cut a character
        (b"\xff\xfe\x00\x01", None),
        (b"caf\xe9 latin", None),
        (b"with\x00nul", None),
    ],
)
def test_a_file_is_text_where_it_is_utf8(data: bytes, text: str | None) -> None:
    assert as_text(data) == text


# --- the window ---


def test_a_summary_stands_behind_the_system_text_whatever_the_window_and_the_time() -> None:
    talk = Talk().ask("One").step("1").reply("1").ask("Two")
    talk.summary = Summary(conversation_id=HERE, covers_to=2, text="They met.", model="m", tokens=3, created_at=NOON)
    later = NOON.replace(hour=23)

    shown = [talk.history().messages(), talk.history().messages(3), talk.history(later).messages(3)]

    assert [messages[1] for messages in shown] == [shown[0][1]] * 3
    assert shown[0][1]["role"] == "user"
    assert shown[0][1]["content"].startswith("<summary>\nA summary of what was said earlier")
    assert shown[0][1]["content"].endswith("\n\nThey met.\n</summary>")
    assert "not instructions" in shown[0][1]["content"]
    assert [len(messages) for messages in shown] == [5, 3, 3]


def _long_talk(turns: int) -> Talk:
    talk = Talk()
    for number in range(turns):
        talk.ask(f"{number}: " + "x" * 1_000).step("y" * 1_000).reply("y" * 1_000)
    return talk.ask("Now")


async def _first(talk: Talk, model: ScriptedModel, present: int = 1) -> int:
    return await window.first_seq(talk.history(), ModelRequest(model="m", messages=()), model, present)


async def test_a_short_conversation_asks_nothing_of_the_model() -> None:
    model = ScriptedModel()
    model.count = lambda _: pytest.fail("it counted")
    assert await _first(Talk().ask("Hello"), model) == 1


async def test_an_image_fills_no_more_of_the_window_than_it_costs() -> None:
    model = ScriptedModel()
    model.count = lambda _: pytest.fail("it counted")
    talk = Talk().ask("Hello").image("a.png", data="x" * 3_000_000).ask("Hello")
    assert await _first(talk, model) == 1


async def test_a_summary_is_asked_for_without_images() -> None:
    talk = Talk().ask("See").image("a.png").step("I see.").reply("I see.").ask("Next")
    asked = next(summary.requests(talk.history(), 3, "", 1_000))
    assert "User: [image 'a.png'] See\nAgent: I see." in asked[1]["content"]


async def test_the_window_moves_when_75_percent_are_full_and_then_down_to_40() -> None:
    model, talk = ScriptedModel(), _long_talk(30)
    written = talk.history()
    size = model.count(ModelRequest(model="m", messages=written.messages(1)))
    model.window_tokens = int(size / 0.74)
    assert await _first(talk, model) == 1

    model.window_tokens = int(size / 0.76)
    first = await _first(talk, model)

    shown = model.count(ModelRequest(model="m", messages=written.messages(first)))
    before = model.count(ModelRequest(model="m", messages=written.messages(first - 2)))
    assert shown <= 0.40 * model.window_tokens < before
    assert written.messages(first)[1]["role"] == "user"
    assert await _first(talk, model, present=first) == first


async def test_after_a_cut_the_window_stays_for_many_turns() -> None:
    model = ScriptedModel()
    model.window_tokens = 10_000
    cuts, first = [], 1
    for turns in range(60):
        moved = await _first(_long_talk(turns), model, first)
        if moved != first:
            cuts.append(turns)
            first = moved
    gaps = [later - earlier for earlier, later in itertools.pairwise(cuts)]
    assert cuts
    assert min(gaps) >= 5


async def test_a_cut_in_a_very_long_conversation_counts_a_few_times_only() -> None:
    model, talk = ScriptedModel(), _long_talk(1_000)
    counted: list[int] = []
    by_characters = model.count
    model.count = lambda request: counted.append(1) or by_characters(request)  # type: ignore[func-returns-value]
    model.window_tokens = 50_000

    first = await _first(talk, model)

    assert 1_900 < first < 1_950
    assert len(counted) < 15


async def test_what_is_too_long_even_alone_is_still_shown() -> None:
    model = ScriptedModel()
    model.window_tokens = 100
    talk = _long_talk(3)
    assert await _first(talk, model) == talk.messages[-1].seq


def _task() -> Task:
    return Task(
        id=new_id(),
        ref="OT-1",
        project_id=PROJECT,
        conversation_id=HERE,
        title="Buy milk",
        description="Two litres.",
        status=TaskStatus.TODO,
        priority=Priority.HIGH,
        assignee_id=KIM,
        creator_id=ANN,
        due_at=NOON,
        labels=(),
        version=1,
        created_at=NOON,
        updated_at=NOON,
    )
