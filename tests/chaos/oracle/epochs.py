"""Invariants of epochs: made of whole panes, closed by the pane that reaches the threshold, published once, trained once. Pure."""

from __future__ import annotations

import bisect
import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tests.chaos.oracle.invariants import Verdict, verdict_of
from tests.chaos.oracle.world import EVENTS, MODELS, THRESHOLDS, Epoch, Pane, World

# A pane is stamped with the time at which its transaction began. A delayed one (a frozen worker is cut off after three
# seconds) may be taken after a pane that began later.
LONGEST_TRANSACTION = dt.timedelta(seconds=8)
OPEN_JOBS = {"queued", "running"}
ENDED_TRAININGS = {"completed", "deployed", "failed"}


class PanesByPartition:
    """The panes of the event topic, indexed by offset."""

    def __init__(self, panes: Iterable[Pane]) -> None:
        self._panes: dict[int, list[Pane]] = defaultdict(list)
        for pane in sorted(panes, key=lambda item: item.from_offset):
            if pane.topic == EVENTS:
                self._panes[pane.partition].append(pane)

    def touching(self, partition: int, first: int, last: int) -> list[Pane]:
        """Return the panes of ``partition`` that overlap the offsets from ``first`` to below ``last``, in order."""
        panes = self._panes[partition]
        begin = max(bisect.bisect_right(panes, first, key=lambda pane: pane.from_offset) - 1, 0)
        end = bisect.bisect_left(panes, last, key=lambda pane: pane.from_offset)
        return [pane for pane in panes[begin:end] if pane.to_offset > first]


def epochs_whole(world: World) -> Verdict:
    """Each epoch consists of whole panes, joins the previous one, and reached its threshold with its last pane, not before."""
    violations: list[str] = []
    panes = PanesByPartition(world.panes)
    for model in MODELS:
        epochs = sorted((row for row in world.epochs if row.model == model), key=lambda row: row.epoch)
        violations += _wrong_numbers(model, epochs)
        ends: dict[int, int] = {}
        for epoch in epochs:
            violations += _wrong_epoch(epoch, world, panes, ends)
        violations += _wrong_rest(model, world, ends)
    models = len({row.model for row in world.epochs})
    return verdict_of(violations, seen=world.with_minimums(epochs=len(world.epochs), models_with_epochs=models))


def _wrong_numbers(model: str, epochs: Sequence[Epoch]) -> Iterator[str]:
    numbers = [row.epoch for row in epochs]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the epochs of {model} are numbered {numbers}"


def _wrong_epoch(epoch: Epoch, world: World, panes: PanesByPartition, ends: dict[int, int]) -> Iterator[str]:
    """Check one epoch. ``ends`` holds where the previous epoch ended in each partition, and is updated."""
    name = f"epoch {epoch.model}/{epoch.epoch}"
    chosen: list[Pane] = []
    for span in epoch.ranges:
        partition, first, last = span["partition"], span["from_offset"], span["to_offset"]
        before = ends.get(partition, world.begins.get((EVENTS, partition), 0))
        if span["topic"] != EVENTS or first != before:
            yield f"{name} begins at {first} in partition {partition}, the previous one ended at {before}"
        ends[partition] = last
        inside = panes.touching(partition, first, last)
        if not inside or inside[0].from_offset != first or inside[-1].to_offset != last:
            yield f"{name} covers [{first}, {last}) of partition {partition}: not whole panes"
        chosen += inside
    yield from _wrong_count(name, epoch, chosen, world)


def _wrong_count(name: str, epoch: Epoch, panes: Sequence[Pane], world: World) -> Iterator[str]:
    total = sum(pane.counted(epoch.model) for pane in panes)
    threshold = _threshold(world, epoch.model)
    if (epoch.counted, epoch.threshold) != (total, threshold):
        yield f"{name} records {epoch.counted} of {epoch.threshold}, its panes hold {total} of {threshold}"
    if total < threshold:
        yield f"{name} was closed with {total} of {threshold}"
    elif not any(total - pane.counted(epoch.model) < threshold for pane in _closing(panes)):
        yield f"{name} reached {threshold} before its last pane"


def _closing(panes: Iterable[Pane]) -> list[Pane]:
    """Return the panes that may have been taken last: the last of each partition, begun at about the time of the newest."""
    last: dict[int, Pane] = {}
    for pane in sorted(panes, key=lambda item: item.from_offset):
        last[pane.partition] = pane
    newest = max((pane.closed_at for pane in last.values()), default=None)
    return [pane for pane in last.values() if newest is not None and newest - pane.closed_at <= LONGEST_TRANSACTION]


def _wrong_rest(model: str, world: World, ends: Mapping[int, int]) -> Iterator[str]:
    """The panes after the last epoch must hold less than the threshold; otherwise an epoch is missing."""
    rest = [pane for pane in world.panes if pane.topic == EVENTS and pane.from_offset >= ends.get(pane.partition, 0)]
    total, threshold = sum(pane.counted(model) for pane in rest), _threshold(world, model)
    if total >= threshold:
        yield f"{model} has {total} of {threshold} after its last epoch: an epoch is missing"


def _threshold(world: World, model: str) -> int:
    return int(world.run.get("thresholds", {}).get(model, 0)) or 2**62


def epochs_published_once(world: World) -> Verdict:
    """Each epoch is published under one name, with the content of its row; repeats have the same content."""
    contents: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for record in world.records.get(THRESHOLDS, ()):
        message = msgspec.json.decode(record.value or b"null")
        contents[message["model_type"], message["epoch"]].append(message)
    rows = {(row.model, row.epoch): row for row in world.epochs}
    violations = [
        *(f"epoch {name} was never published" for name in rows if name not in contents),
        *(f"epoch {name} was published and is not in the table" for name in contents if name not in rows),
    ]
    for name, copies in contents.items():
        if any(copy != copies[0] for copy in copies):
            violations.append(f"epoch {name} was published with {len(copies)} contents that are not equal")
        row = rows.get(name)
        if row is not None and (copies[0]["counted"], copies[0]["threshold"]) != (row.counted, row.threshold):
            violations.append(f"epoch {name} was published with other numbers than its row's")
        if row is not None and _spans(copies[0]["ranges"]) != _spans(row.ranges):
            violations.append(f"epoch {name} was published with other ranges than its row's")
    return verdict_of(violations, seen=world.with_minimums(epochs=len(contents)))


def _spans(ranges: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((span["topic"], span["partition"], span["from_offset"], span["to_offset"]) for span in ranges)


def trained_once(world: World) -> Verdict:
    """No epoch is trained twice: each has one job and is part of exactly one finished training."""
    jobs = Counter((job.model, job.epoch) for job in world.jobs if job.epoch is not None)
    ended = Counter(
        (run.model, epoch) for run in world.trainings if run.status in ENDED_TRAININGS for epoch in run.epochs
    )
    violations = [f"epoch {name} has {number} jobs" for name, number in jobs.items() if number > 1]
    violations += [
        f"a job of {job.model}/{job.epoch} is still {job.status}" for job in world.jobs if job.status in OPEN_JOBS
    ]
    for row in world.epochs:
        name = (row.model, row.epoch)
        if ended[name] != 1:
            violations.append(f"epoch {name} is in {ended[name]} finished trainings")
    known = {(row.model, row.epoch) for row in world.epochs}
    violations += [f"a training finished for {name}, which is not an epoch" for name in ended if name not in known]
    return verdict_of(violations, seen=world.with_minimums(epochs=len(world.epochs), trainings=len(world.trainings)))
