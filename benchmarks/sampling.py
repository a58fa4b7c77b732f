"""Measures where the worker's time goes: samples its stacks from outside while it drains the topic, and sums them by module."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.services import BenchmarkError, Services, connected, eventually, log_tail
from benchmarks.worker import LIVE, RUN_SECONDS, ledger_sum
from schemas.vocabulary import Service

if TYPE_CHECKING:
    from benchmarks.plan import Say
    from benchmarks.topic import Loaded

OURS = ("streams", "backends", "modelkit", "models", "schemas", "fincoach_events")
SAMPLES_PER_SECOND = 250
_WAITING = "selectors.py"
_END_SECONDS = 30.0


async def profile(services: Services, loaded: Loaded, *, stacks: Path, say: Say) -> None:
    """Sample one run of the worker; write its collapsed stacks to ``stacks`` and print their sums.

    Raises:
        BenchmarkError: py-spy is not installed, or may not read the process.
    """
    async with services.database() as url, connected(url) as connection:

        async def reached(records: int) -> bool:
            return await ledger_sum(connection) >= records

        async with services.process(Service.STREAMS, database_url=url, ready_path=LIVE) as worker:
            await eventually(lambda: reached(1), what="a first commit", every_seconds=0.02)
            async with _sampled(worker.pid, stacks):
                await eventually(lambda: reached(loaded.records), what="the end of the topic", seconds=RUN_SECONDS)
    say(profile_table(await asyncio.to_thread(stacks.read_text)))
    say(f"stacks for a flame graph: {stacks}")


def profile_table(collapsed: str) -> str:
    """Return the share of each module, and of each thread, in collapsed stacks, the largest first. Pure.

    A sample belongs to the deepest of our modules in its stack, calls into libraries included; without one, to the
    library at its end. Waiting threads are left out.
    """
    modules: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        module = module_of(frames)
        if module is not None:
            modules[module] += int(count)
            threads[thread.rpartition(": ")[2]] += int(count)
    whole = max(modules.total(), 1)
    frequent = [(name, samples) for name, samples in modules.most_common() if samples * 200 >= whole]
    head = f"where the worker's time goes, by module and by thread, {whole:,} samples of threads that do not wait:"
    lines = (f"  {name:48} {100 * samples / whole:5.1f} %" for name, samples in [*frequent, *threads.most_common()])
    return "\n".join((head, *lines))


def module_of(frames: Sequence[str]) -> str | None:
    """Return the module that a stack belongs to (outermost frame first); None for a waiting thread. Pure.

    For example ``streams/batches/intake.py``, or ``library aiokafka`` for a stack without a module of ours.
    """
    files = [frame.rpartition(" (")[2].partition(":")[0].rstrip(")") for frame in frames]
    if not files:
        return "not known"
    if files[-1] == _WAITING:
        return None
    for file in reversed(files):
        if file.partition("/")[0] in OURS and not file.endswith("/__main__.py"):
            return file
    return f"library {files[-1].partition('/')[0].removesuffix('.py')}"


@contextlib.asynccontextmanager
async def _sampled(pid: int, stacks: Path) -> AsyncIterator[None]:
    """Sample a process during the block."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        raise BenchmarkError("py-spy is not installed: `make setup` installs it with the extra `dev`")
    stacks.parent.mkdir(parents=True, exist_ok=True)
    log = stacks.with_suffix(".log")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(program, "record", "--pid", str(pid), "--format", "raw", "--output", str(stacks)),
            *("--rate", str(SAMPLES_PER_SECOND), "--threads", "--duration", str(int(RUN_SECONDS))),
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        try:
            status = await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            status = await process.wait()
    if status != 0:
        raise BenchmarkError(f"py-spy could not sample the worker:\n{await log_tail(log)}")
