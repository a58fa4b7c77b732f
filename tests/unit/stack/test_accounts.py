"""The account of the embedded database: never root, and with no more rights than to traverse folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stack.accounts import Account, make_traversable, unprivileged_account
from stack.errors import SoftwareMissingError

STRANGER = Account("stranger", 54321, 54321)


def test_an_ordinary_user_runs_everything_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user runs all services under its own account."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged_account() is None


def test_without_useradd_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root on a machine without useradd gets an error that names the command to run."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("stack.accounts.ACCOUNT_NAME", "nobody-of-this-name")
    monkeypatch.setattr("stack.accounts.shutil.which", lambda *_args, **_options: None)
    with pytest.raises(SoftwareMissingError, match="useradd --system nobody-of-this-name"):
        unprivileged_account()


def test_parent_folders_become_traversable_but_not_readable(tmp_path: Path) -> None:
    """Parent folders become traversable for the account, and neither listable nor readable."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "data").mkdir(mode=0o700)
    make_traversable(private / "data", STRANGER)
    assert stat.S_IMODE(private.stat().st_mode) == 0o701
    assert stat.S_IMODE((private / "data").stat().st_mode) == 0o700
    make_traversable(private / "data", None)
