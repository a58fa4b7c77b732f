"""What counts for spending: transactions, each one. Pure."""

from __future__ import annotations

from modelkit.statistics.dataset import DatasetDefinition
from modelkit.statistics.events import NewEvents
from modelkit.statistics.sketches import DatasetStatistics


def aggregate_user_transactions(events: NewEvents) -> DatasetStatistics | None:
    """Return what a batch adds; None where it has no transactions."""
    return events.transactions


DATASET = DatasetDefinition(event_types=("transaction_creation",), aggregate=aggregate_user_transactions)
