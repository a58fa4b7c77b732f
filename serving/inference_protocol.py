"""The Open Inference Protocol v2 in JSON: shapes of requests and answers, and the way from tensors to scores."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np

from modelkit.interface import FloatArray, Runtime
from schemas.vocabulary import ModelType
from serving.errors import RequestError
from serving.registry import LoadedVersion

INPUT, OUTPUT = "features", "scores"
DATATYPE = "FP32"
PLATFORM = "onnxruntime_onnx"
# More rows than these are scored in a thread: they would hold up the other requests.
ROWS_INLINE = 64


class InferTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input tensor; ``data`` is flat in row-major order, or nested."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class RequestedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """An output that the caller wants."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An inference request."""

    inputs: list[InferTensor]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] | None = None


def server_metadata(version: str) -> dict[str, Any]:
    """Return what ``GET /v2`` answers."""
    return {"name": "fincoach-learning", "version": version, "extensions": []}


def model_metadata(model_type: ModelType, runtime: Runtime, versions: list[str]) -> dict[str, Any]:
    """Return what ``GET /v2/models/{name}`` answers; -1 is the free batch axis."""
    names = runtime.manifest.feature_names
    width = int(runtime.scores(np.zeros((1, len(names)), dtype=np.float32)).shape[1])
    return {
        "name": str(model_type),
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [
            {
                "name": INPUT,
                "datatype": DATATYPE,
                "shape": [-1, len(names)],
                "parameters": {"feature_names": list(names)},
            }
        ],
        "outputs": [{"name": OUTPUT, "datatype": DATATYPE, "shape": [-1, width]}],
    }


async def infer(model_type: ModelType, version: LoadedVersion, request: InferRequest) -> dict[str, Any]:
    """Return the scores of the rows in ``request``; ``version`` must stay leased meanwhile.

    Raises:
        RequestError: names, datatype or shape do not fit the model.
    """
    rows = _rows(request, len(version.runtime.manifest.feature_names))
    if len(rows) <= ROWS_INLINE:
        scores = version.runtime.scores(rows)
    else:
        scores = await asyncio.to_thread(version.runtime.scores, rows)
    output = {"name": OUTPUT, "datatype": DATATYPE, "shape": list(scores.shape), "data": scores.ravel().tolist()}
    answer = {"model_name": str(model_type), "model_version": version.reference.version, "outputs": [output]}
    return answer if request.id is None else {**answer, "id": request.id}


def _rows(request: InferRequest, width: int) -> FloatArray:
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        raise RequestError(400, f"send exactly one input, named {INPUT!r}, of shape [n, {width}]")
    unknown = [output.name for output in request.outputs or () if output.name != OUTPUT]
    if unknown:
        raise RequestError(400, f"there is no output {unknown[0]!r}; the only one is {OUTPUT!r}")
    tensor = request.inputs[0]
    if tensor.datatype != DATATYPE:
        raise RequestError(400, f"datatype {tensor.datatype!r} is not taken; send {DATATYPE}")
    if len(tensor.shape) != 2 or tensor.shape[0] < 1 or tensor.shape[1] != width:  # noqa: PLR2004 - rows and columns
        raise RequestError(422, f"shape {tensor.shape} does not fit; send [n, {width}] with n of at least 1")
    return _array(tensor)


def _array(tensor: InferTensor) -> FloatArray:
    try:
        with np.errstate(over="ignore"):
            rows = np.asarray(tensor.data, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(422, f"data is no regular tensor of numbers: {error}") from error
    if rows.size != tensor.shape[0] * tensor.shape[1]:
        raise RequestError(
            422, f"data has {rows.size} values; shape {tensor.shape} needs {tensor.shape[0] * tensor.shape[1]}"
        )
    if not np.isfinite(rows).all():
        raise RequestError(422, "data holds a value that is no finite 32-bit number")
    return rows.reshape(tensor.shape)
