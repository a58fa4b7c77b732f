"""The order in which test files are given to the processes of a run: long ones first, so that all end at about the same time."""

from __future__ import annotations

import pytest

# The files that take longest, the longest first; whatever is not named here is short.
LONG_FILES: tuple[str, ...] = ()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, then those that need services, then the rest; the order within a file stays."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places) + ("unit" in item.path.parts)))
