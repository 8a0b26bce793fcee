"""Vendors' exceptions become errors of ours: who must act, a stable reason, when to ask again, a sentence without their words."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ModelBusy, ModelError, ModelFaltered, ModelRefused
from core.llm.failures import Reason, classify, failure

MODEL = "openai/gpt-6-sol"


class VendorError(Exception):
    """As those of litellm and of the SDKs below it look from outside."""

    def __init__(
        self,
        message: str = "",
        status_code: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.litellm_response_headers = headers
        self.body = body
        self.original_exception = original


def _named(name: str, **bases: Any) -> type[VendorError]:
    return type(name, (VendorError,), bases)


AuthenticationError = _named("AuthenticationError")
BadRequestError = _named("BadRequestError")
InternalServerError = _named("InternalServerError")
RateLimitError = _named("RateLimitError")
MidStreamFallbackError = _named("MidStreamFallbackError")


@pytest.mark.parametrize(
    ("exc", "kind", "reason"),
    [
        (RateLimitError("slow down", 429), ModelBusy, Reason.RATE_LIMITED),
        (MidStreamFallbackError("x", 429, original=RateLimitError("x", 429)), ModelBusy, Reason.RATE_LIMITED),
        (VendorError("x", 503), ModelBusy, Reason.UNAVAILABLE),
        (VendorError("x", 529), ModelBusy, Reason.UNAVAILABLE),
        (InternalServerError("AnthropicError - Overloaded", 500), ModelBusy, Reason.UNAVAILABLE),
        (InternalServerError("x", 500, original=VendorError("x", 529)), ModelBusy, Reason.UNAVAILABLE),
        (InternalServerError("x", 500, original=ConnectionRefusedError(111, "x")), ModelBusy, Reason.UNAVAILABLE),
        (InternalServerError("x", 500), ModelFaltered, Reason.SERVER_ERROR),
        (VendorError("x", 502), ModelFaltered, Reason.SERVER_ERROR),
        (VendorError("x", 504), ModelFaltered, Reason.TIMEOUT),
        (VendorError("x", 408), ModelFaltered, Reason.TIMEOUT),
        (TimeoutError(), ModelFaltered, Reason.TIMEOUT),
        (ConnectionResetError(), ModelFaltered, Reason.DISCONNECTED),
        (InternalServerError("Connection error.", 500), ModelFaltered, Reason.DISCONNECTED),
        (MidStreamFallbackError("Stream ended before a finish_reason was received", 500), ModelFaltered, Reason.STREAM_CUT),
        (_named("JSONDecodeError")("x"), ModelFaltered, Reason.REPLY_MALFORMED),
        (ValueError("x"), ModelFaltered, Reason.SERVER_ERROR),
        (InternalServerError("The api_key client option must be set either by", 500), ModelRefused, Reason.KEY_MISSING),
        (AuthenticationError("x", 401), ModelRefused, Reason.KEY_REJECTED),
        (VendorError("x", 403), ModelRefused, Reason.KEY_REJECTED),
        (AuthenticationError("API key not valid. Please pass a valid API key.", 400), ModelRefused, Reason.KEY_REJECTED),
        (VendorError("x", 402), ModelRefused, Reason.OUT_OF_CREDIT),
        (RateLimitError("x", 429, body={"code": "insufficient_quota"}), ModelRefused, Reason.OUT_OF_CREDIT),
        (BadRequestError("Your credit balance is too low to access the API", 400), ModelRefused, Reason.OUT_OF_CREDIT),
        (_named("ContextWindowExceededError")("x", 400), ModelRefused, Reason.CONTEXT_TOO_LONG),
        (BadRequestError("prompt is too long: 205000 tokens > 200000 maximum", 400), ModelRefused, Reason.CONTEXT_TOO_LONG),
        (BadRequestError("This model's maximum context length is 128000 tokens", 400), ModelRefused, Reason.CONTEXT_TOO_LONG),
        (
            BadRequestError("The input token count (1200000) exceeds the maximum number of tokens allowed", 400),
            ModelRefused,
            Reason.CONTEXT_TOO_LONG,
        ),
        (BadRequestError("the request exceeds the available context size", 400), ModelRefused, Reason.CONTEXT_TOO_LONG),
        (VendorError("x", 413), ModelRefused, Reason.CONTEXT_TOO_LONG),
        (_named("ContentPolicyViolationError")("x", 400), ModelRefused, Reason.CONTENT_POLICY),
        (BadRequestError("Output blocked by content filtering policy", 400), ModelRefused, Reason.CONTENT_POLICY),
        (BadRequestError("Your request was rejected as a result of our safety system", 400), ModelRefused, Reason.CONTENT_POLICY),
        (_named("NotFoundError")("x", 404), ModelRefused, Reason.MODEL_UNKNOWN),
        (BadRequestError("LLM Provider NOT provided. Pass in the LLM provider", 400), ModelRefused, Reason.MODEL_UNKNOWN),
        (BadRequestError("x", 400), ModelRefused, Reason.BAD_REQUEST),
        (VendorError("x", 422), ModelRefused, Reason.BAD_REQUEST),
        (ImportError("No module named 'google'"), ModelRefused, Reason.NOT_INSTALLED),
    ],
)
def test_an_exception_says_who_must_act_and_why(exc: Exception, kind: type[ModelError], reason: Reason) -> None:
    error = classify(exc, MODEL)

    assert (type(error), error.reason) == (kind, reason.value)


def test_a_refusal_after_the_answer_had_begun_is_a_fault_of_the_provider() -> None:
    error = classify(BadRequestError("KeyError: 'message'", 400), MODEL, begun=True)

    assert (type(error), error.reason) == (ModelFaltered, "SERVER_ERROR")


def test_an_error_of_ours_is_left_as_it_is() -> None:
    error = failure(Reason.STREAM_CUT, MODEL)

    assert classify(error, MODEL) is error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 12:01:00 GMT"}, 60.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_bounded(headers: dict[str, str], seconds: float | None) -> None:
    exc = MidStreamFallbackError("x", 429, original=RateLimitError("x", 429, headers=headers))

    assert classify(exc, MODEL, now=datetime(2026, 11, 22, 12, tzinfo=UTC)).retry_after == seconds


def test_a_sentence_names_model_provider_and_variable() -> None:
    error = classify(AuthenticationError("x", 401), "gemini/gemini-3.8-flash")

    assert str(error) == (
        "Google Gemini did not accept the key for gemini/gemini-3.8-flash: "
        "check that GEMINI_API_KEY or GOOGLE_API_KEY is right and that the account may use this model."
    )


def test_short_identifiers_of_a_bad_request_are_shown() -> None:
    body = {"error": {"code": "unsupported_value", "param": "temperature", "type": "invalid_request_error", "message": "canary"}}

    assert str(classify(BadRequestError("canary", 400, body=body), MODEL)) == (
        "OpenAI did not accept the request to openai/gpt-6-sol. Choose another model, or check its settings. "
        "(code unsupported_value, type invalid_request_error, param temperature)"
    )


def test_what_is_no_short_identifier_is_not_shown() -> None:
    body = {"error": {"code": "my secret is 42", "param": "x" * 65, "type": ["a"]}}

    assert "(" not in str(classify(BadRequestError("canary", 400, body=body), MODEL))


@given(words=st.text(min_size=1), status=st.one_of(st.none(), st.integers(min_value=300, max_value=700)))
def test_no_vendors_words_reach_the_sentence(words: str, status: int | None) -> None:
    canary = f"canary{words}canary"
    exc = MidStreamFallbackError(canary, status, body={"error": {"message": canary}}, original=VendorError(canary, status))

    error = classify(exc, MODEL)

    assert "canary" not in str(error)
    assert "canary" not in repr(error)


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, other = VendorError("x", 500), VendorError("x", 429)
    one.original_exception, other.original_exception = other, one

    assert classify(one, MODEL).reason == "RATE_LIMITED"


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_sentence_that_ends_as_one(reason: Reason) -> None:
    error = failure(reason, "acme/model", variables=("ACME_API_KEY",))

    assert str(error).endswith(".")
    assert "acme/model" in str(error)
    assert "{" not in str(error)
