"""A schema of what kuberay.yaml uses of KubeRay's RayCluster, RayJob and RayService (ray.io/v1,
fields of v1.7).

Written from the documented API, not taken from the operator's CRDs: those are in no package that
is installed here. It is narrower than they are: a field that this file does not know is a
mistake until it is added here. Of a pod it knows the part that is used. Who has a checkout of
KubeRay holds kuberay.yaml against the CRDs themselves: `crd_schemas`.
"""

from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
NAME: Schema = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,40}[a-z0-9])?$"}
# Kubernetes' quantities, as texts: "500m", "12Gi".
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
WORDS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def fields(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def listed(item: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": item, "minItems": least}


AMOUNTS: Schema = {
    "type": "object",
    "properties": {"cpu": QUANTITY, "memory": QUANTITY, "nvidia.com/gpu": QUANTITY},
    "required": ["cpu", "memory"],
    "additionalProperties": False,
}
CONTAINER = fields(
    {
        "name": NAME,
        "image": TEXT,
        "env": listed(
            fields(
                {"name": TEXT},
                value={"type": "string"},
                valueFrom=fields({"secretKeyRef": fields({"name": NAME, "key": TEXT})}),
            )
        ),
        "resources": fields({"requests": AMOUNTS, "limits": AMOUNTS}),
        "volumeMounts": listed(
            fields({"name": NAME, "mountPath": {"type": "string", "pattern": "^/"}})
        ),
    },
    ports=listed(fields({"name": NAME, "containerPort": PORT})),
)
VOLUME = fields({"name": NAME, "persistentVolumeClaim": fields({"claimName": NAME})})
TEMPLATE = fields({"spec": fields({"containers": listed(CONTAINER, 1), "volumes": listed(VOLUME)})})

CLUSTER = fields(
    {
        "rayVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "enableInTreeAutoscaling": {"type": "boolean"},
        "authOptions": fields({"mode": {"enum": ["disabled", "token"]}}, secretName=NAME),
        "headGroupSpec": fields({"rayStartParams": WORDS, "template": TEMPLATE}),
        "workerGroupSpecs": listed(
            fields(
                {
                    "groupName": NAME,
                    "replicas": COUNT,
                    "minReplicas": COUNT,
                    "maxReplicas": COUNT,
                    "rayStartParams": WORDS,
                    "template": TEMPLATE,
                }
            ),
            1,
        ),
    },
    autoscalerOptions=fields({}, idleTimeoutSeconds=COUNT),
)
JOB = fields(
    {
        "clusterSelector": WORDS,
        "entrypoint": TEXT,
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    },
    backoffLimit=COUNT,
)
SERVICE = fields({"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER})


def document(kind: str, spec: Schema) -> Schema:
    metadata = fields({"name": NAME}, labels=WORDS)
    return fields(
        {
            "apiVersion": {"const": "ray.io/v1"},
            "kind": {"const": kind},
            "metadata": metadata,
            "spec": spec,
        }
    )


SCHEMAS = {
    "RayCluster": document("RayCluster", CLUSTER),
    "RayJob": document("RayJob", JOB),
    "RayService": document("RayService", SERVICE),
}


def crd_schemas(folder: Path) -> dict[str, Schema]:
    """The operator's own schemas of ray.io/v1, by kind, from its `config/crd/bases`.

    Stricter than JSON schema takes them: an API server drops fields that a CRD does not name,
    here they are mistakes. Raises OSError when the folder does not hold them.
    """
    found = {}
    for kind in SCHEMAS:
        text = (folder / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8")
        versions = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"][
            "versions"
        ]
        schema = next(one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1")
        # What every Kubernetes object may have, which a CRD leaves open.
        schema["properties"]["metadata"] = document(kind, {})["properties"]["metadata"]
        found[kind] = _closed(schema)
    return found


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]} | {
            key: schema[key] for key in ("pattern",) if key in schema
        }
    closed = {
        key: _closed(value) for key, value in schema.items() if key not in ("default", "format")
    }
    open_ = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and "type" in schema and not open_:
        closed["additionalProperties"] = False
    return closed
