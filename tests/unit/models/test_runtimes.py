"""What the four runtimes share, as version 0 and as a learned version."""

from __future__ import annotations

import threading

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit.manifest import GOLDEN, MODEL, PARAMETERS, build_artifact
from modelkit.registry import definition_of, runtime_for
from modelkit.scoring import Graph, GraphSettings, UnusableScoresError
from modelkit.version_zero import baseline_artifact
from schemas.errors import ArtifactRejectedError, FinCoachError
from schemas.vocabulary import ArtifactKind
from tests.four_models import FOUR_MODELS
from tests.unit.models.samples import CREATED_AT, KEY, learned, linear_graph, manifest, opened
from tests.unit.models.versions import REQUEST, learned_artifact, user, weights

VERSIONS = [(model_type, kind) for model_type in FOUR_MODELS for kind in ArtifactKind]


@pytest.fixture(params=VERSIONS, ids="-".join)
def artifact(request: pytest.FixtureRequest) -> dict[str, bytes]:
    """Give each model as version 0 and as a learned version."""
    model_type, kind = request.param
    if kind is ArtifactKind.BASELINE:
        return baseline_artifact(definition_of(model_type), KEY, CREATED_AT)
    return learned_artifact(model_type)


def test_answers_known_and_unknown_users(artifact: dict[str, bytes]) -> None:
    """Known and unknown users get an answer that JSON can hold."""
    runtime = runtime_for(opened(artifact))
    runtime.warm_up()
    for state in (None, user()):
        row = runtime.features(state, REQUEST)
        assert row.shape == (len(runtime.manifest.feature_names),)
        assert row.dtype == np.float32
        answer = runtime.answer(row, REQUEST)
        assert msgspec.json.decode(msgspec.json.encode(answer.body))


def test_row_of_the_reducer_is_what_the_manifest_names(artifact: dict[str, bytes]) -> None:
    """The row has the features that the manifest names."""
    loaded = opened(artifact)
    names = loaded.manifest.feature_names
    foreign = msgspec.structs.replace(loaded.manifest, feature_names=(names[1], names[0], *names[2:]))
    with pytest.raises(ArtifactRejectedError, match=names[1]):
        runtime_for(opened(build_artifact(foreign, loaded.files, KEY)))


def test_missed_golden_predictions_are_rejected(artifact: dict[str, bytes]) -> None:
    """A version that misses its golden predictions is rejected."""
    loaded = opened(artifact)
    golden = msgspec.json.decode(loaded.files[GOLDEN])
    golden["outputs"][0][0] += 1e-3
    with pytest.raises(ArtifactRejectedError, match="missed by"):
        runtime_for(opened(build_artifact(loaded.manifest, {**loaded.files, GOLDEN: msgspec.json.encode(golden)}, KEY)))


@pytest.mark.parametrize("rows", [[[1.0]], []])
def test_unusable_golden_inputs_are_rejected(artifact: dict[str, bytes], rows: list[list[float]]) -> None:
    """Golden inputs that cannot be scored are rejected."""
    loaded = opened(artifact)
    outputs = msgspec.json.decode(loaded.files[GOLDEN])["outputs"][: len(rows)]
    golden = msgspec.json.encode({"inputs": rows, "outputs": outputs})
    with pytest.raises(ArtifactRejectedError):
        runtime_for(opened(build_artifact(loaded.manifest, {**loaded.files, GOLDEN: golden}, KEY)))


def test_artifact_of_another_type_is_rejected(artifact: dict[str, bytes]) -> None:
    """An artifact of another model type is rejected."""
    loaded = opened(artifact)
    other = definition_of(next(model for model in FOUR_MODELS if model != loaded.manifest.model_type)).runtime.load()
    with pytest.raises(ArtifactRejectedError, match="no"):
        other.from_artifact(loaded)


def test_rows_of_another_width_are_refused(artifact: dict[str, bytes]) -> None:
    """A row of another width is refused."""
    with pytest.raises(ValueError, match="features are needed"):
        runtime_for(opened(artifact)).scores(np.zeros((1, 3), dtype=np.float32))


def test_closed_version_refuses(artifact: dict[str, bytes]) -> None:
    """A closed version refuses to predict."""
    runtime = runtime_for(opened(artifact))
    runtime.close()
    with pytest.raises(FinCoachError, match="closed"):
        runtime.scores(runtime.features(None, REQUEST)[None, :])


def test_threads_get_the_same_answers(artifact: dict[str, bytes]) -> None:
    """Several threads get the same answers as one."""
    runtime = runtime_for(opened(artifact))
    row = runtime.features(user(), REQUEST)
    expected = runtime.answer(row, REQUEST)
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(runtime.answer(row, REQUEST) for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert answers == [expected] * 80


def test_missing_model_and_parameters_are_named() -> None:
    """An artifact with neither a model nor parameters is rejected."""
    loaded = opened(baseline_artifact(definition_of("goal"), KEY, CREATED_AT))
    for files in (
        {name: raw for name, raw in loaded.files.items() if name != PARAMETERS},
        {**loaded.files, PARAMETERS: b'{"method":"unheard_of"}'},
        {**loaded.files, MODEL: b"no graph"},
    ):
        with pytest.raises(ArtifactRejectedError):
            runtime_for(opened(build_artifact(loaded.manifest, files, KEY)))


def test_graph_takes_what_its_settings_say() -> None:
    """A graph gets the columns, and gives the output, that its settings name."""
    graph = Graph(
        linear_graph(np.eye(2, dtype=np.float32), output="chances"),
        GraphSettings(model_inputs=2, output="chances", output_column=1),
    )
    assert graph(np.array([[1, 2, 3]], dtype=np.float32)).tolist() == [[2.0]]


def test_graph_without_the_named_output_is_rejected() -> None:
    """A graph without the named output is rejected."""
    with pytest.raises(ArtifactRejectedError, match="no output"):
        Graph(linear_graph(np.eye(2, dtype=np.float32)), GraphSettings(output="missing"))


def other_graph(*, inputs: int, operator: str) -> bytes:
    """Return a graph of ``inputs`` inputs whose output has one number a row."""
    names = [f"rows_{number}" for number in range(inputs)]
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    nodes = [helper.make_node(operator, [names[0], "axes"], ["scores"], keepdims=0)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in names]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None])
    graph = helper.make_graph(nodes, "sums", values, [output], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def test_one_number_a_row_is_a_column() -> None:
    """A graph that answers one number a row gives a column."""
    graph = Graph(other_graph(inputs=1, operator="ReduceSum"))
    assert graph(np.array([[1, 2], [3, 4]], dtype=np.float32)).tolist() == [[3.0], [7.0]]


def test_graph_with_two_inputs_is_rejected() -> None:
    """A graph with two inputs is rejected."""
    with pytest.raises(ArtifactRejectedError, match="2 inputs"):
        Graph(other_graph(inputs=2, operator="ReduceSum"))


def test_malformed_parameters_are_rejected() -> None:
    """Malformed parameters are rejected when the version is loaded."""
    drafted = manifest("goal", parameters={"model_inputs": "all"})
    with pytest.raises(ArtifactRejectedError, match="parameters are malformed"):
        runtime_for(opened(learned(drafted, weights("goal", 1))))


def test_golden_outputs_of_another_shape_are_rejected() -> None:
    """Golden outputs of another shape are rejected."""
    loaded = opened(learned_artifact("spending"))
    golden = msgspec.json.decode(loaded.files[GOLDEN])
    golden["outputs"] = golden["outputs"][:1]
    with pytest.raises(ArtifactRejectedError, match="shape"):
        runtime_for(opened(build_artifact(loaded.manifest, {**loaded.files, GOLDEN: msgspec.json.encode(golden)}, KEY)))


def test_scores_that_are_not_finite_are_not_answered() -> None:
    """Scores that are not finite are an error, not an answer."""
    runtime = runtime_for(opened(learned_artifact("spending")))
    row = runtime.features(None, REQUEST)
    row[0] = np.inf
    with pytest.raises(UnusableScoresError):
        runtime.answer(row, REQUEST)


def test_loaded_versions_do_not_change() -> None:
    """Loading a second version changes nothing in the first."""
    first = runtime_for(opened(learned_artifact("spending")))
    row = first.features(user(), REQUEST)
    before = first.answer(row, REQUEST)
    second = runtime_for(opened(baseline_artifact(definition_of("spending"), KEY, CREATED_AT)))
    second.answer(row, REQUEST)
    second.close()
    assert first.answer(row, REQUEST) == before
