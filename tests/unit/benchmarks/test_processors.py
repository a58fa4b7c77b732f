"""Processor time of processes, and the ceiling that follows from it."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from benchmarks.processors import Processors, processor_table, used

BUSY = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


def test_the_time_of_children_that_ended_is_kept() -> None:
    """What Postgres spends in backends that were closed meanwhile would be missing."""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}]); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert Processors({"parent": process.pid}).seconds()["parent"] >= 0.3
        process.communicate(b"\n")


def test_the_time_of_living_children_counts() -> None:
    """A backend that is still connected would cost nothing."""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY + 'input()'!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        processors = Processors({"parent": process.pid})
        busy = psutil.Process(process.pid)
        deadline = time.monotonic() + 30
        while sum(sum(child.cpu_times()[:2]) for child in busy.children()) < 0.25:
            assert process.poll() is None
            assert time.monotonic() < deadline, "waited in vain for a busy child"
        assert processors.seconds()["parent"] >= 0.25
        process.communicate(b"\n")


def test_what_was_used_lies_between_two_looks() -> None:
    """A process that was started anew would give its time back."""
    assert used({"worker": 2.0, "postgres": 1.0}, {"worker": 3.5, "postgres": 0.5}) == {"worker": 1.5, "postgres": 0.0}


def test_the_limit_follows_from_the_sum_and_from_the_dearest() -> None:
    """The table would promise more than the processors can give."""
    shown = processor_table(
        {"worker": 3.0, "postgres": 1.0}, events=100_000, rate=25_000.0, written_bytes=80_000_000, cores=2
    )
    lines = shown.splitlines()
    assert lines[3].split() == ["whole", "40.00"]
    assert "50,000 events/s; reached 25,000, 50% of it" in lines[4]
    assert lines[5].endswith("33,333 events/s")
    assert lines[6].endswith("800 bytes of log per event, 20.0 MB/s at this rate")
