"""The services of the benchmarks: Postgres and Kafka in a temporary folder, fresh databases, and processes of this system."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec

from backends.broker.kafka import create_topics
from benchmarks.processors import Processors
from migrations.create_continuous_learning_tables import create as migrate
from schemas.vocabulary import Service
from stack.broker import EmbeddedBroker
from stack.ports import free_port
from stack.postgres import EmbeddedPostgres
from stack.probes import HttpProbe, answers
from stack.processes import ProcessSpec
from stack.settings import child_environment
from stack.supervisor import Supervisor

WIDE_PARTITIONS = 4
READY_SECONDS = 90.0
STOP_SECONDS = 25.0
REPORT_SECONDS = 180.0
_POLL_SECONDS = 0.1
_TAIL_CHARACTERS = 1_500
HOST = "127.0.0.1"


class BenchmarkError(Exception):
    """A measurement failed or would be wrong; the message gives the reason."""


class Report(msgspec.Struct, frozen=True):
    """The final report of a process that measures itself."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A ready process of this system."""

    url: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self.process.pid


@dataclass(kw_only=True)
class Services:
    """A running Postgres with a migrated template, and a running broker with all topics."""

    folder: Path
    server_url: str
    brokers: str
    postgres_pid: int
    broker_pid: int
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def processors(self) -> Processors:
        """Return the processor times of Postgres and the broker."""
        return Processors({"postgres": self.postgres_pid, "broker": self.broker_pid})

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Give the address of a new database with the newest schema; drop it at the end."""
        name = f"bench_{next(self._numbers)}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE template_fincoach", "CHECKPOINT")
        await settled()
        try:
            yield _address(self.server_url, name)
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[Services]:
        """Give the same Postgres with another broker, whose topics are empty; stop it at the end."""
        folder = self.folder / f"beside-{next(self._numbers)}"
        broker = EmbeddedBroker(folder / "kafka")
        async with supervised(broker.spec(), folder=folder) as supervisor:
            await create_topics(broker.address, wide_partitions=WIDE_PARTITIONS)
            yield dataclasses.replace(
                self, folder=folder, brokers=broker.address, broker_pid=_pid(supervisor, broker.spec().name)
            )

    @contextlib.asynccontextmanager
    async def process(self, service: Service, *, database_url: str, ready_path: str) -> AsyncIterator[RunningProcess]:
        """Run ``python -m service`` and give it once ``ready_path`` returns 200; stop it at the end."""
        port = free_port()
        environment = {
            "FINCOACH_BROKERS": self.brokers,
            "FINCOACH_DATABASE_URL": database_url,
            "FINCOACH_FOLDER": str(self.folder),
            "FINCOACH_HOST": HOST,
            "FINCOACH_INSTANCE": f"bench-{service}-{port}",
            "FINCOACH_PORT": str(port),
            "FINCOACH_WIDE_PARTITIONS": str(WIDE_PARTITIONS),
        }
        url = f"http://{HOST}:{port}"
        log = self.folder / f"{service}-{port}.log"
        async with running(sys.executable, "-m", service, environment=environment, log=log) as process:
            await until_ready(HttpProbe(f"{url}{ready_path}"), process, log=log)
            yield RunningProcess(url, process, log)

    async def prepare(self) -> None:
        """Create all topics, and the template of the databases."""
        await self._execute("CREATE DATABASE template_fincoach")
        await migrate(_address(self.server_url, "template_fincoach"))
        await create_topics(self.brokers, wide_partitions=WIDE_PARTITIONS)

    async def _execute(self, *statements: str) -> None:
        async with connected(self.server_url) as connection:
            for statement in statements:
                await connection.execute(statement)


@contextlib.asynccontextmanager
async def running_services() -> AsyncIterator[Services]:
    """Start Postgres and the broker in a temporary folder; remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fincoach-bench-"))
    try:
        postgres, broker = EmbeddedPostgres(folder / "postgres"), EmbeddedBroker(folder / "kafka")
        async with supervised(postgres.spec(), broker.spec(), folder=folder) as supervisor:
            services = Services(
                folder=folder,
                server_url=postgres.url,
                brokers=broker.address,
                postgres_pid=_pid(supervisor, postgres.spec().name),
                broker_pid=_pid(supervisor, broker.spec().name),
            )
            await services.prepare()
            yield services
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def supervised(*specs: ProcessSpec, folder: Path) -> AsyncIterator[Supervisor]:
    """Run processes in ``folder`` during the block.

    Raises:
        BenchmarkError: a signal ended the block.
    """
    async with Supervisor(specs, folder) as supervisor:
        await supervisor.start()
        yield supervisor
    if supervisor.stopped_by is not None:  # the supervisor ends its block without an error
        raise BenchmarkError(f"stopped by {supervisor.stopped_by.name}; nothing was written")


def _pid(supervisor: Supervisor, name: str) -> int:
    pid = supervisor.state(name).pid
    if pid is None:
        raise BenchmarkError(f"{name} does not run")
    return pid


async def settled() -> None:
    """Return when the disk has all writes, so that one side's writes do not delay the next side."""
    await asyncio.to_thread(os.sync)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a plain connection to an address in SQLAlchemy's form."""
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://", 1))
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def running(
    *command: str, environment: dict[str, str], log: Path, folder: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process; at the end, ask it to stop and kill it when it does not."""
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *command, env=child_environment(environment), cwd=folder, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


async def eventually(
    condition: Callable[[], Awaitable[bool]], *, what: str, seconds: float = 30.0, every_seconds: float = _POLL_SECONDS
) -> None:
    """Return when ``condition`` holds.

    Raises:
        BenchmarkError: it did not hold within ``seconds``; the message names ``what``.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                if await condition():
                    return
                await asyncio.sleep(every_seconds)
    except TimeoutError:
        raise BenchmarkError(f"waited {seconds:.0f} s in vain for {what}") from None


async def http_get(url: str) -> bytes:
    """Return the body of the answer to a GET, whatever its status."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def until_ready(probe: Callable[[], Awaitable[bool]], process: asyncio.subprocess.Process, *, log: Path) -> None:
    """Return when ``probe`` succeeds.

    Raises:
        BenchmarkError: the process ended, or was not ready in time; the message contains the end of its log.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            while process.returncode is None:
                if await answers(probe):
                    return
                await asyncio.sleep(_POLL_SECONDS)
    state = "was not ready in time" if process.returncode is None else f"ended with status {process.returncode}"
    raise BenchmarkError(f"{log.stem} {state}:\n{await log_tail(log)}")


async def reported_rate(*command: str, log: Path) -> float:
    """Run a process that measures itself; return events per second, from its last line of JSON.

    Raises:
        BenchmarkError: it wrote no report.
    """
    # Faust creates a data folder, by default in the working directory.
    async with running(*command, environment={"APP_DATADIR": str(log.with_suffix(".data"))}, log=log) as process:
        await asyncio.wait_for(process.wait(), REPORT_SECONDS)
    lines = [line for line in await asyncio.to_thread(_lines, log) if line.startswith(b'{"events"')]
    if not lines:
        raise BenchmarkError(f"{log.stem} ended without a report:\n{await log_tail(log)}")
    report = msgspec.json.decode(lines[-1], type=Report)
    return report.events / report.seconds


def _lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines()


async def log_tail(log: Path) -> str:
    """Return the end of a log."""
    return await asyncio.to_thread(_tail_of, log)


def _tail_of(log: Path) -> str:
    return log.read_text(errors="replace")[-_TAIL_CHARACTERS:]


def _address(server: str, name: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
