"""Structured logs: JSON lines when nobody watches a terminal, colours when somebody does. User ids are hashed."""

from __future__ import annotations

import hashlib
import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from uuid import UUID


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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Left at DEBUG by their frameworks these cost an eighth of the time of a worker.
    for library in ("aiokafka", "faust", "mode", "asyncio", "kafka", "httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(library).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(process=process)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a component; bind facts to it, never format them into the event."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"fincoach.{name}")
    return logger


def hashed(user_id: UUID) -> str:
    """Return a short stable name for a user, fit for logs."""
    return hashlib.sha256(user_id.bytes).hexdigest()[:12]
