"""The population stability index."""

from __future__ import annotations

import math

import pytest

from modelkit.statistics.stability import stability_index


def test_the_index_is_the_one_of_the_books() -> None:
    """The index is the textbook one, so its usual limits (0.1 a little, 0.25 much) apply."""
    before, now = (0.25, 0.25, 0.25, 0.25), (0.1, 0.2, 0.3, 0.4)
    expected = sum((p - q) * math.log(p / q) for q, p in zip(before, now, strict=True))
    assert stability_index(before, now, least=(1e-4, 1e-4)) == pytest.approx(expected)


def test_an_empty_bin_counts_as_the_least_share() -> None:
    """A bin that is empty on one side makes the index large, never infinite; each side has its own least share."""
    expected = (0.01 - 0.5) * math.log(0.01 / 0.5) + (0.99 - 0.5) * math.log(0.99 / 0.5)
    assert stability_index((0.5, 0.5), (0.0, 0.99), least=(0.2, 0.01)) == pytest.approx(expected)
    assert stability_index((0.0, 1.0), (0.5, 0.5), least=(0.2, 0.01)) == pytest.approx(
        (0.5 - 0.2) * math.log(0.5 / 0.2) + (0.5 - 1.0) * math.log(0.5)
    )
