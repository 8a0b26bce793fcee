"""What went wrong with a model, told from the vendor's exception: who can mend it, a stable reason, and a sentence for people.

A sentence is a fixed text. Of the vendor's words only the short identifiers of a structured error may enter it: the rest can hold
prompts or keys.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from core.errors import ModelBusy, ModelError, ModelFaltered, ModelRefused
from core.llm.providers import provider_of

LONGEST_RETRY_AFTER_SECONDS = 3600.0


class Reason(StrEnum):
    """Why a model did not answer. Public and stable."""

    RATE_LIMITED = "RATE_LIMITED"
    UNAVAILABLE = "UNAVAILABLE"

    SERVER_ERROR = "SERVER_ERROR"
    TIMEOUT = "TIMEOUT"
    DISCONNECTED = "DISCONNECTED"
    STREAM_CUT = "STREAM_CUT"
    EMPTY_REPLY = "EMPTY_REPLY"
    REPLY_MALFORMED = "REPLY_MALFORMED"

    KEY_MISSING = "KEY_MISSING"
    KEY_REJECTED = "KEY_REJECTED"
    OUT_OF_CREDIT = "OUT_OF_CREDIT"
    MODEL_UNKNOWN = "MODEL_UNKNOWN"
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"
    REPLY_TOO_LONG = "REPLY_TOO_LONG"
    CONTENT_POLICY = "CONTENT_POLICY"
    BAD_REQUEST = "BAD_REQUEST"
    NOT_INSTALLED = "NOT_INSTALLED"


def failure(reason: Reason, model: str, *, variables: tuple[str, ...] = (), retry_after: float | None = None, hint: str = "") -> ModelError:
    """The error for `reason`. `variables` are those of which one has to be set; `hint` is appended in brackets."""
    kind, template = _KINDS[reason]
    names = " or ".join(variables) or "the provider's API key"
    sentence = template.format(model=model, provider=_provider_name(model), variables=names)
    return kind(f"{sentence} ({hint})" if hint else sentence, reason=reason.value, retry_after=retry_after)


def why(reason: str) -> str:
    """Why a model did not answer, in few words that follow its name."""
    return _WHY.get(reason, "failed")


_WHY: Mapping[str, str] = {
    Reason.RATE_LIMITED: "is busy",
    Reason.UNAVAILABLE: "is busy",
    Reason.TIMEOUT: "takes too long",
    Reason.KEY_MISSING: "has no key",
    Reason.KEY_REJECTED: "has a wrong key",
    Reason.OUT_OF_CREDIT: "has no credit left",
    Reason.MODEL_UNKNOWN: "is not known",
    Reason.NOT_INSTALLED: "is not installed",
}


def classify(exc: BaseException, model: str, *, begun: bool = False, now: datetime | None = None) -> ModelError:
    """The error that `exc`, raised by litellm or by what lies below it, means to us.

    `begun` says that the answer had begun, so that the request cannot have been wrong; `now` is for a Retry-After that is a date.
    """
    if isinstance(exc, ModelError):
        return exc
    evidence = _gather(exc)
    reason = _reason(evidence)
    if begun and reason in (Reason.BAD_REQUEST, Reason.MODEL_UNKNOWN):
        reason = Reason.SERVER_ERROR
    provider = provider_of(model)
    return failure(
        reason,
        model,
        variables=provider.key_names if provider else (),
        retry_after=_retry_after(evidence.headers, now or datetime.now(UTC)),
        hint=_hint(reason, evidence),
    )


_KINDS: Mapping[Reason, tuple[type[ModelError], str]] = {
    Reason.RATE_LIMITED: (ModelBusy, "{provider} limits how often {model} may be asked. It is asked again by itself after a pause."),
    Reason.UNAVAILABLE: (ModelBusy, "{provider} cannot take requests for {model} just now. It is asked again by itself after a pause."),
    Reason.SERVER_ERROR: (ModelFaltered, "{provider} had an internal error while {model} was answering. Try again in a moment."),
    Reason.TIMEOUT: (ModelFaltered, "{provider} took too long to go on with the answer of {model}. Try again, or choose a faster model."),
    Reason.DISCONNECTED: (ModelFaltered, "The connection to {provider} broke while {model} was answering. Try again in a moment."),
    Reason.STREAM_CUT: (ModelFaltered, "The answer of {model} ended before {provider} said that it was complete. Try again."),
    Reason.EMPTY_REPLY: (ModelFaltered, "{model} of {provider} answered with nothing. Try again, or say it in other words."),
    Reason.REPLY_MALFORMED: (
        ModelFaltered,
        "{provider} sent an unreadable answer of {model}. Try again, or choose another model.",
    ),
    Reason.KEY_MISSING: (
        ModelRefused,
        "{model} needs a key of {provider}: set {variables} and restart Onethread, or choose another model.",
    ),
    Reason.KEY_REJECTED: (
        ModelRefused,
        "{provider} did not accept the key for {model}: check that {variables} is right and that the account may use this model.",
    ),
    Reason.OUT_OF_CREDIT: (
        ModelRefused,
        "The account at {provider} has no credit left for {model}: top it up, or choose another model.",
    ),
    Reason.MODEL_UNKNOWN: (ModelRefused, "{provider} does not know the model {model}: check its name, or choose another model."),
    Reason.CONTEXT_TOO_LONG: (
        ModelRefused,
        "The conversation is too long for {model} of {provider}: shorten the message, start a new conversation, "
        "or choose a model with a larger context window.",
    ),
    Reason.REPLY_TOO_LONG: (
        ModelRefused,
        "{model} of {provider} reached its limit of tokens for one answer: raise ONETHREAD_MAX_TOKENS, or ask for less at once.",
    ),
    Reason.CONTENT_POLICY: (ModelRefused, "{provider} declined to let {model} answer, by its content policy. Say it in other words."),
    Reason.BAD_REQUEST: (
        ModelRefused,
        "{provider} did not accept the request to {model}. Choose another model, or check its settings.",
    ),
    Reason.NOT_INSTALLED: (
        ModelRefused,
        "{model} needs a package for {provider} that is not installed: add it, or choose another model.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """What an exception and everything that it wraps tell together."""

    names: frozenset[str]
    """Class names of all exceptions and of their bases."""
    statuses: tuple[int, ...]
    """HTTP statuses from the outermost exception to the innermost, which is the provider's own."""
    identifiers: Mapping[str, str]
    headers: Mapping[str, str]
    text: str
    """The vendor's words in lower case: to be searched, never to be shown."""


