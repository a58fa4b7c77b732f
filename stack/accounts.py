"""The unprivileged account under which Postgres runs when the stack itself runs as root.

Postgres refuses to run as root. A system account of its own owns nothing but the data folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stack.errors import SoftwareMissingError

ACCOUNT_NAME = "pgserver"


@dataclass(frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """The account that services drop to: ``pgserver`` (created when missing) for root, None for anybody else.

    Raises:
        SoftwareMissingError: it is missing and cannot be created here.
    """
    if os.geteuid() != 0:
        return None
    return _find() or _create()


def _find() -> Account | None:
    try:
        entry = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create() -> Account:
    tool = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    reason = "there is no useradd"
    if tool is not None:
        command = [tool, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT_NAME]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        reason = done.stderr.strip()
    # Looked up even after a failure: another process may have created it at the same moment.
    account = _find()
    if account is None:
        raise SoftwareMissingError(
            f"Postgres does not run as root and the account {ACCOUNT_NAME} could not be created ({reason}): "
            f"run this as an ordinary user, or create the account with `useradd --system {ACCOUNT_NAME}`",
        )
    return account


def make_traversable(path: Path, account: Account | None) -> None:
    """Let ``account`` pass through the folders above ``path``; nothing becomes listable or readable by it."""
    if account is None:
        return
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if folder.stat().st_uid != account.uid and not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
