"""Remembers which events were archived recently, in a fixed size and at almost no cost. It may be wrong in both directions.

Events found in it are looked up before the COPY; a repeat that it misses is found by the COPY itself. An error thus costs
time, never exactness.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# 131,072 events in 1 MiB for each partition, some minutes at the usual rates. With eight places in each bucket, one in a
# thousand of the latest 30,000 is missed; with one place it would be one in ten.
BUCKETS_LOG = 14
PLACES = 8
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplier; it spreads ids that differ in only a few bits
_SHIFT = np.uint64(64 - BUCKETS_LOG)


class RecentEvents:
    """Remembers event ids: the newest ones of each bucket."""

    def __init__(self) -> None:
        self._prints: NDArray[np.uint64] = np.zeros((1 << BUCKETS_LOG, PLACES), dtype=np.uint64)
        self._next: NDArray[np.uint8] = np.zeros(1 << BUCKETS_LOG, dtype=np.uint8)

    def seen(self, event_ids: Sequence[bytes]) -> list[int]:
        """Return the positions in ``event_ids`` (16 bytes each) of those that are remembered."""
        prints = _prints(event_ids)
        found = (self._prints[_buckets(prints)] == prints[:, None]).any(axis=1)
        return [int(place) for place in np.flatnonzero(found)]

    def remember(self, event_ids: Sequence[bytes]) -> None:
        """Remember ``event_ids``; the oldest ones of a full bucket are forgotten."""
        prints = _prints(event_ids)
        buckets = _buckets(prints)
        order = np.argsort(buckets, kind="stable")
        ordered = buckets[order]
        places = (self._next[ordered] + _ranks(ordered)) % PLACES
        self._prints[ordered, places] = prints[order]
        self._next[ordered] = places + 1  # of several in one bucket, the last assignment stays


def _ranks(ordered: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the position of each element among its equals."""
    places = np.arange(len(ordered))
    begins = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    ranks: NDArray[np.int64] = places - np.maximum.accumulate(np.where(begins, places, 0))
    return ranks


def _prints(event_ids: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return the spread lower halves of the ids, since the lower half of a UUID is random, or a digest."""
    return np.frombuffer(b"".join(event_ids), dtype=np.uint64)[1::2] * _MULTIPLIER


def _buckets(prints: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the bucket of each print as 16 bits, which numpy sorts ten times as fast (radix sort)."""
    return (prints >> _SHIFT).astype(np.uint16)
