"""A pane was closed: what one batch of one partition added to each model's data set."""

from __future__ import annotations

import msgspec

from schemas.messages.envelope import Message, OffsetRange


class DatasetCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of one data set in one pane. ``counted`` is what moves a data set towards its threshold.

    ``relevant`` is all valid new events that belong to the data set; ``fields_expected`` and ``fields_present``
    are sums over them and make completeness.
    """

    counted: int = 0
    relevant: int = 0
    duplicates: int = 0
    invalid: int = 0
    missing: int = 0
    inconsistent: int = 0
    anomalous: int = 0
    fields_expected: int = 0
    fields_present: int = 0


class PaneClosed(Message, frozen=True, kw_only=True, tag="PaneClosed"):
    """One batch was archived and counted. Carries no sketches; those stay in the table of panes."""

    range: OffsetRange
    records: int
    archived: int
    duplicates: int
    dead_lettered: int
    not_consented: int
    datasets: dict[str, DatasetCounts]
