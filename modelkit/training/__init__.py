"""The contract of a trainer, and what trainers share: splits, cleaning, gates, off-policy estimators, ONNX export."""
