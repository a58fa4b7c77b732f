"""Checks that this worker itself is sound: it must accept all golden messages of the register.

The check runs at the start and whenever a producer exceeds a limit of dead letters. A worker that fails it must stop:
it would dead-letter a whole topic that another build can read.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from schemas import codec
from schemas.errors import FinCoachError, InvalidMessageError
from schemas.golden import GoldenMessage
from schemas.topics import BEHAVIORAL_EVENTS, Topic
from streams.batches.folding import fold_new
from streams.batches.intake import FetchedRecord, Intake
from streams.panes import Watermarks

TakeIn = Callable[[Sequence[FetchedRecord]], Intake[Any]]


class BrokenReceiverError(FinCoachError):
    """This worker rejects the register's own examples."""


@dataclass(slots=True, kw_only=True)
class GoldenRecord:
    """A golden message as a fetched record, appended when it happened, with its user as key."""

    value: bytes | None
    key: bytes | None
    timestamp: int
    offset: int = 0
    headers: Sequence[tuple[str, bytes | None]] = ()


class GoldenCheck:
    """Reads golden messages in the same way as the records of their topics."""

    def __init__(self, messages: Sequence[GoldenMessage], take_in: Mapping[Topic, TakeIn]) -> None:
        self._messages = messages
        self._take_in = {topic.name: function for topic, function in take_in.items()}

    def __call__(self) -> None:
        """Return if all are accepted.

        Raises:
            BrokenReceiverError: the message names the first that is not.
        """
        failures = [(message.name, failure) for message in self._messages if (failure := self._failure(message))]
        if failures or not self._messages:
            name, failure = (
                failures[0] if failures else ("", "there are none: the examples are missing from this installation")
            )
            sentence = (
                f"this worker fails on {len(failures)} of {len(self._messages)} golden messages ({name}: {failure}): its own decoder or rules"
                " are broken, not the producers. It stops before it dead-letters a whole topic; records wait in Kafka."
                " Install the build that ran before, or one that passes `make schema-check`"
            )
            raise BrokenReceiverError(sentence)

    def _failure(self, message: GoldenMessage) -> str | None:
        try:
            take_in = self._take_in.get(message.topic.name)
            if take_in is None:
                codec.decode(message.topic, message.raw)
                return None
            return _refusal(message.topic, take_in([golden_record(message.raw)]))
        except InvalidMessageError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - the check looks for whatever a broken part raises
            return repr(error)


def golden_record(raw: bytes) -> GoldenRecord:
    """Return the record that would carry ``raw``."""
    document = msgspec.json.decode(raw)
    moment = dt.datetime.fromisoformat(document["occurred_at"])
    return GoldenRecord(value=raw, key=document["user_id"].encode(), timestamp=int(moment.timestamp() * 1000))


def _refusal(topic: Topic, intake: Intake[Any]) -> str | None:
    if intake.dead:
        return f"{intake.dead[0].reason}: {intake.dead[0].detail}"
    if topic == BEHAVIORAL_EVENTS:
        failed = fold_new(intake.accepted, {}, watermarks=Watermarks(None), careful=True).failed
        return f"{failed[0].reason}: {failed[0].detail}" if failed else None
    return None
