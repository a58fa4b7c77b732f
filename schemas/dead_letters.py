"""The register of reasons for dead letters: what each means, whose fault it is, and what to do about it. Pure."""

from __future__ import annotations

import enum
from typing import NamedTuple

from schemas.vocabulary import DeadLetterReason

# Headers of a record that is sent again: the id of its first dead letter, and how often it was sent.
RETRY_OF_HEADER = "retry_of"
ATTEMPT_HEADER = "attempt"
WHOLE_BYTES_HEADER = "whole_bytes"
UNKNOWN_PRODUCER = "unknown"
MOST_ATTEMPTS = 5  # a record is sent again this often, and then stays a dead letter


class Fault(enum.StrEnum):
    """Who must fix the cause."""

    PRODUCER = "producer"
    RECEIVER = "receiver"


class RetryHelps(enum.StrEnum):
    """When a retry of the same bytes can succeed."""

    NEVER = "never"  # unless we were wrong to reject them
    AFTER_UPGRADE = "after an upgrade"
    LATER = "later"


class Reason(NamedTuple):
    """One entry of the register."""

    meaning: str
    fault: Fault
    retry_helps: RetryHelps
    next_step: str


REASONS: dict[DeadLetterReason, Reason] = {
    DeadLetterReason.NOT_JSON: Reason(
        "The bytes are not JSON: cut off, not UTF-8, or nested too deeply.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "Look at the bytes (`dead-letters show ID`). fincoach_events never sends such bytes: find the other producer that writes to the topic.",
    ),
    DeadLetterReason.UNKNOWN_TYPE: Reason(
        "The topic has no messages of this type.",
        Fault.PRODUCER, RetryHelps.AFTER_UPGRADE,
        "If the producer is newer than this installation, upgrade the installation and retry. Otherwise the type is misspelt, or the message was sent to the wrong topic.",
    ),
    DeadLetterReason.MISSING_FIELD: Reason(
        "A required field is missing.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "The detail names the field. Fix the producer and send the event again with the same event_id.",
    ),
    DeadLetterReason.INVALID_FIELD: Reason(
        "A field has a value of the wrong type, out of bounds, or one that cannot be stored.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "The detail names the field. Fix the producer and send the event again with the same event_id.",
    ),
    DeadLetterReason.UNKNOWN_VERSION: Reason(
        "This installation does not know the message's version and cannot read it as a known one.",
        Fault.RECEIVER, RetryHelps.AFTER_UPGRADE,
        "Upgrade this installation, then `dead-letters retry --reason unknown_version`.",
    ),
    DeadLetterReason.IN_THE_FUTURE: Reason(
        "The event happened more than five minutes after the broker received it: the producer's clock is ahead.",
        Fault.PRODUCER, RetryHelps.LATER,
        "Correct the producer's clock. Once the events' time has passed, run `dead-letters retry --reason in_the_future`.",
    ),
    DeadLetterReason.TOO_LARGE: Reason(
        "The message is larger than 1 MiB.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "Make the producer send smaller events: fincoach_events rejects such events before they are sent.",
    ),
    DeadLetterReason.KEY_MISMATCH: Reason(
        "The record's key is not the user_id of its event, so the order of that user's events is lost.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "Make the producer use the user_id as key, and send the event again with the same event_id.",
    ),
    DeadLetterReason.REDUCER_ERROR: Reason(
        "The event is valid, but folding it into its user's state failed. This is a defect of this installation.",
        Fault.RECEIVER, RetryHelps.AFTER_UPGRADE,
        "Report the detail, upgrade, then `dead-letters retry --reason reducer_error`.",
    ),
}  # fmt: skip

_OF_ANOTHER_RELEASE = Reason(
    "This release does not know the reason. Another release wrote it.", Fault.RECEIVER, RetryHelps.AFTER_UPGRADE,
    "Run `dead-letters reasons` with the release that wrote the dead letter.",
)  # fmt: skip


def explained(code: str) -> Reason:
    """Return the entry of a reason. A reason that only another release knows has an entry, too."""
    return REASONS[DeadLetterReason(code)] if code in set(DeadLetterReason) else _OF_ANOTHER_RELEASE


# The headers of a dead letter on the topic.
HEADERS: dict[str, str] = {
    "reason": "Code from the register of reasons.",
    "detail": "What was wrong, in at most 1,000 characters.",
    "source_topic": "Topic of the record.",
    "source_partition": "Its partition.",
    "source_offset": "Its offset.",
    "source_timestamp": "When the broker appended it.",
    "source_key": "Its key, if that is text.",
    "source_key_base64": "Its key, if that is not text. A record without a key, or with a key over 4 KiB, has neither header.",
    "producer": "Claimed sender: source of an event, replica of a prediction, issuer of a command; `unknown` if it cannot be read.",
    RETRY_OF_HEADER: "Id of the first dead letter of a record that was sent again. The record sent again has this header, too.",
    ATTEMPT_HEADER: "How often the record has been sent again.",
    WHOLE_BYTES_HEADER: "Size of a record that is too large for this topic, though it fitted its own when compressed. The dead letter holds its beginning, the table all of it.",
}
