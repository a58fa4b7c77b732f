"""The parent's side of a training process, with real processes that behave badly."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from schemas.vocabulary import Verdict
from trainers.pipe import WorkOrder, WorkProgressed
from trainers.running import child
from trainers.running.child import TrainingProcess, TrainingProcessError

ORDER = WorkOrder(
    model_type="spending", run_id="run", snapshot="snapshots/none", seed=0, store_url="file:///nowhere", keys_folder="/nowhere",
    cpu_seconds=30, parent_pid=os.getpid(),
)  # fmt: skip
WAIT = "import sys, time; sys.stdin.readline(); time.sleep(60)"
STUBBORN = 'import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(\'{"type": "progress", "phase": "x", "step": 1, "steps": 2}\', flush=True); time.sleep(60)'
GREEDY = "import time; hoard = bytearray(300_000_000); time.sleep(60)"
GOOD = 'print(\'{"type": "progress", "phase": "x", "step": 1, "steps": 2}\'); print(\'{"type": "result", "verdict": "rejected", "reasons": ["r"], "numbers": {}}\')'


def process_running(
    program: str, monkeypatch: pytest.MonkeyPatch, *, timeout_seconds: float = 20, memory_bytes: int = 10**10
) -> TrainingProcess:
    """Return a training process that runs ``program`` in place of a training."""
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", program))
    return TrainingProcess(ORDER, timeout_seconds=timeout_seconds, grace_seconds=0.5, memory_bytes=memory_bytes)


async def test_progress_and_result_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress and result arrive."""
    heard: list[WorkProgressed] = []
    result = await process_running(GOOD, monkeypatch).run(heard.append)
    assert (result.verdict, result.reasons) == (Verdict.REJECTED, ("r",))
    assert [(item.phase, item.step) for item in heard] == [("x", 1)]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit(3)", "status 3"),
        ("print('hello')", "unreadable"),
        ("print('{\"type\": \"failed\", \"error\": \"no luck\"}')", "no luck"),
    ],
)  # fmt: skip
async def test_an_end_without_a_result_says_why(program: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end without a result is an error that says why."""
    with pytest.raises(TrainingProcessError, match=message):
        await process_running(program, monkeypatch).run(lambda _: None)


@pytest.mark.parametrize("program", [WAIT, STUBBORN])
async def test_a_training_that_takes_too_long_is_ended_even_when_it_does_not_listen(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that takes too long is ended, even when it ignores the signal."""
    process = process_running(program, monkeypatch, timeout_seconds=0.7)
    began = time.monotonic()
    with pytest.raises(TrainingProcessError, match="longer than"):
        await process.run(lambda _: None)
    assert time.monotonic() - began < 10
    assert process.pid is not None
    assert not psutil.pid_exists(process.pid)


@pytest.mark.expects_errors("training_memory_exceeded")
async def test_a_training_that_takes_too_much_memory_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that takes too much memory is killed."""
    with pytest.raises(TrainingProcessError, match="status -9"):
        await process_running(GREEDY, monkeypatch, memory_bytes=150_000_000).run(lambda _: None)


async def test_a_real_worker_reports_its_error_in_a_sentence(tmp_path: Path) -> None:
    """A real worker reports its error in a sentence."""
    order = msgspec.structs.replace(ORDER, store_url=f"file://{tmp_path}/store", keys_folder=str(tmp_path))
    process = TrainingProcess(order, timeout_seconds=60, grace_seconds=1, memory_bytes=10**10)
    with pytest.raises(TrainingProcessError, match="nothing is stored at snapshots/none"):
        await process.run(lambda _: None)
