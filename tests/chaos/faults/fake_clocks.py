"""Wall clocks that can be moved while a process runs, with libfaketime; the monotonic clock stays true."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "libfaketime"
REACHES_WITHIN_SECONDS = 2.0  # a process reads its control file at least this often


class FakeClocks:
    """The clocks of the processes that were started with :meth:`environment`, each with a control file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a process whose clock is to be moved; empty if the library is not installed."""
        library = faketime_library()
        if library is None:
            return {}
        self.move(name, 0)
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its correction of monotonic waits makes all of them too long where the monotonic clock is not faked.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def move(self, name: str, seconds: float) -> None:
        """Shift the clock of ``name`` by ``seconds`` from the true time; it shows within two seconds."""
        draft = self._file(name).with_suffix(".new")
        draft.write_text(f"{seconds:+.0f}\n")
        draft.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return self._folder / name


def faketime_library() -> Path | None:
    """Return the library inside the ``libfaketime`` wheel, or None if it is not installed."""
    found = importlib.util.find_spec(PACKAGE)  # not imported: on import it tries to restart the process
    if found is None or not found.submodule_search_locations:
        return None
    library = Path(found.submodule_search_locations[0]) / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return library if library.is_file() else None
