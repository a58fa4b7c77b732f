"""Goals whose ends are known: monthly budgets of users who each spend at a pace of their own."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable

import numpy as np

from fincoach_events.events import AnyBehavioralEvent, GoalModified
from fincoach_events.identifiers import event_id_from_key, user_id_from_name
from tests.training_factories import FIRST_DAY, transaction

MONTH = 30.0
Outcome = Callable[[float, np.random.Generator], bool]


def goal_step(user: str, goal: str, step: str, day: float, **fields: object) -> GoalModified:
    """Return one step of a goal of a user."""
    given: dict[str, object] = {
        "event_id": event_id_from_key(f"{user}/{goal}/{step}/{day}"), "user_id": user_id_from_name("test", user),
        "occurred_at": FIRST_DAY + dt.timedelta(days=day), "consent": True, "source": "replay:test", "goal_id": goal,
        "interaction_type": step,
    }  # fmt: skip
    return GoalModified(**{**given, **fields})  # type: ignore[arg-type]


def is_kept(spent_share: float, _generator: np.random.Generator) -> bool:
    """Say how a budget really ends."""
    return spent_share <= 1.0


def is_chance(_spent_share: float, generator: np.random.Generator) -> bool:
    """Say how a budget ends where nothing can be learned."""
    return bool(generator.random() < 0.6)


def budgets(*, users: int, months: int, outcome: Outcome = is_kept, seed: int = 0) -> list[AnyBehavioralEvent]:
    """Return monthly budgets of users who each spend at a pace of their own, and how they end."""
    generator = np.random.default_rng(seed)
    events: list[AnyBehavioralEvent] = []
    for user, month in itertools.product(range(users), range(months)):
        name, goal, start = f"{seed}-saver-{user}", f"budget-{user}-{month}", month * MONTH
        plan = {
            "goal_kind": "budget",
            "target_minor": 10_000,
            "currency": "USD",
            "due_at": FIRST_DAY + dt.timedelta(days=start + MONTH),
        }
        events.append(goal_step(name, goal, "create", start, **plan))
        pace = generator.lognormal(np.log(900), 0.5)
        amounts = [round(pace * generator.lognormal(0.0, 0.3)) for _ in range(10)]
        events += [transaction(name, start + 1.5 + 2.8 * place, amount) for place, amount in enumerate(amounts)]
        step = "achieve" if outcome(sum(amounts) / 10_000, generator) else "fail"
        events.append(goal_step(name, goal, step, start + MONTH, **plan))
    return sorted(events, key=lambda event: (event.occurred_at, event.event_id))
