"""Starting a worker while the broker is away."""

from __future__ import annotations

import pytest

from schemas.errors import RetryLaterError
from streams import bootstrap
from streams.bootstrap import create_changelog
from streams.settings import StreamsSettings


async def test_a_worker_waits_for_the_broker_to_create_its_changelog(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker waits for the broker to create its changelog topic."""
    calls: list[int] = []

    async def create(*_: object, **__: object) -> list[str]:
        calls.append(1)
        if len(calls) < 3:
            raise RetryLaterError("away")
        return []

    monkeypatch.setattr(bootstrap, "create_topics", create)
    monkeypatch.setattr(bootstrap, "CHANGELOG_RETRY_SECONDS", 0.0)
    await create_changelog(StreamsSettings())
    assert len(calls) == 3
