"""Every kind of fault by its name."""

from __future__ import annotations

from tests.chaos.faults.connections import CutConnection, SilentConnection, SlowConnection
from tests.chaos.faults.fault import Fault
from tests.chaos.faults.freezes import Freeze, FreezeInBatch, FreezeProducer
from tests.chaos.faults.processes import ClockJump, Kill, KillProducer, KillTraining, Rebalance
from tests.chaos.faults.services import (
    BackendKill,
    BrokerFreeze,
    BrokerKill,
    DiskFull,
    PostgresFreeze,
    PostmasterKill,
)

FAULTS: dict[str, type[Fault]] = {
    "kill": Kill,
    "kill_producer": KillProducer,
    "kill_training": KillTraining,
    "freeze": Freeze,
    "freeze_in_batch": FreezeInBatch,
    "freeze_producer": FreezeProducer,
    "broker_kill": BrokerKill,
    "broker_freeze": BrokerFreeze,
    "backend_kill": BackendKill,
    "postmaster_kill": PostmasterKill,
    "postgres_freeze": PostgresFreeze,
    "rebalance": Rebalance,
    "clock_jump": ClockJump,
    "slow_connection": SlowConnection,
    "silent_connection": SilentConnection,
    "cut_connection": CutConnection,
    "disk_full": DiskFull,
}
