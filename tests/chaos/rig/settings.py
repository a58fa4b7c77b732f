"""The settings of a run, set by the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from schemas.vocabulary import ModelType

# Small enough for the epochs of every model to close every 15 to 20 seconds at 400 events a second.
THRESHOLDS = {
    "recommendation": 600,
    "segmentation": 150,
    "spending": 2_500,
    "goal": 180,
}


@dataclass(frozen=True, kw_only=True)
class ChaosSettings:
    """One run.

    Attributes:
        seed: determines the plan of faults and everything else that is random.
        seconds: how long load and faults last.
        folder: where the run writes.
        keep: keep the folder even if every invariant holds.
        only: kinds of faults; empty means all.
        fault_every_seconds: mean time between two injections.
        days_per_second: speed of event time: models need weeks of history, a run takes minutes.
        catch_up_seconds: the promise; the run waits longer in order to report the real time.
    """

    seed: int
    seconds: float
    folder: Path
    keep: bool = False
    only: tuple[str, ...] = ()
    events_per_second: float = 400.0
    producers: int = 4
    users: int = 600
    wide_partitions: int = 4
    fault_every_seconds: float = 5.0
    days_per_second: float = 3.0
    predictions_per_second: float = 12.0
    swap_every_seconds: float = 6.0
    catch_up_seconds: float = 20.0
    thresholds: dict[ModelType, int] = field(default_factory=lambda: dict(THRESHOLDS))
