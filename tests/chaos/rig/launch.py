"""Starts a service with a trap or a seeded fault: ``python -m tests.chaos.rig.launch --at POINT --act exit -- streams``.

The product has no switch for any of this: its functions are replaced before the service's own ``__main__`` runs. A
function that has moved is an error, so a trap is never silently placed where nothing passes.

A point is ``SEAM:before`` or ``SEAM:after``. A seam is a function of the product (see ``seams.py``), or the commit of the
transactions in which that function was called.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import inspect
import os
import runpy
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos.rig import seams, seeded_faults_code

EXIT_STATUS = 77
ACTS = ("exit", "stop", "delay", "skip")

# The functions called within the open transaction of this task.
_called: ContextVar[set[str] | None] = ContextVar("called", default=None)


class Trap:
    """Triggers once, at the ``hit``-th passage (counted from when the file ``when`` exists, if given).

    With ``again`` it triggers each time ``when`` appears, and removes it.
    """

    def __init__(
        self, act: str, *, hit: int, seconds: float, when: Path | None, trace: Path | None, again: bool = False
    ) -> None:
        self._act = act
        self._hit = self._left = hit
        self._again = again
        self._seconds = seconds
        self._when = when
        self._trace = trace

    def passed(self, *arguments: object) -> bool:
        """Count a passage with ``arguments`` and act if it is the one; return whether the call must be skipped."""
        if self._left <= 0 or (self._when is not None and not self._when.exists()):
            return False
        self._left -= 1
        if self._left > 0 or not self._is_armed_anew():
            return False
        self._note(arguments)
        if self._act == "exit":
            os._exit(EXIT_STATUS)
        if self._act == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._act == "delay":
            time.sleep(self._seconds)  # it stops the whole process: the fault is what others do meanwhile
        return self._act == "skip"

    def _is_armed_anew(self) -> bool:
        """Return whether a repeating trap still has the file that armed it: whoever armed it may have taken it back."""
        if not self._again or self._when is None:
            return True
        self._left = self._hit
        try:
            self._when.unlink()
        except FileNotFoundError:
            return False
        return True

    def _note(self, arguments: tuple[object, ...]) -> None:
        if self._trace is not None:
            line = {"triggered": self._act, "pid": os.getpid(), "batch": _batch_among(arguments)}
            with self._trace.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")


def _batch_among(arguments: tuple[object, ...]) -> tuple[int, int] | None:
    """Return partition and first offset of the batch among the arguments, if there is one."""
    for one in arguments:
        if hasattr(one, "partition") and hasattr(one, "from_offset"):
            return one.partition, one.from_offset
    return None


def set_trap(point: str, trap: Trap) -> None:
    """Place ``trap`` at ``point``.

    Raises:
        SeamGoneError: the product no longer has this function.
    """
    name, _, moment = point.rpartition(":")
    seam = seams.seam(name)
    if seam.is_commit:
        _trap_commit(seam, trap, moment)
    else:
        _trap_call(seam, trap, moment)


def _trap_call(seam: seams.Seam, trap: Trap, moment: str) -> None:
    owner, attribute, original = seams.found(seam.target)
    setattr(owner, attribute, _trapped(original, trap, moment))


def _trapped(original: Callable[..., Any], trap: Trap, moment: str) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(original):
        return _trapped_plain(original, trap, moment)

    @functools.wraps(original)
    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the arguments and the result of any function
        if moment == "before" and trap.passed(*args):
            return None
        given = await original(*args, **kwargs)
        if moment == "after":
            trap.passed()
        return given

    return call


def _trapped_plain(original: Callable[..., Any], trap: Trap, moment: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - see above
        if moment == "before" and trap.passed():
            return None
        given = original(*args, **kwargs)
        if moment == "after":
            trap.passed()
        return given

    return call


def _trap_commit(seam: seams.Seam, trap: Trap, moment: str) -> None:
    """Let the trap be passed at the commit of transactions that called the seam's function."""
    owner, attribute, original = seams.found(seam.target)
    setattr(owner, attribute, _noted(original, seam.name))
    database = importlib.import_module("backends.database.unit_of_work").Database
    transaction = database.transaction

    @contextlib.asynccontextmanager
    async def watched(self: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - a database
        called: set[str] = set()
        token = _called.set(called)
        try:
            async with transaction(self) as work:
                yield work
                if moment == "before" and seam.name in called:
                    trap.passed()
        finally:
            _called.reset(token)
        if moment == "after" and seam.name in called:
            trap.passed()

    database.transaction = watched


def _noted(original: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the arguments and the result of any function
        called = _called.get()
        if called is not None:
            called.add(name)
        return await original(*args, **kwargs)

    return call


def _held(service: str, until: Path) -> None:
    """Import what is slow to load, then wait, so that a successor is ready at once."""
    importlib.import_module(f"{service}.bootstrap")
    while not until.exists():
        if os.getppid() == 1:
            sys.exit("the process that held this one is gone")
        time.sleep(0.01)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m tests.chaos.rig.launch", description=__doc__)
    made.add_argument("--at", metavar="POINT", help="where to place the trap: SEAM:before or SEAM:after")
    made.add_argument("--act", choices=ACTS, default="exit", help="what the trap does (default: exit at once)")
    made.add_argument("--hit", type=int, default=1, help="the passage at which it triggers (default: the first)")
    made.add_argument("--seconds", type=float, default=1.0, help="how long a delay takes")
    made.add_argument("--when", type=Path, help="count passages once this file exists")
    made.add_argument("--again", action="store_true", help="trigger each time the file of --when appears")
    made.add_argument("--trace", type=Path, help="a file in which a triggered trap leaves a line")
    made.add_argument("--hold", type=Path, help="load the service, and run it when this file exists")
    made.add_argument("--seed-fault", choices=sorted(seeded_faults_code.FAULT_CODE), help="a fault to seed")
    made.add_argument("service", help="streams, trainers, deployer or serving")
    made.add_argument("arguments", nargs="*", help="passed to the service")
    return made


def main() -> None:
    """Apply the options, then run the service as ``python -m SERVICE`` would."""
    given = parser().parse_args()
    if given.seed_fault:
        seeded_faults_code.FAULT_CODE[given.seed_fault]()
    if given.at:
        trap = Trap(
            given.act, hit=given.hit, seconds=given.seconds, when=given.when, trace=given.trace, again=given.again
        )
        set_trap(given.at, trap)
    if given.hold:
        _held(given.service, given.hold)
    sys.argv = [given.service, *given.arguments]
    runpy.run_module(given.service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
