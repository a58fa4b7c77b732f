"""What every test stands on: a clean environment, a clock that stands still, and no error log that nobody expected."""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from hypothesis import settings

from backends.clock import ManualClock
from migrations.create_continuous_learning_tables import create
from tests.small_sets import REAL, has_real_sets

if TYPE_CHECKING:  # at run time pytest imports the plugin itself, to rewrite its assertions
    from tests.services import TemplateBuilder

pytest_plugins = [
    "tests.services",
    "tests.hangs",
    "tests.order",
]  # broker and database; an end to what hangs; long files first

# Where the shared services are may be given from outside; nothing else may leak into a test.
SERVICE_ADDRESSES = {"FINCOACH_DATABASE_URL", "FINCOACH_BROKERS"}
NOON = dt.datetime(2026, 3, 4, 12, 0, tzinfo=dt.UTC)
OUR_LOGGERS = ("fincoach", "asyncio")

# Torch loads Triton, a compiler for GPUs, wherever it finds it; nothing here uses it, and at exit it prints a page of
# leaked instances below the tests' summary.
sys.modules["triton"] = None  # type: ignore[assignment]

# The same examples each time for `make test`; others each time, and more of them, for `make prove`.
settings.register_profile("test", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("prove", max_examples=200, deadline=None, print_blob=True)
settings.load_profile("test")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers of the fixtures below."""
    config.addinivalue_line(
        "markers", "expects_errors(*events): these events may be logged as errors, because the test provokes them"
    )


def pytest_report_header() -> str:
    """Say on which data sets the run stands."""
    if has_real_sets():
        return f"data sets: the real ones in {REAL}, and small ones that the tests make"
    return f"data sets: only small ones that the tests make; {REAL} is not there (FINCOACH_DATA names a folder of real ones)"


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> Iterator[None]:
    """Take every FINCOACH_ variable away but the addresses of services, so that a developer's shell changes no result."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("FINCOACH_") and name not in SERVICE_ADDRESSES]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def template_builder() -> TemplateBuilder:
    """Bring the template of test databases to the newest schema, so that each ``database_url`` is a quick copy of it."""

    async def build(url: str) -> None:
        await create(url)

    return build


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands at a Wednesday noon until the test moves it."""
    return ManualClock(NOON)


@pytest.fixture(autouse=True)
def no_unexpected_error_log(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test during which the system logged an error that its ``expects_errors`` marker does not name."""
    marker = request.node.get_closest_marker("expects_errors")
    expected = set(marker.args) if marker else set()
    with structlog.testing.capture_logs() as lines:
        yield
    for line in lines:
        print(line)  # noqa: T201 - shown by pytest where the test fails
    found = structured_errors(lines) + library_errors(caplog.get_records("call"))
    unexpected = [text for event, text in found if event not in expected]
    assert not unexpected, f"errors were logged that the test does not expect: {unexpected}"


def structured_errors(lines: list[Any]) -> list[tuple[str, str]]:
    """Return event and text of each line that our own components logged as an error."""
    return [(str(line["event"]), str(line)) for line in lines if line.get("log_level") in {"error", "critical"}]


def library_errors(records: list[logging.LogRecord]) -> list[tuple[str, str]]:
    """Return message and text of each error that reached our loggers or asyncio's through the standard library."""
    return [
        (record.getMessage(), f"{record.name}: {record.getMessage()}")
        for record in records
        if record.levelno >= logging.ERROR and record.name.partition(".")[0] in OUR_LOGGERS
    ]
