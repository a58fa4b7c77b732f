"""Which panes make an epoch: an open data set takes panes in closing order until the rule holds.

An epoch consists of whole panes. The panes of one partition are taken without a gap. The first pane after which the rule
holds is the last one of the epoch.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import msgspec

from backends.database.repositories.datasets import (
    ArrivalRow,
    CircumstancesRow,
    Cursor,
    OpenDataset,
    PaneSlice,
    Standing,
)
from modelkit.statistics.dataset import EMPTY_STATISTICS
from modelkit.statistics.sketches import DatasetStatistics, distinct, excess, merged
from schemas.errors import FinCoachError
from schemas.messages.envelope import OffsetRange
from schemas.thresholds import ThresholdRule
from schemas.topics import BEHAVIORAL_EVENTS
from schemas.vocabulary import ThresholdDecision
from streams.epochs.arrivals import ArrivalPattern, expected_ratio, observed
from streams.epochs.blackouts import is_blacked_out
from streams.epochs.drift import population_stability
from streams.epochs.thresholds import Circumstances, Evaluation, adapted, decide, effective_count
from streams.panes import decode_pane, decode_statistics
from streams.quality.assessment import QualityAssessment

MOST_PANES = 500  # of each partition in one evaluation; a longer backlog takes several
EARLIER_EPOCHS = 3  # drift compares with the last three data sets
# Far from its threshold a data set is not evaluated with every pane. A pane waits at most this long, or until this many wait.
LONGEST_WAIT_SECONDS = 1.0
MOST_WAITING_PANES = 200
NEAR_RATIO = 0.8  # of the threshold; from here on each new pane is evaluated, since the threshold itself may fall

Judge = Callable[[DatasetStatistics], QualityAssessment | None]


class PaneGapError(FinCoachError):
    """A partition's panes are not contiguous: one is missing, or two overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEpoch:
    """An open data set with everything besides its panes that decides about it."""

    dataset: OpenDataset
    rule: ThresholdRule
    circumstances: Circumstances
    arrivals: ArrivalPattern | None = None
    earlier: DatasetStatistics = EMPTY_STATISTICS

    @classmethod
    def read(cls, dataset: OpenDataset, row: CircumstancesRow, *, earlier: DatasetStatistics) -> OpenEpoch:
        """Return the open epoch from its rows; ``earlier`` holds the statistics of earlier data sets."""
        arrivals = ArrivalPattern(**row.arrivals._asdict()) if row.arrivals else None
        is_dated = row.moment is not None and dataset.created_at is not None
        return cls(
            dataset=dataset,
            rule=row.rule,
            circumstances=Circumstances(
                learned=row.learned,
                first=row.first,
                arrivals_ratio=expected_ratio(arrivals, row.moment) if row.moment else None,
                cost_seconds=row.cost_seconds,
                first_cost_seconds=row.first_cost_seconds,
                age_seconds=max((row.moment - dataset.created_at).total_seconds(), 0.0) if is_dated else None,  # type: ignore[operator]
                seconds_since_epoch=row.seconds_since_epoch,
                moment=row.moment,
                review=dataset.review,
                reviewed_by=dataset.reviewed_by,
            ),
            arrivals=arrivals,
            earlier=earlier,
        )


@dataclass(slots=True, kw_only=True)
class DatasetProgress:
    """An open data set after taking panes: its statistics, cursors and evaluation.

    ``arrivals`` is None if nothing arrived; ``is_complete`` is true if no pane is left to take.
    """

    dataset: OpenDataset
    cursors: dict[int, Cursor]
    statistics: DatasetStatistics
    quality: QualityAssessment | None
    evaluation: Evaluation
    arrivals: ArrivalRow | None = None
    taken: int = 0
    is_complete: bool = True

    def ranges(self) -> tuple[OffsetRange, ...]:
        """Return the offsets of the open epoch, by partition."""
        return collected_ranges(self.cursors)


def collected_ranges(cursors: Mapping[int, Cursor]) -> tuple[OffsetRange, ...]:
    """Return the offsets that an open epoch has taken, by partition."""
    return tuple(
        OffsetRange(
            topic=BEHAVIORAL_EVENTS.name,
            generation=BEHAVIORAL_EVENTS.generation,
            partition=partition,
            from_offset=cursor.epoch_from_offset,
            to_offset=cursor.next_offset,
        )
        for partition, cursor in sorted(cursors.items())
        if cursor.next_offset > cursor.epoch_from_offset
    )


def begin_next_epoch(cursors: Mapping[int, Cursor]) -> None:
    """Move ``cursors`` so that the next epoch begins where this one ends."""
    for cursor in cursors.values():
        cursor.epoch_from_offset = cursor.next_offset


