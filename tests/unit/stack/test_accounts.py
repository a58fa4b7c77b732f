"""The account of the embedded database: never root, and no more rights on the way than passing through."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stack.accounts import Account, make_traversable, unprivileged_account
from stack.errors import SoftwareMissingError

STRANGER = Account("stranger", 54321, 54321)


def test_an_ordinary_user_runs_everything_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone without rights over accounts could not start the stack."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged_account() is None


def test_without_useradd_root_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an image without useradd the start would end in a stack trace."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("stack.accounts.ACCOUNT_NAME", "nobody-of-this-name")
    monkeypatch.setattr("stack.accounts.shutil.which", lambda *_args, **_options: None)
    with pytest.raises(SoftwareMissingError, match="useradd --system nobody-of-this-name"):
        unprivileged_account()


def test_folders_on_the_way_are_passable_but_not_readable(tmp_path: Path) -> None:
    """The database could not reach its data, or the folders of a private home would be listed by others."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "data").mkdir(mode=0o700)
    make_traversable(private / "data", STRANGER)
    assert stat.S_IMODE(private.stat().st_mode) == 0o701
    assert stat.S_IMODE((private / "data").stat().st_mode) == 0o700
    make_traversable(private / "data", None)
