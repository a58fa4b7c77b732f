"""Limits of dead letters per producer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.batches.dead_letter_limits import LimitPolicy, LimitWindow, Tally

POLICY = LimitPolicy(ratio=0.25, consecutive=10, least_records=20, window_seconds=60)


def judged(window: LimitWindow, *tallies: Tally, producer: str = "shop", start: float = 0.0) -> list[bool]:
    """Return for each tally, a second apart, whether a limit is exceeded."""
    return [bool(window.take(0, number, {producer: tally}, now=start + number)) for number, tally in enumerate(tallies)]


@pytest.mark.parametrize(
    ("tallies", "exceeded"),
    [
        pytest.param([Tally(9, 0, 9)], [False], id="under both limits"),
        pytest.param([Tally(10, 0, 10)], [True], id="in one batch"),
        pytest.param([Tally(5, 0, 5), Tally(5, 0, 5)], [False, True], id="over batches"),
        pytest.param([Tally(9, 0, 9), Tally(1, 25, 1)], [False, True], id="a valid one ends the run, the ratio holds"),
        pytest.param([Tally(9, 0, 9), Tally(1, 300, 1)], [False, False], id="a valid one ends the run"),
        pytest.param([Tally(9, 300, 9), Tally(1, 0, 1)], [False, True], id="behind the last valid one"),
        pytest.param([Tally(6, 14, 0)], [True], id="ratio"),
        pytest.param([Tally(5, 15, 0)], [False], id="ratio reached, not exceeded"),
        pytest.param([Tally(6, 10, 0)], [False], id="too few records"),
        pytest.param([Tally(6, 14, 0), Tally(0, 100, 0)], [True, False], id="no excess without a dead letter"),
    ],
)
def test_limits(tallies: list[Tally], exceeded: list[bool]) -> None:
    """A limit is exceeded exactly when its figures say so."""
    assert judged(LimitWindow(POLICY), *tallies) == exceeded


def test_producers_are_judged_apart() -> None:
    """A producer's dead letters count only against that producer."""
    window = LimitWindow(POLICY)
    (excess,) = window.take(0, 0, {"bad": Tally(12, 0, 12), "good": Tally(1, 500, 0)}, now=0.0)
    assert (excess.producer, excess.dead, excess.records, excess.consecutive) == ("bad", 12, 12, 12)
    assert "12 records of bad one after the other" in excess.sentence


def test_what_is_old_is_forgotten() -> None:
    """Dead letters outside the window no longer count."""
    window = LimitWindow(POLICY)
    assert judged(window, Tally(8, 0, 8)) == [False]
    assert window.watched(59.0) == {"shop"}
    assert window.watched(60.0) == frozenset()
    assert judged(window, Tally(8, 0, 8), start=61.0) == [False]


def test_a_batch_that_is_tried_again_counts_once_and_is_judged_again() -> None:
    """A retried batch counts once, and its limits are checked again."""
    window = LimitWindow(POLICY)
    assert window.take(0, 100, {"shop": Tally(6, 0, 6)}, now=0.0) == []
    assert window.take(0, 100, {"shop": Tally(6, 0, 6)}, now=1.0) == []
    assert len(window.take(1, 100, {"shop": Tally(6, 0, 6)}, now=2.0)) == 1
    assert len(window.take(1, 100, {"shop": Tally(6, 0, 6)}, now=3.0)) == 1


batches = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 30), st.integers(0, 12)),
    max_size=40,
)


@given(batches)
def test_the_window_is_what_a_recount_says(steps: list[tuple[int, str, int, int, int]]) -> None:
    """The running sums equal a recount of the window."""
    window, log, now = LimitWindow(POLICY), [], 0.0
    for number, (pause, producer, dead, valid, trailing) in enumerate(steps):
        now += pause
        watched = window.watched(now)
        tally = Tally(dead, valid, min(trailing, dead) if valid else dead)
        found = window.take(0, number, {producer: tally}, now=now)
        if dead or producer in watched:
            log.append((now, producer, tally, producer not in watched))
        assert [(excess.dead, excess.records, excess.consecutive) for excess in found] == recount(log, producer, now)


def recount(log: list[tuple[float, str, Tally, bool]], producer: str, now: float) -> list[tuple[int, int, int]]:
    """Return the figures of an excess, recounted from every batch since the producer is watched."""
    mine = [entry for entry in log if entry[1] == producer]
    begin = max((number for number, entry in enumerate(mine) if entry[3]), default=0)
    run = 0
    for _, _, tally, _ in mine[begin:]:
        run = tally.trailing if tally.valid else run + tally.dead
    seen = [tally for moment, _, tally, _ in mine[begin:] if moment > now - POLICY.window_seconds]
    dead, records = sum(tally.dead for tally in seen), sum(tally.dead + tally.valid for tally in seen)
    last = mine[-1] if mine and mine[-1][0] == now else None
    over = run >= POLICY.consecutive or (records >= POLICY.least_records and dead > POLICY.ratio * records)
    return [(dead, records, run)] if last and last[2].dead and over else []
