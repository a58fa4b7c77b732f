"""The segmentation trainer: K-means continued from the champion's segments, and from scratch with the best number of them."""

from models.segmentation.training.trainer import SegmentationTrainer

TRAINER = SegmentationTrainer()

__all__ = ["TRAINER", "SegmentationTrainer"]
