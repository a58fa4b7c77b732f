"""When to stop asking a dependency that does not answer. Pure: the caller brings the time."""

from __future__ import annotations


class CircuitBreaker:
    """Opens after ``failures`` in a row; while open it lets one trial through every ``pause_seconds``.

    Without it each request would wait for the whole time-out while the database is away.
    """

    def __init__(self, *, failures: int = 3, pause_seconds: float = 1.0) -> None:
        self._limit = failures
        self._pause_seconds = pause_seconds
        self._failures = 0
        self._next_trial = 0.0

    @property
    def is_open(self) -> bool:
        """Say whether the dependency counts as away."""
        return self._failures >= self._limit

    def allows(self, *, now: float) -> bool:
        """Return True when the dependency may be asked now; while open, True is returned once per pause."""
        if not self.is_open:
            return True
        if now < self._next_trial:
            return False
        self._next_trial = now + self._pause_seconds
        return True

    def succeeded(self) -> None:
        """Close: the dependency answers."""
        self._failures = 0

    def failed(self, *, now: float) -> None:
        """Count a failure."""
        self._failures += 1
        if self._failures == self._limit:
            self._next_trial = now + self._pause_seconds
