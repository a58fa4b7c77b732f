"""Several embedded brokers as one KRaft cluster: each is broker and voter, and topics have up to three copies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stack.broker import HOST, EmbeddedBroker, new_cluster_id
from stack.ports import free_port
from stack.processes import ProcessSpec
from stack.settings import MachineSettings

MOST_COPIES = 3


@dataclass(frozen=True, kw_only=True)
class Detour:
    """A connection of one process to one service through a forwarder, for example a fault proxy.

    Attributes:
        process: the process that connects.
        service: the service, by the name of its process.
        listen_port: the port that ``process`` connects to; the forwarder listens there.
        target_port: the port of the service.
    """

    process: str
    service: str
    listen_port: int
    target_port: int


class EmbeddedCluster:
    """``size`` brokers, whose data is kept below ``folder`` between runs. A single one is named ``broker``.

    Args:
        folder: the folder of the installation.
        size: the number of brokers; three tolerate the loss of one.
        detoured: processes that get their own listener on every broker (see :class:`Detour`).
        settings: where to look for jars and Java.
    """

    def __init__(
        self, folder: Path, *, size: int = 1, detoured: Iterable[str] = (), settings: MachineSettings | None = None
    ) -> None:
        names = ["broker"] if size == 1 else [f"broker-{node}" for node in range(1, size + 1)]
        ways = [(name, process, free_port(), free_port()) for name in names for process in detoured]
        self.detours = tuple(
            Detour(process=process, service=name, listen_port=listen_port, target_port=target_port)
            for name, process, target_port, listen_port in ways
        )
        voters = {node: free_port() for node in range(1, size + 1)}
        self.brokers = {
            name: EmbeddedBroker(
                folder / name.replace("broker", "kafka"),
                controller_port=voters[node],
                node_id=node,
                voters=voters,
                cluster_id=_identity(folder) if size > 1 else None,
                detours=_listeners(self.detours, name),
                settings=settings,
            )
            for node, name in enumerate(names, start=1)
        }

    @property
    def copies(self) -> int:
        """The number of copies of a topic."""
        return min(MOST_COPIES, len(self.brokers))

    @property
    def addresses(self) -> str:
        """The addresses for clients."""
        return ",".join(broker.address for broker in self.brokers.values())

    def addresses_for(self, process: str) -> str:
        """Return the addresses for ``process``: its own listeners where it has them."""
        own = [f"{HOST}:{detour.listen_port}" for detour in self.detours if detour.process == process]
        return ",".join(own) or self.addresses

    def specs(self) -> tuple[ProcessSpec, ...]:
        """Return the brokers as supervised processes; they wait for each other, so start them together."""
        return tuple(broker.spec(name) for name, broker in self.brokers.items())


def _listeners(detours: Iterable[Detour], service: str) -> dict[str, tuple[int, int]]:
    own = [detour for detour in detours if detour.service == service]
    return {f"DETOUR{number}": (way.target_port, way.listen_port) for number, way in enumerate(own, start=1)}


def _identity(folder: Path) -> str:
    """Return the cluster id that all brokers of the folder share; the first call generates it."""
    file = folder / "cluster-id"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(new_cluster_id())
    return file.read_text()
