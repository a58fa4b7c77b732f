"""The register of reasons for which a message is put aside: what each means, whose fault it is, and what to do about it. Pure."""

from __future__ import annotations

import enum
from typing import NamedTuple

from schemas.vocabulary import DeadLetterReason

# Headers that a record carries when it is sent again: the number of its first dead letter, and how often it was sent.
RETRY_OF_HEADER = "retry_of"
ATTEMPT_HEADER = "attempt"
WHOLE_BYTES_HEADER = "whole_bytes"
UNKNOWN_PRODUCER = "unknown"
MOST_ATTEMPTS = 5  # times that a record is sent again before it stays where it is


class Fault(enum.StrEnum):
    """Who has to change something."""

    PRODUCER = "producer"
    RECEIVER = "receiver"


class RetryHelps(enum.StrEnum):
    """When the same bytes can be taken in at another try."""

    NEVER = "never"  # unless we were wrong to refuse them
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
        "The bytes are no JSON: cut off, not UTF-8, or nested too deeply.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "Look at the bytes (`dead-letters show ID`). Producers that use fincoach_events cannot send this: find who writes to the topic beside them.",
    ),
    DeadLetterReason.UNKNOWN_TYPE: Reason(
        "The topic has no messages of this type.",
        Fault.PRODUCER, RetryHelps.AFTER_UPGRADE,
        "If the producer is newer than this installation, upgrade it and retry. Else the type is misspelt, or the message was sent to the wrong topic.",
    ),
    DeadLetterReason.MISSING_FIELD: Reason(
        "A required field is missing.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "The detail names the field. Let the producer be mended and send the event anew under its old event_id.",
    ),
    DeadLetterReason.INVALID_FIELD: Reason(
        "A field holds a value of the wrong kind, or one that is out of its bounds or cannot be stored.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "The detail names the field. Let the producer be mended and send the event anew under its old event_id.",
    ),
    DeadLetterReason.UNKNOWN_VERSION: Reason(
        "The message is of a version that this installation does not know, and cannot be read as one that it knows.",
        Fault.RECEIVER, RetryHelps.AFTER_UPGRADE,
        "Upgrade this installation, then `dead-letters retry --reason unknown_version`.",
    ),
    DeadLetterReason.IN_THE_FUTURE: Reason(
        "The event happened more than five minutes after the broker received it: the producer's clock is ahead.",
        Fault.PRODUCER, RetryHelps.LATER,
        "Set the producer's clock. When the time that the events name has come, `dead-letters retry --reason in_the_future` takes them in.",
    ),
    DeadLetterReason.TOO_LARGE: Reason(
        "The message is larger than 1 MiB.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "Let the producer send less: fincoach_events refuses such events where they arise.",
    ),
    DeadLetterReason.KEY_MISMATCH: Reason(
        "The record's key is not the user_id of its event, so the order of that user's events is lost.",
        Fault.PRODUCER, RetryHelps.NEVER,
        "Let the producer use the user_id as key and send the event anew under its old event_id.",
    ),
    DeadLetterReason.REDUCER_ERROR: Reason(
        "The event is valid, but folding it into its user's state failed: a defect of this installation.",
        Fault.RECEIVER, RetryHelps.AFTER_UPGRADE,
        "Report the detail, upgrade, then `dead-letters retry --reason reducer_error`.",
    ),
}  # fmt: skip

_OF_ANOTHER_RELEASE = Reason(
    "This release does not know the reason: another one wrote it.", Fault.RECEIVER, RetryHelps.AFTER_UPGRADE,
    "Ask the release that put the record aside: `dead-letters reasons`.",
)  # fmt: skip


def explained(code: str) -> Reason:
    """Return the entry of a reason, also of one that only another release knows."""
    return REASONS[DeadLetterReason(code)] if code in set(DeadLetterReason) else _OF_ANOTHER_RELEASE


# What a dead letter on the topic says beside its bytes.
HEADERS: dict[str, str] = {
    "reason": "Code from the register of reasons.",
    "detail": "What exactly was wrong, at most 1,000 characters.",
    "source_topic": "Topic on which the record lay.",
    "source_partition": "Its partition.",
    "source_offset": "Its offset.",
    "source_timestamp": "When the broker appended it.",
    "source_key": "Its key, where that is text.",
    "source_key_base64": "Its key, where that is no text. Neither is there for a record without a key, or with one over 4 KiB.",
    "producer": "Who says that it sent it: source of an event, replica of a prediction, issuer of a command; `unknown` where nothing can be read.",
    RETRY_OF_HEADER: "Number of the first dead letter of a record that was sent again; such records carry it too.",
    ATTEMPT_HEADER: "How often the record was sent again so far.",
    WHOLE_BYTES_HEADER: "Size of a record that is too large for this topic (compressed it fitted on its own): the letter holds its beginning, the table all of it.",
}
