"""The tools, resources and prompts that the conformance scenarios ask for by name, put onto a server of ours.

So what is under test is our server: its middleware, its way with tools, resources and errors, its transports, its tasks extension.
"""

import base64
import json
from collections.abc import Callable
from typing import Annotated, Any

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer, require_client_extension
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    SamplingMessage,
    SetLevelRequestParams,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel, Field

from core.models import JSON
from mcp_server.tasks_extension import TASKS

Ctx = Context[Any, Any]
_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
_AUDIO = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="


# --- results -----------------------------------------------------------------------------------------------------


def test_simple_text() -> str:
    """Returns text."""
    return "This is a simple text response for testing."


def test_image_content() -> list[ImageContent]:
    """Returns an image."""
    return [_image()]


def test_audio_content() -> list[AudioContent]:
    """Returns sound."""
    return [AudioContent(type="audio", data=_AUDIO, mime_type="audio/wav")]


def test_embedded_resource() -> list[EmbeddedResource]:
    """Returns a resource."""
    return [_embedded("test://embedded-resource", "This is an embedded resource content.")]


def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    """Returns text, an image and a resource."""
    resource = _embedded("test://mixed-content-resource", '{"test": "data", "value": 123}', "application/json")
    return [_text("Multiple content types test:"), _image(), resource]


def test_error_handling() -> str:
    """Fails."""
    raise RuntimeError("This tool intentionally returns an error for testing")


def json_schema_2020_12_tool() -> str:
    """Has a schema with every keyword of JSON Schema 2020-12 that must survive."""
    return "json_schema_2020_12_tool"


def test_x_mcp_header(
    region: Annotated[str, Field(description="Sent as a header too", json_schema_extra={"x-mcp-header": "Region"})] = "<none>",  # noqa: PT028  # it is no test
) -> str:
    """Has an argument that is sent as a header too."""
    return f"region={region}"


def test_missing_capability(ctx: Ctx) -> str:
    """Needs a client that declares sampling."""
    if ctx.client_capabilities is None or ctx.client_capabilities.sampling is None:
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "Needs sampling.", {"requiredCapabilities": {"sampling": {}}})
    return "The client declared sampling."


# --- notifications ---------------------------------------------------------------------------------------------------


async def test_tool_with_logging(ctx: Ctx) -> str:
    """Logs three lines."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await _log(ctx, line)
    return "Tool with logging executed successfully"


async def test_tool_with_progress(ctx: Ctx) -> str:
    """Reports progress three times."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, total=100, message=f"Completed step {done} of 100")
    meta = ctx.request_context.meta
    return str((meta or {}).get("progress_token", 0))


async def test_reconnection(ctx: Ctx) -> str:
    """Closes the stream of its own call, and goes on."""
    await _log(ctx, "Before disconnect")
    await ctx.close_sse_stream()
    await _log(ctx, "After reconnect")
    return "Reconnection test completed"


async def test_trigger_tool_change(ctx: Ctx) -> str:
    """Says that the list of tools has changed."""
    await ctx.notify_tools_changed()
    return "tool list changed"


async def test_trigger_prompt_change(ctx: Ctx) -> str:
    """Says that the list of prompts has changed."""
    await ctx.notify_prompts_changed()
    return "prompt list changed"


# --- questions over an open connection ---------------------------------------------------------------------------------


class _Response(BaseModel):
    response: str = Field(description="User's response")


