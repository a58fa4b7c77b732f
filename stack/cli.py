"""The command ``fincoach-learning``: what :mod:`admin.cli` offers on any installation, and what runs one on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.live import Live

from admin.cli import FolderOption, JsonOption, app, fail, folder_or_default, run
from admin.installation import Installation
from admin.rendering import console, print_json, print_rows
from stack.doctor import diagnose
from stack.folder import running_supervisor
from stack.processes import Phase, ProcessState, RestartPolicy
from stack.rendering import process_table
from stack.system import System, SystemPlan, remove_data, run_until_stopped

STOP_SECONDS = 60.0


@app.command()
def up(
    folder: FolderOption = None,
    *,
    replicas: Annotated[int, typer.Option(min=1, max=16, help="How many serving replicas.")] = 2,
    partitions: Annotated[
        int, typer.Option(min=1, max=128, help="Partitions of the user-keyed topics; kept for the folder's life.")
    ] = 4,
    deaths: Annotated[int, typer.Option(min=1, help="Give a process up after so many deaths within a minute.")] = 5,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the folder's data first.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; `fincoach-learning down` stops it.")
    ] = False,
) -> None:
    """Start database, broker and all processes on this machine; Ctrl-C stops them. Data is kept between runs."""
    place = folder_or_default(folder)
    if fresh:
        run(_removed(place))
    if detach:
        _detach(place, ["--replicas", str(replicas), "--partitions", str(partitions), "--deaths", str(deaths)])
        return
    plan = SystemPlan(folder=place, replicas=replicas, wide_partitions=partitions)
    with Live(console=console, refresh_per_second=4, transient=False, auto_refresh=console.is_terminal) as live:

        def show(states: tuple[ProcessState, ...]) -> None:
            live.update(process_table(states))

        run(_up(plan, RestartPolicy(deaths=deaths), show))
    console.print("stopped")


async def _up(plan: SystemPlan, policy: RestartPolicy, show: object) -> None:
    system = System(plan, policy=policy, on_change=show if console.is_terminal else _say_phase())  # type: ignore[arg-type]
    await run_until_stopped(system, console.print, _announce)


def _say_phase() -> object:
    """Return a listener that prints each change of phase once: for logs and pipes, where a live table would be noise."""
    seen: dict[str, Phase] = {}

    def listen(states: tuple[ProcessState, ...]) -> None:
        for state in states:
            if seen.get(state.name) is not state.phase:
                seen[state.name] = state.phase
                console.print(f"{state.name}: {state.phase}" + (f" ({state.last_exit})" if state.last_exit else ""))

    return listen


def _announce(installation: Installation) -> None:
    replicas = ", ".join(replica.url for replica in installation.replicas)
    console.print(f"ready. Replicas: {replicas}. Kafka: {installation.brokers}. Ctrl-C stops everything.")


async def _removed(folder: Path) -> None:
    remove_data(folder)


def _detach(folder: Path, options: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "up.log"
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "stack", "up", "--folder", str(folder), *options],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    console.print(f"starting in the background (process {child.pid}, log {log})")
    while child.poll() is None:
        if b"ready. Replicas" in log.read_bytes():
            console.print("ready; `fincoach-learning status` looks at it, `fincoach-learning down` stops it")
            return
        time.sleep(0.2)
    fail(f"it ended with status {child.returncode}; the end of {log}:\n{log.read_text()[-2000:]}")


@app.command()
def down(folder: FolderOption = None) -> None:
    """Stop what `up` started on this folder; data is kept."""
    place = folder_or_default(folder)
    pid = running_supervisor(place)
    if pid is None:
        console.print(f"nothing runs in {place.resolve()}")
        return
    os.kill(pid, signal.SIGTERM)
    console.print(f"stopping process {pid}")
    try:
        psutil.Process(pid).wait(STOP_SECONDS)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        fail(f"process {pid} did not stop within {STOP_SECONDS:g} s; `kill -9 {pid}` ends it, and its children with it")
    console.print("stopped")


@app.command()
def doctor(folder: FolderOption = None, *, as_json: JsonOption = False) -> None:
    """Say what is missing on this machine and how to get it. Exit status 1 when something is."""
    findings = diagnose(folder_or_default(folder))
    rows = [
        {"name": c.name, "ok": c.ok, "found": c.found, "needed": c.needed, "how_to_fix": c.how_to_fix or None}
        for c in findings
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows(
            rows, ("name", "ok", "found", "needed", "how_to_fix"), title="This machine", empty="nothing to check"
        )
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


def main() -> None:
    """Run the command line."""
    app()
