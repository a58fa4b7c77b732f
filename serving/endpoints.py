"""The edge to HTTP: a bare ASGI function. Routes, bodies and statuses; what an answer means is decided elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from prometheus_client import Counter

from backends.telemetry import metrics
from backends.telemetry.logs import get_logger
from backends.telemetry.metrics import METRICS
from fincoach_events.identifiers import new_event_id
from modelkit.registry import installed
from schemas.errors import InvalidMessageError
from schemas.vocabulary import ModelType
from serving import inference_protocol
from serving.errors import RequestError
from serving.inference_protocol import InferRequest
from serving.service import PredictionQuery

if TYPE_CHECKING:
    from serving.registry import VersionRegistry
    from serving.service import PredictionService

log = get_logger("serving.endpoints")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Body = TypeVar("Body")

JSON, TEXT = b"application/json", b"text/plain; version=0.0.4"
PROTOCOL_VERSION = "1"
_PREDICT = {f"/predict/{model_type}": model_type for model_type in installed()}
_MODELS = "/v2/models/"
_encode = msgspec.json.Encoder().encode
_query = msgspec.json.Decoder(PredictionQuery)
_infer = msgspec.json.Decoder(InferRequest)


class Response(NamedTuple):
    """What goes back: a status and encoded content."""

    status: int
    content: bytes
    kind: bytes = JSON


class _Place(NamedTuple):
    """What a path under ``/v2/models/`` names."""

    model_type: ModelType
    version: str | None
    verb: str


class ReplicaApplication:
    """The ASGI application of a replica. While ``draining``, every answer closes its connection."""

    def __init__(
        self, registry: VersionRegistry, service: PredictionService, *, replica_id: str, largest_body_bytes: int
    ) -> None:
        self._registry = registry
        self._service = service
        self._replica_id = replica_id
        self._largest_body_bytes = largest_body_bytes
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises nothing."""
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(scope, receive)
        except RequestError as error:
            response = _json({"error": error.sentence}, error.status)
        except InvalidMessageError as error:
            response = _json({"error": error.detail}, 422)
        except Exception:
            log.exception("request_failed", path=scope["path"])
            response = _json({"error": "an unexpected error; the replica's log has it"}, 500)
        _counter(_route(scope["path"]), response.status).inc()
        headers = [(b"content-type", response.kind), (b"content-length", b"%d" % len(response.content))]
        if self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.content})

    @property
    def checks(self) -> dict[str, bool]:
        """Return what readiness depends on: every model is loaded, and the replica is not leaving."""
        loaded = self._registry.models
        return {**{str(model_type): model_type in loaded for model_type in installed()}, "staying": not self.draining}

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        path: str = scope["path"]
        model_type = _PREDICT.get(path)
        if model_type is not None:
            _require_method(scope, "POST")
            query = _decoded(_query, await self._body(scope, receive))
            return _json(await self._service.predict(model_type, query))
        if path.startswith(_MODELS):
            return await self._model(_place(path), scope, receive)
        if path.startswith("/predict/"):
            _model_type(path.removeprefix("/predict/"))
        _require_method(scope, "GET")
        return self._fixed(path)

    def _fixed(self, path: str) -> Response:
        if path in {"/health/ready", "/v2/health/ready"}:
            return self._readiness()
        if path in {"/health/live", "/v2/health/live"}:
            return _json({"live": True})
        if path == "/metrics":
            return Response(200, metrics.render(), TEXT)
        if path == "/v2":
            return _json(inference_protocol.server_metadata(PROTOCOL_VERSION))
        raise RequestError(
            404,
            "known paths: POST /predict/{model_type}, /v2, /v2/models/{name}, /v2/health/ready, /health/ready, /metrics",
        )

    def _readiness(self) -> Response:
        checks = self.checks
        ready = all(checks.values())
        served = {
            str(model_type): {"version": served.active.reference.version, "kind": served.active.reference.kind, "sequence": served.sequence}
            for model_type, served in self._registry.models.items()
        }  # fmt: skip
        facts = {"replica_id": self._replica_id, "models": served, "swaps": self._registry.swaps}
        return _json({"ready": ready, "checks": checks, "facts": facts}, 200 if ready else 503)

    async def _model(self, place: _Place, scope: Scope, receive: Receive) -> Response:
        _require_method(scope, "POST" if place.verb == "infer" else "GET")
        request = _decoded(_infer, await self._body(scope, receive)) if place.verb == "infer" else None
        version = self._registry.lease(place.model_type, place.version)
        try:
            if request is not None:
                answer = await inference_protocol.infer(place.model_type, version, request)
                return _json({**answer, "parameters": {"prediction_id": str(new_event_id())}})
            if place.verb == "ready":
                return _json({"name": place.model_type, "ready": True})
            loaded = self._registry.models[place.model_type].versions
            versions = [item.reference.version for item in loaded]
            return _json(inference_protocol.model_metadata(place.model_type, version.runtime, versions))
        finally:
            version.release()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._largest_body_bytes
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestError(400, f"the request to {scope['path']} was not sent completely")
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise RequestError(413, f"the body is larger than {limit} bytes")
            if not message.get("more_body"):
                return b"".join((*chunks, chunk)) if chunks else chunk
            chunks.append(chunk)


@functools.lru_cache(maxsize=256)
def _counter(route: str, status: int) -> Counter:
    return METRICS.serving_requests.labels(route=route, status=status)


def _place(path: str) -> _Place:
    name, *rest = path.removeprefix(_MODELS).split("/")
    version = None
    if len(rest) >= 2 and rest[0] == "versions":  # noqa: PLR2004 - the word and the number
        version, rest = rest[1], rest[2:]
    verb = rest[0] if rest else ""
    if len(rest) > 1 or verb not in {"", "ready", "infer"}:
        raise RequestError(404, "known paths: /v2/models/{name}[/versions/{version}], and below them /ready and /infer")
    return _Place(_model_type(name), version, verb)


def _model_type(name: str) -> ModelType:
    if name not in installed():
        raise RequestError(404, f"there is no model {name!r}; choose one of {', '.join(installed())}")
    return name


def _require_method(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise RequestError(405, f"{scope['path']} takes {method}, not {scope['method']}")


def _decoded(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(422, f"the body does not fit: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error


def _json(content: object, status: int = 200) -> Response:
    return Response(status, _encode(content))


def _route(path: str) -> str:
    """Return the path's metric label, one of a few fixed words."""
    return path.split("/", 2)[1] if path.startswith(("/predict/", "/v2", "/health/", "/metrics")) else "other"
