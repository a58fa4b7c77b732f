"""Postgres or the broker gone for a minute at twice the usual rate: nothing lost, memory bounded, callers told, all caught up."""

from __future__ import annotations

import asyncio

import pytest

from fincoach_events.producer import DEFAULT_SETTINGS
from tests.chaos.rig.outages import OUTAGE_SECONDS, RATE, Outcome, outage_of

# One outage after the other, or each would slow down what the other one measures; the first test waits for both.
pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]
MOST_GROWTH_MIB = 64.0
# Of the minute without a broker some 110,000 calls were refused: the host sends them again, and all are archived.
CAUGHT_UP_SECONDS = 90.0
# What encoding, packing and waking may add to the longest wait for room. The wait for a processor is not the client's
# and is taken off call by call (see ``steady_caller``): a machine with two processors makes that alone seconds long.
SLACK_SECONDS = 1.0


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """What was seen of both outages."""
    return {name: asyncio.run(outage_of(name)) for name in ("postgres", "broker")}


@pytest.mark.parametrize("gone", ["postgres", "broker"])
def test_nothing_is_lost_or_counted_twice(outcomes: dict[str, Outcome], gone: str) -> None:
    """Events of an outage would be missing for good, or counted again when they are sent or read again."""
    seen = outcomes[gone]
    assert seen.report.made >= RATE * OUTAGE_SECONDS
    assert seen.report.undelivered == 0
    assert (seen.archived, seen.counted, seen.holes) == (seen.report.made, seen.report.made, 0)
    assert seen.announcements[0] == seen.announcements[1]


@pytest.mark.parametrize("gone", ["postgres", "broker"])
def test_memory_stays_bounded(outcomes: dict[str, Outcome], gone: str) -> None:
    """A longer outage would end in a process without memory, and with it in lost requests of the host."""
    growth = outcomes[gone].growth_mib
    assert {name: grown for name, grown in growth.items() if grown >= MOST_GROWTH_MIB} == {}


@pytest.mark.parametrize("gone", ["postgres", "broker"])
def test_all_is_caught_up_soon_afterwards(outcomes: dict[str, Outcome], gone: str) -> None:
    """An outage would go on long after its end."""
    assert outcomes[gone].catch_up_seconds < CAUGHT_UP_SECONDS


def test_callers_are_told_while_the_broker_is_away(outcomes: dict[str, Outcome]) -> None:
    """A request of the host would hang, or believe that its event was accepted."""
    report = outcomes["broker"].report
    assert report.refused > 0
    assert report.longest_held_seconds < DEFAULT_SETTINGS.max_block_seconds + SLACK_SECONDS, report


def test_callers_notice_nothing_while_the_database_is_away(outcomes: dict[str, Outcome]) -> None:
    """An outage behind the broker would reach the host's requests."""
    assert outcomes["postgres"].report.refused == 0
