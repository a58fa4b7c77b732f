"""Where Kafka and Postgres of the tests come from: real ones, always.

Addresses in the environment win (``FINCOACH_DATABASE_URL``, ``FINCOACH_BROKERS``); else containers where a Docker
engine answers; else the servers that ``stack`` starts. Each is started once in each process of a run, when the first test asks for it.

``tests/conftest.py`` names this file as a plugin, and may replace ``template_builder`` by one that applies the
migrations.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from stack.broker import EmbeddedBroker
from stack.ports import free_port
from stack.postgres import EmbeddedPostgres
from stack.probes import KafkaProbe, answers
from stack.processes import ProcessSpec
from stack.settings import MachineSettings
from stack.supervisor import Supervisor

TemplateBuilder = Callable[[str], Coroutine[None, None, None] | None]
"""Brings the empty database at an address to the newest schema, and leaves no connection open."""

# Read at import: tests run in an environment cleaned of FINCOACH_ variables.
_MACHINE = MachineSettings()
_START_SECONDS = 120.0
_DOCKER_SECONDS = 10.0
_POSTGRES_IMAGE = "postgres:18"
_KAFKA_IMAGE = "apache/kafka:4.3.0"
# Tests that share a broker agree on the size of the register's topics.
WIDE_PARTITIONS = 4


def unique(name: str) -> str:
    """A name that no other test uses, for topics, groups and databases on a shared server."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a Postgres server on which databases may be created (SQLAlchemy's form, asyncpg)."""
    with _postgres() as url:
        yield url


@pytest.fixture(scope="session")
def broker_address() -> Iterator[str]:
    """The address of a Kafka broker (``host:port``)."""
    with _broker() as address:
        yield address


@pytest.fixture(scope="session")
def register_broker() -> Iterator[str]:
    """The address of an embedded broker on which one test file after the other has the topics of the register."""
    with _folder("register-broker") as folder:
        broker = EmbeddedBroker(folder / "broker")
        with running_in_background(broker.spec(), folder=folder):
            yield broker.address


@pytest.fixture(scope="module")
def own_broker(register_broker: str) -> str:
    """The address of a broker without topics: nobody but this test file writes to those of its register."""
    from tests.chaos.rig.aimed_topics import remove_topics  # noqa: PLC0415 - the yard stands on this file

    asyncio.run(remove_topics(register_broker))
    return register_broker


@pytest.fixture(scope="session")
def template_builder() -> TemplateBuilder | None:
    """How the template of test databases gets its schema: None leaves it empty."""
    return None


@pytest.fixture(scope="session")
def template_database(postgres_server: str, template_builder: TemplateBuilder | None) -> Iterator[str | None]:
    """The name of a database with the newest schema, from which the others are copied; None without a builder."""
    if template_builder is None:
        yield None
        return
    name = unique("template")
    asyncio.run(_execute(postgres_server, f'CREATE DATABASE "{name}"'))
    building = template_builder(database_address(postgres_server, name))
    if building is not None:
        asyncio.run(building)
    yield name
    asyncio.run(_execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
async def database_url(postgres_server: str, template_database: str | None) -> AsyncIterator[str]:
    """The address of a database of this test's own, with the newest schema where a builder is known."""
    name = unique("test")
    template = f' TEMPLATE "{template_database}"' if template_database else ""
    await _execute(postgres_server, f'CREATE DATABASE "{name}"{template}')
    yield database_address(postgres_server, name)
    await _execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


def database_address(server: str, name: str) -> str:
    """The address of another database on the same server."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def connect(url: str) -> asyncpg.Connection:
    """A plain asyncpg connection to an address in SQLAlchemy's form."""
    return await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://", 1))


async def _execute(url: str, statement: str) -> None:
    connection = await connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def _postgres() -> Iterator[str]:
    if _MACHINE.database_url is not None:
        yield _MACHINE.database_url.get_secret_value()
    elif docker_answers():
        with _postgres_container() as url:
            yield url
    else:
        with _folder("postgres") as folder:
            server = EmbeddedPostgres(folder / "postgres")
            with running_in_background(server.spec(), folder=folder):
                yield server.url


@contextmanager
def _broker() -> Iterator[str]:
    if _MACHINE.brokers is not None:
        yield _MACHINE.brokers
    elif docker_answers():
        with _kafka_container() as address:
            yield address
    else:
        with _folder("broker") as folder:
            broker = EmbeddedBroker(folder / "broker", settings=_MACHINE)
            with running_in_background(broker.spec(), folder=folder):
                yield broker.address


def docker_answers() -> bool:
    """Whether a Docker engine can be talked to."""
    if shutil.which("docker") is None:
        return False
    try:
        asked = subprocess.run(["docker", "version"], check=False, capture_output=True, timeout=_DOCKER_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


@contextmanager
def _postgres_container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer  # noqa: PLC0415

    with PostgresContainer(_POSTGRES_IMAGE, driver="asyncpg") as container:
        yield container.get_connection_url()


@contextmanager
def _kafka_container() -> Iterator[str]:
    """The same broker configuration in a container. Clients are told the address under which the host reaches it."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    port, controller_port = free_port(), free_port()
    broker = EmbeddedBroker(Path("/tmp/kafka"), port=port, controller_port=controller_port)
    settings = {**broker.properties(), "listeners": f"PLAINTEXT://:{port},CONTROLLER://:{controller_port}"}
    container = DockerContainer(_KAFKA_IMAGE).with_bind_ports(port, port)
    for key, value in settings.items():
        container = container.with_env(f"KAFKA_{key.upper().replace('.', '_')}", value)
    with container:
        asyncio.run(_until_ready(KafkaProbe("127.0.0.1", port)))
        yield broker.address


async def _until_ready(probe: KafkaProbe) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            if await answers(probe):
                return
            await asyncio.sleep(0.1)


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A folder for a server's data. Not pytest's own: another run would close that to the account Postgres has."""
    path = Path(tempfile.mkdtemp(prefix=f"fincoach-{name}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running_in_background(*specs: ProcessSpec, folder: Path) -> Iterator[Supervisor]:
    """Run processes under a supervisor in a thread of its own, independent of any test's event loop."""
    loop = asyncio.new_event_loop()
    supervisor = Supervisor(specs, folder)
    started = threading.Event()
    failures: list[BaseException] = []

    async def live() -> None:
        async with supervisor:
            await supervisor.start()
            started.set()
            await supervisor.run_until_stopped()

    def run() -> None:
        try:
            loop.run_until_complete(life)
        except asyncio.CancelledError:
            pass  # the end that is asked for below
        except BaseException as error:  # noqa: BLE001 - carried over to the test's thread, which raises it
            failures.append(error)
        finally:
            started.set()

    life = loop.create_task(live())
    thread = threading.Thread(target=run, name="services")
    thread.start()
    try:
        started.wait()  # the supervisor bounds each start
        if not failures:
            yield supervisor
    finally:
        loop.call_soon_threadsafe(life.cancel)
        thread.join()
        loop.close()
    if failures:
        raise failures[0]
