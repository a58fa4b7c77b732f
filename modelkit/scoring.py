"""What all runtimes share: scores from a graph or from a baseline's parameters, and the golden check.

The model is loaded from bytes that were verified, never from a path, into one single-threaded onnxruntime session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Self, TypeVar

import msgspec
import numpy as np
import onnxruntime

from modelkit.features import UserState
from modelkit.interface import Answer, FloatArray, PredictionRequest
from modelkit.manifest import GOLDEN, MODEL, Golden, LoadedArtifact, Manifest
from schemas.errors import ArtifactRejectedError, FinCoachError
from schemas.vocabulary import ModelType

GOLDEN_TOLERANCE = 1e-5
_SILENT = 4

Scorer = Callable[[FloatArray], FloatArray]
"""Rows of shape (n, d) to outputs of shape (n, k)."""

Decoded = TypeVar("Decoded")


class UnusableScoresError(FinCoachError):
    """A model answered something that is not a finite number."""


class GraphSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a graph is fed and read; part of the manifest's ``parameters``.

    Attributes:
        model_inputs: how many leading columns of the row the graph takes (default: all); the rest serves the answer alone.
        output: name of the output with the scores (default: ``scores`` where there is one, else the first).
        output_column: the one column of it that counts (a classifier's probability of class 1), default all.
    """

    model_inputs: int | None = None
    output: str | None = None
    output_column: int | None = None


class Graph:
    """One ONNX graph in memory: rows of float32 in, scores out. Safe to call from several threads."""

    def __init__(self, model: bytes, settings: GraphSettings | None = None) -> None:
        self._settings = settings or GraphSettings()
        self._session = _session(model)
        inputs, outputs = self._session.get_inputs(), [output.name for output in self._session.get_outputs()]
        if len(inputs) != 1:
            raise ArtifactRejectedError(f"{MODEL} has {len(inputs)} inputs, a runtime feeds one", file=MODEL)
        wanted = self._settings.output or ("scores" if "scores" in outputs else outputs[0])
        if wanted not in outputs:
            raise ArtifactRejectedError(f"{MODEL} has no output {wanted!r} among {outputs}", file=MODEL)
        self._input, self._outputs = inputs[0].name, [wanted]

    def __call__(self, rows: FloatArray) -> FloatArray:
        """Return the scores of rows (n, d), shape (n, k)."""
        taken = rows[:, : self._settings.model_inputs]
        scores: FloatArray = self._session.run(self._outputs, {self._input: np.ascontiguousarray(taken)})[0]
        if scores.ndim == 1:
            scores = scores[:, None]
        column = self._settings.output_column
        return scores if column is None else scores[:, column : column + 1]


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    options.use_deterministic_compute = True
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactRejectedError(f"{MODEL} cannot be loaded: {error}", file=MODEL) from error


_golden = msgspec.json.Decoder(Golden)
_graph_settings = msgspec.json.Decoder(GraphSettings)


