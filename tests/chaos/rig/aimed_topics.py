"""The topics of aimed runs: emptied between runs; dead members are removed from their consumer groups."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

from backends.broker.kafka import create_topics
from schemas.errors import SettingsError
from tests.chaos.rig.aimed_processes import eventually


async def empty_topics(brokers: str, *, wide_partitions: int) -> None:
    """Delete all topics and create the registered ones anew; committed offsets and dead group members go with them."""

    async def are_created() -> bool:
        with contextlib.suppress(SettingsError):  # a deletion is still in progress
            await create_topics(brokers, wide_partitions=wide_partitions)
            return True
        return False

    await remove_topics(brokers)
    await eventually(are_created, what="topics to be created")


async def remove_topics(brokers: str) -> None:
    """Delete all topics; committed offsets and dead group members go with them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()

    async def ours() -> list[str]:
        return [name for name in await admin.list_topics() if not name.startswith("__")]

    async def are_gone() -> bool:
        left = await ours()
        if left:  # repeated: the broker silently keeps topics that have just been created
            await admin.delete_topics(left)
        return not left

    try:
        await _remove_members(admin, await _groups(admin))
        await eventually(are_gone, what="deleted topics to be gone")
    finally:
        await admin.close()


async def remove_dead_members(brokers: str, service: str) -> None:
    """Remove the members of a service's group from the broker. Call it when they are dead.

    Otherwise others get their partitions only after their sessions have expired, which other tests cover.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await _remove_members(admin, [group for group in await _groups(admin) if service in group])
    finally:
        await admin.close()


async def _groups(admin: AIOKafkaAdminClient) -> list[str]:
    return [name for name, *_ in await admin.list_consumer_groups()]


async def _remove_members(admin: AIOKafkaAdminClient, groups: Iterable[str]) -> None:
    for group in groups:
        with contextlib.suppress(KafkaError):
            coordinator = await admin.find_coordinator(group)
            for response in await admin.describe_consumer_groups([group], group_coordinator_id=coordinator):
                for described in response.groups:
                    for member in described[5]:
                        await admin._send_request(LeaveGroupRequest(group, member[0]), coordinator)
