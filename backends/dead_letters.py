"""Records that cannot be handled, on the dead-letter topic: the raw bytes, with headers that say where from, who and why."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import msgspec

from backends.broker.interface import Record
from schemas.dead_letters import ATTEMPT_HEADER, RETRY_OF_HEADER, UNKNOWN_PRODUCER, WHOLE_BYTES_HEADER
from schemas.topics import DEAD_LETTERS, SPARE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.broker.kafka import BrokerProducer

LONGEST_DETAIL_CHARACTERS = 1_000
LONGEST_PRODUCER_CHARACTERS = 100
LONGEST_KEY_BYTES = 4_096  # a longer one is left out, so that the dead letter always fits on its topic
MOST_ATTEMPTS_SAID = 10_000  # a small integer of the database holds this much
LARGEST_NUMBER = 2**63 - 1
LARGEST_ANNOUNCED_BYTES = DEAD_LETTERS.max_message_bytes - SPARE_BYTES
DEFAULT_SOURCE = "host"  # a behavioural event without a source has this one

_CLAIMED = re.compile(rb'"(?:source|replica_id|issuer)"\s*:\s*"([^"\\]{1,100})"')
_PEEKED_BYTES = 65_536


class _Claim(msgspec.Struct):
    source: str | None = None
    replica_id: str | None = None
    issuer: str | None = None
    event_type: str | None = None


_claims = msgspec.json.Decoder(_Claim)


def producer_of(raw: bytes) -> str:
    """Return the producer that ``raw`` names (source, replica or issuer, even in broken JSON), else ``unknown``."""
    try:
        claim = _claims.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = _CLAIMED.search(raw, 0, _PEEKED_BYTES)
        return _producer(found.group(1).decode(errors="replace")) if found else UNKNOWN_PRODUCER
    named = claim.source or claim.replica_id or claim.issuer
    return _producer(named) if named else DEFAULT_SOURCE if claim.event_type else UNKNOWN_PRODUCER


def retry_of(headers: Mapping[str, str]) -> tuple[int | None, int]:
    """Return the first dead letter of a retried record and the number of retries; (None, 0) without valid headers."""
    first, attempt = _number(headers.get(RETRY_OF_HEADER)), _number(headers.get(ATTEMPT_HEADER))
    return (first, min(attempt or 1, MOST_ATTEMPTS_SAID)) if first else (None, 0)


def dead_letter_headers(record: Record, reason: str, detail: str) -> dict[str, str]:
    """Return the headers of a dead letter: with its bytes they suffice to find the record and to send it again."""
    first, attempt = retry_of(record.headers)
    return {
        "reason": reason,
        "detail": storable(detail),
        "source_topic": record.topic,
        "source_partition": str(record.partition),
        "source_offset": str(record.offset),
        "source_timestamp": record.timestamp.isoformat(),
        **_key_headers(record.key),
        "producer": producer_of(record.value),
        **({RETRY_OF_HEADER: str(first), ATTEMPT_HEADER: str(attempt)} if first else {}),
    }


def announced(raw: bytes, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
    """Return a dead letter's bytes and headers, cut to fit on its topic.

    A topic's limit is on compressed bytes, so a record can be larger than any client may send again. Only the beginning of
    such a record is sent, with its full size in the header ``whole_bytes``.
    """
    if len(raw) <= LARGEST_ANNOUNCED_BYTES:
        return raw, headers
    return raw[:LARGEST_ANNOUNCED_BYTES], {**headers, WHOLE_BYTES_HEADER: str(len(raw))}


def key_of(headers: Mapping[str, str]) -> bytes | None:
    """Return the key of the record from the headers of its dead letter.

    Raises:
        ValueError: when it is not base64.
    """
    if "source_key" in headers:
        return headers["source_key"].encode()
    return base64.b64decode(headers["source_key_base64"], validate=True) if "source_key_base64" in headers else None


def storable(detail: str) -> str:
    """Return the beginning of ``detail`` without what a database's text cannot hold: NUL and lone surrogates."""
    return detail[:LONGEST_DETAIL_CHARACTERS].replace("\0", "").encode(errors="replace").decode()


def _key_headers(key: bytes | None) -> dict[str, str]:
    if key is None or len(key) > LONGEST_KEY_BYTES:
        return {}
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"source_key_base64": base64.b64encode(key).decode()} if "\0" in text else {"source_key": text}


def _producer(name: str) -> str:
    return storable(name)[:LONGEST_PRODUCER_CHARACTERS] or UNKNOWN_PRODUCER


def _number(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > len(str(LARGEST_NUMBER)):
        return None
    return int(text) if 0 < int(text) <= LARGEST_NUMBER else None


class DeadLetterTopic:
    """The dead-letter sink of plain consumers."""

    def __init__(self, producer: BrokerProducer) -> None:
        self._producer = producer

    async def __call__(self, record: Record, reason: str, detail: str) -> None:
        """Publish ``record`` as a dead letter; return when the broker has it.

        Raises:
            RetryLaterError: when the broker is away.
        """
        raw, headers = announced(record.value, dead_letter_headers(record, reason, detail))
        await self._producer.publish(DEAD_LETTERS.name, record.topic.encode(), raw, headers=headers)
