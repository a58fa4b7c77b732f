"""The unprivileged account of Postgres when the stack runs as root.

Postgres refuses to run as root. The account is a system account that owns only the data folder.
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
    """Return the account of the services: ``pgserver`` for root (created when missing), None for other users.

    Raises:
        SoftwareMissingError: the account is missing and cannot be created.
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
    # Look it up even after a failure: another process may have created it at the same time.
    account = _find()
    if account is None:
        raise SoftwareMissingError(
            f"Postgres does not run as root and the account {ACCOUNT_NAME} could not be created ({reason}): "
            f"run this as an ordinary user, or create the account with `useradd --system {ACCOUNT_NAME}`",
        )
    return account


def make_traversable(path: Path, account: Account | None) -> None:
    """Let ``account`` traverse the folders above ``path``, without listing or reading them."""
    if account is None:
        return
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if folder.stat().st_uid != account.uid and not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
