"""The spending trainer: a residual LSTM, LightGBM and their blend; whichever is best on the validation part is judged."""

from models.spending.training.trainer import SpendingTrainer

TRAINER = SpendingTrainer()

__all__ = ["TRAINER", "SpendingTrainer"]
