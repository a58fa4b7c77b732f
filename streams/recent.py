"""Which events were archived lately: a memory of fixed size that may be wrong in both directions, and costs next to nothing.

Whoever stands in it is looked up before the COPY; whoever is missing is found by the COPY itself. So an error costs
time, never exactness.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SLOTS_LOG = 17  # 131,072 events in 1 MiB for each partition: some minutes at the usual rates
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Knuth's: spreads ids that differ in a few bits only
_SHIFT = np.uint64(64 - SLOTS_LOG)


class RecentEvents:
    """Remembers event ids, in each slot the newest one that belongs there."""

    def __init__(self) -> None:
        self._slots: NDArray[np.uint64] = np.zeros(1 << SLOTS_LOG, dtype=np.uint64)

    def seen(self, event_ids: Sequence[bytes]) -> list[int]:
        """Return the places in ``event_ids`` (16 bytes each) of those that are remembered."""
        prints = _prints(event_ids)
        return np.flatnonzero(self._slots[_places(prints)] == prints).tolist()

    def remember(self, event_ids: Sequence[bytes]) -> None:
        """Remember ``event_ids``."""
        prints = _prints(event_ids)
        self._slots[_places(prints)] = prints


def _prints(event_ids: Sequence[bytes]) -> NDArray[np.uint64]:
    """The lower half of a UUID is random, or a digest."""
    return np.frombuffer(b"".join(event_ids), dtype=np.uint64)[1::2] * _MULTIPLIER


def _places(prints: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return prints >> _SHIFT
