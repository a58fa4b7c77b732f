"""``python -m serving``: one replica. Settings come from ``FINCOACH_…`` variables."""

from __future__ import annotations

import uvloop

from backends.process import run_to_exit
from serving.bootstrap import serve
from serving.settings import ServingSettings

if __name__ == "__main__":
    run_to_exit(serve(ServingSettings()), loop_factory=uvloop.new_event_loop)
