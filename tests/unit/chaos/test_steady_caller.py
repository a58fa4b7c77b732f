"""The steady caller separates the client's share of a delay from the machine's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.producers.steady_caller import Starvation

pytestmark = [
    pytest.mark.prove,  # they measure time, with nobody beside them
    pytest.mark.skipif(
        not Path("/proc/thread-self/schedstat").exists(),
        reason="the kernel keeps no account of waiting for a processor",
    ),
]
MEASURED_SECONDS = 0.5


@pytest.fixture
def one_processor() -> Iterator[None]:
    """Restrict this thread, and what it starts, to one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_waiting_of_ones_own_is_not_the_machine_s() -> None:
    """A wait of the client itself is not deducted."""
    starvation = Starvation()
    before = starvation.seconds()
    time.sleep(MEASURED_SECONDS)
    assert starvation.seconds() - before < MEASURED_SECONDS / 2


@pytest.mark.usefixtures("one_processor")
def test_only_the_wait_for_a_processor_is_the_machine_s() -> None:
    """Only the wait for a processor is deducted."""
    starvation = Starvation()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            before, worked_before, began = starvation.seconds(), time.thread_time(), time.monotonic()
            while time.monotonic() - began < MEASURED_SECONDS:
                pass
            lasted = time.monotonic() - began
            waited, worked = starvation.seconds() - before, time.thread_time() - worked_before
        finally:
            neighbour.kill()
    assert waited > 0.1 * MEASURED_SECONDS
    assert waited + worked == pytest.approx(lasted, rel=0.3)
