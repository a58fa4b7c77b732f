"""The processes of an installation, their addresses, and the removal of its data."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from schemas.vocabulary import Service
from stack.cluster import EmbeddedCluster
from stack.errors import FolderInUseError
from stack.folder import FolderLock
from stack.ports import is_free
from stack.processes import start_waves
from stack.system import System, SystemPlan, remove_data

URL = "postgresql+asyncpg://fincoach:secret@db.example/fincoach"
BROKERS = "kafka-1.example:9092,kafka-2.example:9092"


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the addresses of a database and a broker in the environment."""
    monkeypatch.setenv("FINCOACH_DATABASE_URL", URL)
    monkeypatch.setenv("FINCOACH_BROKERS", BROKERS)


@pytest.mark.usefixtures("addresses")
def test_addresses_in_the_environment_win_over_embedded_services(tmp_path: Path) -> None:
    """Addresses in the environment replace the embedded services."""
    system = System(SystemPlan(folder=tmp_path))
    names = [state.name for state in system.supervisor.states()]
    assert names == ["streams-1", "trainer-1", "deployer-1", "replica-1", "replica-2"]
    assert (system.database_url, system.installation.brokers) == (URL, BROKERS)
    assert list(tmp_path.iterdir()) == []  # nothing was set up


@pytest.mark.usefixtures("addresses")
def test_every_process_gets_all_addresses(tmp_path: Path) -> None:
    """Every process gets its own address and those of database, broker and folder."""
    plan = SystemPlan(folder=tmp_path, replicas=3, trainers=2, wide_partitions=7, environment={"FINCOACH_EXTRA": "1"})
    system = System(plan)
    specs = {endpoint.name: system._spec(endpoint) for endpoint in system.planned}
    assert list(specs) == ["streams-1", "trainer-1", "trainer-2", "deployer-1", "replica-1", "replica-2", "replica-3"]
    for endpoint in system.planned:
        spec = specs[endpoint.name]
        environment = spec.environment
        assert spec.command == (sys.executable, "-m", endpoint.service)
        assert f"http://{environment['FINCOACH_HOST']}:{environment['FINCOACH_PORT']}" == endpoint.url
        assert environment["FINCOACH_INSTANCE"] == endpoint.name
        assert (environment["FINCOACH_DATABASE_URL"], environment["FINCOACH_BROKERS"]) == (URL, BROKERS)
        assert environment["FINCOACH_FOLDER"] == str(tmp_path.resolve())
        assert environment["FINCOACH_WIDE_PARTITIONS"] == "7"
        assert environment["FINCOACH_EXTRA"] == "1"
        assert spec.restarts_alone == (endpoint.service == Service.SERVING)
    assert len({endpoint.url for endpoint in system.planned}) == len(specs)
    assert [replica.name for replica in system.installation.replicas] == ["replica-1", "replica-2", "replica-3"]
    assert system.installation.wide_partitions == 7


@pytest.mark.usefixtures("addresses")
def test_replicas_have_known_ports_where_these_are_free(tmp_path: Path) -> None:
    """Replicas get their fixed ports where these are free, and other ports where not."""
    taken = System(SystemPlan(folder=tmp_path, replica_port=1)).installation.replicas  # port 2 and 3: not ours
    ports = {int(replica.url.rsplit(":", 1)[1]) for replica in taken}
    assert all(port in {2, 3} or port > 1023 for port in ports)
    base = next(port for port in range(42_000, 60_000) if is_free(port + 1) and is_free(port + 2))
    wished = System(SystemPlan(folder=tmp_path, replica_port=base)).installation.replicas
    assert [replica.url for replica in wished] == [f"http://127.0.0.1:{base + number}" for number in (1, 2)]


@pytest.mark.usefixtures("addresses")
def test_processes_start_when_their_services_are_there(tmp_path: Path) -> None:
    """With services from the environment, all processes may start at once."""
    system = System(SystemPlan(folder=tmp_path))
    specs = [system._spec(endpoint) for endpoint in system.planned]
    assert len(start_waves(specs)) == 1