class _Defaults(BaseModel):
    name: str = Field(default="John Doe", description="User name")
    age: int = Field(default=30, description="User age")
    score: float = Field(default=95.5, description="User score")
    status: str = Field(default="active", description="User status", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(default=True, description="Verification status")


def _titled(**titles: str) -> list[JSON]:
    return [{"const": const, "title": title.replace("_", " ")} for const, title in titles.items()]


_LEVELS = _titled(low="Low Priority", medium="Medium Priority", high="High Priority")
_KINDS = _titled(feature="New Feature", bug="Bug Fix", docs="Documentation")
_SIZES = {"enum": ["small", "medium", "large"], "enumNames": ["Small Size", "Medium Size", "Large Size"]}


class _Enums(BaseModel):
    untitledSingle: str = Field(description="One", json_schema_extra={"enum": ["active", "inactive", "pending"]})  # noqa: N815
    titledSingle: str = Field(description="One, with titles", json_schema_extra={"oneOf": _LEVELS})  # type: ignore[dict-item]  # noqa: N815
    untitledMulti: list[str] = Field(description="Several", json_schema_extra={"items": {"type": "string", "enum": ["read", "write"]}})  # noqa: N815
    titledMulti: list[str] = Field(description="Several, with titles", json_schema_extra={"items": {"anyOf": _KINDS}})  # type: ignore[dict-item]  # noqa: N815
    legacyEnum: str = Field(description="Named the old way", json_schema_extra=_SIZES)  # type: ignore[arg-type]  # noqa: N815


async def test_elicitation(message: str, ctx: Ctx) -> str:
    """Asks the person for a text."""
    return await _elicited(ctx, message, _Response)


async def test_elicitation_sep1034_defaults(ctx: Ctx) -> str:
    """Asks the person for values that have defaults."""
    return await _elicited(ctx, "Please provide user information", _Defaults)


async def test_elicitation_sep1330_enums(ctx: Ctx) -> str:
    """Asks the person to choose."""
    return await _elicited(ctx, "Please select values using different enum schema types", _Enums)


async def test_sampling(prompt: str, ctx: Ctx) -> str:
    """Asks the client's model."""
    about = ServerMessageMetadata(related_request_id=ctx.request_id)
    result = await ctx.session.send_request(_sampling(prompt, 100), CreateMessageResult, metadata=about)
    return f"LLM response: {result.content.text if result.content.type == 'text' else 'No response'}"


# --- questions by repeating the call --------------------------------------------------------------------------------------


def test_input_required_result_elicitation(ctx: Ctx) -> str | InputRequiredResult:
    """Asks for a name."""
    name = _answer(ctx, "user_name", "name")
    return f"Hello, {name}!" if name else InputRequiredResult(input_requests={"user_name": _ask("What is your name?", "name")})


def test_input_required_result_sampling(ctx: Ctx) -> str | InputRequiredResult:
    """Asks the client's model."""
    answer = (ctx.input_responses or {}).get("capital_question")
    if isinstance(answer, CreateMessageResult) and answer.content.type == "text":
        return f"Model said: {answer.content.text}"
    return InputRequiredResult(input_requests={"capital_question": _sampling("What is the capital of France?", 100)})


def test_input_required_result_list_roots(ctx: Ctx) -> str | InputRequiredResult:
    """Asks for the client's roots."""
    if "client_roots" in (ctx.input_responses or {}):
        return "The client named its roots."
    return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})


def test_input_required_result_request_state(ctx: Ctx) -> str | InputRequiredResult:
    """Gets its state back."""
    if ctx.request_state == "request-state-nonce" and "confirm" in (ctx.input_responses or {}):
        return "state-ok: confirmation received"
    return InputRequiredResult(input_requests={"confirm": _ask("Please confirm", "ok", "boolean")}, request_state="request-state-nonce")


def test_input_required_result_multiple_inputs(ctx: Ctx) -> str | InputRequiredResult:
    """Asks for three things at once."""
    if {"user_name", "greeting", "client_roots"} <= (ctx.input_responses or {}).keys():
        return "All inputs received."
    requests: dict[str, InputRequest] = {
        "user_name": _ask("What is your name?", "name"),
        "greeting": _sampling("Generate a greeting", 50),
        "client_roots": ListRootsRequest(),
    }
    return InputRequiredResult(input_requests=requests, request_state="multiple-inputs")


