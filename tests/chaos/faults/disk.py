"""A small disk for one broker or database: a tmpfs that can be filled and freed. Needs the right to mount."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

CHUNK = b"\0" * (1024 * 1024)
FILLER = "filler"


class SmallDisk:
    """A tmpfs at ``folder``, which must be empty or missing.

    Attributes:
        keeps: whether its content stays in the folder after unmounting.
    """

    def __init__(self, folder: Path, *, mebibytes: int) -> None:
        self.folder = folder
        self.keeps = True
        self._mebibytes = mebibytes

    def mount(self) -> str | None:
        """Mount it; return None, or the reason why that is impossible here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._mebibytes}m,mode=0755", "chaos", str(self.folder)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except FileNotFoundError:
            return "there is no mount command"
        return None if done.returncode == 0 else done.stderr.strip()

    def unmount(self) -> None:
        """Unmount it. Call this when nobody uses it any more."""
        self.free()
        kept = self.folder.with_name(f"{self.folder.name}.kept")
        if self.keeps:
            subprocess.run(["cp", "--archive", str(self.folder), str(kept)], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)
        if self.keeps:
            self.folder.rmdir()
            kept.rename(self.folder)

    def fill(self) -> int:
        """Write until nothing fits any more; return how many bytes are still free."""
        descriptor = os.open(self.folder / FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (len(CHUNK), 4096):
                _write_until_full(descriptor, CHUNK[:size])
        finally:
            os.close(descriptor)
        return shutil.disk_usage(self.folder).free

    def free(self) -> None:
        """Remove the filler; may be called twice."""
        (self.folder / FILLER).unlink(missing_ok=True)


def _write_until_full(descriptor: int, chunk: bytes) -> None:
    try:
        while True:
            os.write(descriptor, chunk)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
