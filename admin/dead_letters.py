"""Dead letters for people and programs: bytes as text, times as people type them. Pure."""

from __future__ import annotations

import base64
import datetime as dt
import re
from typing import Any

import msgspec

from schemas.rows import DeadLetter

SHOWN_BYTES = 4_000
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment_of(text: str, *, now: dt.datetime) -> dt.datetime:
    """Return the moment that ``text`` names: a duration before ``now``, or a date and time (UTC unless it has an offset).

    Raises:
        ValueError: with a sentence that names the known forms.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - dt.timedelta(**{_UNITS[ago.group(2)]: int(ago.group(1))})
        moment = dt.datetime.fromisoformat(text)
        return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError) as error:
        message = f"{text!r} is no time; write 2026-03-04T12:00Z, 2026-03-04, or 30m, 12h, 7d for so long ago"
        raise ValueError(message) from error


def as_document(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter with its bytes as base64, and also as text if they are text."""
    plain = msgspec.structs.asdict(letter)
    for name in ("key", "raw"):
        value = plain.pop(name)
        plain[f"{name}_base64"] = None if value is None else base64.b64encode(value).decode()
        plain[f"{name}_text"] = None if value is None else _text(value)
    return plain


def bytes_for_people(raw: bytes) -> str:
    """Return the beginning of ``raw`` as text without control characters, and how many bytes follow."""
    shown = raw[:SHOWN_BYTES].decode(errors="backslashreplace")
    readable = "".join(sign if sign.isprintable() or sign in "\n\t" else f"\\x{ord(sign):02x}" for sign in shown)
    rest = len(raw) - SHOWN_BYTES
    return f"{readable}\n… {rest} bytes more: `dead-letters export` writes them all" if rest > 0 else readable


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
