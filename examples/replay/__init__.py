"""More data sets for ``fincoach-learning replay``: a reader each. They are in a checkout and not in the wheel.

:mod:`stack.replay.catalogue` offers them where this package can be imported; benchmarks and tests play them. All are public
research data, with their terms in each module. ``openbandit`` comes from the package index, the others from a data
folder (``--data DIR`` or ``FINCOACH_DATA``).
"""

from __future__ import annotations

from collections.abc import Callable

from examples.replay.completejourney import completejourney
from examples.replay.heartsteps import heartsteps
from examples.replay.onlineretail import OnlineRetailSource
from examples.replay.openbandit import openbandit
from examples.replay.oulad import oulad
from examples.replay.weblog import weblog
from stack.replay.settings import ReplaySettings
from stack.replay.source import Source

SOURCES: dict[str, Callable[[ReplaySettings], Source]] = {
    "openbandit": lambda _: openbandit(),
    "onlineretail": OnlineRetailSource,
    "oulad": oulad,
    "heartsteps": heartsteps,
    "completejourney": completejourney,
    "weblog": weblog,
}
