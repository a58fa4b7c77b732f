"""The frozen response model: the answers of version 1 never change."""

from __future__ import annotations

import hashlib
import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fincoach_events.events import RecommendationInteraction
from models.recommendation.actions import RECOMMENDATION_ACTIONS
from stack.simulation.response_model import ACTIONS, VERSION, CustomerFacts, appeal, response

# The digest of all answers on the grid below. It never changes: a better model is version 2 in its own file.
DIGEST_OF_VERSION_1 = "f5a73348e0a89fc271cbf03431b08714fe17282fc66606ac8a46e554372615af"
DRAWS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)

customers = st.builds(
    CustomerFacts, purchases=st.integers(0, 50), spent=st.floats(0, 5_000), days_since_last=st.floats(0, 1_000)
)
draws = st.floats(0, 1, exclude_max=True)


def answers_on_the_grid() -> list[str | None]:
    """Return the answers to every action, for a grid of customers and draws."""
    facts = [
        CustomerFacts(purchases=purchases, spent=spent, days_since_last=days)
        for purchases, spent, days in itertools.product((0, 1, 2, 5), (0.0, 12.5, 39.99, 200.0), (0.0, 3.0, 14.0, 45.0))
    ]
    return [
        response(customer, action, (liking, answering, kind))
        for customer in facts
        for action in range(ACTIONS)
        for liking, answering, kind in itertools.product(DRAWS, (0.0, 0.59, 0.6, 0.9), DRAWS)
    ]


def test_version_1_is_frozen() -> None:
    """The answers of version 1 never change."""
    digest = hashlib.sha256(msgspec.json.encode(answers_on_the_grid())).hexdigest()
    assert (VERSION, digest) == (1, DIGEST_OF_VERSION_1)


@given(customers, st.integers(0, ACTIONS - 1))
def test_an_appeal_is_a_probability(facts: CustomerFacts, action: int) -> None:
    """The appeal of every action is a probability for every customer."""
    assert 0.0 <= appeal(facts, action) <= 1.0


@given(customers, st.integers(0, ACTIONS - 1), st.tuples(draws, draws, draws))
def test_every_answer_keeps_the_contract_of_the_events(
    facts: CustomerFacts, action: int, drawn: tuple[float, float, float]
) -> None:
    """Every answer is a valid interaction type, and never a view."""
    answer = response(facts, action, drawn)
    known = msgspec.json.schema(RecommendationInteraction)["$defs"]["RecommendationInteraction"]["properties"]
    assert answer is None or answer in known["interaction_type"]["enum"]
    assert answer != "view"


@given(customers, st.integers(0, ACTIONS - 1), draws, draws)
def test_who_likes_an_action_says_so(facts: CustomerFacts, action: int, answering: float, kind: float) -> None:
    """Customers who like an action answer positively, others negatively or not at all."""
    likes = response(facts, action, (0.0, answering, kind))
    dislikes = response(facts, action, (0.999_999, answering, kind))
    assert likes in {"click", "helpful", "implement"}
    assert dislikes in {"dismiss", "not_helpful", None}


def test_different_customers_favour_different_actions() -> None:
    """Different kinds of customers prefer different actions, so there is something to learn."""
    assert len(RECOMMENDATION_ACTIONS) == ACTIONS
    kinds = [
        CustomerFacts(purchases=2, spent=200.0, days_since_last=1.0),  # spends much
        CustomerFacts(purchases=2, spent=5.0, days_since_last=1.0),  # buys small things
        CustomerFacts(purchases=0, spent=0.0, days_since_last=60.0),  # has gone quiet
    ]
    favourites = {max(range(ACTIONS), key=lambda action, facts=facts: appeal(facts, action)) for facts in kinds}  # type: ignore[misc]
    assert len(favourites) == 3
