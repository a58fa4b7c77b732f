"""Blackouts: weekly windows in UTC in which no training may begin. People configure them, the rule checks them. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = len(DAYS) * DAY_MINUTES
_WINDOW = re.compile(r"(?P<first>[A-Za-z]{3})(?:-(?P<last>[A-Za-z]{3}))? (?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)")

Window = tuple[int, int]  # first minute of the week, minutes


def windows(text: str) -> list[Window]:
    """Return the windows of ``Mon 08:00-12:00`` or ``Mon-Fri 22:00-06:00``. An end that is not after the start is on the next day.

    Raises:
        ValueError: the message shows a valid window.
    """
    found = _WINDOW.fullmatch(text.strip())
    days = _days(found["first"], found["last"]) if found else []
    start, end = (_minutes(found["start"]), _minutes(found["end"])) if found else (None, None)
    if not days or start is None or end is None or start == DAY_MINUTES:
        message = f"{text!r} is no weekly window; write it as 'Mon 08:00-12:00' or 'Mon-Fri 22:00-06:00', in UTC"
        raise ValueError(message)
    length = end - start if end > start else end - start + DAY_MINUTES
    return [(day * DAY_MINUTES + start, length) for day in days]


def is_blacked_out(blackouts: Iterable[str], moment: dt.datetime) -> bool:
    """Return whether ``moment`` (aware) lies in a window, which includes its start and excludes its end."""
    utc = moment.astimezone(dt.UTC)
    minute = utc.weekday() * DAY_MINUTES + utc.hour * 60 + utc.minute
    return any((minute - start) % WEEK_MINUTES < length for text in blackouts for start, length in windows(text))


def covers_the_week(blackouts: Iterable[str]) -> bool:
    """Return whether the blackouts leave no minute of the week in which a training could begin."""
    covered = {
        (start + minute) % WEEK_MINUTES
        for text in blackouts
        for start, length in windows(text)
        for minute in range(length)
    }
    return len(covered) == WEEK_MINUTES


def _days(first: str, last: str | None) -> list[int]:
    names = [first.capitalize(), (last or first).capitalize()]
    if not set(names) <= set(DAYS):
        return []
    begin, end = (DAYS.index(name) for name in names)
    return [(begin + step) % len(DAYS) for step in range((end - begin) % len(DAYS) + 1)]


def _minutes(text: str) -> int | None:
    hours, minutes = (int(part) for part in text.split(":"))
    total = hours * 60 + minutes
    return total if minutes < 60 and total <= DAY_MINUTES else None  # noqa: PLR2004 - minutes of an hour
