"""The child process of one training: ``python -m trainers.running.worker`` reads one order, works alone, and reports the result.

It has no database and no broker. It lowers its own priority, limits its own processor time, uses one thread, and dies
with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from modelkit.registry import definition_of
from schemas.errors import FinCoachError
from schemas.vocabulary import ModelType
from trainers.pipe import WorkFailed, WorkOrder, WorkProgressed, WorkResult, line_of, order_of

PROGRESS_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> int:
    """Carry out the order on standard input; return the exit status."""
    order = order_of.decode(sys.stdin.buffer.readline())
    with _channel() as channel:
        _die_with_parent(order.parent_pid)
        _limit(order)
        reporter = Reporter(channel)
        try:
            reporter.write(_work(order, reporter))
        except Exception as error:  # noqa: BLE001 - the edge of the process: every error is reported to the parent
            reporter.write(WorkFailed(error=_sentence(error)))
            if not isinstance(error, FinCoachError):
                sys.excepthook(type(error), error, error.__traceback__)
            return 1
    return 0


class Reporter:
    """Writes messages for the parent; progress at most twice a second, with an estimate of what is left of the phase."""

    def __init__(self, channel: BinaryIO) -> None:
        self._channel = channel
        self._last = 0.0
        self._phase = ""
        self._phase_began = 0.0

    def write(self, message: msgspec.Struct) -> None:
        """Write one message."""
        self._channel.write(line_of(message))
        self._channel.flush()

    def progress(self, phase: str, step: int, steps: int, loss: float | None = None) -> None:  # noqa: PLR0917 - the callback's shape
        """Write the progress, unless it was written just now."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._phase_began, self._last = phase, now, 0.0
        if now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        eta = (now - self._phase_began) / step * (steps - step) if step > 0 else None
        self.write(WorkProgressed(phase=phase, step=step, steps=steps, loss=loss, eta_seconds=eta))


@contextlib.contextmanager
def _channel() -> Iterator[BinaryIO]:
    """Give standard output to the messages alone: what libraries print goes to standard error."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "wb") as channel:
        os.dup2(2, 1)
        yield channel


def _die_with_parent(parent_pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def _limit(order: WorkOrder) -> None:
    os.nice(order.niceness)
    resource.setrlimit(resource.RLIMIT_CPU, (order.cpu_seconds, order.cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _work(order: WorkOrder, reporter: Reporter) -> WorkResult:
    from trainers.judging.training import run_training  # noqa: PLC0415 - heavy; a wrong order should be refused at once

    return run_training(trainer_of(order.model_type), order, reporter.progress)


def trainer_of(model_type: ModelType) -> Any:  # noqa: ANN401 - a Trainer of its own kind of examples
    """Return the trainer of one model; only its own libraries are loaded.

    Raises:
        ModelPackageError: when the model is not installed or its trainer cannot be loaded.
    """
    return definition_of(model_type).trainer.load()


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, FinCoachError) else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    raise SystemExit(main())
