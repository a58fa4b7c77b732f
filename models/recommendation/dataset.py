"""What counts for recommendations: answers to what was shown. Pure.

An answer is a click, a dismissal, an implementation, "helpful" or "not helpful"; it counts. Views without an answer and
time on a page belong to the data set and never count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

from fincoach_events.events import PageViewed, RecommendationInteraction
from modelkit.statistics.consistency import FIRST_ANSWER
from modelkit.statistics.dataset import DatasetDefinition
from modelkit.statistics.events import FoldedEvent, NewEvents, heaviest_of, statistics_of
from modelkit.statistics.sketches import DatasetStatistics, bounded_categories, merged
from schemas.messages.progress import DatasetCounts
from schemas.vocabulary import FEEDBACK_INTERACTIONS

LONGEST_READING_SECONDS = 1_800  # a page that was left open is not read


def aggregate(events: NewEvents) -> DatasetStatistics | None:
    """Return what a batch adds; None where it has neither interactions nor read pages."""
    interactions = events.of(RecommendationInteraction)
    feedback = aggregate_recommendation_feedback(interactions) if interactions else None
    read = aggregate_page_views(events.of(PageViewed))
    if not read.page_views:
        return feedback
    pages = DatasetStatistics(counts=read)
    return merged(feedback, pages) if feedback else pages


def aggregate_recommendation_feedback(events: Sequence[FoldedEvent]) -> DatasetStatistics:
    """Return what interactions (at least one) add: answers count, views belong to the set without counting."""
    interactions = cast("list[RecommendationInteraction]", [folded.event for folded in events])
    answers = [event for event in interactions if event.interaction_type in FEEDBACK_INTERACTIONS]
    return statistics_of(
        events,
        users=Counter([event.user_id.int for event in interactions]),
        counts={
            "counted": len(answers),
            "fields_expected": len(interactions),
            "fields_present": sum(map(is_linked, interactions)),
            "out_of_range": sum(map(is_out_of_range, interactions)),
            "views": len(interactions) - len(answers),
            "views_answered": sum(folded.findings & FIRST_ANSWER != 0 for folded in events),
        },
        categories=bounded_categories(Counter(event.interaction_type for event in answers)),
        heaviest=heaviest_of(Counter([event.user_id.int for event in answers])),
    )


def aggregate_page_views(events: Sequence[FoldedEvent]) -> DatasetCounts:
    """Return what page views that say how long they lasted add: implicit feedback, and no answer."""
    views = cast("list[PageViewed]", [folded.event for folded in events])
    seconds = [event.duration_seconds for event in views if event.duration_seconds is not None]
    read = sum(round(min(duration, LONGEST_READING_SECONDS)) for duration in seconds)
    return DatasetCounts(page_views=len(seconds), page_seconds=read)


def is_linked(event: RecommendationInteraction) -> bool:
    """Say whether it is known what was shown: by our prediction, or by the action of another system's log."""
    return event.prediction_id is not None or event.action is not None


def is_out_of_range(event: RecommendationInteraction) -> bool:
    """Say whether the event claims that what was shown had no chance of being shown."""
    return event.propensity == 0.0


DATASET = DatasetDefinition(event_types=("recommendation_interaction",), aggregate=aggregate)
