"""How simulated customers answer recommendations. FROZEN: version 1 never changes; a better one is version 2 in its own file.

No public data set has feedback on personal-finance coaching. The customers and their purchases are real
(CDNOW); their answers are not. They follow the rule below, whose inputs are facts of the real purchases of the last
30 days. So there is a true pattern to learn: different customers favour different actions. The trainers know
nothing of this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

VERSION = 1
SOURCE = "simulated-host"

# In the order of schemas.vocabulary.RECOMMENDATION_ACTIONS.
ACTIONS = 5
_POSITIVE = (("click", 0.4), ("helpful", 0.3), ("implement", 0.3))
_NEGATIVE = (("dismiss", 0.6), ("not_helpful", 0.4))
# The share of customers who answer when they dislike an action; the others do not answer.
ANSWER_OF_UNIMPRESSED = 0.6


@dataclass(frozen=True, kw_only=True)
class CustomerFacts:
    """A host's own facts of a customer at one moment: the last 30 days, amounts in units of the currency."""

    purchases: int
    spent: float
    days_since_last: float


def appeal(facts: CustomerFacts, action: int) -> float:
    """Return the probability in 0..1 that the customer likes ``action``."""
    spent = min(facts.spent / 40.0, 1.0)
    active = min(facts.purchases / 2.0, 1.0)
    fresh = math.exp(-facts.days_since_last / 20.0)
    return (
        0.25,
        0.05 + 0.85 * spent * fresh,
        0.10 + 0.50 * active * (1.0 - spent),
        0.05 + 0.75 * (1.0 - fresh),
        0.10 + 0.75 * fresh * (1.0 - spent),
    )[action]


def response(facts: CustomerFacts, action: int, draws: tuple[float, float, float]) -> str | None:
    """Return the customer's answer to ``action``, or None for no answer; ``draws`` are three uniform numbers in [0, 1)."""
    liking, answering, kind = draws
    if liking < appeal(facts, action):
        return _pick(_POSITIVE, kind)
    return _pick(_NEGATIVE, kind) if answering < ANSWER_OF_UNIMPRESSED else None


def _pick(shares: tuple[tuple[str, float], ...], draw: float) -> str:
    reached = 0.0
    for name, share in shares:
        reached += share
        if draw < reached:
            return name
    return shares[-1][0]
