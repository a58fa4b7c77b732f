"""The order in which test files are given to the processes of a run: long ones first, so that all end at about the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# The files that take longest, the longest first; whatever is not named here takes less than half a minute.
LONG_FILES = (
    "integration/test_trainers_process.py",
    "integration/test_stack_cli.py",
    "integration/test_deployer_process.py",
    "integration/test_streams_ingestion.py",
    "unit/stack/test_replay_cdnow.py",
    "integration/test_stack_services.py",
    "integration/test_dead_letters.py",
    "integration/test_admin_dead_letters.py",
    "integration/test_streams_outages.py",
    "integration/test_streams_rebatching.py",
    "contract/test_trainers.py",
    "unit/streams/test_planted_defects.py",
    "unit/models/test_segmentation.py",
    "unit/models/test_goal.py",
    "unit/models/test_spending.py",
    "integration/test_deployer_service.py",
    "integration/test_streams_adaptive.py",
    "integration/test_admin_cli.py",
    "migrations/test_create_continuous_learning_tables.py",
    "integration/test_backends_kafka.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, then those that need services, then the rest; the order within a file stays."""
    places = {TESTS / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places) + ("unit" in item.path.parts)))
