"""The whole system on one machine: its processes, their order, and their addresses."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from admin.installation import Endpoint, Installation, save
from backends.broker.kafka import create_topics
from migrations.create_continuous_learning_tables import create as migrate
from schemas.errors import SettingsError
from schemas.vocabulary import Service
from stack.cluster import Detour, EmbeddedCluster
from stack.errors import FolderInUseError
from stack.folder import running_supervisor
from stack.ports import free_port, is_free
from stack.postgres import EmbeddedPostgres
from stack.probes import HttpProbe
from stack.processes import ProcessSpec, RestartPolicy
from stack.settings import MachineSettings
from stack.supervisor import OnChange, Supervisor

HOST = "127.0.0.1"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SystemPlan:
    """The size of the system. ``wide_partitions`` is part of the data: a folder keeps its first number.

    Attributes:
        brokers: number of embedded brokers; three tolerate the loss of one.
        spare_streams_workers: workers that are started by name only, to join and leave.
        detoured: processes that reach the embedded services through their own ports; the caller must forward these (see
            ``System.detours``) before it starts the processes.
        environment: additions to the environment of every process of this system.
        environments: further additions, by name of the process.
        server_settings: changes to the settings of the embedded Postgres.
    """

    folder: Path
    replicas: int = 2
    trainers: int = 1
    streams_workers: int = 1
    spare_streams_workers: int = 0
    brokers: int = 1
    wide_partitions: int = 4
    replica_port: int = 8600
    detoured: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    server_settings: Mapping[str, str] = field(default_factory=dict)


class System:
    """All processes of one installation under one supervisor.

    Addresses in the environment (``FINCOACH_DATABASE_URL``, ``FINCOACH_BROKERS``) take precedence over embedded services.
    In a new folder, the constructor sets up an embedded database, which blocks for about two seconds.

    Raises:
        SoftwareMissingError: a program is missing; the message says how to get it.
    """

    def __init__(
        self, plan: SystemPlan, *, on_change: OnChange | None = None, policy: RestartPolicy | None = None
    ) -> None:
        machine = MachineSettings()
        self.plan = plan
        self._folder = plan.folder.resolve()
        self._postgres = (
            None
            if machine.database_url
            else EmbeddedPostgres(self._folder / "postgres", server_settings=plan.server_settings)
        )
        if self._postgres is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._postgres.prepare()  # every other process needs the password in its environment
        self._cluster = (
            None
            if machine.brokers
            else EmbeddedCluster(self._folder, size=plan.brokers, detoured=plan.detoured, settings=machine)
        )
        self._given_database_url = machine.database_url.get_secret_value() if machine.database_url else ""
        self._brokers = machine.brokers or (self._cluster.addresses if self._cluster else "")
        self.detours = (*self._detours(), *(self._cluster.detours if self._cluster else ()))
        self.planned = tuple(self._planned())
        database = (self._postgres.spec(),) if self._postgres else ()
        self._services = (*database, *(self._cluster.specs() if self._cluster else ()))
        specs = (*self._services, *(self._spec(endpoint) for endpoint in self.planned))
        self.supervisor = Supervisor(specs, self._folder, on_change=on_change, policy=policy)

    @property
    def database_url(self) -> str:
        """Return the database's address; an embedded one has it after its set-up."""
        return self._postgres.url if self._postgres is not None else self._given_database_url

    @property
    def installation(self) -> Installation:
        """Return the addresses and folders of the installation; the embedded services must be set up."""
        return Installation(
            database_url=self.database_url,
            brokers=self._brokers,
            store_url=f"file://{self._folder / 'store'}",
            keys_folder=str(self._folder / "keys"),
            wide_partitions=self.plan.wide_partitions,
            processes=self.planned,
        )

    async def start(self, say: Say) -> Installation:
        """Start services, bring schema and topics up to date, start processes. Call inside ``async with supervisor``.

        Raises:
            SettingsError: a program is missing; the message says how to get it.
        """
        say("starting database and broker")
        if self._services:  # without names, start() starts all processes
            await self.supervisor.start(*(spec.name for spec in self._services))
        say("bringing schema and topics up to date")
        await prepare_services(
            self.database_url,
            self._brokers,
            wide_partitions=self.plan.wide_partitions,
            replication=self._cluster.copies if self._cluster else 1,
        )
        save(self._folder, self.installation)
        say("starting streams, trainers, deployer and replicas")
        await self.supervisor.start(*(endpoint.name for endpoint in self.planned if not self._is_spare(endpoint)))
        return self.installation

    def _is_spare(self, endpoint: Endpoint) -> bool:
        number = int(endpoint.name.rsplit("-", 1)[-1])
        return endpoint.service == Service.STREAMS and number > self.plan.streams_workers

    def _planned(self) -> list[Endpoint]:
        numbers = {
            Service.STREAMS: self.plan.streams_workers + self.plan.spare_streams_workers,
            Service.TRAINERS: self.plan.trainers,
            Service.DEPLOYER: 1,
            Service.SERVING: self.plan.replicas,
        }
        names = {
            Service.STREAMS: "streams",
            Service.TRAINERS: "trainer",
            Service.DEPLOYER: "deployer",
            Service.SERVING: "replica",
        }
        return [
            Endpoint(
                name=f"{names[service]}-{number}", service=service, url=f"http://{HOST}:{self._port(service, number)}"
            )
            for service, count in numbers.items()
            for number in range(1, count + 1)
        ]

    def _port(self, service: Service, number: int) -> int:
        wished = self.plan.replica_port + number
        return wished if service is Service.SERVING and is_free(wished) else free_port()

    def _spec(self, endpoint: Endpoint) -> ProcessSpec:
        return ProcessSpec(
            name=endpoint.name,
            command=(sys.executable, "-m", endpoint.service),
            ready=HttpProbe(f"{endpoint.url}/health/ready"),
            environment=self._environment(endpoint),
            depends_on=tuple(spec.name for spec in self._services),
            # A replica starts from its disk, without database and broker; in a cluster, no single broker is needed.
            restarts_alone=endpoint.service == Service.SERVING or self.plan.brokers > 1,
            grace_seconds=15.0,
            ready_within_seconds=120.0,
        )

    def _environment(self, endpoint: Endpoint) -> dict[str, str]:
        cluster = self._cluster
        return {
            "FINCOACH_DATABASE_URL": self._database_url_of(endpoint.name),
            "FINCOACH_BROKERS": cluster.addresses_for(endpoint.name) if cluster else self._brokers,
            "FINCOACH_FOLDER": str(self._folder),
            "FINCOACH_INSTANCE": endpoint.name,
            "FINCOACH_HOST": HOST,
            "FINCOACH_PORT": endpoint.url.rsplit(":", 1)[-1],
            "FINCOACH_WIDE_PARTITIONS": str(self.plan.wide_partitions),
            "FINCOACH_TOPIC_REPLICATION": str(cluster.copies if cluster else 1),
            **self.plan.environment,
            **self.plan.environments.get(endpoint.name, {}),
        }

    def _detours(self) -> tuple[Detour, ...]:
        """Return the detours to the embedded database."""
        target = self._postgres.port if self._postgres is not None else None
        return tuple(
            Detour(process=process, service="postgres", listen_port=free_port(), target_port=target)
            for process in self.plan.detoured
            if target is not None
        )

    def _database_url_of(self, process: str) -> str:
        ways = [way for way in self.detours if (way.process, way.service) == (process, "postgres")]
        if not ways:
            return self.database_url
        parts = urlsplit(self.database_url)
        host = parts.netloc.rpartition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{host}:{ways[0].listen_port}"))


async def prepare_services(database_url: str, brokers: str, *, wide_partitions: int, replication: int = 1) -> None:
    """Bring schema and topics up to date; existing ones are kept.

    Raises:
        SettingsError: a topic exists with another number of partitions.
    """
    await migrate(database_url)
    await create_topics(brokers, wide_partitions=wide_partitions, replication=replication)


def remove_data(folder: Path) -> None:
    """Remove all data of the installation in ``folder``.

    Raises:
        FolderInUseError: the installation is running.
        SettingsError: the folder is not an installation.
    """
    if not folder.exists():
        return
    pid = running_supervisor(folder)
    if pid is not None:
        raise FolderInUseError(folder, pid)
    if any(folder.iterdir()) and not (folder / "logs").is_dir():
        message = f"{folder} holds other things than an installation; choose an empty folder with --folder"
        raise SettingsError(message)
    shutil.rmtree(folder)


async def run_until_stopped(system: System, say: Say, on_ready: Callable[[Installation], None]) -> None:
    """Start everything and keep it running until a signal.

    Raises:
        ProcessFailedError: a process was given up; all others were stopped.
    """
    async with system.supervisor:
        installation = await system.start(say)
        on_ready(installation)
        await asyncio.Event().wait()
