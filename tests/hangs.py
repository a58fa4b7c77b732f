"""Ends a test run that hangs where no time-out reaches it.

pytest-timeout lets go of a test once it has failed. Then its fixtures end, and with them its event loop, which waits for
every task; one that swallows its cancellation, as Faust's do where the app was not stopped, would hold the run for ever.

Where a run has several processes, the others finish what they have begun, and then the run ends (``make test`` forbids xdist
to start another process: it would run the same test again).
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Generator

import psutil
import pytest
from pytest_timeout import Settings, is_debugging

STDERR = pytest.StashKey[int]()
TIMER = pytest.StashKey[threading.Timer]()
STATUS = 1


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare how long a test may take beyond its time-out."""
    parser.addini(
        "hanging_seconds", "how long a test may take beyond its time-out before the whole run ends", default="120"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keep the way to the terminal: during a test what is written is captured."""
    config.stash[STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> Generator[None, object, object]:
    """Watch over whatever has a time-out, by marker, option or configuration."""
    seconds = settings.timeout + float(item.config.getini("hanging_seconds"))
    timer = threading.Timer(seconds, _end_run, (item.nodeid, item.config.stash[STDERR]))
    timer.daemon = True
    timer.start()
    item.stash[TIMER] = timer
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test and its fixtures; watch no longer when they have ended."""
    try:
        return (yield)
    finally:
        if TIMER in item.stash:
            item.stash[TIMER].cancel()


def _end_run(test: str, stderr: int) -> None:
    if is_debugging():  # somebody sits before it
        return
    os.write(stderr, f"\n{test} hangs beyond its time-out; this process ends here. What every thread does:\n".encode())
    faulthandler.dump_traceback(stderr)
    for child in psutil.Process().children(recursive=True):  # broker and database would stay
        child.kill()
    os._exit(STATUS)
