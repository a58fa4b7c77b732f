"""A test run that hangs where no time-out reaches it ends, and says where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.hangs import STATUS
from tools.reference.packages import ROOT

HANGING = """
import threading
import pytest

@pytest.fixture
def held():
    yield
    threading.Event().wait()

def test_fails_and_hangs(held):
    assert False
"""


def test_a_test_that_fails_and_then_hangs_ends_the_run(tmp_path: Path) -> None:
    """The build would stand until somebody ends it, and say nothing of what failed."""
    (tmp_path / "test_hanging.py").write_text(HANGING)
    options = ["-c", str(tmp_path / "none.ini"), "--timeout=1", "-o", "hanging_seconds=0.5", "-p", "tests.hangs"]
    (tmp_path / "none.ini").write_text("[pytest]\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert ran.returncode == STATUS
    assert "test_hanging.py::test_fails_and_hangs hangs beyond its time-out" in ran.stderr
    assert "in held" in ran.stderr
