"""The spending trainer: a residual LSTM, LightGBM and their blend; whichever is best on the validation part is judged."""

from trainers.spending.trainer import SpendingTrainer

TRAINER = SpendingTrainer()

__all__ = ["TRAINER", "SpendingTrainer"]
