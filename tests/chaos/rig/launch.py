"""Starts a room with a trap or a planted bug in it: ``python -m tests.chaos.rig.launch --at POINT --act exit -- streams``.

The product has no switch for any of this: functions of it are replaced before the room's own ``__main__`` runs. A
function that is not where it was is an error, so that no trap is quietly set where nobody passes.

A point is ``SEAM:before`` or ``SEAM:after``; a seam is a function of the product (see ``seams.py``) or the commit of
the transactions in which that function was called.
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

from tests.chaos.rig import seams
from tests.chaos.rig import seeded_faults_code as planted_bugs_code

EXIT_STATUS = 77
ACTS = ("exit", "stop", "delay", "skip")

# What was called within the transaction that is open in this task.
_called: ContextVar[set[str] | None] = ContextVar("called", default=None)


class Trap:
    """Springs once, when the point is passed for the ``hit``-th time (counted from when ``when`` exists, where it is given).

    With ``again`` it springs each time that ``when`` appears, and removes it.
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
        """Count a passage with ``arguments``, and do what is to be done; return True where the call is to be left out."""
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
            time.sleep(self._seconds)  # the whole process: what others do meanwhile is the fault
        return self._act == "skip"

    def _is_armed_anew(self) -> bool:
        """Whether a trap that springs again and again still has the file that armed it: whoever set it may take it back."""
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
            line = {"sprung": self._act, "pid": os.getpid(), "batch": _batch_among(arguments)}
            with self._trace.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")


def _batch_among(arguments: tuple[object, ...]) -> tuple[int, int] | None:
    """Return partition and first offset of the batch that a function was called with, where it was."""
    for one in arguments:
        if hasattr(one, "partition") and hasattr(one, "from_offset"):
            return one.partition, one.from_offset
    return None


def set_trap(point: str, trap: Trap) -> None:
    """Put ``trap`` at ``point``.

    Raises:
        SeamGoneError: the product has no such function any more.
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
    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
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
    """Let the trap be passed at the commit of transactions in which the seam's function was called."""
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
    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
        called = _called.get()
        if called is not None:
            called.add(name)
        return await original(*args, **kwargs)

    return call


def _held(room: str, until: Path) -> None:
    """Load what takes time, then wait: a process that takes over from another one is there at once."""
    importlib.import_module(f"{room}.bootstrap")
    while not until.exists():
        if os.getppid() == 1:
            sys.exit("whoever held this process is gone")
        time.sleep(0.01)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m tests.chaos.rig.launch", description=__doc__)
    made.add_argument("--at", metavar="POINT", help="where the trap is: SEAM:before or SEAM:after")
    made.add_argument("--act", choices=ACTS, default="exit", help="what it does (default: exit at once)")
    made.add_argument("--hit", type=int, default=1, help="at which passage (default: the first)")
    made.add_argument("--seconds", type=float, default=1.0, help="how long a delay takes")
    made.add_argument("--when", type=Path, help="passages count from when this file exists")
    made.add_argument("--again", action="store_true", help="spring each time that the file of --when appears")
    made.add_argument("--trace", type=Path, help="a file that says that the trap has sprung")
    made.add_argument("--hold", type=Path, help="load the room, and run it when this file exists")
    made.add_argument("--plant", choices=sorted(planted_bugs_code.BUGS), help="a bug to live with")
    made.add_argument("room", help="streams, trainers, deployer or serving")
    made.add_argument("arguments", nargs="*", help="of the room")
    return made


def main() -> None:
    """Set what is asked for, then run the room as ``python -m ROOM`` would."""
    given = parser().parse_args()
    if given.plant:
        planted_bugs_code.BUGS[given.plant]()
    if given.at:
        trap = Trap(
            given.act, hit=given.hit, seconds=given.seconds, when=given.when, trace=given.trace, again=given.again
        )
        set_trap(given.at, trap)
    if given.hold:
        _held(given.room, given.hold)
    sys.argv = [given.room, *given.arguments]
    runpy.run_module(given.room, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
