"""Whether an event fits what is known of its user: cheap checks against the state before the event. Pure.

Only what the state remembers can be checked: shown and implemented recommendations, goals, the balance after the
latest transaction. An event that fits nothing is still archived and counted; it lowers the consistency score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fincoach_events.events import AnyBehavioralEvent, GoalModified, RecommendationInteraction, TransactionCreated
from models.features.state import FEEDBACK_KINDS, milliseconds
from schemas.vocabulary import GOAL_OUTCOMES

if TYPE_CHECKING:
    from models.features.state import UserState

_VIEWS = FEEDBACK_KINDS.index("view")


def is_inconsistent(state: UserState | None, event: AnyBehavioralEvent) -> bool:
    """Say whether ``event`` contradicts ``state``, the user's state before it (None for a new user)."""
    if isinstance(event, TransactionCreated):
        return state is not None and balance_chain_broken(state, event)
    if isinstance(event, GoalModified):
        return outcome_before_creation(state, event)
    if isinstance(event, RecommendationInteraction):
        return implemented_without_view(state, event)
    return False


def implemented_without_view(state: UserState | None, event: RecommendationInteraction) -> bool:
    """A recommendation is implemented by a user to whom none was ever shown; one view may be implemented several times."""
    if event.interaction_type != "implement":
        return False
    return state is None or state.feedback[_VIEWS] == 0


def outcome_before_creation(state: UserState | None, event: GoalModified) -> bool:
    """A goal is achieved or failed that nobody has heard of."""
    if event.interaction_type not in GOAL_OUTCOMES:
        return False
    return state is None or all(goal.goal_id != event.goal_id for goal in state.goals)


def balance_chain_broken(state: UserState, event: TransactionCreated) -> bool:
    """The balance after this transaction is not the balance before it plus its amount; late events are not judged."""
    if event.balance_after_minor is None or not state.recent:
        return False
    last = state.recent[-1]
    if last[4] is None or last[0] >= milliseconds(event.occurred_at):
        return False
    signed = event.amount_minor if event.transaction_type == "credit" else -event.amount_minor
    return last[4] + signed != event.balance_after_minor