def take_panes(
    epoch: OpenEpoch, cursors: dict[int, Cursor], panes: Sequence[PaneSlice], *, model_type: str, judge: Judge
) -> DatasetProgress:
    """Take ``panes`` into ``epoch`` up to the first after which the rule holds, and move ``cursors``.

    Raises:
        PaneGapError: a partition's panes are not contiguous.
    """
    statistics = decode_statistics(epoch.dataset.accumulated)
    progress = _judged(epoch, cursors, statistics, judge=judge) if _reaches(epoch, statistics) else None
    if progress is not None and progress.evaluation.fired:
        progress.is_complete = False
        return progress
    taken, arrivals = 0, epoch.arrivals
    ordered, is_whole = in_order(panes, most=MOST_PANES)
    for pane in ordered:
        _move(cursors[pane.partition], pane)
        taken += 1
        added = decode_pane(pane.sketches).datasets.get(model_type) if pane.sketches else None
        if added is None:
            continue
        statistics = merged(statistics, added)
        arrivals = observed(arrivals, pane.closed_at, added.counts.counted)
        if _reaches(epoch, statistics):
            progress = _judged(epoch, cursors, statistics, judge=judge)
            if progress.evaluation.fired:
                break
    if progress is None or progress.statistics is not statistics:
        progress = _judged(epoch, cursors, statistics, judge=judge)
    progress.taken = taken
    progress.is_complete = is_whole and taken == len(ordered)
    if arrivals is not None and arrivals is not epoch.arrivals:
        progress.arrivals = ArrivalRow(**msgspec.structs.asdict(arrivals))
    return progress


def in_order(panes: Iterable[PaneSlice], *, most: int) -> tuple[list[PaneSlice], bool]:
    """Return panes in closing order, those of a partition by offset, and whether these are all.

    ``panes`` must be ordered by offset within a partition. If ``most`` panes of a partition were read, it may have more, and
    one of those may precede later panes of others. Everything after its last pane is then left for the next evaluation.
    """
    by_partition: dict[int, list[PaneSlice]] = {}
    for pane in panes:
        by_partition.setdefault(pane.partition, []).append(pane)
    last_read = {partition: group[-1] for partition, group in by_partition.items() if len(group) >= most}
    ordered: list[PaneSlice] = []
    for pane in heapq.merge(
        *by_partition.values(), key=lambda item: (item.closed_at, item.partition, item.from_offset)
    ):
        ordered.append(pane)
        if last_read.get(pane.partition) is pane:
            break
    return ordered, not last_read


def is_due(standing: Standing) -> bool:
    """Return whether a data set is due for an evaluation. One that cannot fire lets its panes collect for a while."""
    if standing.panes >= MOST_WAITING_PANES or (standing.panes and standing.idle_seconds >= LONGEST_WAIT_SECONDS):
        return True
    match standing.decision:
        case ThresholdDecision.COOLING_DOWN:
            return (standing.seconds_since_epoch or 0.0) >= standing.cool_down_seconds
        case ThresholdDecision.IN_BLACKOUT:
            return not is_blacked_out(standing.blackouts, standing.moment)
        case ThresholdDecision.WAITING_FOR_QUALITY | ThresholdDecision.QUARANTINED:
            return False
    is_aged = standing.max_age_seconds is not None and standing.age_seconds >= standing.max_age_seconds
    near = ThresholdRule(threshold=standing.configured).aged_threshold() if is_aged else NEAR_RATIO * standing.threshold
    is_news = bool(standing.panes) or is_aged or standing.decision is None
    return is_news and standing.data_count + standing.counted >= near


def earlier_statistics(accumulated: Iterable[bytes]) -> DatasetStatistics:
    """Return the merged statistics of earlier data sets."""
    return reduce(merged, map(decode_statistics, accumulated), EMPTY_STATISTICS)


def _judged(
    epoch: OpenEpoch, cursors: dict[int, Cursor], statistics: DatasetStatistics, *, judge: Judge
) -> DatasetProgress:
    quality = judge(statistics)
    evaluation = decide(
        epoch.rule,
        _with_drift(epoch, statistics),
        counted=statistics.counts.counted,
        quality=quality,
        users=_users(statistics),
        excess=lambda cap: excess(statistics.heaviest, cap),
    )
    return DatasetProgress(
        dataset=epoch.dataset, cursors=cursors, statistics=statistics, quality=quality, evaluation=evaluation
    )


def _reaches(epoch: OpenEpoch, statistics: DatasetStatistics) -> bool:
    """Whether the count suffices. Quality is judged only then, because it is costly."""
    counted = statistics.counts.counted
    if counted < min(epoch.rule.bounds()[0], epoch.rule.aged_threshold()):
        return False
    threshold = adapted(epoch.rule, _with_drift(epoch, statistics)).threshold
    return counted >= threshold and threshold <= effective_count(
        epoch.rule,
        threshold,
        counted=counted,
        users=_users(statistics),
        excess=lambda cap: excess(statistics.heaviest, cap),
    )


def _with_drift(epoch: OpenEpoch, statistics: DatasetStatistics) -> Circumstances:
    if not epoch.rule.adaptive:
        return epoch.circumstances
    return msgspec.structs.replace(epoch.circumstances, psi=population_stability(epoch.earlier, statistics))


def _users(statistics: DatasetStatistics) -> int:
    """Return how many users gave the counted data points: exact while counters hold them all, else an estimate of all users."""
    heaviest = statistics.heaviest
    if sum(heaviest.values()) == statistics.counts.counted:
        return len(heaviest)
    return round(distinct(statistics.users))


def _move(cursor: Cursor, pane: PaneSlice) -> None:
    if pane.from_offset != cursor.next_offset:
        message = (
            f"partition {pane.partition}: the next pane begins at {pane.from_offset}, but the last one taken ended at "
            f"{cursor.next_offset}"
        )
        raise PaneGapError(message)
    cursor.next_offset = pane.to_offset
