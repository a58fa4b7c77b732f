"""How diverse a data set is: how many users it has, and how even users, behavioural tiers and categories are. Pure.

Evenness is Shannon's entropy of the shares over its maximum (Pielou). A part with one tier or one category does not apply.
The other parts never make up for too few or too uneven users.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from modelkit.statistics.sketches import DatasetStatistics, distinct

USERS_FOR_FULL_DIVERSITY = 20  # fewer distinct users say little about all others


def diversity(statistics: DatasetStatistics) -> float | None:
    """Return the mean of the parts that apply, at most the users' part; None without users."""
    if not statistics.users:
        return None
    users = user_diversity(statistics)
    others = (evenness(statistics.tiers.values()), evenness(statistics.categories.values()))
    parts = [users, *(part for part in others if part is not None)]
    return min(users, sum(parts) / len(parts))


def user_diversity(statistics: DatasetStatistics) -> float:
    """Return distinct users over the number wanted (20, or the number of events if smaller), times their evenness."""
    wanted = min(USERS_FOR_FULL_DIVERSITY, statistics.counts.relevant)
    enough = min(distinct(statistics.users) / wanted, 1.0) if wanted else 0.0
    return enough * (user_evenness(statistics) or 1.0)


def user_evenness(statistics: DatasetStatistics) -> float | None:
    """Return how evenly users contributed what counts; None with fewer than two users.

    Users beyond the known heaviest ones are assumed to have contributed the rest in equal parts.
    """
    known = list(statistics.heaviest.values())
    total = max(statistics.counts.counted, sum(known))
    rest = total - sum(known)
    others = max(distinct(statistics.users) - len(known), 1.0) if rest else 0.0
    if len(known) + others < 2:  # noqa: PLR2004 - the smallest number that can be uneven
        return None
    entropy = _entropy(known, total) - (rest / total * math.log(rest / total / others) if rest else 0.0)
    return min(max(entropy / math.log(len(known) + others), 0.0), 1.0)


def largest_share(statistics: DatasetStatistics) -> float | None:
    """Return the largest share of one known user in what counts; None if nothing counts."""
    counted = statistics.counts.counted
    return max(statistics.heaviest.values(), default=0) / counted if counted else None


def evenness(counts: Collection[int]) -> float | None:
    """Return Shannon's entropy of the shares over its maximum, in 0..1; None with fewer than two."""
    if len(counts) < 2:  # noqa: PLR2004 - the smallest number that can be uneven
        return None
    return min(max(_entropy(counts, sum(counts)) / math.log(len(counts)), 0.0), 1.0)


def _entropy(counts: Collection[int], total: int) -> float:
    return -sum(count / total * math.log(count / total) for count in counts if count)
