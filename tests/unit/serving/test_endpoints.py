"""The replica's HTTP face: predictions in the host's shapes, the Open Inference Protocol v2, and clear refusals."""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from backends.clock import ManualClock, SystemClock
from backends.database.repositories.states import StoredState
from modelkit.features import REDUCER_VERSION, STATE_FEATURES, UserState, encode_state
from models.goal.features import GOAL_FEATURES
from schemas.vocabulary import ModelType
from serving.http_server import HttpServer
from tests.four_models import FOUR_MODELS
from tests.replicas import Replica

USER = UUID("6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11")
COMMON = {"prediction_id", "model_version", "artifact_digest", "kind", "state"}
# The host's own shapes, as its API returns them.
SHAPES = {
    "recommendation": {"action_id", "action_type", "recommendation", "confidence", "state_summary", "generated_at"},
    "segmentation": {"segment_id", "segment_name", "confidence", "characteristics", "peer_comparison"},
    "spending": {"prediction_date", "total_predicted", "category_predictions", "confidence_intervals", "previous_accuracy"},
    "goal": {"goal_id", "probability", "expected_completion_date", "risk_factors", "improvement_suggestions"},
}  # fmt: skip


@pytest.fixture
async def replica(tmp_path: Path, clock: ManualClock) -> Replica:
    """Give a replica that serves four baselines."""
    replica = Replica(tmp_path, clock)
    await replica.serve_baselines()
    return replica


@pytest.fixture
async def client(replica: Replica) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of the replica."""
    async with replica.client() as client:
        yield client


async def width_of(client: httpx.AsyncClient, model: str) -> int:
    """Return how many features a model takes."""
    return int((await client.get(f"/v2/models/{model}")).json()["inputs"][0]["shape"][1])


@pytest.mark.parametrize("model_type", FOUR_MODELS)
async def test_every_model_answers_an_unknown_user_in_the_hosts_shape(
    client: httpx.AsyncClient, model_type: ModelType
) -> None:
    """Every model answers an unknown user in the host's shape."""
    response = await client.post(f"/predict/{model_type}", json={"user_id": str(USER)})
    answer = response.json()
    assert response.status_code == 200
    assert answer.keys() >= SHAPES[model_type] | COMMON
    assert (answer["model_version"], answer["kind"], answer["state"]) == ("0.0.0", "baseline", "unknown")


async def test_a_known_user_is_answered_from_the_state(replica: Replica, client: httpx.AsyncClient) -> None:
    """A known user is answered from the state."""
    replica.states.rows[USER] = StoredState(
        REDUCER_VERSION, 41, encode_state(UserState(goals_achieved=9, goals_failed=1))
    )
    answer = (await client.post("/predict/goal", json={"user_id": str(USER)})).json()
    assert answer["state"] == "known"
    (logged,) = replica.logged()
    assert logged.state_offset == 41
    assert logged.features[GOAL_FEATURES.index("past_achieved_share")] == pytest.approx(0.9)


async def test_what_is_logged_is_what_was_answered(replica: Replica, client: httpx.AsyncClient) -> None:
    """The logged record has the answer's id, action and propensity."""
    answer = (await client.post("/predict/recommendation", json={"user_id": str(USER)})).json()
    (logged,) = replica.logged()
    assert (str(logged.event_id), logged.user_id, logged.version) == (answer["prediction_id"], USER, "0.0.0")
    assert logged.action == answer["action_id"]
    assert logged.propensities is not None
    assert logged.action is not None
    assert logged.propensity == logged.propensities[logged.action]
    assert sum(logged.propensities) == pytest.approx(1.0)
    assert len(logged.features) == len(STATE_FEATURES)


async def test_the_actions_are_drawn_with_their_propensities(client: httpx.AsyncClient) -> None:
    """Actions are drawn with their propensities."""
    actions = {
        (await client.post("/predict/recommendation", json={"user_id": str(uuid4())})).json()["action_id"]
        for _ in range(60)
    }
    assert actions == {0, 1, 2, 3, 4}


