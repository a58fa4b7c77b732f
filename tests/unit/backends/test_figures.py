"""What a performance column holds."""

from __future__ import annotations

import math

import pytest

from backends.database.figures import storable_performance


@pytest.mark.parametrize("figure", [0.0, -1.25, 99.9999, -99.9999])
def test_a_performance_that_fits_is_stored_as_it_is(figure: float) -> None:
    """A figure that the column can hold is not changed."""
    assert storable_performance(figure) == figure


@pytest.mark.parametrize("figure", [None, 100.0, -100.0, math.inf, -math.inf, math.nan])
def test_a_performance_that_does_not_fit_is_left_out(figure: float | None) -> None:
    """A figure that the column cannot hold neither stops the transaction nor becomes another figure."""
    assert storable_performance(figure) is None
