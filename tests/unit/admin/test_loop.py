"""The rule that names the first broken link: each link broken once, the order, and a loop that is whole."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.status.loop import LAG_IS_OLD_SECONDS, LoopFacts, ProcessFacts, Reader, ReplicaBehind, first_broken, links
from schemas.rows import ExpiredLease, FailedTraining, WaitingAnnouncements

NOW = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
EARLIER = NOW - dt.timedelta(minutes=10)
SERVICES = ("streams", "trainers", "deployer", "serving")
ORDER = (
    "database",
    "broker",
    "streams",
    "reading",
    "announcing",
    "trainers",
    "training",
    "deployer",
    "serving",
    "swapping",
)


def process(service: str, **changes: Any) -> ProcessFacts:  # noqa: ANN401 - fields of the facts
    """Return a process that is well, but for the changes."""
    fields: dict[str, Any] = {"name": f"{service}-1", "service": service, "live": True, "ready": True, "phase": "ready"}
    return ProcessFacts(**{**fields, **changes})


def reader(*, earlier: int, position: int, end: int, **changes: Any) -> Reader:  # noqa: ANN401 - see above
    """Return what was seen of one reader."""
    fields: dict[str, Any] = {"link": "streams", "topic": "some.events", "partition": 2, "since": EARLIER}
    return Reader(earlier=earlier, position=position, end=end, **{**fields, **changes})


def whole(**changes: Any) -> LoopFacts:  # noqa: ANN401 - see above
    """Return the facts of a loop that is whole, but for the changes."""
    facts = LoopFacts(
        now=NOW, database_error=None, broker_error=None, processes=tuple(process(service) for service in SERVICES)
    )
    return dataclasses.replace(facts, **changes)


def without(service: str, *instead: ProcessFacts) -> LoopFacts:
    """Return a whole loop with other processes in one service."""
    return whole(processes=(*(process(other) for other in SERVICES if other != service), *instead))


BROKEN = {
    "database": whole(database_error="connection refused"),
    "broker": whole(broker_error="no broker at 127.0.0.1:9092"),
    "streams": without("streams"),
    "reading": whole(readers=(reader(earlier=7, position=7, end=9),)),
    "announcing": whole(outbox=(WaitingAnnouncements(service="deployer", rows=3, oldest=EARLIER),)),
    "trainers": without("trainers", process("trainers", ready=False, live=False, phase="backing_off", since=EARLIER)),
    "training": whole(expired_leases=(ExpiredLease(id=UUID(int=1), model_type="goal", lease_until=EARLIER),)),
    "deployer": without("deployer", process("deployer", ready=False, checks={"database": True, "baselines": False})),
    "serving": without("serving", process("serving"), process("serving", name="replica-2", ready=False, live=False)),
    "swapping": whole(
        replicas_behind=(
            ReplicaBehind(replica_id="replica-2", model_type="goal", serves="1.0.0", desired="1.1.0", since=EARLIER),
        )
    ),
}
SINCE_KNOWN = {"reading", "announcing", "trainers", "training", "swapping"}


def test_the_links_stand_in_the_order_in_which_data_flows() -> None:
    """The links are in the order in which data flows."""
    assert tuple(link.name for link in links(whole())) == ORDER == tuple(BROKEN)


def test_a_whole_loop_has_no_broken_link() -> None:
    """A whole loop has no broken link."""
    chain = links(whole())
    assert all(link.holds and link.detail for link in chain)
    assert first_broken(chain) is None


@pytest.mark.parametrize("name", ORDER)
def test_a_broken_link_is_named_alone_with_its_meaning_and_the_next_command(name: str) -> None:
    """A broken link is named alone, with its meaning and the next command."""
    chain = links(BROKEN[name])
    broken = first_broken(chain)
    assert broken is not None
    assert [link.name for link in chain if not link.holds] == [broken.name] == [name]
    assert broken.detail
    assert broken.meaning
    assert broken.next_command
    assert broken.since == (EARLIER if name in SINCE_KNOWN else None)


@given(st.sets(st.sampled_from(ORDER), min_size=1))
def test_of_several_broken_links_the_first_is_named(names: set[str]) -> None:
    """Of several broken links, the first is named."""
    nothing = whole()
    changes: dict[str, Any] = {}
    services = {service: tuple(p for p in nothing.processes if p.service == service) for service in SERVICES}
    for name in names:
        if name in SERVICES:
            services[name] = tuple(p for p in BROKEN[name].processes if p.service == name)
        else:
            fields = dataclasses.fields(LoopFacts)
            changes |= {
                f.name: getattr(BROKEN[name], f.name)
                for f in fields
                if f.name != "processes" and getattr(BROKEN[name], f.name) != getattr(nothing, f.name)
            }
    chain = links(whole(processes=tuple(p for of_service in services.values() for p in of_service), **changes))
    broken = first_broken(chain)
    assert broken is not None
    assert broken.name == min(names, key=ORDER.index)
    assert {link.name for link in chain if not link.holds} == names


@given(earlier=st.integers(0, 100), moved=st.integers(0, 100), waiting=st.integers(-5, 100))
def test_a_reader_is_stalled_only_where_records_wait_and_nothing_moves(earlier: int, moved: int, waiting: int) -> None:
    """A reader is stalled only if records wait and its position does not move."""
    seen = reader(earlier=earlier, position=earlier + moved, end=earlier + moved + waiting)
    assert seen.stalled == (waiting > 0 and moved == 0)


def test_a_reader_that_is_behind_but_moves_holds_and_says_how_far() -> None:
    """A reader that is behind but moves is not broken, and its lag is shown."""
    chain = links(
        whole(readers=(reader(earlier=1, position=5, end=25), reader(earlier=9, position=9, end=9, partition=1)))
    )
    reading = next(link for link in chain if link.name == "reading")
    assert (reading.holds, reading.detail) == (True, "20 records behind, moving")


def test_of_several_stalled_readers_the_furthest_behind_is_named() -> None:
    """Of several stalled readers, the one furthest behind is named."""
    stalled = (
        reader(earlier=7, position=7, end=9),
        reader(link="trainers", earlier=0, position=0, end=50, topic="some.thresholds", partition=0, since=None),
    )
    broken = first_broken(links(whole(readers=stalled)))
    assert broken is not None
    assert broken.detail == "trainers stands at some.thresholds/0 offset 0, 50 records behind and not moving"
    assert broken.since is None


def test_an_outbox_row_may_be_young() -> None:
    """A young outbox row does not break the loop."""
    young = WaitingAnnouncements(service="streams", rows=4, oldest=NOW - dt.timedelta(seconds=LAG_IS_OLD_SECONDS))
    old = WaitingAnnouncements(service="trainers", rows=1, oldest=EARLIER)
    chain = links(whole(outbox=(young,)))
    assert first_broken(chain) is None
    assert next(link for link in chain if link.name == "announcing").detail == "4 outbox rows wait"
    broken = first_broken(links(whole(outbox=(young, old))))
    assert broken is not None
    assert broken.detail == "1 outbox rows of trainers are not published"


@pytest.mark.parametrize(
    ("changes", "detail", "since"),
    [
        ({"live": False, "phase": "backing_off", "since": EARLIER}, "streams-1 is backing_off, does not answer", EARLIER),
        ({"phase": "ready", "checks": {"broker": False, "database": True}}, "streams-1 is ready, failing: broker", None),
        ({"phase": "not_ready", "since": EARLIER}, "streams-1 is not_ready", EARLIER),
    ],
)  # fmt: skip
def test_a_process_that_is_not_ready_says_what_is_wrong(
    changes: dict[str, Any], detail: str, since: dt.datetime | None
) -> None:
    """A process that is not ready names the check that fails."""
    broken = first_broken(links(without("streams", process("streams", ready=False, log="/logs/s.log", **changes))))
    assert broken is not None
    assert (broken.detail, broken.since) == (detail, since)
    assert broken.next_command == "tail -n 50 /logs/s.log"


def test_a_failed_training_is_told_but_breaks_nothing() -> None:
    """A failed training is reported but does not break the loop."""
    chain = links(whole(failed_trainings=(FailedTraining(model_type="goal", error="e", end_time=NOW),)))
    assert first_broken(chain) is None
    assert next(link for link in chain if link.name == "training").detail == "1 failed within the last hour"
