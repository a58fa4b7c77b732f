"""Refuses files that do not belong in the history: large files, private keys, models and data sets."""

from __future__ import annotations

import re
import sys
from pathlib import Path

LARGEST_BYTES = 500_000
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
MODEL_OR_DATA = {".onnx", ".safetensors", ".parquet", ".pkl", ".joblib", ".pt", ".d3"}


def objection(path: Path) -> str | None:
    """Return why ``path`` must not be committed, or None."""
    if not path.is_file():
        return None
    if path.suffix in MODEL_OR_DATA:
        return "models and data sets are generated or fetched, not committed"
    if path.stat().st_size > LARGEST_BYTES:
        return f"larger than {LARGEST_BYTES} bytes"
    if PRIVATE_KEY.search(path.read_bytes()):
        return "contains a private key"
    return None


def main(names: list[str]) -> int:
    """Print each objection; return 1 if there is one."""
    objections = {name: reason for name in names if (reason := objection(Path(name)))}
    for name, reason in objections.items():
        print(f"{name}: {reason}")
    return 1 if objections else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
