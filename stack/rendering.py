"""Tables for a terminal: the processes of the stack and the progress of the demo."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stack.demo import Progress
from stack.processes import Phase, ProcessState

_COLOURS = {
    Phase.PREPARING: "yellow",
    Phase.READY: "green",
    Phase.STARTING: "yellow",
    Phase.NOT_READY: "red",
    Phase.WAITING: "yellow",
    Phase.BACKING_OFF: "red",
    Phase.GAVE_UP: "bold red",
    Phase.STOPPED: "dim",
}


def process_table(states: Iterable[ProcessState]) -> Table:
    """Return the state of each process as a table."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("process", "state", "pid", "restarts", "last exit"):
        table.add_column(column)
    for state in states:
        colour = _COLOURS[state.phase]
        table.add_row(
            state.name,
            f"[{colour}]{state.phase}[/]",
            str(state.pid or "-"),
            str(state.restarts),
            escape(state.last_exit or "-"),
        )
    return table


def demo_view(progress: Progress, states: Iterable[ProcessState]) -> Group:
    """Return the live view of the demo: phase, replay, processes, models."""
    models = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("model", "crossings", "trainings", "deployed", "kept champion", "serves"):
        models.add_column(column)
    for row in progress.models:
        figures = (row.crossings, row.trainings, row.deployed, row.kept_champion)
        models.add_row(row.model_type, *(str(figure) for figure in figures), f"{row.version} ({row.kind})")
    bar = ProgressBar(total=max(progress.size, 1), completed=progress.acknowledged, width=60)
    return Group(Text(demo_line(progress), style="bold"), bar, Text(), process_table(states), Text(), models)


def demo_line(progress: Progress) -> str:
    """Return the progress of the demo in one line."""
    trainings = sum(row.trainings for row in progress.models)
    waiting = progress.work.jobs
    return (
        f"{progress.phase}: {progress.acknowledged:,} events acknowledged, {progress.answered:,} of {progress.shown:,} recommendations answered (simulated), "
        f"{progress.predictions:,} predictions asked, {progress.failed} failed, {trainings} trainings done, {waiting} waiting"
    )
