"""Refuses a commit message that is not conventional: ``feat(streams): count each event once``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tools.reference.packages import PACKAGES

KINDS = ("feat", "fix", "docs", "test", "refactor", "perf", "chore", "build", "ci", "revert")
SCOPES = (*PACKAGES, "migrations", "tests", "benchmarks", "examples", "docs", "tools", "house")
LONGEST_SUBJECT = 100
SUBJECT = re.compile(rf"^({'|'.join(KINDS)})\(({'|'.join(SCOPES)})\)!?: \S.*[^.]$")


def objection(message: str) -> str | None:
    """Return what is wrong with the first line of ``message``, or None."""
    subject = message.partition("\n")[0]
    if subject.startswith(("Merge ", "Revert ")):
        return None
    if len(subject) > LONGEST_SUBJECT:
        return f"the subject has {len(subject)} characters; at most {LONGEST_SUBJECT}"
    if not SUBJECT.match(subject):
        return f"write: kind(scope): what changed. Kinds: {', '.join(KINDS)}. Scopes: {', '.join(SCOPES)}."
    return None


def main(path: str) -> int:
    """Print the objection to the message in the file ``path``; return 1 if there is one."""
    reason = objection(Path(path).read_text(encoding="utf-8"))
    if reason:
        print(reason)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
