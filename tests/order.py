"""The order in which test files are given to the processes of a run: long ones first, so that all end at about the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# The files that take longest, the longest first; whatever is not named here takes less than half a minute.
LONG_FILES = (
    "integration/test_stack_cli.py",
    "integration/test_trainers_process.py",
    "integration/test_deployer_process.py",
    "integration/test_streams_ingestion.py",
    "integration/test_streams_outages.py",
    "unit/streams/test_planted_defects.py",
    "integration/test_dead_letters.py",
    "integration/test_stack_services.py",
    "integration/test_streams_rebatching.py",
    "property/test_codec.py",
    "unit/models/test_segmentation.py",
    "unit/models/test_goal.py",
    "migrations/test_create_continuous_learning_tables.py",
    "integration/test_deployer_service.py",
    "unit/stack/test_replay_sources.py",
    "unit/stack/test_replay_cdnow.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, then those that need services, then the rest; the order within a file stays."""
    places = {TESTS / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places) + ("unit" in item.path.parts)))
