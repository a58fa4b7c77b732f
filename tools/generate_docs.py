"""Writes docs/reference from the code, or fails with --check if the two differ.

It generates the pages on topics, dead letters, AsyncAPI, settings, metrics, the command line and the tables.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable

from tools.reference import asyncapi, cli, dead_letters, metrics, settings, tables, topics
from tools.reference.packages import ROOT

REFERENCE = ROOT / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "topics.md": topics.render,
    "dead-letters.md": dead_letters.render,
    "asyncapi.yaml": asyncapi.render,
    "settings.md": settings.render,
    "metrics.md": metrics.render,
    "cli.md": cli.render,
    "tables.md": tables.render,
}


def difference(name: str, expected: str) -> str:
    """Return the difference of the written page from ``expected``; empty if there is none."""
    path = REFERENCE / name
    written = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = difflib.unified_diff(
        written.splitlines(), expected.splitlines(), f"docs/reference/{name}", "the code", lineterm=""
    )
    return "\n".join(lines)


def check() -> int:
    """Print every difference; return 1 if there is one."""
    differences = [found for name, render in PAGES.items() if (found := difference(name, render()))]
    for found in differences:
        print(found)
    if differences:
        print("docs/reference is out of date: run `make docs` and commit the result.")
    return 1 if differences else 0


def write() -> int:
    """Write every page."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, render in PAGES.items():
        (REFERENCE / name).write_text(render(), encoding="utf-8")
    print(f"docs/reference: {len(PAGES)} pages written")
    return 0


def main() -> int:
    """Write or check, depending on the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    return check() if parser.parse_args().check else write()


if __name__ == "__main__":
    sys.exit(main())
