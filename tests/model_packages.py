"""Model packages that a test writes into a folder, as pip would install them: a module, and metadata with an entry point."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from modelkit.registry import GROUP, definition_of

TWIN = dataclasses.replace(definition_of("goal"), title="A second model of that name")

DEFINITION = """
from modelkit.definition import ModelDefinition, Part
from schemas.thresholds import ThresholdRule

DEFINITION = ModelDefinition(
    model_type="{name}", contract_version={contract}, title="A model of a test", counts="transactions",
    threshold=ThresholdRule(threshold=10),
    dataset=Part("{dataset}"), runtime=Part("{runtime}"), answer=Part("{answer}"), baseline=Part("{baseline}"),
    gate=Part("{gate}"), trainer=Part("{trainer}"),
)
"""
SOUND_PARTS = {
    "dataset": "models.spending.dataset:DATASET",
    "runtime": "models.spending.runtime:SpendingRuntime",
    "answer": "models.spending.answer:SpendingPrediction",
    "baseline": "models.spending.baseline:BASELINE",
    "gate": "models.spending.gate:GATE",
    "trainer": "models.spending.training:TRAINER",
}


def write_package(folder: Path, name: str, *, source: str | None = None, contract: int = 1, **parts: str) -> Path:
    """Write a distribution ``of-test-NAME`` with a module ``of_test_NAME`` that defines the model NAME; return the folder.

    ``parts`` replace those of a package whose addresses can all be loaded; ``source`` replaces the whole module.
    """
    module = f"of_test_{name}"
    text = source if source is not None else DEFINITION.format(name=name, contract=contract, **{**SOUND_PARTS, **parts})
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    metadata = folder / f"{module}-0.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.4\nName: of-test-{name}\nVersion: 0.3\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}:DEFINITION\n", encoding="utf-8")
    return folder


def environment_with(folder: Path) -> dict[str, str]:
    """Return the environment of a process that finds the packages in ``folder`` too."""
    known = os.environ.get("PYTHONPATH")  # noqa: TID251 - a child's environment
    path = os.pathsep.join([str(folder), *([known] if known else [])])
    return {**os.environ, "PYTHONPATH": path}  # noqa: TID251 - as above
