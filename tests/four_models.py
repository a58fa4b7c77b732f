"""The four models of the product, by name, so another installed model changes no test."""

from __future__ import annotations

from modelkit.registry import definition_of
from modelkit.statistics.dataset import DataSets

FOUR_MODELS = ("recommendation", "segmentation", "spending", "goal")


def data_sets_of_four() -> DataSets:
    """Return what the four models count."""
    return DataSets({model: definition_of(model).dataset.load() for model in FOUR_MODELS})
