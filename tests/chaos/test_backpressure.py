"""Postgres or the broker is away for a minute at twice the usual rate: nothing is lost, memory is bounded, callers are told."""

from __future__ import annotations

import asyncio

import pytest

from fincoach_events.producer import DEFAULT_SETTINGS
from tests.chaos.rig.outages import OUTAGE_SECONDS, RATE, Outcome, outage_of

# One outage after the other: each would slow down what the other measures. The first test waits for both.
pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]
MOST_GROWTH_MIB = 64.0
# Without a broker some 110,000 calls are refused in a minute; the host repeats them, and all are archived.
CAUGHT_UP_SECONDS = 90.0
# What encoding, packing and waking may add to the longest wait for space. The wait for a processor is not the client's
# and is deducted call by call (see ``steady_caller``): on a machine with two processors it alone takes seconds.
SLACK_SECONDS = 1.0


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Return what was measured in both outages."""
    return {name: asyncio.run(outage_of(name)) for name in ("postgres", "broker")}


@pytest.mark.parametrize("gone", ["postgres", "broker"])
def test_nothing_is_lost_or_counted_twice(outcomes: dict[str, Outcome], gone: str) -> None:
    """An outage loses no event and counts none twice."""
    seen = outcomes[gone]
    assert seen.report.made >= RATE * OUTAGE_SECONDS
    assert seen.report.undelivered == 0
    assert (seen.archived, seen.counted, seen.gaps) == (seen.report.made, seen.report.made, 0)
    assert seen.announcements[0] == seen.announcements[1]


@pytest.mark.parametrize("gone", ["postgres", "broker"])
def test_memory_stays_bounded(outcomes: dict[str, Outcome], gone: str) -> None:
    """The memory of every process stays bounded during an outage."""
    growth = outcomes[gone].growth_mib
    assert {name: grown for name, grown in growth.items() if grown >= MOST_GROWTH_MIB} == {}


@pytest.mark.parametrize("gone", ["postgres", "broker"])
def test_all_is_caught_up_soon_afterwards(outcomes: dict[str, Outcome], gone: str) -> None:
    """Everything catches up soon after an outage."""
    assert outcomes[gone].catch_up_seconds < CAUGHT_UP_SECONDS


def test_callers_are_told_while_the_broker_is_away(outcomes: dict[str, Outcome]) -> None:
    """Calls are refused in time while the broker is away."""
    report = outcomes["broker"].report
    assert report.refused > 0
    assert report.longest_held_seconds < DEFAULT_SETTINGS.max_block_seconds + SLACK_SECONDS, report


def test_callers_notice_nothing_while_the_database_is_away(outcomes: dict[str, Outcome]) -> None:
    """Callers notice nothing while only the database is away."""
    assert outcomes["postgres"].report.refused == 0
