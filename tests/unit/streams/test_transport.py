"""The buffer between the consumer and an agent: what clearing it does to the partitions whose items it drops."""

from __future__ import annotations

import asyncio

import pytest
from mode.utils.queues import FlowControlEvent

from streams.reading.transport import StreamBuffer


@pytest.fixture
async def buffer() -> StreamBuffer:
    """Give a buffer with room for one item, like those of the app."""
    return StreamBuffer(maxsize=1, flow_control=FlowControlEvent(initially_suspended=False), clear_on_resume=True)


async def test_a_partition_is_fetched_again_after_its_item_was_dropped(buffer: StreamBuffer) -> None:
    """A stream that waits already asks for nothing: the partition would be left out of every fetch."""
    stream, events = asyncio.ensure_future(buffer.get()), list[str]()
    await asyncio.sleep(0)
    buffer.put_nowait_enhanced(
        "dropped", on_pressure_high=lambda: events.append("full"), on_pressure_drop=lambda: events.append("service")
    )
    buffer.clear()
    await asyncio.sleep(0)
    assert (events, stream.done()) == (["full", "service"], False)
    buffer.force_put_nowait("next")
    assert await stream == "next"
