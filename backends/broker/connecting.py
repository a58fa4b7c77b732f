"""Starting a consumer while the broker may be away."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

from aiokafka.errors import KafkaError

from backends.broker.interface import Record
from backends.broker.kafka import BrokerConsumer
from backends.telemetry.logs import get_logger

log = get_logger("connecting")
RECONNECT_SECONDS = 1.0


async def connected(
    new_consumer: Callable[[], BrokerConsumer], *, since: Callable[[], dt.datetime] | None = None
) -> BrokerConsumer:
    """Return a started consumer; makes a new one and tries again while the broker is away."""
    while True:
        consumer = new_consumer()
        try:
            await consumer.start(since=since() if since is not None else None)
        except (KafkaError, OSError) as error:
            log.warning("broker_away", error=repr(error))
            await consumer.stop()
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        except BaseException:
            await consumer.stop()
            raise
        return consumer


async def read_to_end(consumer: BrokerConsumer) -> list[Record]:
    """Return all records up to the current ends of the partitions; the consumer continues from there.

    Raises:
        RetryLaterError: when the broker is away.
    """
    records: list[Record] = []
    while True:
        records += await consumer.fetch(timeout_seconds=0.2)
        if not any(lag.records for lag in await consumer.lags()):
            return records
