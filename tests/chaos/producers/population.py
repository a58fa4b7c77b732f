"""A small population with realistic structure: users make purchases, answer recommendations, pursue goals, and are replaced.

The data is consistent, so its quality passes every gate: balances follow from amounts, a goal is created before its
outcome, a recommendation is seen before it is answered. No input or output; the time is passed in.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID, uuid5

import numpy as np

from fincoach_events.events import (
    AnyBehavioralEvent,
    GoalModified,
    PageViewed,
    ProductInteraction,
    RecommendationInteraction,
    TransactionCreated,
)
from fincoach_events.identifiers import new_event_id
from models.recommendation.actions import DEFAULT_ACTION_SET, RECOMMENDATION_ACTIONS

NAMESPACE = UUID("6c0d8ec5-3a64-5b1e-9f6c-0d7a5e1a2b90")
SOURCE = "chaos"
CATEGORIES = ("groceries", "transport", "health", "dine_out", "housing", "leisure")
Answer = Literal["click", "dismiss", "implement", "helpful", "not_helpful"]
ANSWERS: tuple[Answer, ...] = ("click", "dismiss", "implement", "helpful", "not_helpful")
TRANSACTIONS_OF_A_USER = 14
RECOMMENDATIONS_OF_A_USER = 3
CONSENT_RATIO = 0.97
_STEP = dt.timedelta(milliseconds=1)
Now = Callable[[], dt.datetime]


@dataclass(slots=True)
class _User:
    """One user: a temperament between 0 (saves) and 1 (spends), a balance, and the remaining steps."""

    user_id: UUID
    temperament: float
    consent: bool
    balance_minor: int = 250_000
    last_at: dt.datetime | None = None
    steps: list[Iterator[AnyBehavioralEvent]] = field(default_factory=list)


class Population:
    """The users of one producer. No other producer has them, so one connection keeps their order."""

    def __init__(self, generator: np.random.Generator, *, name: str, users: int, now: Now) -> None:
        self._generator = generator
        self._name = name
        self._now = now
        self._born = 0
        self._users = [self._new_user() for _ in range(users)]

    def next(self) -> AnyBehavioralEvent:
        """Return the next event of a random user."""
        while True:
            place = int(self._generator.integers(len(self._users)))
            user = self._users[place]
            if not user.steps:
                self._users[place] = self._new_user()
                continue
            strand = int(self._generator.integers(len(user.steps)))
            event = next(user.steps[strand], None)
            if event is not None:
                return event
            del user.steps[strand]

    def late(self) -> AnyBehavioralEvent:
        """Return an event from long ago: a page view of one of the users."""
        user = self._users[int(self._generator.integers(len(self._users)))]
        days = float(self._generator.uniform(40.0, 300.0))
        return PageViewed(
            event_id=new_event_id(),
            user_id=user.user_id,
            occurred_at=self._now() - dt.timedelta(days=days),
            consent=user.consent,
            source=SOURCE,
            page_url="/late",
        )

    def _new_user(self) -> _User:
        self._born += 1
        user = _User(
            user_id=uuid5(NAMESPACE, f"{self._name}:{self._born}"),
            temperament=float(self._generator.beta(0.6, 0.6)),
            consent=bool(self._generator.random() < CONSENT_RATIO),
        )
        user.steps = [self._purse(user), self._advice(user), self._goal(user), self._shop(user), self._pages(user)]
        return user

    def _envelope(self, user: _User) -> dict[str, Any]:
        now = self._now()
        user.last_at = now if user.last_at is None else max(now, user.last_at + _STEP)
        return {
            "event_id": new_event_id(),
            "user_id": user.user_id,
            "occurred_at": user.last_at,
            "consent": user.consent,
            "source": SOURCE,
        }

    def _purse(self, user: _User) -> Iterator[AnyBehavioralEvent]:
        for number in range(TRANSACTIONS_OF_A_USER):
            salary = number % 7 == 0
            scale = 300_000 if salary else 1_500 + 18_000 * user.temperament
            amount = 1 + int(self._generator.gamma(2.0, scale / 2.0))
            user.balance_minor += amount if salary else -amount
            favourite = int(user.temperament * len(CATEGORIES)) % len(CATEGORIES)
            drawn = favourite if self._generator.random() < 0.5 else int(self._generator.integers(len(CATEGORIES)))
            yield TransactionCreated(
                **self._envelope(user), amount_minor=amount, currency="EUR", category="salary" if salary else CATEGORIES[drawn],
                transaction_type="credit" if salary else "debit", merchant=f"merchant-{drawn}", city="Prague", country="CZ",
                balance_after_minor=user.balance_minor,
            )  # fmt: skip

    def _advice(self, user: _User) -> Iterator[AnyBehavioralEvent]:
        for number in range(RECOMMENDATIONS_OF_A_USER):
            about: dict[str, Any] = {
                "recommendation_id": f"{user.user_id}-{number}",
                "action_set": DEFAULT_ACTION_SET,
                "action": RECOMMENDATION_ACTIONS[int(self._generator.integers(len(RECOMMENDATION_ACTIONS)))],
                "propensity": 1.0 / len(RECOMMENDATION_ACTIONS),
            }
            yield RecommendationInteraction(**self._envelope(user), interaction_type="view", position=0, **about)
            answer = ANSWERS[int(self._generator.integers(len(ANSWERS)))]
            yield RecommendationInteraction(**self._envelope(user), interaction_type=answer, **about)

    def _goal(self, user: _User) -> Iterator[AnyBehavioralEvent]:
        target = int(self._generator.integers(20_000, 400_000))
        first = self._envelope(user)
        plan: dict[str, Any] = {
            "goal_id": f"{user.user_id}-goal",
            "goal_kind": "savings",
            "target_minor": target,
            "currency": "EUR",
            "due_at": first["occurred_at"] + dt.timedelta(days=20),
        }
        yield GoalModified(**first, interaction_type="create", **plan)
        yield GoalModified(**self._envelope(user), interaction_type="update", progress=0.5, **plan)
        achieved = self._generator.random() > 0.15 + 0.7 * user.temperament
        outcome: Literal["achieve", "fail"] = "achieve" if achieved else "fail"
        yield GoalModified(**self._envelope(user), interaction_type=outcome, **plan)

    def _shop(self, user: _User) -> Iterator[AnyBehavioralEvent]:
        product = f"product-{int(self._generator.integers(50))}"
        for step in ("view", "add_to_cart", "purchase"):
            yield ProductInteraction(
                **self._envelope(user), product_id=product, interaction_type=step, quantity=1, unit_price_minor=1_999, currency="EUR",
            )  # fmt: skip

    def _pages(self, user: _User) -> Iterator[AnyBehavioralEvent]:
        for number in range(3):
            yield PageViewed(
                **self._envelope(user), page_url=f"/page/{number}", session_id=f"{user.user_id}-1",
                duration_seconds=round(float(self._generator.exponential(20.0)), 1),
            )  # fmt: skip