async def test_features_may_be_given_by_name_or_in_order(replica: Replica, client: httpx.AsyncClient) -> None:
    """Features may be given by name or in order; without a user nothing is logged."""
    values = [0.25] * len(GOAL_FEATURES)
    by_order = await client.post("/predict/goal", json={"features": values})
    by_name = await client.post("/predict/goal", json={"features": dict(zip(GOAL_FEATURES, values, strict=True))})
    assert by_order.json()["probability"] == by_name.json()["probability"]
    assert by_name.json()["state"] == "given"
    assert replica.logged() == []
    await client.post("/predict/goal", json={"features": values, "user_id": str(USER)})
    assert len(replica.logged()) == 1


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b"{}", 422, "send user_id"),
        (b'{"user_id": "nobody"}', 422, "does not fit"),
        (b'{"user": "x"}', 422, "does not fit"),
        (b'{"features": [1, 2]}', 422, "2 features were sent; this model takes 61"),
        (b'{"features": {"current_balance": 1, "shoe_size": 43}}', 422, "unknown: shoe_size"),
        (b'{"features": {"current_balance": "rich"}}', 422, "does not fit"),
        (b'{"user_id": "6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11", "as_of": "2026-03-04T12:00:00"}', 422, "timezone"),
        (b'{"user_id": "6f1d7c5e-3a0e-4d0b-9d55-0f6f5b1f7a11", "goal": {"target_minor": "much"}}', 422, "goal"),
        (b'{"features": [' + b",".join([b"1e39"] * 61) + b"]}", 422, "no finite 32-bit number"),
        (b" " * 70_000, 413, "larger than 65536 bytes"),
    ],
)
async def test_bad_input_gets_a_clear_answer(
    client: httpx.AsyncClient, body: bytes, status: int, sentence: str
) -> None:
    """A malformed request is refused with a sentence that says what to send."""
    response = await client.post("/predict/goal", content=body)
    assert response.status_code == status
    assert sentence in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("POST", "/predict/horoscope", 404, "there is no model 'horoscope'; choose one of goal, recommendation"),
        ("GET", "/predict/goal", 405, "takes POST"),
        ("POST", "/v2/health/live", 405, "takes GET"),
        ("GET", "/elsewhere", 404, "known paths"),
        ("GET", "/v2/models/horoscope", 404, "there is no model"),
        ("GET", "/v2/models/goal/versions/9.9.9", 404, "version 9.9.9 of goal is not loaded; loaded are 0.0.0"),
        ("GET", "/v2/models/goal/nonsense", 404, "known paths"),
        ("GET", "/v2/models/goal/infer", 405, "takes POST"),
    ],
)
async def test_wrong_paths_and_methods_are_named(
    client: httpx.AsyncClient, method: str, path: str, status: int, sentence: str
) -> None:
    """A wrong path or method is refused with the right ones."""
    response = await client.request(method, path)
    assert (response.status_code, sentence in response.json()["error"]) == (status, True)


async def test_a_cold_replica_says_so_everywhere(tmp_path: Path, clock: ManualClock) -> None:
    """A cold replica is not ready, and answers each request with a sentence."""
    cold = Replica(tmp_path, clock)
    async with cold.client() as client:
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        ready = await client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        for response in (
            await client.post("/predict/goal", json={"user_id": str(USER)}),
            await client.get("/v2/models/goal/ready"),
        ):
            assert (response.status_code, "is loaded yet" in response.json()["error"]) == (503, True)


async def test_readiness_names_what_is_served(client: httpx.AsyncClient) -> None:
    """Readiness names the served versions."""
    ready = await client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["facts"]["models"]["goal"] == {"version": "0.0.0", "kind": "baseline", "sequence": 1}


async def test_a_leaving_replica_is_not_ready_and_closes_connections(
    replica: Replica, client: httpx.AsyncClient
) -> None:
    """A leaving replica is not ready and closes connections."""
    replica.application.draining = True
    response = await client.post("/predict/goal", json={"user_id": str(USER)})
    assert (response.status_code, response.headers["connection"]) == (200, "close")
    assert (await client.get("/health/ready")).status_code == 503


async def test_metrics_are_there(client: httpx.AsyncClient) -> None:
    """The metrics are served."""
    await client.post("/predict/goal", json={"user_id": str(USER)})
    text = (await client.get("/metrics")).text
    assert 'fincoach_serving_predictions_total{kind="baseline",model_type="goal"}' in text
    assert "fincoach_serving_request_seconds_bucket" in text


@pytest.mark.expects_errors("request_failed")
async def test_an_unexpected_error_is_answered_and_logged(client: httpx.AsyncClient, replica: Replica) -> None:
    """An unexpected error is answered and logged, and the connection lives on."""
    replica.registry.models["goal"].active.runtime.close()
    response = await client.post("/predict/goal", json={"user_id": str(USER)})
    assert (response.status_code, "unexpected" in response.json()["error"]) == (500, True)


