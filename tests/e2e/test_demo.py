"""The demo as a user runs it, while each of its processes is killed once: the final table must hold all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from stack.folder import StackState, read_state
from stack.processes import Phase, ProcessState

PROCESSES = ("postgres", "broker", "streams-1", "trainer-1", "deployer-1", "replica-1", "replica-2")
LONGEST_SECONDS = 600
Found = TypeVar("Found")

pytestmark = [pytest.mark.prove, pytest.mark.timeout(LONGEST_SECONDS + 60)]


class _Demo:
    """A running demo and what its folder says about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report_file = folder / "report.json"
        self.output = folder / "output.txt"
        command = [
            sys.executable,
            "-m",
            "stack",
            "demo",
            "--smoke",
            "--folder",
            str(folder),
            "--json",
            str(self.report_file),
        ]
        with self.output.open("wb") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def state(self, name: str) -> ProcessState | None:
        """What the supervisor says about one process; None before it says anything."""
        found: StackState | None = read_state(self.folder / "demo")
        return next((state for state in found.processes if state.name == name), None) if found else None

    def journal_bytes(self) -> int:
        """How much the producers have written down."""
        journal = self.folder / "demo" / "demo-journal.jsonl"
        return journal.stat().st_size if journal.exists() else 0

    def wait_for(self, what: str, look: Callable[[], Found | None], *, seconds: float = 120) -> Found:
        """Return what ``look`` finds; fails with the demo's output when it ends first or it takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (found := look()) is not None:
                return found
            if self.process.poll() is not None:
                pytest.fail(f"the demo ended with {self.process.returncode} while waiting for {what}:\n{self.tail()}")
            time.sleep(0.1)
        pytest.fail(f"waited {seconds:g} s for {what}:\n{self.tail()}")

    def tail(self) -> str:
        """The end of what the demo printed."""
        return self.output.read_text(errors="replace")[-4000:]

    def kill(self, name: str) -> None:
        """Kill one process with signal 9, and wait until another one is ready in its place."""
        victim = self.wait_for(f"{name} to be ready", lambda: self._ready(name, other_than=None))
        os.kill(victim, signal.SIGKILL)
        self.wait_for(f"{name} to come back", lambda: self._ready(name, other_than=victim))

    def _ready(self, name: str, *, other_than: int | None) -> int | None:
        state = self.state(name)
        return state.pid if state and state.phase is Phase.READY and state.pid != other_than else None


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[_Demo]:
    """A smoke demo in a folder of its own, stopped in the end whatever happened."""
    running = _Demo(tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(60)


def test_the_table_holds_although_every_process_was_killed_once(demo: _Demo) -> None:
    """If this fails, the death of some process loses or doubles events, fails a prediction, or breaks the loop."""
    demo.wait_for("the first events", lambda: demo.journal_bytes() or None)
    for name in PROCESSES:
        demo.kill(name)
    restarts = {name: demo.wait_for(name, lambda name=name: demo.state(name)).restarts for name in PROCESSES}  # type: ignore[misc]
    status = demo.process.wait(LONGEST_SECONDS)

    report: dict[str, Any] = msgspec.json.decode(demo.report_file.read_bytes())
    broken = [promise for promise in report["promises"] if not promise["holds"]]
    assert not broken, demo.tail()
    assert status == 0, demo.tail()
    assert min(restarts.values()) >= 1
    assert report["balanced"]
    assert report["events"]["produced"] == report["events"]["archived"] == report["events"]["counted"] > 25_000
    assert report["events"]["dead_lettered"] == 5
    assert report["events"]["duplicates"] > 0
    assert report["predictions"]["failed"] == 0 < report["predictions"]["learned"]
    assert all(model["trainings"] >= 2 for model in report["models"].values())
