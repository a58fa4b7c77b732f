"""The command ``fincoach-learning``: the commands of :mod:`admin.cli.app`, and those that run a system on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import psutil
import typer
from rich.live import Live

from admin import installation as installations
from admin.cli.actions import FolderOption, JsonOption, fail, folder_or_default, run
from admin.cli.app import app
from admin.cli.rendering import console, errors, print_json, print_rows
from admin.installation import Installation
from backends.clock import SystemClock
from backends.settings import ProcessSettings
from stack.demo import DEMO_ENVIRONMENT, SMOKE, Demo, DemoPlan
from stack.doctor import diagnose
from stack.folder import running_supervisor
from stack.processes import Phase, ProcessState, RestartPolicy
from stack.rendering import demo_line, demo_view, process_table
from stack.replay.catalogue import SOURCES, open_source
from stack.replay.journal import Journal
from stack.replay.player import Player, PlayReport, PlaySettings, rich_progress
from stack.replay.source import Source, shift_to_now
from stack.report import DemoReport, print_report
from stack.supervisor import OnChange
from stack.system import System, SystemPlan, prepare_services, remove_data, run_until_stopped

STOP_SECONDS = 60.0
TICK_SECONDS = 5.0


@app.command()
def up(
    folder: FolderOption = None,
    *,
    replicas: Annotated[int, typer.Option(min=1, max=16, help="How many serving replicas.")] = 2,
    partitions: Annotated[
        int, typer.Option(min=1, max=128, help="Partitions of the user-keyed topics; kept for the folder's life.")
    ] = 4,
    deaths: Annotated[int, typer.Option(min=1, help="Give a process up after this many deaths within a minute.")] = 5,
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the folder's data first.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; `fincoach-learning down` stops it.")
    ] = False,
) -> None:
    """Start database, broker and all processes on this machine; Ctrl-C stops them. The folder keeps the data."""
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


async def _up(plan: SystemPlan, policy: RestartPolicy, show: OnChange) -> None:
    system = System(plan, policy=policy, on_change=show if console.is_terminal else _phase_printer())
    await run_until_stopped(system, console.print, _announce)


def _phase_printer() -> OnChange:
    """Return a listener that prints each change of phase once; for logs and pipes, which cannot show a live table."""
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
    earlier = log.stat().st_size if log.exists() else 0  # skip the lines of earlier runs
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "stack", "up", "--folder", str(folder), *options],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    console.print(f"starting in the background (process {child.pid}, log {log})")
    while child.poll() is None:
        if b"ready. Replicas" in log.read_bytes()[earlier:]:
            console.print("ready; `fincoach-learning status` shows its state, `fincoach-learning down` stops it")
            return
        time.sleep(0.2)
    fail(
        f"it ended with status {child.returncode}; the end of {log}:\n{log.read_bytes()[earlier:].decode(errors='replace')[-2000:]}"
    )


@app.command()
def down(folder: FolderOption = None) -> None:
    """Stop the system that `up` started on this folder; the folder keeps the data."""
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
        fail(f"process {pid} did not stop within {STOP_SECONDS:g} s; `kill -9 {pid}` ends it and its children")
    console.print("stopped")


@app.command()
def prepare() -> None:
    """Bring schema and topics up to date on the services named by FINCOACH_DATABASE_URL and FINCOACH_BROKERS. May be repeated."""
    settings = ProcessSettings()
    run(
        prepare_services(
            settings.database_url.get_secret_value(), settings.brokers, wide_partitions=settings.wide_partitions
        )
    )
    console.print("schema and topics are up to date")


@app.command()
def doctor(folder: FolderOption = None, *, as_json: JsonOption = False) -> None:
    """List what is missing on this machine and how to get it. Exit status 1 if something is missing."""
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


@app.command()
def demo(
    folder: FolderOption = None,
    *,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Less data and lower thresholds (set by command): under two minutes.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file as JSON.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data of an earlier demo instead of removing it.")
    ] = False,
) -> None:
    """Show the whole loop on real events: replay CDNOW, count, train, deploy, serve. Prints a table of promises; exit status 0 only if all hold."""
    place = folder_or_default(folder) / "demo"
    if not keep:
        run(_removed(place))
    report = run(_demo(place, SMOKE if smoke else DemoPlan()))
    print_report(report, console)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report, enc_hook=str)) + b"\n")
        console.print(f"written to {json_file}")
    raise typer.Exit(0 if report.holds else 1)


async def _demo(folder: Path, plan: DemoPlan) -> DemoReport:
    states: list[tuple[ProcessState, ...]] = [()]
    system = System(
        SystemPlan(folder=folder, environment=DEMO_ENVIRONMENT), on_change=lambda now: states.__setitem__(0, now)
    )
    demo = Demo(system, plan, folder=folder, say=_say)
    async with system.supervisor:
        with (
            Live(
                console=console,
                refresh_per_second=4,
                get_renderable=lambda: demo_view(demo.progress, states[0]),
                transient=True,
            )
            if console.is_terminal
            else contextlib.nullcontext()
        ):
            ticker = None if console.is_terminal else asyncio.create_task(_tick(demo))
            try:
                return await demo.run()
            finally:
                if ticker is not None:
                    ticker.cancel()
    fail("the demo was stopped")
    raise AssertionError  # fail never returns


def _say(sentence: str) -> None:
    console.print(sentence, soft_wrap=True)


async def _tick(demo: Demo) -> None:
    """Print a line of progress every few seconds; for logs and pipes, which cannot show a live table."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        console.print(demo_line(demo.progress), soft_wrap=True)


@app.command()
def replay(
    source: Annotated[
        str, typer.Argument(help=f"A data set: {', '.join(SOURCES)}; or `jsonl` with --jsonl.")
    ] = "cdnow",
    folder: FolderOption = None,
    *,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of data sets (default: FINCOACH_DATA).")] = None,
    jsonl: Annotated[
        str | None,
        typer.Option("--jsonl", help="JSON Lines file of events instead of a data set; - reads standard input."),
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", min=0.0, help="Events per second; 0 is as fast as the broker accepts them.")
    ] = 0.0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Replay at most this many events.")] = None,
    duplicates: Annotated[
        float, typer.Option("--duplicates", min=0.0, max=1.0, help="Share of events that are sent twice.")
    ] = 0.0,
    shift: Annotated[
        bool, typer.Option("--shift-to-now", help="Shift the dates of the data set so that it ends now.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Replay a data set as events, at a chosen speed, with a progress bar. A second replay sends duplicates only."""
    place = folder_or_default(folder)
    report = run(
        _replay(
            place,
            lambda: open_source(source, data=data, jsonl=jsonl),
            shift=shift,
            settings=PlaySettings(events_per_second=speed, limit=limit, duplicate_ratio=duplicates),
        )
    )
    if as_json:
        print_json(report)
    else:
        console.print(f"{report.acknowledged:,} of {report.sent:,} records acknowledged in {report.seconds:.1f} s")


async def _replay(folder: Path, opened: Callable[[], Source], *, shift: bool, settings: PlaySettings) -> PlayReport:
    installation = installations.load(folder)
    source = opened()
    if shift:
        source = shift_to_now(source, SystemClock().now())
    with Journal(folder / "replay-journal.jsonl") as journal, rich_progress(source.name, console=errors) as show:
        return await Player(installation.brokers, journal, settings=settings, on_progress=show).play(source)


def main() -> None:
    """Run the command line."""
    app()
