"""Which models are installed: found by the entry-point group ``fincoach.models``, ours like anybody's."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from modelkit.definition import CONTRACT_VERSION, ModelDefinition, ModelPackageError
from schemas.errors import ArtifactRejectedError
from schemas.vocabulary import ModelType, is_model_type

if TYPE_CHECKING:
    from modelkit.manifest import LoadedArtifact
    from modelkit.scoring import ScoringRuntime
    from modelkit.statistics.dataset import DatasetDefinition

GROUP = "fincoach.models"


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What the entry points gave: sound definitions by model type, the distribution of each, and a sentence for each broken one."""

    definitions: Mapping[ModelType, ModelDefinition] = field(default_factory=dict)
    distributions: Mapping[ModelType, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@functools.cache
def discover() -> Discovery:
    """Look at the entry points; once a process."""
    return discovery_of(entry_points(group=GROUP))


def installed() -> Mapping[ModelType, ModelDefinition]:
    """Return the sound definitions, ordered by model type."""
    return discover().definitions


def definition_of(model_type: ModelType) -> ModelDefinition:
    """Return the definition of an installed model.

    Raises:
        ModelPackageError: when there is none.
    """
    definition = installed().get(model_type)
    if definition is None:
        raise ModelPackageError(f"no model {model_type!r} is installed here; installed are {', '.join(installed())}")
    return definition


def dataset_definitions() -> dict[ModelType, DatasetDefinition]:
    """Return what each installed model counts; imports no runtime and no trainer."""
    return {model_type: definition.dataset.load() for model_type, definition in installed().items()}


def discovery_of(points: Iterable[EntryPoint]) -> Discovery:
    """Return what ``points`` give. A broken package is a problem, never the end of the others."""
    definitions: dict[ModelType, ModelDefinition] = {}
    distributions: dict[ModelType, str] = {}
    problems = []
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
        try:
            definition = _checked(point, taken=definitions)
        except ModelPackageError as error:
            problems.append(f"{point.name} of {distribution} ({point.value}) is left out: {error}")
        else:
            definitions[point.name] = definition
            distributions[point.name] = distribution
    return Discovery(definitions=definitions, distributions=distributions, problems=tuple(problems))


def _checked(point: EntryPoint, *, taken: Mapping[ModelType, ModelDefinition]) -> ModelDefinition:
    try:
        definition = point.load()
    except Exception as error:  # whatever somebody's module does at import ends here, not in a process
        raise ModelPackageError(f"it cannot be imported: {error!r}") from error
    if not isinstance(definition, ModelDefinition):
        raise ModelPackageError(f"it is a {type(definition).__name__}, not a ModelDefinition")
    if not is_model_type(point.name):
        raise ModelPackageError("a model's name has small letters, digits and underscores, at most 32, a letter first")
    if definition.model_type != point.name:
        raise ModelPackageError(f"its definition says model_type={definition.model_type!r}")
    if definition.contract_version != CONTRACT_VERSION:
        raise ModelPackageError(
            f"it was written for contract {definition.contract_version}, this is contract {CONTRACT_VERSION}"
        )
    if taken.get(point.name, definition) is not definition:
        raise ModelPackageError("another distribution brings a model of this name already")
    return definition


def runtime_for(loaded: LoadedArtifact) -> ScoringRuntime:
    """Return the runtime of a verified artifact, once it reproduces the golden predictions.

    Raises:
        ArtifactRejectedError: when it does not, cannot be loaded, or its model is not installed here.
    """
    try:
        runtime = definition_of(loaded.manifest.model_type).runtime.load()
    except ModelPackageError as error:
        raise ArtifactRejectedError(str(error)) from error
    return runtime.from_artifact(loaded)
