"""The churn trainer: a logistic regression on how lately, how often and for how much users bought."""

from fincoach_churn.training.trainer import ChurnTrainer

TRAINER = ChurnTrainer()

__all__ = ["TRAINER", "ChurnTrainer"]
