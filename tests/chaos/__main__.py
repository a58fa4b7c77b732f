"""``python -m tests.chaos``: inject faults into the running system for a while, then check that every number still agrees."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from schemas.errors import FinCoachError
from stack.settings import MachineSettings
from tests.chaos.faults.register import FAULTS
from tests.chaos.rig.report import ChaosReport, rendered
from tests.chaos.rig.run import ChaosRun, Judge
from tests.chaos.rig.settings import ChaosSettings

EPILOGUE = """
Starts the real stack (Postgres, three brokers, two streams workers, two trainers, a deployer, three replicas) on this
machine, sends good, duplicate, late, malformed and oversized events from several producers, and injects faults by
seed. Then everything is healed and must catch up within 20 seconds, and an oracle that shares no code with the
product recounts from the producers' journals.

  make chaos SECONDS=900 SEED=7 JSON=chaos.json    a whole run
  make chaos SECONDS=60 ONLY="freeze kill"         only some kinds of faults
  make chaos SECONDS=60 SEED=7 KEEP=1              keep the folder even if every invariant holds

A run that fails keeps its folder (journals, timeline.jsonl, logs, data) and prints the command that repeats it.
Exit status: 0 if every invariant holds, 1 if one does not, 2 if the run could not be completed.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--seconds", type=float, default=900.0, help="how long load and faults last (default 900)")
    made.add_argument("--seed", type=int, help="determines everything random (default: drawn, and printed)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the report to FILE")
    made.add_argument("--folder", type=Path, help="where the run writes (default: a new folder for temporary files)")
    made.add_argument("--keep", action="store_true", help="keep the folder even if every invariant holds")
    made.add_argument(
        "--only", nargs="+", choices=sorted(FAULTS), default=(), metavar="KIND", help="only these kinds of faults"
    )
    made.add_argument(
        "--rate", type=float, default=400.0, help="events a second of all producers together (default 400)"
    )
    made.add_argument("--every", type=float, default=5.0, help="mean seconds between two faults (default 5)")
    made.add_argument("--list-faults", action="store_true", help="list the kinds of faults and exit")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run as the command line says; return the exit status."""
    options = parser().parse_args(arguments)
    if options.list_faults:
        print("\n".join(f"{kind:18} {fault.about}" for kind, fault in FAULTS.items()))
        return 0
    machine = MachineSettings()
    if machine.brokers or machine.database_url:
        print(
            "a run kills and restarts its own services: unset FINCOACH_BROKERS and FINCOACH_DATABASE_URL",
            file=sys.stderr,
        )
        return 2
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3))
    folder = options.folder or Path(tempfile.mkdtemp(prefix=f"fincoach-chaos-{seed}-"))
    folder.chmod(0o755) if folder.exists() else None
    settings = ChaosSettings(
        seed=seed, seconds=options.seconds, folder=folder.resolve(), keep=options.keep, only=tuple(options.only), events_per_second=options.rate,
        fault_every_seconds=options.every,
    )  # fmt: skip
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # faults take brokers away
    say = _ProgressPrinter()
    say(f"seed {seed}, folder {folder}")
    try:
        report = asyncio.run(ChaosRun(settings, say).run(_judge(say)))
    except FinCoachError as error:
        say(f"the run could not be completed: {error}")
        say(repeated_by(settings))
        return 2
    except Exception:  # for any error, print how to repeat the run before the traceback
        say(repeated_by(settings))
        raise
    _deliver(report, settings, options)
    return 0 if report.ok else 1


def _deliver(report: ChaosReport, settings: ChaosSettings, options: argparse.Namespace) -> None:
    document = msgspec.json.format(msgspec.json.encode(report))
    (settings.folder / "report.json").write_bytes(document)
    if options.json is not None:
        options.json.write_bytes(document)
    print(rendered(report))
    if not report.ok:
        print(repeated_by(settings), file=sys.stderr)
    elif not settings.keep:
        shutil.rmtree(settings.folder, ignore_errors=True)


def repeated_by(settings: ChaosSettings) -> str:
    """Return where a failed run is kept, and the command that repeats it."""
    only = f' ONLY="{" ".join(settings.only)}"' if settings.only else ""
    # Besides the seed, these determine the plan of faults and the load.
    drawn = f'ARGS="--every {settings.fault_every_seconds:g} --rate {settings.events_per_second:g}"'
    command = f"make chaos SECONDS={settings.seconds:g} SEED={settings.seed}{only} {drawn}"
    return f"everything is in {settings.folder}; repeat the run with\n  {command}"


def _judge(say: _ProgressPrinter) -> Judge | None:
    """Return the oracle if it is available."""
    try:
        oracle: Any = importlib.import_module("tests.chaos.oracle.recount")
        judge: Judge = oracle.judge
    except (ModuleNotFoundError, AttributeError):
        say("there is no oracle (tests.chaos.oracle.recount), so this run cannot hold")
        return None
    return judge


class _ProgressPrinter:
    """Progress on standard error, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, sentence: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f} s] {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
