"""``python -m serving``: one replica. Settings come from ``FINCOACH_…`` variables."""

from __future__ import annotations

import sys

import uvloop

from serving.bootstrap import serve
from serving.settings import ServingSettings


def main() -> int:
    """Run a replica until a signal; return the exit status."""
    return uvloop.run(serve(ServingSettings()))


if __name__ == "__main__":
    sys.exit(main())
