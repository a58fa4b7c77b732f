"""What users did without answering: they saw a recommendation, gave no answer, and stayed on its page for a while.

These signals are recorded as what they are. They may teach a little, by weights of their own that are together smaller than
those of any answer; they are never an answer, and no judgement looks at them.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt

from fincoach_events.events import AnyBehavioralEvent, PageViewed, RecommendationInteraction
from modelkit.training.interface import Snapshot

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

UNANSWERED_VIEW, TIME_ON_PAGE = "unanswered_view", "time_on_page"
ATTENTIVE_SECONDS = 60.0  # a longer stay shows no more interest: tabs are left open
SAME_VISIT = dt.timedelta(minutes=30)


class ImplicitSignals(NamedTuple):
    """Of logged recommendations (n,): seen and not answered; seconds on the page where each was seen (NaN: nobody measured)."""

    is_unanswered: BoolArray
    page_seconds: FloatArray

    def taught(self, weights: Mapping[str, float]) -> FloatArray:
        """Return what the signals add to the rewards that a fit sees, (n,); nothing where an answer came."""
        attention = np.clip(np.nan_to_num(self.page_seconds) / ATTENTIVE_SECONDS, 0.0, 1.0)
        worth = weights.get(UNANSWERED_VIEW, 0.0) + weights.get(TIME_ON_PAGE, 0.0) * attention
        return np.where(self.is_unanswered, worth, 0.0)


def page_seconds(snapshot: Snapshot, prediction_ids: Sequence[bytes], user_ids: Iterable[bytes]) -> FloatArray:
    """Return for each served recommendation (n,) how long its user stayed on the page where it was seen; NaN where unknown."""
    stays: dict[UUID, float] = {}
    users = sorted({UUID(bytes=user_id) for user_id in user_ids})
    for history in snapshot.among(users).users("page_view", "recommendation_interaction"):
        stays |= stays_of(history.clean)
    return np.array([stays.get(UUID(bytes=name), np.nan) for name in prediction_ids], dtype=np.float64)


def stays_of(events: Sequence[AnyBehavioralEvent]) -> dict[UUID, float]:
    """Return the seconds on the page of each recommendation that one user saw, by its prediction. Pure.

    A page view belongs to a recommendation that was seen on the same page within half an hour, in the same session where both
    name one; of several the longest counts.
    """
    pages: dict[str, list[PageViewed]] = defaultdict(list)
    for event in events:
        if isinstance(event, PageViewed) and event.duration_seconds is not None:
            pages[event.page_url].append(event)
    found: dict[UUID, float] = {}
    for event in events if pages else ():
        if not isinstance(event, RecommendationInteraction) or event.interaction_type != "view":
            continue
        lengths = [page.duration_seconds or 0.0 for page in pages.get(event.page_url or "", ()) if _is_of(page, event)]
        if lengths and event.prediction_id is not None:
            found[event.prediction_id] = max(lengths)
    return found


def _is_of(page: PageViewed, view: RecommendationInteraction) -> bool:
    if abs(page.occurred_at - view.occurred_at) > SAME_VISIT:
        return False
    return None in {page.session_id, view.session_id} or page.session_id == view.session_id
