"""Long files come first."""

from __future__ import annotations

from tests.order import LONG_FILES, TESTS


def test_the_long_files_are_there() -> None:
    """A long file that was renamed would be begun last, and one process would end long after the others."""
    assert [name for name in LONG_FILES if not (TESTS / name).is_file()] == []
