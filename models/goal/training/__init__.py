"""The goal trainer: a random forest and LightGBM; whichever is better on the validation part is judged."""

from models.goal.training.trainer import GoalTrainer

TRAINER = GoalTrainer()

__all__ = ["TRAINER", "GoalTrainer"]
