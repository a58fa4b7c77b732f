"""Why a data set did or did not make its model train: the factors of its last evaluation, each with its meaning. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from schemas.evaluations import StoredEvaluation


class Factor(NamedTuple):
    """One figure of an evaluation and what it means."""

    factor: str
    value: Any
    meaning: str


# In the order in which a person asks: how much is there, how much is needed and why, how good is it, what else holds it back.
MEANINGS: dict[str, str] = {
    "counted": "data points since the last epoch",
    "users": "users who gave them",
    "user_cap": "so many of one user count at most",
    "withheld": "beyond that, of single users: archived, but not counted towards the threshold",
    "effective": "what counts towards the threshold",
    "threshold": "the threshold in force",
    "configured": "the threshold that was set, before it is adapted",
    "adaptive": "whether size, season, cost and drift move the threshold",
    "size": "times the root of (learned / first): who knows much needs more to learn something new",
    "learned": "data points in all closed epochs: what the last training has learned from",
    "first": "data points in the first of them",
    "season": "times what the next 24 hours bring over a mean day, within 0.5 to 2; 1 until a week is known",
    "arrivals_ratio": "arrivals expected in the next 24 hours, over a mean day",
    "cost": "times the root of (cost / reference), within 0.5 to 2: a training that has become dear comes less often",
    "cost_seconds": "median of the last five trainings",
    "first_cost_seconds": "median of the first five trainings, the reference unless one is set",
    "reference_cost_seconds": "the reference that was set",
    "drift": "times 1 / (1 + PSI / 0.25): a model whose data has moved learns sooner",
    "psi": "population stability index against the last three data sets, beyond chance: 0.1 is a little, 0.25 much",
    "wanted": "what the factors ask for, before the bounds",
    "least": "the adapted threshold is never less",
    "most": "and never more",
    "is_aged": "whether the greatest age is reached: then a fifth of the threshold that was set is enough",
    "age_seconds": "since the epoch began",
    "max_age_seconds": "the greatest age",
    "quality_score": "quality of the data set, 0 to 1",
    "quality_gate": "least quality",
    "dimensions": "quality by dimension",
    "below_floor": "dimensions that are so bad that they block by themselves",
    "seconds_since_epoch": "since the last crossing",
    "cool_down_seconds": "least time between two crossings",
    "in_blackout": "whether it is a time of the week without trainings",
    "blackouts": "those times, in UTC",
    "review": "what a person said about this data set",
    "reviewed_by": "who said it",
    "user_share": "one user's part of the threshold",
    "even_share": "or so many even shares, where that is more; at most half",
    "moment": "when the evaluation was made",
}


class Parts(NamedTuple):
    """What a dimension of quality, or another figure of the judgement, was made of."""

    dimension: str
    made_of: str


# The parts of a judgement (``streams.quality.assessment``) by dimension; the counters are those of the data set.
MADE_OF: dict[str, tuple[str, ...]] = {
    "completeness": ("fields_expected", "fields_present", "fields"),
    "validity": ("relevant", "invalid", "out_of_range"),
    "consistency": ("relevant", "inconsistent", "inconsistencies"),
    "freshness": ("fresh", "sources"),
    "diversity": ("users", "users_evenness", "largest_share", "tiers", "categories"),
    "anomalies": ("values",),
    "duplicates": ("duplicates",),
    "implicit feedback": ("implicit",),
}


def made_of(parts: Mapping[str, Any]) -> list[Parts]:
    """Return in words what each dimension of a judgement was made of; stored judgements leave out counters that are zero."""
    facts = {**parts["counts"], **{name: part for name, part in parts.items() if name != "counts"}}
    told = {
        dimension: [f"{name} {_told(facts.get(name, 0))}" for name in names if facts.get(name) != {}]
        for dimension, names in MADE_OF.items()
    }
    return [Parts(dimension, "; ".join(words) or "-") for dimension, words in told.items()]


def _told(part: Any) -> str:  # noqa: ANN401 - any figure
    if isinstance(part, Mapping):
        return ", ".join(f"{name} ({_told(each)})" if isinstance(each, Mapping) else f"{name} {_told(each)}" for name, each in part.items())  # fmt: skip
    return f"{part:,}" if isinstance(part, int) else str(shown(part))


def explained(evaluation: StoredEvaluation) -> list[Factor]:
    """Return the factors in the order in which a person asks for them; those without a known meaning come last."""
    factors = {**msgspec.to_builtins(evaluation.factors), **evaluation.other_factors}
    known = [Factor(name, factors[name], meaning) for name, meaning in MEANINGS.items() if name in factors]
    return known + [Factor(name, value, "") for name, value in factors.items() if name not in MEANINGS]


def shown(value: Any) -> Any:  # noqa: ANN401 - any figure
    """Return a figure as a person reads it: three decimals, or "not known" for None."""
    if value is None:
        return "not known"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return {name: "not applicable" if each is None else shown(each) for name, each in value.items()}
    return value
