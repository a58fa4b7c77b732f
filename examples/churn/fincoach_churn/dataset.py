"""What counts for churn: transactions, each one. Pure.

An outcome is known when 60 days have passed, which no event says. Transactions move the clock of their source on, so outcomes
become known as transactions come; the trainer looks at that clock.
"""

from __future__ import annotations

from modelkit.statistics.dataset import DatasetDefinition
from modelkit.statistics.events import NewEvents
from modelkit.statistics.sketches import DatasetStatistics


def aggregate_purchases(events: NewEvents) -> DatasetStatistics | None:
    """Return what a batch adds; None where it has no transactions."""
    return events.transactions  # made once a batch, whoever asks for it


DATASET = DatasetDefinition(event_types=("transaction_creation",), aggregate=aggregate_purchases)
