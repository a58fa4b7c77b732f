"""Up to which moment the events of a snapshot are known: each source of events has its own clock.

A partition that lags behind has not shown what happened since: that is unknown, not nothing. A label that looks ahead may
look no further than this.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from modelkit.training.interface import Snapshot

LEAST_SHARE = 100  # a partition with less than a hundredth of the rows says little about how far the others are


def known_spans(snapshot: Snapshot, event_type: str) -> dict[str, tuple[dt.datetime, dt.datetime]]:
    """Return for each source of events of one type the first moment, and the moment up to which all its partitions are known."""
    events = snapshot.kept
    ours = events.filter(pc.equal(events["event_type"], event_type))
    if ours.num_rows == 0:
        return {}
    bounds = ours.group_by(["source", "partition"]).aggregate(
        [("occurred_at", "min"), ("occurred_at", "max"), ("occurred_at", "count")]
    )
    grouped: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in bounds.to_pylist():
        grouped[row["source"]].append(row)
    return {source: _span(rows) for source, rows in sorted(grouped.items())}


def _span(rows: Sequence[Mapping[str, Any]]) -> tuple[dt.datetime, dt.datetime]:
    total = sum(row["occurred_at_count"] for row in rows)
    telling = [row for row in rows if row["occurred_at_count"] * LEAST_SHARE >= total]
    return min(row["occurred_at_min"] for row in rows), min(row["occurred_at_max"] for row in telling)
