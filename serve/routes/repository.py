"""Defines the routes of the Open Inference Protocol's extensions: the configuration and statistics
of a model, and the index of all models, as Triton has them.

Models are loaded and removed by the directory alone: the routes that load and unload a model do not
exist. [https://github.com/triton-inference-server/server/tree/main/docs/protocol]
"""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, StrictBool

from serve.models import TensorSpec
from serve.routes.common import InferenceError, json_answer, refusals
from serve.routes.inference import PLATFORM, Name, Version, select
from serve.routes.tensors import Selection
from serve.service import Service


class IndexRequest(BaseModel):
    """Which models the index lists."""

    ready: StrictBool = False
    """Whether models that are not loaded are left out."""


class IndexedModel(BaseModel):
    """One model of the index."""

    name: str
    version: str
    """Empty if the model is not loaded."""
    state: str
    """READY or UNAVAILABLE."""
    reason: str
    """Why the newest files of the model are not loaded."""


def repository_routes(service: Service) -> APIRouter:
    """Return the routes under /v2 that describe the models of `service`."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    maybe = refusals(400, 404, 422, model=InferenceError)

    @router.get(
        "/models/stats", responses=maybe, summary="Statistics of all models, of this replica"
    )
    async def all_statistics() -> Response:
        names = [
            f"{predictor.name}.{function}"
            for predictor in service.models()
            for function in sorted(predictor.functions)
        ]
        return json_answer({"model_stats": [_statistics(select(service, name)) for name in names]})

    def _statistics(selected: Selection) -> dict[str, Any]:
        predictor = selected.predictor
        return service.statistics.to_json(
            selected.name, predictor.name, predictor.version, selected.function
        )

    @router.get(
        "/models/{name}/stats", responses=maybe, summary="Statistics of a model, of this replica"
    )
    async def statistics(name: Name) -> Response:
        return json_answer({"model_stats": [_statistics(select(service, name))]})

    @router.get(
        "/models/{name}/versions/{version}/stats",
        responses=maybe,
        summary="Statistics of one version of a model, of this replica",
    )
    async def statistics_of_version(name: Name, version: Version) -> Response:
        return json_answer({"model_stats": [_statistics(select(service, name, version))]})

    @router.get("/models/{name}/config", responses=maybe, summary="Configuration of a model")
    async def config(name: Name) -> Response:
        return json_answer(_config(service, select(service, name)))

    @router.get(
        "/models/{name}/versions/{version}/config",
        responses=maybe,
        summary="Configuration of one version of a model",
    )
    async def config_of_version(name: Name, version: Version) -> Response:
        return json_answer(_config(service, select(service, name, version)))

    @router.post(
        "/repository/index",
        responses=maybe,
        response_model=list[IndexedModel],
        summary="All models of the directory, and why some are not loaded",
    )
    async def index(wanted: IndexRequest | None = None) -> Response:
        loaded, failed = service.registry.models, dict(service.registry.failed)
        only_ready = wanted is not None and wanted.ready
        names = sorted(loaded) if only_ready else sorted({*loaded, *failed})
        return json_answer(
            [
                {
                    "name": name,
                    "version": loaded[name].version if name in loaded else "",
                    "state": "READY" if name in loaded else "UNAVAILABLE",
                    "reason": failed.get(name, ""),
                }
                for name in names
            ]
        )

    return router


def _config(service: Service, selected: Selection) -> dict[str, Any]:
    """Return the fields of Triton's ModelConfig that have a meaning here."""
    predictor = selected.predictor

    def row(spec: TensorSpec) -> dict[str, Any]:
        about: dict[str, Any] = {"name": spec.name, "data_type": f"TYPE_{spec.datatype}"}
        # The configuration has no empty shape.
        if not spec.shape:
            return {**about, "dims": [1], "reshape": {"shape": []}}
        return {**about, "dims": list(spec.shape)}

    parameters = {"kind": predictor.kind, "function": selected.function}
    return {
        "name": selected.name,
        "platform": PLATFORM,
        "backend": "genray",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": service.limits.max_rows,
        "input": [row(spec) for spec in selected.spec.inputs],
        "output": [row(spec) for spec in selected.spec.outputs],
        "dynamic_batching": {
            "preferred_batch_size": [service.settings.max_batch],
            "max_queue_delay_microseconds": 0,
        },
        "instance_group": [{"name": selected.name, "kind": "KIND_CPU", "count": 1}],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }
