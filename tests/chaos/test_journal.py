"""Journals record what was sent in the form that the oracle reads; the mix draws what it claims."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from backends.clock import ManualClock
from fincoach_events.errors import InvalidEventError
from fincoach_events.events import MAX_EVENT_BYTES, decode_event
from streams.batches.events import decode_storable_event
from streams.batches.intake import take_in
from tests.chaos.producers.journal import ProducerJournal, last_events, read_lines
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


def test_a_journal_holds_a_line_before_and_one_after(tmp_path: Path, clock: ManualClock) -> None:
    """A journal has a line before each send and one after each answer."""
    path = tmp_path / "p.jsonl"
    journal = ProducerJournal(path, clock)
    raw = b'{"event_id": "1", "amount": 1.50}'
    first = journal.sending("good", raw, valid=True)
    second = journal.sending("malformed", b"no JSON", valid=False)
    third = journal.sending("no_value", None, valid=False)
    journal.acknowledged(first, topic="t", partition=2, offset=7)
    journal.acknowledged(second, topic="t", partition=0, offset=-1)
    journal.unsent(third, "busy")
    lines = list(read_lines([path]))
    assert [line["id"] for line in lines] == [1, 2, 3, 1, 2, 3]
    assert lines[0]["event"] == {"event_id": "1", "amount": 1.5}
    assert lines[0]["raw_sha256"] == hashlib.sha256(raw).hexdigest()
    assert (lines[0]["bytes"], lines[0]["t"]) == (len(raw), clock.now().timestamp())
    assert [line["event"] for line in lines[1:3]] == [None, None]
    assert [line.get("offset", "none") for line in lines[3:]] == [7, None, "none"]


def test_a_torn_line_is_left_out(tmp_path: Path, clock: ManualClock) -> None:
    """A torn line of a killed producer is skipped."""
    path = tmp_path / "p.jsonl"
    ProducerJournal(path, clock).sending("good", b"{}", valid=True)
    with path.open("ab") as file:
        file.write(b'{"op":"ack","id"')
    assert [line["id"] for line in read_lines([path])] == [1]


def test_others_read_the_events_that_were_sent_last(tmp_path: Path, clock: ManualClock) -> None:
    """Other producers can read the valid events that were sent last."""
    journal = ProducerJournal(tmp_path / "p.jsonl", clock)
    for number in range(5):
        journal.sending("good", msgspec.json.encode({"event_id": number}), valid=True)
        journal.sending("key_mismatch", msgspec.json.encode({"event_id": -number}), valid=False)
    assert last_events(tmp_path / "p.jsonl")[-1] == b'{"event_id":4}'
    assert len(last_events(tmp_path / "p.jsonl")) == 4  # the first line may be torn by the window


@pytest.mark.parametrize("shares", [CLIENT_MIX, RAW_MIX])
def test_what_is_called_valid_is_taken_and_nothing_else(shares: dict[str, float]) -> None:
    """The product accepts what the mix calls valid, and nothing else."""
    timestamp = int((NOON + dt.timedelta(days=30)).timestamp() * 1000)
    for offset, drawn in enumerate(draws(shares)):
        intake = take_in([Fetched(offset, timestamp, drawn.key, drawn.value)], decode_storable_event)
        assert bool(intake.accepted) == drawn.valid, drawn


def test_every_kind_is_drawn_about_as_often_as_it_says() -> None:
    """Every kind is drawn about as often as its share says."""
    counted = Counter(drawn.kind for drawn in draws(RAW_MIX, count=20_000))
    assert counted.keys() == RAW_MIX.keys()
    assert counted["good"] > 16_000
    assert 100 < counted["key_mismatch"] < 240


def test_records_too_large_for_us_pass_the_topic() -> None:
    """An oversized record still fits the topic."""
    mix = Mix(np.random.default_rng(2), population(), {"oversized": 1.0})
    sizes = [len(mix.next().value or b"") for _ in range(5)]
    assert all(MAX_EVENT_BYTES < size < 3 * MAX_EVENT_BYTES for size in sizes)


def test_broken_records_are_broken_in_several_ways() -> None:
    """Malformed records differ from each other."""
    mix = Mix(np.random.default_rng(2), population(), {"malformed": 0.99, "good": 0.01})
    values = [drawn.value or b"" for drawn in (mix.next() for _ in range(200)) if drawn.kind == "malformed"]
    assert len({value[:30] for value in values}) >= 4
    with pytest.raises(InvalidEventError):
        decode_event(values[0])
