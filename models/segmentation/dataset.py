"""What counts for segmentation: users whose history has become long enough. Pure."""

from __future__ import annotations

from collections import Counter

import msgspec

from fincoach_events.events import TransactionCreated
from modelkit.statistics.dataset import DatasetDefinition
from modelkit.statistics.events import NewEvents, heaviest_of
from modelkit.statistics.sketches import DatasetStatistics

SUFFICIENT_TRANSACTIONS = 10  # a user with as many has "sufficient history"


def aggregate_user_segments(events: NewEvents) -> DatasetStatistics | None:
    """Return what a batch adds: a user counts once, with the transaction that suffices; None without transactions.

    All else is what transactions add to any data set.
    """
    basis = events.transactions
    if basis is None:
        return None
    crossed = [
        event.user_id.int
        for event, _, before, after, _ in events.of(TransactionCreated)
        if before < SUFFICIENT_TRANSACTIONS <= after
    ]
    counts = msgspec.structs.replace(basis.counts, counted=len(crossed))
    return msgspec.structs.replace(basis, counts=counts, heaviest=heaviest_of(Counter(crossed)))


DATASET = DatasetDefinition(event_types=("transaction_creation",), aggregate=aggregate_user_segments)
