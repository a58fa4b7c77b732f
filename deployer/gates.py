"""The deployer's own look at the trainer's evidence: the last gate before a version is served. Pure."""

from __future__ import annotations

import math

from schemas.messages.training import MetricComparison

# Trainers decide with margins of their own; none may accept a loss of more than this share of the other's value.
LARGEST_MARGIN_RATIO = 0.05


def objection(comparison: MetricComparison) -> str | None:
    """Return the sentence that keeps a candidate from being served, or None when the evidence holds."""
    for name in ("candidate", "champion", "baseline", "lower", "upper"):
        value = getattr(comparison, name)
        if value is not None and not math.isfinite(value):
            return f"{comparison.metric} of the comparison is not finite ({name} is {value})"
    return _against_baseline(comparison) or _against_champion(comparison)


def stale_champion(parent_digest: str | None, active_digest: str) -> str | None:
    """Return the sentence that refuses a candidate which was compared with another version than the one served now."""
    if parent_digest is None or parent_digest == active_digest:
        return None
    return (
        f"the candidate was compared with version {parent_digest[:12]}, but {active_digest[:12]} is served by now; "
        "the next training compares with that one"
    )


def _against_baseline(comparison: MetricComparison) -> str | None:
    if comparison.baseline is None:
        return None
    gain = _gain(comparison, comparison.baseline)
    if gain >= -LARGEST_MARGIN_RATIO * abs(comparison.baseline):
        return None
    return (
        f"{comparison.metric} {comparison.candidate:.4g} is worse than the trivial baseline "
        f"{comparison.baseline_name or ''} {comparison.baseline:.4g}"
    )


def _against_champion(comparison: MetricComparison) -> str | None:
    if comparison.champion is None:
        return None
    allowed = -LARGEST_MARGIN_RATIO * abs(comparison.champion)
    if _gain(comparison, comparison.champion) < allowed:
        return f"{comparison.metric} {comparison.candidate:.4g} is worse than the champion's {comparison.champion:.4g}"
    if comparison.lower is not None and comparison.lower < allowed:
        return (
            f"{comparison.metric} may be worse than the champion's: the lower 95 % bound of the difference is "
            f"{comparison.lower:.4g}, allowed is {allowed:.4g}"
        )
    return None


def _gain(comparison: MetricComparison, other: float) -> float:
    return (comparison.candidate - other) * (1.0 if comparison.higher_is_better else -1.0)
