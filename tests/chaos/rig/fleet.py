"""The producers, each in its own process, with a journal for each restart."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.chaos.producers.producer import Order

KINDS = ("product", "raw", "product", "raw_at_least_once")
STOP_SECONDS = 75.0


@dataclass
class _Producer:
    order: Order
    life: int = 1
    process: Process | None = None

    @property
    def name(self) -> str:
        return f"{self.order.name}.{self.life}"


class ProducerFleet:
    """Starts, kills and stops producers. Journals: ``producers/NAME.LIFE.jsonl``, where LIFE counts the restarts."""

    def __init__(self, orders: list[Order], *, folder: Path) -> None:
        self._producers = {order.name: _Producer(order) for order in orders}
        self._folder = folder

    @property
    def names(self) -> list[str]:
        """Return the producers' names."""
        return list(self._producers)

    async def start(self) -> None:
        """Start all of them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for producer in self._producers.values():
            await self._spawn(producer)

    async def kill(self, name: str) -> None:
        """Kill one and start its replacement."""
        producer = self._producers[name]
        if producer.process is not None:
            with contextlib.suppress(ProcessLookupError):  # it died before: the end of the run shows that
                producer.process.kill()
            await producer.process.wait()
        producer.life += 1
        await self._spawn(producer)

    async def stop(self) -> list[str]:
        """Let all producers deliver what is in flight and end; return the names of those that did not end cleanly."""
        processes = {producer.name: producer.process for producer in self._producers.values() if producer.process}
        for process in processes.values():
            if process.returncode is None:
                process.terminate()
        _, late = await asyncio.wait(
            [asyncio.ensure_future(process.wait()) for process in processes.values()], timeout=STOP_SECONDS
        )
        if late:
            self.kill_all()
            await asyncio.gather(*late)
        return [name for name, process in processes.items() if process.returncode != 0]

    def kill_all(self) -> None:
        """Kill every producer that still runs."""
        for producer in self._producers.values():
            if producer.process is not None and producer.process.returncode is None:
                producer.process.kill()

    def pid(self, name: str) -> int:
        """Return the id of a producer's process."""
        process = self._producers[name].process
        return process.pid if process is not None else 0

    def journal_bytes(self, name: str) -> int:
        """Return how many bytes a producer has written since its last start."""
        path = self._folder / f"{self._producers[name].name}.jsonl"
        return path.stat().st_size if path.exists() else 0

    async def _spawn(self, producer: _Producer) -> None:
        order = msgspec.structs.replace(producer.order, name=producer.name)
        with (self._folder / f"{producer.name}.log").open("ab") as log:
            producer.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.chaos.producers.producer", msgspec.json.encode(order).decode(),
                stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True,
            )  # fmt: skip


def orders(
    *,
    brokers: str,
    folder: Path,
    seed: int,
    producers: int,
    users: int,
    events_per_second: float,
    wall_time: float,
    seconds: float,
    days_per_second: float,
) -> list[Order]:
    """Return the orders for a run's producers; event time reaches the wall clock when the load ends."""
    return [
        Order(
            name=f"producer-{number}",
            client=KINDS[(number - 1) % len(KINDS)],
            brokers=brokers,
            folder=str(folder),
            seed=seed,
            users=max(1, users // producers),
            events_per_second=events_per_second / producers,
            wall_time=wall_time,
            event_time=wall_time - seconds * days_per_second * 86_400,
            days_per_second=days_per_second,
        )
        for number in range(1, producers + 1)
    ]
