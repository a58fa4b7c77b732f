"""Database against topic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployer.reconciliation import compare, explanation
from schemas.vocabulary import ModelType
from tests.four_models import FOUR_MODELS

SEQUENCES = st.dictionaries(st.sampled_from(FOUR_MODELS), st.integers(1, 9))


@given(SEQUENCES, SEQUENCES)
def test_each_model_is_ahead_behind_or_equal(database: dict[ModelType, int], topic: dict[ModelType, int]) -> None:
    """A model is ahead where its topic is, behind where the database is, and else neither."""
    comparison = compare(database=database, topic=topic)
    for model in FOUR_MODELS:
        difference = topic.get(model, 0) - database.get(model, 0)
        assert (model in comparison.ahead) == (difference > 0)
        assert (model in comparison.behind) == (difference < 0)


def test_the_explanation_says_what_to_do() -> None:
    """The explanation gives the figures and the command."""
    sentence = explanation("goal", database=3, topic=41)
    assert "desired state 41 of goal" in sentence
    assert "only 3" in sentence
    assert "deployer reconcile" in sentence
