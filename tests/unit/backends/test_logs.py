"""Logs of a process as its supervisor's file gets them: one JSON object a line, libraries included."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any
from uuid import UUID

import msgspec

from backends.telemetry.logs import RepetitionFilter, hashed

PROGRAM = """
import logging, sys
from backends.telemetry.logs import configure_logs, get_logger
configure_logs(process="streams-1", level={level!r})
get_logger("ingestion").info("batch_committed", records=3)
get_logger("ingestion").debug("batch_began")
logging.getLogger("somebody.else").warning("a library speaks")
logging.getLogger("aiokafka").info("chatter")
try:
    1 / 0
except ZeroDivisionError:
    get_logger("ingestion").exception("batch_failed")
"""


def lines_of(level: str) -> list[dict[str, Any]]:
    """Return what a process that logs at ``level`` writes to standard error."""
    program = PROGRAM.format(level=level)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ran.stdout == b""
    return [msgspec.json.decode(line) for line in ran.stderr.splitlines()]


def test_each_line_is_json_that_says_when_who_and_what() -> None:
    """Each line is JSON with time, component and event, also for libraries."""
    batch, library, failure = lines_of("INFO")
    assert batch["event"] == "batch_committed"
    assert (batch["process"], batch["logger"], batch["level"]) == ("streams-1", "fincoach.ingestion", "info")
    assert batch["records"] == 3
    assert batch["timestamp"].endswith("Z")
    assert (library["event"], library["level"], library["process"]) == ("a library speaks", "warning", "streams-1")
    assert "ZeroDivisionError" in failure["exception"]


def test_the_level_is_taken_in_small_letters_too_and_chatter_stays_out() -> None:
    """The level may be in small letters, and chatter of libraries stays out at DEBUG."""
    events = [line["event"] for line in lines_of("debug")]
    assert events == ["batch_committed", "batch_began", "a library speaks", "batch_failed"]


def test_a_users_name_in_logs_is_stable_and_not_the_id() -> None:
    """A user has a stable name in logs that is not the id."""
    user = UUID("0b6f0d5e-7d1e-4a0f-9c55-52a6f2b0a001")
    assert hashed(user) == hashed(UUID(str(user)))
    assert len(hashed(user)) == 12
    assert hashed(user) not in str(user)
    assert hashed(user) != hashed(UUID(int=user.int + 1))


def test_the_kafka_client_does_not_repeat_itself() -> None:
    """A line that the Kafka client repeats is written once in ten seconds, with the number left out."""
    now = 0.0
    calm = RepetitionFilter(clock=lambda: now)

    def said(text: str, *values: object, logger: str = "aiokafka") -> str | None:
        record = logging.LogRecord(logger, logging.ERROR, __file__, 1, text, values, None)
        return record.getMessage() if calm.filter(record) else None

    assert said("no broker %s", 1) == "no broker 1"
    assert [said("no broker %s", node) for node in range(3)] == [None] * 3
    assert said("no coordinator") == "no coordinator"
    assert [said("ours", logger="fincoach.outbox") for _ in range(2)] == ["ours", "ours"]
    now = 10.0
    assert said("no broker %s", 2) == "no broker 2 (3 more of these before)"
    assert said("no broker %s", 2) is None
