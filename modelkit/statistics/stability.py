"""The population stability index: how far shares have moved from what they were. Pure.

PSI = sum over bins of (p - q) * ln(p / q), q the shares before, p those of now. Usual reading: 0.1 is a little, 0.25 much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTABLE_PSI = 0.25  # from here on a population has moved


def stability_index(before: Sequence[float], now: Sequence[float], *, least: tuple[float, float]) -> float:
    """Return the index of two lists of shares; a smaller share counts as ``least`` (before, now), which an empty bin needs."""
    pairs = [(max(q, least[0]), max(p, least[1])) for q, p in zip(before, now, strict=True)]
    return sum((p - q) * math.log(p / q) for q, p in pairs)
