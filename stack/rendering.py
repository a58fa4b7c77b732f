"""The stack's processes and the demo's progress as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from stack.processes import Phase, ProcessState

_COLOURS = {
    Phase.READY: "green",
    Phase.STARTING: "yellow",
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
            state.last_exit or "-",
        )
    return table
