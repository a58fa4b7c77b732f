"""``python -m streams``: one worker, configured by FINCOACH_ variables."""

from __future__ import annotations

import gc

from backends.process import run_to_exit
from streams.bootstrap import run
from streams.settings import StreamsSettings

# A batch creates thousands of short-lived objects beside a large, stable cache of states. With Python's defaults the
# collector scans that cache many times a second, which takes an eighth of the worker's time.
GARBAGE_THRESHOLDS = (200_000, 20, 100)

if __name__ == "__main__":
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    run_to_exit(run(StreamsSettings()))
