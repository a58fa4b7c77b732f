"""Structured logs: coloured lines on a terminal, JSON lines elsewhere. User ids are hashed."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from uuid import UUID

REPEATED_EVERY_SECONDS = 10.0


class RepetitionFilter(logging.Filter):
    """Passes a message of the Kafka client once in ten seconds: without a broker it repeats one 5,000 times a second."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said_at: dict[tuple[str, str], float] = {}
        self._held_back: Counter[tuple[str, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is written; the next written one says how many were left out."""
        if record.name.partition(".")[0] != "aiokafka":
            return True
        said, now = (record.name, str(record.msg)), self._clock()
        if now - self._said_at.get(said, -REPEATED_EVERY_SECONDS) < REPEATED_EVERY_SECONDS:
            self._held_back[said] += 1
            return False
        self._said_at[said] = now
        if held_back := self._held_back.pop(said, 0):
            record.msg = f"{record.msg} ({held_back} more of these before)"
        return True


def configure_logs(*, process: str, level: str = "INFO") -> None:
    """Send all log lines of this process, libraries included, to standard error in one form."""
    level = level.upper()
    interactive = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if interactive else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not interactive:
        final.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[*final, renderer], foreign_pre_chain=shared))
    handler.addFilter(RepetitionFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # At DEBUG, where their frameworks leave them, these loggers cost an eighth of a worker's time.
    for library in ("aiokafka", "faust", "mode", "asyncio", "kafka", "httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(library).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(process=process)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a component; bind facts to it, never format them into the event."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"fincoach.{name}")
    return logger


def hashed(user_id: UUID) -> str:
    """Return a short, stable name of a user for logs."""
    return hashlib.sha256(user_id.bytes).hexdigest()[:12]
