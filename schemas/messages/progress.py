"""A pane was closed: what one batch of one partition added to each model's data set."""

from __future__ import annotations

import msgspec

from schemas.messages.envelope import Message, OffsetRange


class DatasetCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of one data set in one pane. ``counted`` is what moves a data set towards its threshold.

    ``relevant`` is all valid new events that belong to the data set; ``fields_expected`` and ``fields_present``
    are sums over them and make completeness. ``anomalous`` is judged of a whole data set from its sketches and
    stays nought in a pane.

    Attributes:
        out_of_range: archived events with a value that cannot be, such as an amount of nought.
        inconsistent: events that contradict their user's history in at least one of the five ways that follow.
        without_view: answers to a recommendation that the user was never shown.
        before_creation: goals achieved or failed that were not created, or only later.
        balance_broken: transactions after which the balance is not what the ones before it lead to.
        currency_changed: transactions in another currency than the user's.
        time_reversed: events earlier than what their session held already.
        views: recommendations shown. Implicit feedback, as the next three: never in ``counted``.
        views_answered: of the shown recommendations that the state remembers, those answered for the first time.
        page_views: page views that say how long they lasted.
        page_seconds: their time on the page, each cut at half an hour.
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
    """One batch was archived and counted. Carries no sketches; those stay in the table of panes."""

    range: OffsetRange
    records: int
    archived: int
    duplicates: int
    dead_lettered: int
    not_consented: int
    datasets: dict[str, DatasetCounts]