class TestOpenInferenceProtocol:
    """Conformance with the Open Inference Protocol v2 (REST)."""

    async def test_server_and_model_metadata(self, client: httpx.AsyncClient) -> None:
        """The server and each model describe themselves."""
        server = (await client.get("/v2")).json()
        assert server.keys() == {"name", "version", "extensions"}
        model = (await client.get("/v2/models/goal")).json()
        assert model.keys() == {"name", "versions", "platform", "inputs", "outputs"}
        assert model["versions"] == ["0.0.0"]
        assert model["inputs"][0] | {"parameters": None} == {
            "name": "features", "datatype": "FP32", "shape": [-1, len(GOAL_FEATURES)], "parameters": None
        }  # fmt: skip
        assert (await client.get("/v2/models/goal/ready")).json() == {"name": "goal", "ready": True}

    @pytest.mark.parametrize("model_type", FOUR_MODELS)
    @pytest.mark.parametrize("rows", [1, 3, 100])
    async def test_inference_answers_with_the_announced_tensor(
        self, client: httpx.AsyncClient, model_type: ModelType, rows: int
    ) -> None:
        """Inference answers with the tensor that the metadata announce."""
        width = await width_of(client, model_type)
        request = {
            "id": "42",
            "inputs": [
                {"name": "features", "shape": [rows, width], "datatype": "FP32", "data": [0.5] * (rows * width)}
            ],
        }
        answer = (await client.post(f"/v2/models/{model_type}/infer", json=request)).json()
        announced = (await client.get(f"/v2/models/{model_type}")).json()["outputs"][0]
        (output,) = answer["outputs"]
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", model_type, "0.0.0")
        assert (output["name"], output["datatype"]) == (announced["name"], announced["datatype"])
        assert output["shape"] == [rows, announced["shape"][1]]
        assert len(output["data"]) == rows * announced["shape"][1]
        assert UUID(answer["parameters"]["prediction_id"]).version == 7

    async def test_nested_data_means_the_same(self, client: httpx.AsyncClient) -> None:
        """Nested data mean the same as flat data."""
        width = len(GOAL_FEATURES)
        flat = {"name": "features", "shape": [2, width], "datatype": "FP32", "data": [0.5] * (2 * width)}
        nested = {**flat, "data": [[0.5] * width, [0.5] * width]}
        answers = [
            (await client.post("/v2/models/goal/infer", json={"inputs": [tensor]})).json() for tensor in (flat, nested)
        ]
        assert answers[0]["outputs"] == answers[1]["outputs"]

    async def test_active_and_previous_version_can_be_named(self, replica: Replica, client: httpx.AsyncClient) -> None:
        """The active and the previous version can be named."""
        baseline = replica.installation.baseline("goal")
        await replica.serve_goal(2, replica.installation.goal(0.75), baseline)
        tensor = {
            "name": "features",
            "shape": [1, len(GOAL_FEATURES)],
            "datatype": "FP32",
            "data": [0.0] * len(GOAL_FEATURES),
        }
        for version in ("0.0.0", "1.0.0"):
            answer = await client.post(f"/v2/models/goal/versions/{version}/infer", json={"inputs": [tensor]})
            assert answer.json()["model_version"] == version
        assert (await client.get("/v2/models/goal")).json()["versions"] == ["1.0.0", "0.0.0"]

    @pytest.mark.parametrize(
        ("change", "status", "sentence"),
        [
            ({"name": "pixels"}, 400, "exactly one input, named 'features'"),
            ({"datatype": "BYTES"}, 400, "datatype 'BYTES' is not taken; send FP32"),
            ({"shape": [1, 2]}, 422, "shape [1, 2] does not fit"),
            ({"shape": [61]}, 422, "shape [61] does not fit"),
            ({"shape": [0, 61]}, 422, "does not fit"),
            ({"shape": [2, 61]}, 422, "data has 61 values"),
            ({"data": ["x"] * 61}, 422, "no regular tensor"),
            ({"data": [[1.0], [2.0, 3.0]]}, 422, "no regular tensor"),
            ({"data": [1e39] * 61}, 422, "no finite"),
            ({"data": "none"}, 422, "does not fit"),
        ],
    )
    async def test_a_tensor_that_does_not_fit_is_refused(
        self, client: httpx.AsyncClient, change: dict[str, Any], status: int, sentence: str
    ) -> None:
        """A tensor that does not fit is refused with an error object of one sentence."""
        tensor = {"name": "features", "shape": [1, 61], "datatype": "FP32", "data": [0.5] * 61, **change}
        response = await client.post("/v2/models/goal/infer", json={"inputs": [tensor]})
        assert (response.status_code, response.json().keys()) == (status, {"error"})
        assert sentence in response.json()["error"]

    async def test_an_output_that_does_not_exist_is_refused(self, client: httpx.AsyncClient) -> None:
        """An output that does not exist is refused."""
        tensor = {"name": "features", "shape": [1, 61], "datatype": "FP32", "data": [0.5] * 61}
        response = await client.post(
            "/v2/models/goal/infer", json={"inputs": [tensor], "outputs": [{"name": "logits"}]}
        )
        assert (response.status_code, "no output 'logits'" in response.json()["error"]) == (400, True)


async def test_answers_of_a_replica_carry_its_date(replica: Replica) -> None:
    """Every answer carries the replica's date."""
    server = HttpServer(replica.application, host="127.0.0.1", port=0, drain_seconds=0.0, grace_seconds=1)
    await server.start()
    try:
        async with asyncio.timeout(5), httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
            while "date" not in (answer := await client.get("/health/live")).headers:  # noqa: ASYNC110 - the server adds it by its clock
                await asyncio.sleep(0.05)
    finally:
        await server.stop()
    said = email.utils.parsedate_to_datetime(answer.headers["date"])
    assert abs((SystemClock().now() - said).total_seconds()) < 5