def test_input_required_result_multi_round(ctx: Ctx) -> str | InputRequiredResult:
    """Asks for a name, then for a colour."""
    state: JSON = json.loads(ctx.request_state or "{}")
    name, color = _answer(ctx, "step1", "name"), _answer(ctx, "step2", "color")
    if state.get("round") == 2 and color:
        return f"{state['name']} likes {color}."
    if state.get("round") == 1 and name:
        asked = {"step2": _ask("Step 2: What is your favorite color?", "color")}
        return InputRequiredResult(input_requests=asked, request_state=json.dumps({"round": 2, "name": name}))
    return InputRequiredResult(input_requests={"step1": _ask("Step 1: What is your name?", "name")}, request_state=json.dumps({"round": 1}))


def test_input_required_result_tampered_state(ctx: Ctx) -> str | InputRequiredResult:
    """Takes its state back only as it was."""
    if ctx.request_state:
        return f"state-ok: {ctx.request_state}"
    return InputRequiredResult(input_requests={"confirm": _ask("Please confirm", "ok", "boolean")}, request_state="round-1")


def test_input_required_result_capabilities(ctx: Ctx) -> InputRequiredResult:
    """Asks for nothing that the client cannot give."""
    can = ctx.client_capabilities
    requests: dict[str, InputRequest] = {}
    if can is None or can.sampling is not None:
        requests["sample"] = _sampling("Say hello", 50)
    if can is None or can.elicitation is not None:
        requests["ask"] = _ask("What is your name?", "name")
    return InputRequiredResult(input_requests=requests, request_state="capability-gated")


# --- jobs: what they do for clients without the tasks extension; for others see jobs.py ---------------------------------------


def greet(name: str) -> str:
    """Is never a job."""
    return f"Hello, {name}!"


def slow_compute(seconds: float = 1, label: str = "") -> str:
    """Computes; at once where it must not be a job."""
    return f"computed {label} without taking {seconds} seconds"


def failing_job(ctx: Ctx) -> str:
    """Fails, and can be nothing but a job."""
    require_client_extension(ctx.request_context, TASKS)
    return "never reached"


def protocol_error_job(ctx: Ctx) -> str:
    """Ends in an error of the protocol, and can be nothing but a job."""
    require_client_extension(ctx.request_context, TASKS)
    return "never reached"


def confirm_delete(filename: str = "x") -> str:
    """Asks before it deletes; where it must not be a job it deletes nothing."""
    return f"{filename} is kept"


def multi_input() -> str:
    """Asks for two things at once; where it must not be a job, for nothing."""
    return "nothing was asked"


def test_tool_with_task() -> InputRequiredResult:
    """Asks for a name, then becomes a job."""
    return InputRequiredResult(input_requests={"user_name": _ask("Name?", "name")})


# --- resources and prompts ---------------------------------------------------------------------------------------------


def static_text() -> str:
    """Text that never changes."""
    return "This is the content of the static text resource."


def static_binary() -> bytes:
    """An image that never changes."""
    return base64.b64decode(_IMAGE)


def template(id: str) -> str:  # the scenario's name
    """A resource for each id."""
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def watched() -> str:
    """A resource to subscribe to."""
    return "Watched resource content"


def test_simple_prompt() -> list[UserMessage]:
    """A prompt without arguments."""
    return [UserMessage(_text("This is a simple prompt for testing."))]


def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    """A prompt with arguments."""
    return [UserMessage(_text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))]


def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803  # the scenario's name
    """A prompt with a resource in it."""
    resource = _embedded(resourceUri, "Embedded resource content for testing.")
    return [UserMessage(resource), UserMessage(_text("Please process the embedded resource above."))]


def test_prompt_with_image() -> list[UserMessage]:
    """A prompt with an image in it."""
    return [UserMessage(_image()), UserMessage(_text("Please analyze the image above."))]


