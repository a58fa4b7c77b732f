"""The oracle: judges a finished run by its own recount. It shares no code with the product.

``python -m tests.chaos.oracle.recount FOLDER --brokers ... --database-url ...`` judges the folder of a run that was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from tests.chaos.oracle.announcements import outbox_heard, predictions_kept, replicas_serve_last, states_grow
from tests.chaos.oracle.counting import archived_once, counts_agree, deliveries_accounted, deliveries_of, panes_join
from tests.chaos.oracle.epochs import epochs_said_once, epochs_whole, trained_once
from tests.chaos.oracle.faults import caught_up, faults_hit
from tests.chaos.oracle.invariants import Law
from tests.chaos.oracle.reading import read_world
from tests.chaos.oracle.replayed_states import states_replayed
from tests.chaos.oracle.world import World

LAWS: dict[str, Callable[[World], Law]] = {
    "archived_once": lambda world: archived_once(world, deliveries_of(world)),
    "counts_agree": lambda world: counts_agree(world, deliveries_of(world)),
    "deliveries_accounted": lambda world: deliveries_accounted(world, deliveries_of(world)),
    "panes_join": panes_join,
    "epochs_whole": epochs_whole,
    "epochs_said_once": epochs_said_once,
    "trained_once": trained_once,
    "states_replayed": states_replayed,
    "outbox_heard": outbox_heard,
    "states_grow": states_grow,
    "replicas_serve_last": replicas_serve_last,
    "predictions_kept": predictions_kept,
    "faults_hit": faults_hit,
    "caught_up": caught_up,
}
# What can be said of a run without trainers, deployer and replicas.
STREAMS_LAWS = (
    "archived_once", "counts_agree", "deliveries_accounted", "panes_join", "epochs_whole", "epochs_said_once", "states_replayed",
    "outbox_heard",
)  # fmt: skip


async def judge(
    folder: Path, *, brokers: str, database_url: str, only: Collection[str] | None = None
) -> dict[str, Law]:
    """Return the verdict of every law (or ``only`` some) about the run in ``folder``; call it when the run is over."""
    return judged(await read_world(folder, brokers=brokers, database_url=database_url), only=only)


def judged(world: World, *, only: Collection[str] | None = None) -> dict[str, Law]:
    """Return the verdict of every law about ``world``."""
    return {name: law(world) for name, law in LAWS.items() if only is None or name in only}


def table(laws: dict[str, Law]) -> str:
    """Return one line a law."""
    return "\n".join(f"{'holds' if law.holds else 'BROKEN':7} {name:21} {law.detail}" for name, law in laws.items())


def main() -> int:
    """Judge one folder; exit 1 where a law does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.oracle.recount", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the run: run.json, timeline.jsonl and producers/*.jsonl")
    parser.add_argument("--brokers", required=True, help="host:port, comma-separated")
    parser.add_argument("--database-url", required=True, help="postgresql://...")
    parser.add_argument("--only", nargs="*", choices=LAWS, help="judge these laws alone")
    given = parser.parse_args()
    laws = asyncio.run(
        judge(given.folder, brokers=given.brokers, database_url=given.database_url, only=given.only or None)
    )
    print(table(laws))
    return 0 if all(law.holds for law in laws.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
