"""What the codec rejects, and with which reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.codec import decode, decode_behavioral_event
from schemas.errors import InvalidMessageError
from schemas.topics import CONTROL
from schemas.vocabulary import DeadLetterReason

EVENT = {
    "event_type": "page_view",
    "event_id": "019cd79f-d858-7228-bac9-06084789c1a3",
    "user_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "occurred_at": "2026-03-10T12:01:43Z",
    "consent": True,
    "page_url": "/insights",
}


def event(**changes: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Return the event above with changed fields; None removes a field."""
    return msgspec.json.encode({name: value for name, value in {**EVENT, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", DeadLetterReason.NOT_JSON, id="nothing"),
        pytest.param(b"\xff\xfe", DeadLetterReason.NOT_JSON, id="bytes"),
        pytest.param(event()[:-1], DeadLetterReason.NOT_JSON, id="cut off"),
        pytest.param(event()[:-1] + b',"page_url":"\xff"}', DeadLetterReason.NOT_JSON, id="not UTF-8"),
        pytest.param(
            event()[:-1] + b',"additional_data":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
            DeadLetterReason.NOT_JSON,
            id="deep",
        ),
        pytest.param(b"[]", DeadLetterReason.INVALID_FIELD, id="a list"),
        pytest.param(b"null", DeadLetterReason.INVALID_FIELD, id="null"),
        pytest.param(event(event_type="weather"), DeadLetterReason.UNKNOWN_TYPE, id="unknown type"),
        pytest.param(event(event_type=None), DeadLetterReason.MISSING_FIELD, id="no type"),
        pytest.param(event(page_url=None), DeadLetterReason.MISSING_FIELD, id="no page_url"),
        pytest.param(event(consent=None), DeadLetterReason.MISSING_FIELD, id="no consent"),
        pytest.param(event(consent="yes"), DeadLetterReason.INVALID_FIELD, id="consent in words"),
        pytest.param(event(occurred_at="2026-03-10T12:01:43"), DeadLetterReason.INVALID_FIELD, id="naive moment"),
        pytest.param(
            event(occurred_at="0001-01-01T00:00:00+14:00"), DeadLetterReason.INVALID_FIELD, id="before the calendar"
        ),
        pytest.param(event(page_url="/\x00"), DeadLetterReason.INVALID_FIELD, id="U+0000"),
        pytest.param(event(additional_data={"a\x00": 1}), DeadLetterReason.INVALID_FIELD, id="U+0000 in a name"),
        pytest.param(
            event(schema_version=2, page_url=None),
            DeadLetterReason.UNKNOWN_VERSION,
            id="a later version without a field",
        ),
        pytest.param(event(schema_version=0), DeadLetterReason.UNKNOWN_VERSION, id="a version before the first"),
        pytest.param(event(schema_version="1"), DeadLetterReason.INVALID_FIELD, id="a version in words"),
    ],
)
def test_bad_input_is_named(raw: bytes, reason: DeadLetterReason) -> None:
    """Each kind of bad input is rejected with its own reason."""
    with pytest.raises(InvalidMessageError) as caught:
        decode_behavioral_event(raw)
    assert caught.value.reason == reason


def test_a_backslash_before_u0000_is_ordinary_text() -> None:
    """A text that only looks like the escape of U+0000 is accepted."""
    assert decode_behavioral_event(event(page_url="C:\\u0000")).page_url == "C:\\u0000"


def test_a_message_of_another_topic_is_of_unknown_type() -> None:
    """A message on the wrong topic is rejected as of unknown type."""
    with pytest.raises(InvalidMessageError) as caught:
        decode(CONTROL, msgspec.json.encode({**EVENT, "type": "ModelReady"}))
    assert caught.value.reason == DeadLetterReason.UNKNOWN_TYPE
