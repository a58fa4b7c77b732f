"""What UpdateThresholds may change. A rule that could never hold, or would always hold, is rejected. Pure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec

from schemas.errors import CommandRejectedError
from schemas.messages.control import UpdateThresholds
from schemas.thresholds import ThresholdRule
from streams.epochs.blackouts import covers_the_week, windows
from streams.epochs.thresholds import LARGEST_SHARE

LARGEST_THRESHOLD = 1_000_000_000
YEAR_SECONDS = 366 * 86_400
LARGEST_MULTIPLE = 1_000.0
MOST_BLACKOUTS = 50


class _Range(NamedTuple):
    """The allowed range of a figure, the complaint about others, and whether 0 unsets it."""

    first: float
    last: float
    wrong: str
    can_be_unset: bool = False


RANGES: dict[str, _Range] = {
    "threshold": _Range(1, LARGEST_THRESHOLD, "a threshold of {} would never or always be reached"),
    "quality_gate": _Range(0, 1, "a quality gate of {} is no ratio"),
    "cool_down_seconds": _Range(0, YEAR_SECONDS, "a cool-down of {} s is out of range"),
    "least": _Range(1, LARGEST_THRESHOLD, "a least threshold of {} is out of range", can_be_unset=True),
    "most": _Range(1, LARGEST_THRESHOLD, "a greatest threshold of {} is out of range", can_be_unset=True),
    "max_age_seconds": _Range(60, 10 * YEAR_SECONDS, "a greatest age of {} s is out of range", can_be_unset=True),
    "user_share": _Range(0.0001, LARGEST_SHARE, "a share of {} would let one user decide, or nobody"),
    "even_share": _Range(1, LARGEST_MULTIPLE, "{} times the even share is out of range"),
    "reference_cost_seconds": _Range(0.001, YEAR_SECONDS, "a reference of {} s is out of range", can_be_unset=True),
}
NAMES = (*RANGES, "adaptive", "blackouts")


def checked_changes(command: UpdateThresholds, rule: ThresholdRule) -> dict[str, Any]:
    """Return the columns that the command changes in ``rule``; None unsets a column.

    Raises:
        CommandRejectedError: the message says which values are valid.
    """
    given = {name: value for name in NAMES if (value := getattr(command, name)) is not None}
    if not given:
        raise CommandRejectedError(
            "nothing to change; give a threshold, a quality_gate, cool_down_seconds or another part of the rule"
        )
    changes = {name: _checked(name, value) for name, value in given.items()}
    _check_together(msgspec.structs.replace(rule, **changes))
    return changes


def listed(changes: dict[str, Any]) -> str:
    """Return the changes as text for people."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in changes.items())


def _checked(name: str, value: Any) -> Any:  # noqa: ANN401 - a column's value
    if name == "blackouts":
        return _checked_blackouts(value)
    if name == "adaptive":
        return value
    bounds = RANGES[name]
    if bounds.can_be_unset and value == 0:
        return None
    if not (math.isfinite(value) and bounds.first <= value <= bounds.last):
        unset = ", or 0 for none of one's own" if bounds.can_be_unset else ""
        raise CommandRejectedError(
            f"{bounds.wrong.format(value)}; give a number from {bounds.first:.10g} to {bounds.last:.10g}{unset}"
        )
    return value


def _checked_blackouts(blackouts: tuple[str, ...]) -> list[str]:
    if len(blackouts) > MOST_BLACKOUTS:
        raise CommandRejectedError(f"{len(blackouts)} blackouts are too many; give at most {MOST_BLACKOUTS}")
    try:
        for text in blackouts:
            windows(text)
    except ValueError as error:
        raise CommandRejectedError(str(error)) from error
    if covers_the_week(blackouts):
        raise CommandRejectedError("these blackouts leave no minute of the week in which a training could begin")
    return [text.strip() for text in blackouts]


def _check_together(rule: ThresholdRule) -> None:
    for name, wrong in (("least", "above"), ("most", "below")):
        bound = getattr(rule, name)
        if bound is not None and (bound > rule.threshold if name == "least" else bound < rule.threshold):
            raise CommandRejectedError(
                f"the bound '{name}' of {bound} lies {wrong} the threshold of {rule.threshold}; change both, or give 0 for '{name}'"
            )
    if rule.max_age_seconds is not None and rule.max_age_seconds <= rule.cool_down_seconds:
        raise CommandRejectedError(
            f"the greatest age of {rule.max_age_seconds} s would be reached within the cool-down of {rule.cool_down_seconds} s;"
            " give a longer one, or 0 for none"
        )


def _shown(value: Any) -> str:  # noqa: ANN401 - a column's value
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "; ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
