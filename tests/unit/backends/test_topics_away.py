"""Topics are asked for while no broker answers."""

from __future__ import annotations

import pytest

from backends.broker.kafka import create_topics
from schemas.errors import RetryLaterError
from stack.ports import free_port


async def test_a_broker_that_is_away_is_asked_again_later() -> None:
    """Creating topics can be retried later while the broker is away."""
    with pytest.raises(RetryLaterError):
        await create_topics(f"127.0.0.1:{free_port()}", wide_partitions=1)
