"""A schema of what kuberay.yaml uses of KubeRay's RayCluster, RayJob and RayService (ray.io/v1, fields of v1.7).

Written from the documented API, not taken from the operator's CRDs: those are in no package that is installed here. It is
narrower than they are: a field that this file does not know is a mistake until it is added here. Of a pod it knows the part
that is used.
"""

from typing import Any

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
        "volumeMounts": listed(fields({"name": NAME, "mountPath": {"type": "string", "pattern": "^/"}})),
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
    return fields({"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


SCHEMAS = {
    "RayCluster": document("RayCluster", CLUSTER),
    "RayJob": document("RayJob", JOB),
    "RayService": document("RayService", SERVICE),
}
