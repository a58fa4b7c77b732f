"""Is the database still the one that published the topic? Pure.

The database is the truth about deployments unless it was restored from an older copy: then the topic is ahead, and
publishing lower sequences would leave late replicas with a state that the others ignore.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas.vocabulary import ModelType


class Comparison(NamedTuple):
    """Models whose topic is ahead of the database, and models whose desired state has to be published again."""

    ahead: tuple[ModelType, ...]
    behind: tuple[ModelType, ...]


def compare(*, database: Mapping[ModelType, int], topic: Mapping[ModelType, int]) -> Comparison:
    """Compare sequences; 0 stands for none. The topic must have been read before the database."""
    models = sorted(topic.keys() | database.keys())
    ahead = tuple(model for model in models if topic.get(model, 0) > database.get(model, 0))
    behind = tuple(model for model in models if topic.get(model, 0) < database.get(model, 0))
    return Comparison(ahead, behind)


def explanation(model_type: ModelType, *, database: int, topic: int) -> str:
    """Return the sentence of the alert."""
    return (
        f"the topic knows desired state {topic} of {model_type}, the database only {database}: it was restored from an older copy. "
        "Nothing is published until a person decides: `python -m deployer reconcile` makes the database's state the newest"
    )