def test_input_required_result_prompt(ctx: Ctx) -> list[UserMessage] | InputRequiredResult:
    """A prompt that asks for its context."""
    context = _answer(ctx, "user_context", "context")
    if context:
        return [UserMessage(_text(f"Use the following context: {context}"))]
    return InputRequiredResult(input_requests={"user_context": _ask("What context should the prompt use?", "context")})


# --- installing --------------------------------------------------------------------------------------------------------

_TOOLS: tuple[Callable[..., Any], ...] = (
    test_simple_text,
    test_image_content,
    test_audio_content,
    test_embedded_resource,
    test_multiple_content_types,
    test_error_handling,
    json_schema_2020_12_tool,
    test_x_mcp_header,
    test_missing_capability,
    test_tool_with_logging,
    test_tool_with_progress,
    test_reconnection,
    test_trigger_tool_change,
    test_trigger_prompt_change,
    test_elicitation,
    test_elicitation_sep1034_defaults,
    test_elicitation_sep1330_enums,
    test_sampling,
    test_input_required_result_elicitation,
    test_input_required_result_sampling,
    test_input_required_result_list_roots,
    test_input_required_result_request_state,
    test_input_required_result_multiple_inputs,
    test_input_required_result_multi_round,
    test_input_required_result_tampered_state,
    test_input_required_result_capabilities,
    greet,
    slow_compute,
    failing_job,
    protocol_error_job,
    confirm_delete,
    multi_input,
    test_tool_with_task,
)
_RESOURCES: dict[str, Callable[..., str | bytes]] = {
    "test://static-text": static_text,
    "test://static-binary": static_binary,
    "test://template/{id}/data": template,
    "test://watched-resource": watched,
}
_PROMPTS: tuple[Callable[..., Any], ...] = (
    test_simple_prompt,
    test_prompt_with_arguments,
    test_prompt_with_embedded_resource,
    test_prompt_with_image,
    test_input_required_result_prompt,
)
_SCHEMA_2020_12: JSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def install(server: MCPServer[Any]) -> None:
    for tool in _TOOLS:
        server.add_tool(tool)
    for uri, resource in _RESOURCES.items():
        server.resource(uri)(resource)
    for prompt in _PROMPTS:
        server.add_prompt(Prompt.from_function(prompt))
    # The SDK has no public way to give a tool's schema, nor a handler for a method that only older clients call.
    server._tool_manager._tools["json_schema_2020_12_tool"].parameters = _SCHEMA_2020_12
    server._lowlevel_server.add_request_handler("logging/setLevel", SetLevelRequestParams, _set_level)


async def _set_level(_ctx: ServerRequestContext[Any, Any], _params: SetLevelRequestParams) -> EmptyResult:
    return EmptyResult()


# --- pieces ------------------------------------------------------------------------------------------------------------


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _image() -> ImageContent:
    return ImageContent(type="image", data=_IMAGE, mime_type="image/png")


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def _ask(message: str, field: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sampling(text: str, max_tokens: int) -> CreateMessageRequest:
    messages = [SamplingMessage(role="user", content=_text(text))]
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=messages, max_tokens=max_tokens))


def _answer(ctx: Ctx, key: str, field: str) -> str:
    """What a person answered; empty where they did not."""
    answer = (ctx.input_responses or {}).get(key)
    return str((answer.content or {}).get(field, "")) if isinstance(answer, ElicitResult) else ""


async def _elicited(ctx: Ctx, message: str, schema: type[BaseModel]) -> str:
    answer = await ctx.elicit(message=message, schema=schema)
    content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
    return f"Elicitation completed: action={answer.action}, content={content}"


async def _log(ctx: Ctx, line: str) -> None:
    """The SDK's own way of logging warns that the protocol is about to give logging up."""
    said = LoggingMessageNotification(params=LoggingMessageNotificationParams(level="info", data=line))
    await ctx.session.send_notification(said, related_request_id=ctx.request_id)
