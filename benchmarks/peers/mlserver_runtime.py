"""The peer of our replica: MLServer with a minimal custom runtime, on the same ONNX file.

It runs in MLServer's own environment.
"""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxRuntime(MLModel):
    """Scores the rows of the input with one single-threaded session, as our replica does."""

    async def load(self) -> bool:
        """Load the model named in the settings."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = await get_model_uri(self._settings)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the probability of class 1 of each row."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        scores = self._session.run(["probabilities"], {self._input: rows})[0][:, 1:2]
        output = NumpyCodec.encode_output(name="scores", payload=scores)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
