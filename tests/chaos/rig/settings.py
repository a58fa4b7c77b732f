"""What a run is made of; the command line sets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from schemas.vocabulary import ModelType

# So small that every model's epochs close every 15 to 20 seconds at 400 events a second.
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
        seed: of the plan of faults and of everything else that is drawn.
        seconds: how long load and faults last.
        folder: everything that the run writes.
        keep: keep the folder of a run that holds, too.
        only: kinds of faults; all when empty.
        fault_every_seconds: mean time between two injections.
        days_per_second: speed of event time: models want weeks of history, a run has minutes.
        catch_up_seconds: the promise; the run looks for longer to say how long it really took.
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
