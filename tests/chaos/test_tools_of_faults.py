"""The tools of faults on which evidence relies: moved clocks, small disks, the tail of a log."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.clock import ManualClock
from tests.chaos.faults.disk import SmallDisk
from tests.chaos.faults.fake_clocks import FakeClocks, faketime_library
from tests.chaos.rig.watch import LogTail, processor_seconds

SCRIPT = """
import sys, time
while line := sys.stdin.readline():
    print(time.time(), time.monotonic(), flush=True)
"""


def test_a_clock_jumps_in_a_running_process_while_durations_stay_true(tmp_path: Path) -> None:
    """A clock jumps in a running process, and durations stay true."""
    assert faketime_library() is not None, "run `make setup` again: libfaketime is not installed"
    clocks = FakeClocks(tmp_path / "clocks")
    environment = {**os.environ, **clocks.environment("worker")}  # noqa: TID251 - the process under test inherits it
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask() -> tuple[float, float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wall, monotonic = process.stdout.readline().split()
        return float(wall), float(monotonic)

    first, first_monotonic = ask()
    clocks.move("worker", -7_200)
    deadline = time.monotonic() + 10
    while (now := ask())[0] > first - 7_000 and time.monotonic() < deadline:
        time.sleep(0.05)  # the library looks at its file once a second
    process.communicate()
    assert -7_200 < now[0] - first < -7_180
    assert 0 < now[1] - first_monotonic < 15


def test_a_small_disk_fills_up_and_is_freed(tmp_path: Path) -> None:
    """A small disk can be filled and freed, and keeps its data after unmounting."""
    disk = SmallDisk(tmp_path / "disk", mebibytes=4)
    if (refusal := disk.mount()) is not None:
        pytest.skip(f"this machine mounts nothing for us: {refusal}")
    try:
        kept = disk.folder / "kept"
        kept.write_bytes(b"x" * 1000)
        assert disk.fill() == 0
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "more").write_bytes(b"x" * 10_000)
        disk.free()
        disk.free()
        (disk.folder / "more").write_bytes(b"x" * 10_000)
        assert kept.stat().st_size == 1000
    finally:
        disk.unmount()
    assert not os.path.ismount(disk.folder)
    assert kept.stat().st_size == 1000  # the data of a failing run stays


def test_a_tail_sees_only_what_came_after_it(tmp_path: Path) -> None:
    """A tail sees only lines that came after it was made."""
    clock = ManualClock(dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC))
    log = tmp_path / "worker.log"
    log.write_text('{"event": "compare_lost"}\n')
    tail, fresh = LogTail(log), LogTail(tmp_path / "none.log")
    with log.open("a") as file:
        file.write('{"event": "batch_delayed"}\n{"event": "x", "timestamp": "2026-03-04T14:00:00.5Z"}\n')
    assert (tail.count("compare_lost"), tail.count("compare_lost", "batch_delayed")) == (0, 1)
    assert tail.shifts(clock) == [7_200.5]
    assert fresh.lines() == []


def test_a_process_that_is_gone_has_no_processor_time() -> None:
    """A process that is gone has no processor time."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert processor_seconds(child.pid) is None
    assert (processor_seconds(os.getpid()) or 0.0) > 0
