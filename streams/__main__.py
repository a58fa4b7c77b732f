"""``python -m streams``: one worker, set up by FINCOACH_ variables."""

from __future__ import annotations

import asyncio
import sys

from streams.bootstrap import run
from streams.settings import StreamsSettings

if __name__ == "__main__":
    sys.exit(asyncio.run(run(StreamsSettings())))
