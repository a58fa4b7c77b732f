"""Processes and progress on a terminal."""

from __future__ import annotations

import datetime as dt
import io

import pytest
from rich.console import Console, RenderableType

from backends.database.repositories.recount import ModelRecount, OpenWork
from stack.demo import Progress
from stack.processes import Phase, ProcessState
from stack.rendering import demo_line, demo_view, process_table

NOW = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
MODEL = ModelRecount(
    model_type="goal",
    crossings=2,
    trainings=1,
    deployed=1,
    kept_champion=0,
    failed=0,
    rejected=0,
    version="1.0.0",
    kind="learned",
)


def text_of(what: RenderableType) -> str:
    """Return the text on a wide terminal."""
    console = Console(file=io.StringIO(), width=200)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_can_be_shown(phase: Phase) -> None:
    """The live table shows every phase."""
    assert phase in text_of(process_table([ProcessState(name="broker", phase=phase, since=NOW, log="l")]))


def test_a_process_shows_what_happened_to_it() -> None:
    """A process shows its restarts and last exit; brackets in the text are escaped."""
    state = ProcessState(
        name="streams-1", phase=Phase.BACKING_OFF, since=NOW, log="l", restarts=3, last_exit="[/killed] by signal 9"
    )
    line = text_of(process_table([state])).splitlines()[1]
    assert line.split() == ["streams-1", "backing_off", "-", "3", "[/killed]", "by", "signal", "9"]


def test_the_demo_shows_phase_replay_processes_and_models() -> None:
    """The live view of the demo shows phase, replay, processes and models."""
    progress = Progress(
        phase="act 1 of 3", acknowledged=1_234, size=10_000, shown=60, answered=50, predictions=900, failed=1, models=[MODEL], work=OpenWork(jobs=2)
    )  # fmt: skip
    text = text_of(demo_view(progress, [ProcessState(name="broker", phase=Phase.READY, since=NOW, log="l", pid=77)]))
    assert demo_line(progress) in text
    assert "1,234 events acknowledged, 50 of 60 recommendations answered (simulated)" in text
    assert "900 predictions asked, 1 failed, 1 trainings done, 2 waiting" in text
    assert "77" in text
    assert "1.0.0 (learned)" in text


def test_a_demo_that_has_just_begun_can_be_shown() -> None:
    """The view can be shown before the size of the replay is known."""
    assert "starting: 0 events" in text_of(demo_view(Progress(), []))