@pytest.mark.usefixtures("addresses")
async def test_schema_and_topics_come_before_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schema and topics are brought up to date before the processes start."""
    order: list[str] = []

    async def prepare(*_: object, **__: object) -> None:
        order.append("schema and topics")

    async def start(*names: str) -> None:
        order.append(f"start {' '.join(names) or 'everything'}")

    system = System(SystemPlan(folder=tmp_path))
    monkeypatch.setattr("stack.system.prepare_services", prepare)
    monkeypatch.setattr(system.supervisor, "start", start)
    await system.start(lambda _: None)
    assert order == ["schema and topics", "start streams-1 trainer-1 deployer-1 replica-1 replica-2"]


def test_data_of_an_installation_can_be_removed(tmp_path: Path) -> None:
    """The data of an installation can be removed, also when there is none."""
    folder = tmp_path / "installation"
    remove_data(folder)  # the folder does not exist
    (folder / "logs").mkdir(parents=True)
    (folder / "store").mkdir()
    remove_data(folder)
    assert not folder.exists()
    folder.mkdir()
    remove_data(folder)
    assert not folder.exists()


def test_a_folder_of_something_else_is_not_removed(tmp_path: Path) -> None:
    """A folder that is not an installation is not removed."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match="holds other things than an installation"):
        remove_data(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_data_under_a_running_system_is_not_removed(tmp_path: Path) -> None:
    """The data of a running system is not removed."""
    (tmp_path / "logs").mkdir()
    lock = FolderLock(tmp_path)
    lock.acquire()
    try:
        with pytest.raises(FolderInUseError, match="is in use by process"):
            remove_data(tmp_path)
    finally:
        lock.release()
    assert (tmp_path / "logs").is_dir()


@pytest.mark.usefixtures("addresses")
async def test_a_spare_worker_waits_for_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spare worker starts only by its name."""
    started: list[str] = []

    async def nothing(*_: object, **__: object) -> None:
        """Prepare nothing."""

    async def start(*names: str) -> None:
        started.extend(names)

    system = System(SystemPlan(folder=tmp_path, streams_workers=2, spare_streams_workers=1))
    monkeypatch.setattr("stack.system.prepare_services", nothing)
    monkeypatch.setattr(system.supervisor, "start", start)
    await system.start(lambda _: None)
    assert [name for name in started if name.startswith("streams")] == ["streams-1", "streams-2"]
    assert system.supervisor.state("streams-3").pid is None


def test_a_detoured_process_gets_its_own_ports() -> None:
    """A detoured process connects through its own ports; other processes connect directly."""
    with tempfile.TemporaryDirectory() as folder:  # Postgres' account cannot enter pytest's folder
        system = System(SystemPlan(folder=Path(folder), streams_workers=2, brokers=3, detoured=("streams-1",)))
        environments = {endpoint.name: system._spec(endpoint).environment for endpoint in system.planned}
        ways = {way.service: way.listen_port for way in system.detours}
        assert sorted(ways) == ["broker-1", "broker-2", "broker-3", "postgres"]
        assert environments["streams-1"]["FINCOACH_DATABASE_URL"].endswith(f":{ways['postgres']}/fincoach")
        assert environments["streams-2"]["FINCOACH_DATABASE_URL"] == system.database_url
        brokers = [f"127.0.0.1:{ways[f'broker-{node}']}" for node in (1, 2, 3)]
        assert environments["streams-1"]["FINCOACH_BROKERS"] == ",".join(brokers)
        assert environments["streams-2"]["FINCOACH_BROKERS"] == system.installation.brokers
        assert {environment["FINCOACH_TOPIC_REPLICATION"] for environment in environments.values()} == {"3"}


def test_each_listener_advertises_its_own_address(tmp_path: Path) -> None:
    """A broker advertises the detour's address on the detour's listener, so clients stay on it."""
    cluster = EmbeddedCluster(tmp_path, size=3, detoured=("streams-1",))
    first, way = cluster.brokers["broker-1"], cluster.detours[0]
    settings = first.properties()
    assert f"DETOUR1://127.0.0.1:{way.target_port}" in settings["listeners"].split(",")
    assert f"DETOUR1://127.0.0.1:{way.listen_port}" in settings["advertised.listeners"].split(",")
    assert f"PLAINTEXT://127.0.0.1:{first.port}" in settings["advertised.listeners"].split(",")
    assert settings["min.insync.replicas"] == "2"
    assert {broker._cluster_id for broker in cluster.brokers.values()} == {(tmp_path / "cluster-id").read_text()}


def test_one_broker_alone_needs_no_other(tmp_path: Path) -> None:
    """A single broker needs no other copies."""
    cluster = EmbeddedCluster(tmp_path)
    assert cluster.brokers["broker"].properties()["min.insync.replicas"] == "1"
    assert (cluster.copies, [spec.name for spec in cluster.specs()]) == (1, ["broker"])
