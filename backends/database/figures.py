"""Which figures a performance column can hold."""

from __future__ import annotations

LARGEST_PERFORMANCE = 99.9999  # NUMERIC(6,4)


def storable_performance(figure: float | None) -> float | None:
    """Return ``figure``, or None if the column cannot hold it; metrics and metadata have the exact one."""
    return figure if figure is not None and abs(figure) <= LARGEST_PERFORMANCE else None
