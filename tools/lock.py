"""Writes constraints.txt: the exact versions of the environment that runs this script."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

HEADER = """\
# Exact versions that were tested together on {platform} with Python {python}; written by `make lock`.
# Lines for libraries that another platform does not install (nvidia-*, triton) have no effect there.
"""
CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"


def frozen_versions() -> list[str]:
    """Return ``name==version`` of everything installed from an index, sorted case-insensitively."""
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable", "--disable-pip-version-check"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted((line for line in lines if "==" in line), key=str.lower)


def main() -> None:
    """Replace constraints.txt."""
    versions = frozen_versions()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    header = HEADER.format(platform=f"{platform.system()} {platform.machine()}", python=python)
    CONSTRAINTS.write_text(header + "\n".join(versions) + "\n", encoding="utf-8")
    print(f"{CONSTRAINTS.name}: {len(versions)} pinned")


if __name__ == "__main__":
    main()
