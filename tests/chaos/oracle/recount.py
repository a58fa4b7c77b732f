"""The oracle: judges a finished run by its own recount. It shares no code with the product.

``python -m tests.chaos.oracle.recount FOLDER --brokers ... --database-url ...`` judges a run whose folder was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from tests.chaos.oracle.announcements import outbox_published, predictions_archived, replicas_serve_last, sequences_grow
from tests.chaos.oracle.counting import (
    archived_once,
    counts_agree,
    deliveries_accounted,
    deliveries_of,
    panes_contiguous,
)
from tests.chaos.oracle.epochs import epochs_published_once, epochs_whole, trained_once
from tests.chaos.oracle.faults import caught_up, faults_hit
from tests.chaos.oracle.invariants import Verdict
from tests.chaos.oracle.reading import read_world
from tests.chaos.oracle.replayed_states import states_replayed
from tests.chaos.oracle.world import World

INVARIANTS: dict[str, Callable[[World], Verdict]] = {
    "archived_once": lambda world: archived_once(world, deliveries_of(world)),
    "counts_agree": lambda world: counts_agree(world, deliveries_of(world)),
    "deliveries_accounted": lambda world: deliveries_accounted(world, deliveries_of(world)),
    "panes_contiguous": panes_contiguous,
    "epochs_whole": epochs_whole,
    "epochs_published_once": epochs_published_once,
    "trained_once": trained_once,
    "states_replayed": states_replayed,
    "outbox_published": outbox_published,
    "sequences_grow": sequences_grow,
    "replicas_serve_last": replicas_serve_last,
    "predictions_archived": predictions_archived,
    "faults_hit": faults_hit,
    "caught_up": caught_up,
}
# The invariants that apply to a run without trainers, deployer and replicas.
STREAMS_INVARIANTS = (
    "archived_once", "counts_agree", "deliveries_accounted", "panes_contiguous", "epochs_whole", "epochs_published_once", "states_replayed",
    "outbox_published",
)  # fmt: skip


async def judge(
    folder: Path, *, brokers: str, database_url: str, only: Collection[str] | None = None
) -> dict[str, Verdict]:
    """Return the verdict on every invariant (or ``only`` some) for the run in ``folder``. Call it when the run is over."""
    return judged(await read_world(folder, brokers=brokers, database_url=database_url), only=only)


def judged(world: World, *, only: Collection[str] | None = None) -> dict[str, Verdict]:
    """Return the verdict on every invariant for ``world``."""
    return {name: invariant(world) for name, invariant in INVARIANTS.items() if only is None or name in only}


def table(verdicts: dict[str, Verdict]) -> str:
    """Return one line per invariant."""
    return "\n".join(
        f"{'holds' if verdict.holds else 'BROKEN':7} {name:21} {verdict.detail}" for name, verdict in verdicts.items()
    )


def main() -> int:
    """Judge one folder; exit 1 if an invariant does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.oracle.recount", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the run: run.json, timeline.jsonl and producers/*.jsonl")
    parser.add_argument("--brokers", required=True, help="host:port, comma-separated")
    parser.add_argument("--database-url", required=True, help="postgresql://...")
    parser.add_argument("--only", nargs="*", choices=INVARIANTS, help="judge only these invariants")
    given = parser.parse_args()
    verdicts = asyncio.run(
        judge(given.folder, brokers=given.brokers, database_url=given.database_url, only=given.only or None)
    )
    print(table(verdicts))
    return 0 if all(verdict.holds for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