def _gather(exc: BaseException) -> _Evidence:
    chain = tuple(_chain(exc))
    identifiers: dict[str, str] = {}
    headers: dict[str, str] = {}
    for one in chain:
        identifiers |= _identifiers(one)
        headers |= _headers(one)
    return _Evidence(
        names=frozenset(base.__name__ for one in chain for base in type(one).__mro__),
        statuses=tuple(status for one in chain if (status := _status(one)) is not None),
        identifiers=identifiers,
        headers=headers,
        text=" ".join(str(one) for one in chain).lower(),
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """`exc` and what it was made from, outermost first, each once."""
    seen: set[int] = set()
    waiting: list[Any] = [exc]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [getattr(one, "original_exception", None), one.__cause__, one.__context__]


def _status(exc: BaseException) -> int | None:
    for holder in (exc, getattr(exc, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int | str) and str(status).isdecimal() and 400 <= int(status) <= 599:
            return int(status)
    return None


def _headers(exc: BaseException) -> dict[str, str]:
    found: dict[str, str] = {}
    for headers in (getattr(getattr(exc, "response", None), "headers", None), getattr(exc, "litellm_response_headers", None)):
        if isinstance(headers, Mapping):
            found |= {str(name).lower(): str(value) for name, value in headers.items()}
    return found


_IDENTIFIER = re.compile(r"[a-z0-9_.-]{1,64}")


def _identifiers(exc: BaseException) -> dict[str, str]:
    """`code`, `type`, `param` and `status` of the provider's structured error."""
    body = getattr(exc, "body", None)
    if not isinstance(body, Mapping):
        body = _parsed(getattr(exc, "message", None))
    inner = body.get("error")
    error = inner if isinstance(inner, Mapping) else body
    values = {name: error.get(name) for name in ("code", "type", "param", "status")}
    return {name: value.lower() for name, value in values.items() if isinstance(value, str) and _IDENTIFIER.fullmatch(value.lower())}


def _parsed(message: object) -> Mapping[str, Any]:
    if not isinstance(message, str) or not message.lstrip().startswith(("{", "[", "b'{")):
        return {}
    try:
        body = json.loads(message.strip().removeprefix("b'").removesuffix("'"))
    except ValueError:
        return {}
    if isinstance(body, list):
        body = next(iter(body), {})
    return body if isinstance(body, Mapping) else {}


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


_KEY_MISSING = _any_of(
    r"api_key client option must be set",
    r"missing.{0,40}api key",
    r"no api key",
    r"api key is (required|missing)",
    r"credentials not found",
)
_KEY_REJECTED = _any_of(r"api key not valid", r"invalid api key", r"incorrect api key", r"api key expired", r"permission_denied")
_OUT_OF_CREDIT = _any_of(
    r"insufficient_quota", r"exceeded your current quota, please check your plan", r"credit balance is too low", r"insufficient balance"
)
_MODEL_UNKNOWN = _any_of(
    r"llm provider not provided", r"model_not_found", r"model .{0,120}(not found|does not exist|is not supported)", r"unknown model"
)
_TOO_LONG = _any_of(
    r"context_length_exceeded",
    r"maximum context length",
    r"context (length|window|limit|size)",
    r"prompt is too long",
    r"prompt: length",
    r"input (token count|is too long|length)",
    r"exceeds the maximum number of tokens",
    r"too many (input )?tokens",
    r"request_too_large",
    r"request payload size exceeds",
)
_POLICY = _any_of(
    r"content_policy_violation",
    r"content[ _](filter|management|policy)",
    r"responsibleaipolicyviolation",
    r"usage polic(y|ies)",
    r"safety s(ystem|ettings)",
    r"response was blocked",
    r"prohibited_content",
)
_OVERLOADED = _any_of(r"overloaded", r"service (is )?(temporarily )?unavailable", r"temporarily out of capacity", r"server is busy")
_REFUSED_CONNECTION = _any_of(
    r"connection refused", r"cannot connect to host", r"all connection attempts failed", r"failed to establish a new connection"
)
_STREAM_CUT = _any_of(r"stream ended before a finish_reason", r"before any terminal event")
_CONNECTION_TROUBLE = _any_of(r"connection error", r"server disconnected", r"peer closed connection")

_TIMEOUTS = frozenset({"TimeoutError", "Timeout", "APITimeoutError", "TimeoutException", "ServerTimeoutError"})
_UNREACHABLE = frozenset({"ConnectError", "ConnectionRefusedError", "ClientConnectorError", "gaierror", "ProxyError"})
_BROKEN = frozenset(
    {
        "RemoteProtocolError",
        "ReadError",
        "WriteError",
        "ServerDisconnectedError",
        "ClientPayloadError",
        "ClientOSError",
        "ConnectionError",
        "IncompleteReadError",
        "TransferEncodingError",
    }
)
_UNREADABLE = frozenset({"JSONDecodeError", "ValidationError", "UnicodeDecodeError", "APIResponseValidationError"})


def _reason(evidence: _Evidence) -> Reason:
    status = evidence.statuses[-1] if evidence.statuses else None
    if "ImportError" in evidence.names:
        return Reason.NOT_INSTALLED
    if status is not None and (status < 500 or "AuthenticationError" in evidence.names) and status not in (408, 429):
        return _refusal(evidence, status)
    if evidence.names & {"NoCredentialsError", "DefaultCredentialsError"} or _KEY_MISSING.search(evidence.text):
        return Reason.KEY_MISSING
    if 429 in evidence.statuses:
        return Reason.OUT_OF_CREDIT if _out_of_credit(evidence) else Reason.RATE_LIMITED
    return _fault(evidence, status)


def _refusal(evidence: _Evidence, status: int) -> Reason:
    """A status of the 4xx says who is to blame; for what exactly, only names, identifiers and words tell."""
    names, text = evidence.names, evidence.text
    if _KEY_MISSING.search(text) and status != 403:
        return Reason.KEY_MISSING
    if status == 402 or _out_of_credit(evidence):
        return Reason.OUT_OF_CREDIT
    if status in (401, 403) or "AuthenticationError" in names or _KEY_REJECTED.search(text):
        return Reason.KEY_REJECTED
    if status == 413 or "ContextWindowExceededError" in names or _TOO_LONG.search(text):
        return Reason.CONTEXT_TOO_LONG
    if "ContentPolicyViolationError" in names or _POLICY.search(text):
        return Reason.CONTENT_POLICY
    if status == 404 or names & {"NotFoundError", "LiteLLMUnknownProvider"} or _MODEL_UNKNOWN.search(text):
        return Reason.MODEL_UNKNOWN
    return Reason.BAD_REQUEST


def _fault(evidence: _Evidence, status: int | None) -> Reason:
    names, text = evidence.names, evidence.text
    if (status in (503, 529) and not names & _BROKEN) or _OVERLOADED.search(text):
        return Reason.UNAVAILABLE
    if names & _UNREACHABLE or _REFUSED_CONNECTION.search(text):
        return Reason.UNAVAILABLE
    if names & _TIMEOUTS or status in (408, 504):
        return Reason.TIMEOUT
    if _STREAM_CUT.search(text):
        return Reason.STREAM_CUT
    if names & _BROKEN or _CONNECTION_TROUBLE.search(text):
        return Reason.DISCONNECTED
    return Reason.REPLY_MALFORMED if names & _UNREADABLE else Reason.SERVER_ERROR


def _out_of_credit(evidence: _Evidence) -> bool:
    return "insufficient_quota" in evidence.identifiers.values() or _OUT_OF_CREDIT.search(evidence.text) is not None


def _hint(reason: Reason, evidence: _Evidence) -> str:
    """The identifiers, where they help a person to find out more."""
    if reason is not Reason.BAD_REQUEST:
        return ""
    return ", ".join(f"{name} {evidence.identifiers[name]}" for name in ("code", "type", "param") if name in evidence.identifiers)


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the provider asks to wait, not below 0 and not above an hour."""
    milliseconds = _number(headers.get("retry-after-ms"))
    value = headers.get("retry-after", "")
    seconds = milliseconds / 1000 if milliseconds is not None else _number(value)
    if seconds is None:
        seconds = _seconds_until(value, now)
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _number(value: str | None) -> float | None:
    return float(value) if value is not None and re.fullmatch(r"\d{1,9}(\.\d{1,6})?", value.strip()) else None


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def _provider_name(model: str) -> str:
    provider = provider_of(model)
    return provider.label if provider else "The provider"
