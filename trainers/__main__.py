"""``python -m trainers``: one trainer; configured by ``FINCOACH_…`` variables, stopped by SIGTERM."""

from __future__ import annotations

import asyncio

from trainers.bootstrap import run_trainer
from trainers.settings import TrainersSettings

if __name__ == "__main__":
    raise SystemExit(asyncio.run(run_trainer(TrainersSettings())))
