"""A closed pane: what one batch of one partition added to each model's data set."""

from __future__ import annotations

import msgspec

from schemas.messages.envelope import Message, OffsetRange


class DatasetCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of one data set in one pane. ``counted`` is what counts towards the threshold.

    ``relevant`` counts all valid new events of the data set. ``fields_expected`` and ``fields_present`` are sums over
    them and yield completeness. ``anomalous`` is zero in a pane: anomalies are judged from the whole data set's sketches.

    Attributes:
        out_of_range: archived events with an impossible value, such as an amount of zero.
        inconsistent: events that contradict their user's history in at least one of the next five ways.
        without_view: answers to a recommendation that the user was never shown.
        before_creation: goals achieved or failed before they were created, or that never were.
        balance_broken: transactions whose balance does not follow from earlier ones.
        currency_changed: transactions in another currency than the user's usual one.
        time_reversed: events earlier than others already seen in their session.
        views: recommendations shown. This and the next three are implicit feedback, never in ``counted``.
        views_answered: first answers to shown recommendations that the user state remembers.
        page_views: page views with a duration.
        page_seconds: sum of these durations, each capped at half an hour.
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
    out_of_range: int = 0
    without_view: int = 0
    before_creation: int = 0
    balance_broken: int = 0
    currency_changed: int = 0
    time_reversed: int = 0
    views: int = 0
    views_answered: int = 0
    page_views: int = 0
    page_seconds: int = 0


class PaneClosed(Message, frozen=True, kw_only=True, tag="PaneClosed"):
    """One batch was archived and counted. Its sketches stay in the table ``panes``."""

    range: OffsetRange
    records: int
    archived: int
    duplicates: int
    dead_lettered: int
    not_consented: int
    datasets: dict[str, DatasetCounts]
