"""The contract of a model package: one value that names its parts. Importing a definition imports none of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from schemas.errors import FinCoachError
from schemas.thresholds import ThresholdRule
from schemas.vocabulary import ModelType

if TYPE_CHECKING:
    from modelkit.baselines import Baseline
    from modelkit.scoring import ScoringRuntime
    from modelkit.statistics.dataset import DatasetDefinition
    from modelkit.training.interface import Trainer
    from modelkit.training.validation import Gate
    from schemas.api import ServedShape

CONTRACT_VERSION = 1
"""Raised when a package written for the version before would no longer work."""

T = TypeVar("T")


class ModelPackageError(FinCoachError):
    """A model package does not keep to the contract; the message names the package and what is wrong."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """One part of a model, as ``module:attribute``. It is imported when it is loaded, not before."""

    address: str

    def load(self) -> T:
        """Import the part and return it.

        Raises:
            ModelPackageError: when the module cannot be imported or has no such attribute.
        """
        module, _, attribute = self.address.partition(":")
        try:
            part: T = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ModelPackageError(f"the part {self.address} cannot be loaded: {error}") from error
        return part


@dataclass(frozen=True, kw_only=True)
class ModelDefinition:
    """What there is to know of one model.

    Attributes:
        model_type: its key in topics, tables, paths and commands; also the name of its entry point.
        contract_version: the version of this contract that the package was written against.
        title: what people read, in two or three words.
        counts: which data points count towards its threshold, in a few words.
        threshold: the rule with which a new installation begins; afterwards the one in the database holds.
        dataset: which events belong to it, what counts, what its fields tell (streams).
        runtime: answers from a loaded version (serving, deployer, training).
        answer: the shape of its answer (serving, documents).
        baseline: what makes its version 0 (deployer).
        gate: its headline metric and how much is asked of a candidate (training, documents).
        trainer: examples, fits and evidence (training).
    """

    model_type: ModelType
    contract_version: int
    title: str
    counts: str
    threshold: ThresholdRule
    dataset: Part[DatasetDefinition]
    runtime: Part[type[ScoringRuntime]]
    answer: Part[type[ServedShape]]
    baseline: Part[Baseline]
    gate: Part[Gate]
    trainer: Part[Trainer[Any]]


# What each process imports of a model.
PARTS_OF_PROCESS: dict[str, tuple[str, ...]] = {
    "streams": ("dataset",),
    "serving": ("runtime", "answer"),
    "deployer": ("runtime", "baseline"),
    "trainers": ("runtime", "gate", "trainer"),
    "admin": ("answer", "gate"),
}
