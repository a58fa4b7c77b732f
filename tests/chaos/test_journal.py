"""The mix draws what it claims: what a journal calls valid is taken, and nothing else."""

from __future__ import annotations

import datetime as dt

import msgspec
import numpy as np
import pytest

from backends.clock import ManualClock
from streams.batches.events import decode_storable_event
from streams.batches.intake import take_in
from tests.chaos.producers.mix import CLIENT_MIX, RAW_MIX, Drawn, Mix
from tests.chaos.producers.population import Population

NOON = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
DRAWS = 6_000


class Fetched(msgspec.Struct):
    """A record as a worker fetches it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def population(seed: int = 1) -> Population:
    """Return a population whose time advances by a minute at each look."""
    clock = ManualClock(NOON)

    def now() -> dt.datetime:
        clock.advance(60.0)
        return clock.now()

    return Population(np.random.default_rng(seed), name="test", users=50, now=now)


def draws(shares: dict[str, float], *, count: int = DRAWS) -> list[Drawn]:
    """Return what a producer would send."""
    mix = Mix(np.random.default_rng(2), population(), shares, foreign=lambda: [first.value or b""])
    first = Mix(np.random.default_rng(3), population(3), {"good": 1.0}).next()
    return [mix.next() for _ in range(count)]


@pytest.mark.parametrize("shares", [CLIENT_MIX, RAW_MIX])
def test_what_is_called_valid_is_taken_and_nothing_else(shares: dict[str, float]) -> None:
    """The product accepts what the mix calls valid, and nothing else."""
    timestamp = int((NOON + dt.timedelta(days=30)).timestamp() * 1000)
    for offset, drawn in enumerate(draws(shares)):
        intake = take_in([Fetched(offset, timestamp, drawn.key, drawn.value)], decode_storable_event)
        assert bool(intake.accepted) == drawn.valid, drawn
