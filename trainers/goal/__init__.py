"""The goal trainer: a random forest and LightGBM; whichever is better on the validation part is judged."""

from trainers.goal.trainer import GoalTrainer

TRAINER = GoalTrainer()

__all__ = ["TRAINER", "GoalTrainer"]
