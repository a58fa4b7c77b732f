"""``python -m trainers``: one trainer; configured by ``FINCOACH_…`` variables, stopped by SIGTERM."""

from __future__ import annotations

from backends.process import run_to_exit
from trainers.bootstrap import run_trainer
from trainers.settings import TrainersSettings

if __name__ == "__main__":
    run_to_exit(run_trainer(TrainersSettings()))
