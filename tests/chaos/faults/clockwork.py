"""Wall clocks that can be moved while a process runs, by libfaketime; durations (the monotonic clock) stay true."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "libfaketime"
REACHES_WITHIN_SECONDS = 2.0  # a process looks at its control file so often


class Clockwork:
    """The clocks of the processes that were started with :meth:`environment`; one control file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def environment(self, name: str) -> dict[str, str]:
        """Return what must stand in the environment of a process whose clock is to be moved; empty without the library."""
        library = faketime_library()
        if library is None:
            return {}
        self.move(name, 0)
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its repair of waits on the monotonic clock makes them all too long where nothing of it is faked.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def move(self, name: str, seconds: float) -> None:
        """Let the clock of ``name`` show ``seconds`` more than the true time, within two seconds from now."""
        draft = self._file(name).with_suffix(".new")
        draft.write_text(f"{seconds:+.0f}\n")
        draft.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return self._folder / name


def faketime_library() -> Path | None:
    """Return the library inside the ``libfaketime`` wheel, or None where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)  # not imported: importing it looks for a process to start anew
    if found is None or not found.submodule_search_locations:
        return None
    library = Path(found.submodule_search_locations[0]) / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return library if library.is_file() else None
