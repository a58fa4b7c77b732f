"""Apache Kafka in KRaft mode as a supervised process on this machine: broker and controller in one."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from stack.broker_software import fetch_jars, find_java, jars_folder
from stack.errors import ServicePreparationError
from stack.ports import free_port
from stack.probes import KafkaProbe
from stack.processes import ProcessSpec
from stack.settings import MachineSettings

HOST = "127.0.0.1"
MAX_MESSAGE_BYTES = 5 * 1024 * 1024  # a dead letter holds the whole refused message, and headers with the reason
HEAP = ("-Xms256m", "-Xmx768m")
# A broker out of memory limps; one that exits is restarted.
JVM_OPTIONS = (*HEAP, "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")
# Several brokers on one machine start together. The quick compiler alone and a single-threaded collector reduce the processor
# time of a start from 3.9 s to 2.3.
SHARED_MACHINE_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_LOGGING = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %m (%c{1})%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


class EmbeddedBroker:
    """A Kafka broker whose data is kept in ``folder`` between runs.

    Args:
        folder: data, configuration and identity of this broker; created when missing.
        port: port for clients; a free port when None. It may change between runs.
        controller_port: port for the quorum; a free port when None.
        node_id: unique among the brokers of a cluster.
        voters: controller port by node id, for the whole cluster; this broker alone when None.
        cluster_id: the same for all brokers of a cluster (22 characters, see ``new_cluster_id``); generated when None, for
            a single broker.
        detours: further listeners, by name: the port to listen on and the port that clients connect to. The caller
            forwards from the second to the first.
        settings: where to look for jars and Java.
    """

    def __init__(  # noqa: PLR0913 - one argument for each property of a broker in a cluster
        self,
        folder: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        node_id: int = 1,
        voters: Mapping[int, int] | None = None,
        cluster_id: str | None = None,
        detours: Mapping[str, tuple[int, int]] | None = None,
        settings: MachineSettings | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.port = port if port is not None else free_port()
        self.controller_port = controller_port if controller_port is not None else free_port()
        self.node_id = node_id
        self.voters = dict(voters) if voters is not None else {node_id: self.controller_port}
        self._cluster_id = cluster_id or new_cluster_id()
        self._detours = dict(detours or {})
        self._settings = settings or MachineSettings()
        self._data = self.folder / "data"

    @property
    def address(self) -> str:
        """The address for clients: ``host:port``."""
        return f"{HOST}:{self.port}"

    def prepare(self) -> None:
        """Fetch the jars and format the storage on first use; blocks. May be called again, as the supervisor does.

        Raises:
            SoftwareMissingError: Java or Maven is missing.
            DownloadFailedError: the jars could not be fetched.
            ServicePreparationError: the storage could not be formatted.
        """
        fetch_jars(self._settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Kafka writes this file as the last step of formatting, atomically.
        if not (self._data / "meta.properties").exists():
            self._format()

    def spec(self, name: str = "broker") -> ProcessSpec:
        """Return the broker as a supervised process, set-up included.

        Raises:
            SoftwareMissingError: no Java is new enough.
        """
        shared = SHARED_MACHINE_OPTIONS if len(self.voters) > 1 else ()
        return ProcessSpec(
            name=name,
            command=(*self._java(*JVM_OPTIONS, *shared), "kafka.Kafka", str(self._properties)),
            working_directory=self.folder,
            ready=KafkaProbe(HOST, self.port, self.node_id),
            grace_seconds=20.0,
            prepare=self.prepare,
            before_start=self._configure,
        )

    def properties(self) -> dict[str, str]:
        """Return the broker's configuration, as in ``server.properties``."""
        copies = str(min(3, len(self.voters)))
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in self.voters.items()),
            **self._listeners(),
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self._data),
            # With the producer's time, retention would delete a replay of old events within a minute.
            "log.message.timestamp.type": "LogAppendTime",
            # Topics are created from the register only: a mistyped name must fail.
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(MAX_MESSAGE_BYTES),
            "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
            # With three copies, a write needs two: one broker may be away, and one copy may be lost afterwards.
            "min.insync.replicas": str(max(1, int(copies) - 1)),
            "default.replication.factor": copies,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker that comes back is refused until its old session ends: 12 s with the default.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # A broker that came back leads again soon; with the default, all leaders stay on the others for five minutes.
            "leader.imbalance.check.interval.seconds": "20",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # of a heap of 768 MB; the default takes 128
        }

    def _listeners(self) -> dict[str, str]:
        """Return the ports that the broker listens on and those it advertises, by listener."""
        ports = {"PLAINTEXT": (self.port, self.port), **self._detours}
        listening = [f"{name}://{HOST}:{port}" for name, (port, _) in ports.items()]
        return {
            "listeners": ",".join([*listening, f"CONTROLLER://{HOST}:{self.controller_port}"]),
            "advertised.listeners": ",".join(f"{name}://{HOST}:{port}" for name, (_, port) in ports.items()),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in [*ports, "CONTROLLER"]),
        }

    async def _configure(self) -> None:
        """Write the configuration before each start, because ports may change between runs."""
        self._write_properties(self._properties)
        self._logging.write_text(_LOGGING)

    def _write_properties(self, path: Path) -> None:
        path.write_text("".join(f"{key}={value}\n" for key, value in self.properties().items()))

    def _format(self) -> None:
        properties = self.folder / "format.properties"
        self._write_properties(properties)
        command = [
            *self._java("-Xmx128m", *SHARED_MACHINE_OPTIONS),
            *("kafka.tools.StorageTool", "format", "--cluster-id", self._cluster_id),
            *("--config", str(properties), "--ignore-formatted"),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=self.folder)
        if done.returncode != 0:
            raise ServicePreparationError(f"the broker's storage could not be formatted:\n{done.stdout}{done.stderr}")

    def _java(self, *options: str) -> tuple[str, ...]:
        java = find_java(self._settings)
        logging = f"-Dlog4j2.configurationFile={self._logging}"
        return (str(java), *options, logging, "-cp", f"{jars_folder(self._settings)}/*")

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _logging(self) -> Path:
        return self.folder / "log4j2.properties"


def new_cluster_id() -> str:
    """Return a new cluster id: a random UUID in Kafka's 22 characters."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):  # Kafka would read it as an option
            return text