class ScoringRuntime:
    """A loaded version: makes the row, scores it, words the answer. Each model says how; this holds what they share."""

    model_type: ClassVar[ModelType]
    feature_names: ClassVar[tuple[str, ...]]

    def __init__(self, loaded: LoadedArtifact) -> None:
        self.manifest = loaded.manifest
        self.digest = loaded.digest
        self._golden = decoded_file(loaded.files, GOLDEN, _golden)
        if not self._golden.outputs:
            raise ArtifactRejectedError("there are no golden predictions: nothing proves this version", file=GOLDEN)
        self._scorer: Scorer | None = self.scorer(loaded.manifest, loaded.files)

    @classmethod
    def from_artifact(cls, loaded: LoadedArtifact) -> Self:
        """Return the runtime of a verified artifact once it reproduces the golden predictions.

        Raises:
            ArtifactRejectedError: when it is of another type, has other features, cannot be loaded or answers differently.
        """
        manifest = loaded.manifest
        if manifest.model_type != cls.model_type:
            raise ArtifactRejectedError(f"a {manifest.model_type} artifact is no {cls.model_type} version")
        cls.check_features(manifest)
        runtime = cls(loaded)
        runtime.verify_golden()
        return runtime

    @classmethod
    def check_features(cls, manifest: Manifest) -> None:
        """Accept the manifest's features or raise: they must be those that the reducer makes, in its order.

        Raises:
            ArtifactRejectedError: naming the first difference.
        """
        if manifest.feature_names == cls.feature_names:
            return
        pairs = zip(manifest.feature_names, cls.feature_names, strict=False)
        odd = next(
            (f"{theirs!r} instead of {ours!r}" for theirs, ours in pairs if theirs != ours), "another number of them"
        )
        raise ArtifactRejectedError(f"the manifest names features that the reducer does not make: {odd}")

    @classmethod
    def scorer(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Scorer:
        """Return the scorer of rows: the graph where the artifact has one, else the baseline of its parameters.

        Raises:
            ArtifactRejectedError: when there is neither or it cannot be loaded.
        """
        if MODEL in files:
            return Graph(files[MODEL], converted(manifest.parameters, _graph_settings))
        return cls.baseline_scorer(manifest, files)

    @classmethod
    def baseline_scorer(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Scorer:
        """Return the scorer that ``parameters.json`` describes; each model type has its own."""
        raise NotImplementedError

    def features(self, state: UserState | None, request: PredictionRequest) -> FloatArray:
        """Return the row of the user at the moment of the request, shape (d,)."""
        raise NotImplementedError

    def answer(self, features: FloatArray, request: PredictionRequest) -> Answer:
        """Return the answer in the host's shape for one row."""
        raise NotImplementedError

    def scores(self, features: FloatArray) -> FloatArray:
        """Return the outputs for rows (n, d), shape (n, k).

        Raises:
            ValueError: when the rows have another width than the manifest's features.
            FinCoachError: after ``close``.
        """
        if features.ndim != 2 or features.shape[1] != len(self.manifest.feature_names):  # noqa: PLR2004 - rows and columns
            message = f"rows of {len(self.manifest.feature_names)} features are needed, got shape {features.shape}"
            raise ValueError(message)
        if self._scorer is None:
            raise FinCoachError("this version was closed and cannot predict any more")
        return self._scorer(features)

    def finite_scores(self, features: FloatArray) -> FloatArray:
        """Return the outputs for rows (n, d).

        Raises:
            UnusableScoresError: when one is not finite.
        """
        scores = self.scores(features)
        if not np.isfinite(scores).all():
            raise UnusableScoresError(digest=self.digest)
        return scores

    def score_row(self, features: FloatArray) -> list[float]:
        """Return the finite outputs for one row (d,) as Python floats."""
        return [float(score) for score in self.finite_scores(features[None, :])[0]]

    def verify_golden(self) -> None:
        """Accept this version or raise: the golden inputs give the golden outputs within 1e-5 (relative beyond 1).

        Raises:
            ArtifactRejectedError: with the largest difference.
        """
        expected = np.array(self._golden.outputs, dtype=np.float32)
        try:
            outputs = self.scores(np.array(self._golden.inputs, dtype=np.float32))
        except Exception as error:
            raise ArtifactRejectedError(f"the golden inputs cannot be scored: {error}", file=GOLDEN) from error
        if outputs.shape != expected.shape:
            raise ArtifactRejectedError(
                f"scores have shape {outputs.shape}, {GOLDEN} says {expected.shape}", file=GOLDEN
            )
        if not np.allclose(outputs, expected, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE):
            worst = float(np.abs(outputs - expected).max())
            raise ArtifactRejectedError(f"golden predictions are missed by up to {worst:.3g}", file=GOLDEN)

    def warm_up(self) -> None:
        """Score the golden inputs once, and the first of them alone as a request would."""
        rows = np.array(self._golden.inputs, dtype=np.float32)
        self.scores(rows)
        self.scores(rows[:1])

    def close(self) -> None:
        """Free the model; calls in progress finish."""
        self._scorer = None


def decoded_file(files: Mapping[str, bytes], name: str, decoder: msgspec.json.Decoder[Decoded]) -> Decoded:
    """Return the JSON file ``name`` as ``decoder`` reads it.

    Raises:
        ArtifactRejectedError: when it is missing or has another shape.
    """
    if name not in files:
        raise ArtifactRejectedError(f"{name} is missing", file=name)
    try:
        return decoder.decode(files[name])
    except msgspec.DecodeError as error:
        raise ArtifactRejectedError(f"{name} is malformed: {error}", file=name) from error


def converted(parameters: Mapping[str, object], decoder: msgspec.json.Decoder[Decoded]) -> Decoded:
    """Return the manifest's parameters as ``decoder`` reads them: it takes the fields that it knows and ignores the rest.

    Raises:
        ArtifactRejectedError: when one has the wrong type.
    """
    try:
        return decoder.decode(msgspec.json.encode(parameters))
    except msgspec.ValidationError as error:
        raise ArtifactRejectedError(f"the manifest's parameters are malformed: {error}") from error
