"""The checks that every model package passes, for its own tests: subclass :class:`ModelConformance` and run pytest.

    class TestWeather(ModelConformance):
        model_type = "weather"
        events = staticmethod(some_events)

This needs pytest (``pip install 'fincoach-learning[conformance]'``); no process imports it.
"""

import pytest

pytest.register_assert_rewrite("modelkit.conformance.suite")

from modelkit.conformance.material import folded_events, snapshot_of  # noqa: E402 - assertions are rewritten first
from modelkit.conformance.suite import ModelConformance  # noqa: E402 - as above

__all__ = ["ModelConformance", "folded_events", "snapshot_of"]
