"""What is installed, looked at from outside: each process's parts loaded in a fresh interpreter, and what that brought along.

``python -m modelkit.inspection PROCESS [MODEL ...]`` is that interpreter: it loads the parts which the process would
import, and prints what it found as one line of JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from fincoach_events.events import EVENT_TYPES
from modelkit.definition import PARTS_OF_PROCESS, ModelDefinition, Part
from modelkit.registry import definition_of, installed
from schemas.errors import FinCoachError
from schemas.vocabulary import ModelType

# Libraries by which a process notices what it imports: module and what people call it.
HEAVY_LIBRARIES: Mapping[str, str] = {
    "catboost": "catboost", "d3rlpy": "d3rlpy", "faust": "faust", "jax": "jax", "lightgbm": "lightgbm", "numba": "numba", "onnx": "onnx",
    "onnxruntime": "onnxruntime", "pandas": "pandas", "polars": "polars", "pyarrow": "pyarrow", "scipy": "scipy", "skl2onnx": "skl2onnx",
    "sklearn": "scikit-learn", "tensorflow": "tensorflow", "torch": "torch", "transformers": "transformers", "xgboost": "xgboost",
}  # fmt: skip
# A replica of 44 MB would weigh 350 with torch, and the image of one process installs only its own extra.
ALLOWED_LIBRARIES: Mapping[str, frozenset[str]] = {
    "streams": frozenset(),
    "serving": frozenset({"onnxruntime"}),
    "deployer": frozenset({"onnxruntime"}),
    "trainers": frozenset(HEAVY_LIBRARIES) - {"faust"},
    "admin": frozenset(),
}
LOAD_SECONDS = 120.0


class InspectionError(FinCoachError):
    """An interpreter that was to load a process's parts ended without saying what it found."""


class LoadedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of one model: the heavy libraries that came with it, and a sentence where something is wrong."""

    model_type: ModelType
    part: str
    libraries: tuple[str, ...] = ()
    problem: str | None = None


class ProcessImports(msgspec.Struct, frozen=True, kw_only=True):
    """What one process imports of all models."""

    process: str
    parts: tuple[LoadedPart, ...]

    @property
    def libraries(self) -> tuple[str, ...]:
        """Return the heavy libraries that the parts brought, as people call them."""
        return tuple(sorted({HEAVY_LIBRARIES[name] for part in self.parts for name in part.libraries}))

    @property
    def problems(self) -> tuple[str, ...]:
        """Return a sentence for each part that is not as it should be, with what to do next."""
        return tuple(sentence for part in self.parts for sentence in self._wrong_with(part))

    def _wrong_with(self, part: LoadedPart) -> Iterable[str]:
        name = f"{part.part} of {part.model_type}"
        if part.problem is not None:
            yield f"{self.process}: {name}: {part.problem}"
        for library in sorted(set(part.libraries) - ALLOWED_LIBRARIES[self.process]):
            yield (
                f"{self.process}: {name} imports {HEAVY_LIBRARIES[library]}, which {self.process} does not install;"
                " move that import into the training part, or into the function that needs it"
            )


_imports = msgspec.json.Decoder(ProcessImports)


def imports_of(process: str, *models: ModelType) -> ProcessImports:
    """Load the parts that ``process`` imports of these models (default: all), in an interpreter of its own; takes some seconds.

    Raises:
        InspectionError: when that interpreter dies or does not end.
    """
    command = [sys.executable, "-W", "ignore", "-m", "modelkit.inspection", process, *models]
    try:
        ran = subprocess.run(command, capture_output=True, check=False, timeout=LOAD_SECONDS)
    except subprocess.TimeoutExpired as error:
        message = f"{process}: its parts were not loaded within {LOAD_SECONDS:.0f} s; look for work that a module does at import"
        raise InspectionError(message) from error
    if ran.returncode != 0:
        last = ran.stderr.decode(errors="replace").strip().splitlines()[-1:]
        message = f"{process}: the interpreter that loads its parts ended with status {ran.returncode}: {''.join(last)}"
        raise InspectionError(message)
    return _imports.decode(ran.stdout.splitlines()[-1])


def load_parts(process: str, *models: ModelType) -> ProcessImports:
    """Load the parts of these models (default: all) here, and say what came with each."""
    parts = []
    for model_type in models or installed():
        definition = definition_of(model_type)
        for name in PARTS_OF_PROCESS[process]:
            before = heavy_libraries()
            problem = problem_of(definition, name)
            brought = tuple(sorted(heavy_libraries() - before))
            parts.append(LoadedPart(model_type=model_type, part=name, libraries=brought, problem=problem))
    return ProcessImports(process=process, parts=tuple(parts))


def heavy_libraries() -> set[str]:
    """Return the heavy libraries that this interpreter has imported so far."""
    return {name for name in HEAVY_LIBRARIES if name in sys.modules}


def problem_of(definition: ModelDefinition, name: str) -> str | None:
    """Load one part; return what is wrong with it, or None."""
    part: Part[Any] = getattr(definition, name)
    try:
        loaded = part.load()
    except Exception as error:  # noqa: BLE001 - whatever somebody's module does at import ends here
        cause = error.__cause__ or error
        return _cannot_be_loaded(part, cause)
    return _CHECKS[name](definition, loaded)


def _cannot_be_loaded(part: Part[Any], error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return f"{part.address} needs the module {error.name}, which is not installed; install the extra of this process and what the model's package asks for"
    return (
        f"{part.address} cannot be loaded ({type(error).__name__}: {error}); import it in Python to see where it fails"
    )


def _dataset(definition: ModelDefinition, part: object) -> str | None:
    from modelkit.statistics.dataset import DatasetDefinition  # noqa: PLC0415 - only where a data set was loaded

    if not isinstance(part, DatasetDefinition):
        return f"{definition.dataset.address} is a {type(part).__name__}; make it a DatasetDefinition"
    known = {kind.__struct_config__.tag for kind in EVENT_TYPES}
    odd = sorted(set(part.event_types) - known)
    if odd or not part.event_types:
        return f"its event_types are {list(part.event_types)}; the contract knows {', '.join(sorted(map(str, known)))}"
    return None


def _runtime(definition: ModelDefinition, part: object) -> str | None:
    from modelkit.scoring import ScoringRuntime  # noqa: PLC0415 - brings onnxruntime; only where a runtime was loaded

    if not (isinstance(part, type) and issubclass(part, ScoringRuntime)):
        return f"{definition.runtime.address} is no class below ScoringRuntime"
    if not getattr(part, "feature_names", ()):
        return f"{part.__name__} names no features; set feature_names"
    return _named_as(definition, part, part.__name__)


def _answer(definition: ModelDefinition, part: object) -> str | None:
    from schemas.api import ServedShape  # noqa: PLC0415 - brings pydantic; only where an answer was loaded

    is_shape = isinstance(part, type) and issubclass(part, ServedShape)
    return None if is_shape else f"{definition.answer.address} is no class below ServedShape"


def _baseline(definition: ModelDefinition, part: object) -> str | None:
    from modelkit.baselines import Baseline  # noqa: PLC0415 - as above

    return None if isinstance(part, Baseline) else f"{definition.baseline.address} is no Baseline"


def _gate(definition: ModelDefinition, part: object) -> str | None:
    from modelkit.training.validation import Gate  # noqa: PLC0415 - as above

    return None if isinstance(part, Gate) else f"{definition.gate.address} is no Gate"


def _trainer(definition: ModelDefinition, part: object) -> str | None:
    missing = [
        name for name in ("policy", "prepare", "samples", "fit", "evaluate") if getattr(part, name, None) is None
    ]
    if missing:
        return f"{definition.trainer.address} has no {', '.join(missing)}; see modelkit.training.interface.Trainer"
    return _named_as(definition, part, definition.trainer.address)


def _named_as(definition: ModelDefinition, part: object, name: str) -> str | None:
    theirs = getattr(part, "model_type", None)
    if theirs == definition.model_type:
        return None
    return f"{name} says model_type={theirs!r}; its definition says {definition.model_type!r}"


_CHECKS: Mapping[str, Callable[[ModelDefinition, Any], str | None]] = {
    "dataset": _dataset,
    "runtime": _runtime,
    "answer": _answer,
    "baseline": _baseline,
    "gate": _gate,
    "trainer": _trainer,
}


def main(process: str, *models: ModelType) -> int:
    """Print what the parts of ``process`` bring; what they print themselves goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as channel:
        os.dup2(2, 1)
        channel.write(msgspec.json.encode(load_parts(process, *models)) + b"\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
