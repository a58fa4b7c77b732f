"""``python -m streams``: one worker, set up by FINCOACH_ variables."""

from __future__ import annotations

import gc

from backends.process import run_to_exit
from streams.bootstrap import run
from streams.settings import StreamsSettings

# A batch makes thousands of short-lived objects beside a large cache of states that hardly changes. With Python's
# default the collector walks through that cache many times a second: an eighth of the worker's time.
GARBAGE_THRESHOLDS = (200_000, 20, 100)

if __name__ == "__main__":
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    run_to_exit(run(StreamsSettings()))
