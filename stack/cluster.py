"""Several embedded brokers as one KRaft cluster: each is broker and voter, topics have a copy on up to three of them."""

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
    """A way of one process to one service on which somebody else must forward, a fault proxy for example.

    Attributes:
        process: who goes this way.
        service: where to, by the name of its process.
        listen_port: the port that ``process`` is told; whoever forwards listens there.
        target_port: the port behind it, of the service itself.
    """

    process: str
    service: str
    listen_port: int
    target_port: int


class EmbeddedCluster:
    """``size`` brokers, whose data is kept below ``folder`` between runs. One alone keeps the name ``broker``.

    Args:
        folder: of the installation.
        size: how many; of three one may be away and all goes on.
        detoured: processes that get a listener of their own on every broker (see :class:`Detour`).
        settings: where jars and Java are looked for.
    """

    def __init__(
        self, folder: Path, *, size: int = 1, detoured: Iterable[str] = (), settings: MachineSettings | None = None
    ) -> None:
        names = ["broker"] if size == 1 else [f"broker-{node}" for node in range(1, size + 1)]
        ways = [(name, process, free_port(), free_port()) for name in names for process in detoured]
        self.detours = tuple(
            Detour(process=process, service=name, listen_port=told, target_port=port)
            for name, process, port, told in ways
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
        """How many copies a topic has."""
        return min(MOST_COPIES, len(self.brokers))

    @property
    def addresses(self) -> str:
        """Where clients connect."""
        return ",".join(broker.address for broker in self.brokers.values())

    def addresses_for(self, process: str) -> str:
        """Where ``process`` connects: its own listeners where it has them."""
        own = [f"{HOST}:{detour.listen_port}" for detour in self.detours if detour.process == process]
        return ",".join(own) or self.addresses

    def specs(self) -> tuple[ProcessSpec, ...]:
        """The brokers as supervised processes; they wait for each other, so start them together."""
        return tuple(broker.spec(name) for name, broker in self.brokers.items())


def _listeners(detours: Iterable[Detour], service: str) -> dict[str, tuple[int, int]]:
    own = [detour for detour in detours if detour.service == service]
    return {f"DETOUR{number}": (way.target_port, way.listen_port) for number, way in enumerate(own, start=1)}


def _identity(folder: Path) -> str:
    """The identity that all brokers of the folder are formatted with; drawn once."""
    file = folder / "cluster-id"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(new_cluster_id())
    return file.read_text()
