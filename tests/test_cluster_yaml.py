"""The lint of the files that start a cluster: they pass, and each kind of damage is seen.

What Ray itself refuses and what it lets through are kept apart, so that the day it looks closer
is noticed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import lint

Mutation = Callable[[Any], None]


def set_at(*path: str | int, to: object) -> Mutation:
    """config[path] = to."""

    def mutate(config: Any) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = to

    return mutate


@pytest.mark.parametrize("name", lint.CHECKS)
def test_the_file_is_sound(name: str):
    assert lint.CHECKS[name]() == []


@pytest.mark.parametrize(
    "mutate",
    [
        set_at("no_such_field", to=1),
        set_at("available_node_types", "replay", "no_such_field", to=1),
        set_at("available_node_types", "replay", "resources", "genray_replay", to=0.5),
        set_at("head_node_type", to="hed"),
        set_at("max_workers", to=2),
        set_at("docker", "imagee", to="rayproject/ray"),
        set_at("auth", "user", to="ubuntu"),
        set_at("initialization_commands", to="pip install"),
    ],
)
def test_ray_refuses_a_damaged_file(mutate: Mutation):
    config = lint.load("cluster.yaml")
    mutate(config)
    assert lint.ray_refuses(config)


@pytest.mark.parametrize(
    "mutate",
    [
        set_at("no_such_field", to=1),
        set_at("provider", to={"type": "local", "worker_ips": ["10.0.0.11"]}),
        set_at("available_node_types", to={"head": {}}),
        set_at("setup_commands", to="pip install"),
    ],
)
def test_ray_refuses_a_damaged_local_file(mutate: Mutation):
    config = lint.load("cluster-local.yaml")
    mutate(config)
    assert lint.ray_refuses(config)


@pytest.mark.parametrize(
    ("mutate", "complaint"),
    [
        (
            set_at("available_node_types", "collector", "min_workers", to=9),
            "min_workers 9 > max_workers 8",
        ),
        (
            set_at(
                "available_node_types", "learner", "node_config", "InstanceType", to="g6.2xlrge"
            ),
            "g6.2xlrge",
        ),
        (
            set_at("available_node_types", "learner", "node_config", "ImageID", to="ami-1"),
            "ImageID",
        ),
        (
            set_at("available_node_types", "learner", "resources", to={"CPU": 8}),
            "(CPU, GPU) = (8, 1)",
        ),
        (set_at("available_node_types", "head", "resources", to={"CPU": 4}), "(CPU, GPU) = (0, 0)"),
        (
            set_at("available_node_types", "replay", "resources", to={"CPU": 4}),
            "replay: custom resources []",
        ),
        (
            set_at(
                "available_node_types",
                "replay",
                "node_config",
                "InstanceMarketOptions",
                to={"MarketType": "spot"},
            ),
            "spot machines are for collectors alone",
        ),
        (
            set_at(
                "available_node_types", "replay", "node_config", to={"InstanceType": "r7i.xlarge"}
            ),
            "replay: no ImageId",
        ),
        (
            set_at(
                "available_node_types", "replay", "node_config", to={"InstanceType": "r7i.xlarge"}
            ),
            "no IamInstanceP",
        ),
        (
            set_at(
                "available_node_types",
                "replay",
                "node_config",
                "BlockDeviceMappings",
                to=[{"Ebs": {"VolumeSize": 100}}],
            ),
            "replay: a disk of [100] GB",
        ),
        (set_at("max_workers", to=12), "max_workers is below"),
        (set_at("file_mounts", to={"~/genray": "."}), "not absolute"),
        (set_at("file_mounts", to={"/home/ray/genray": "no_such_folder"}), "does not exist"),
        (set_at("file_mounts", to={"/home/ray/genray": "."}), "no auth_token"),
        (set_at("docker", "image", to="rayproject/ray:2.59.0-py311"), "constraints.txt pins Ray"),
        (set_at("worker_start_ray_commands", to=["ray start"]), "worker starts without"),
        (
            set_at("head_start_ray_commands", to=["ray start --head"]),
            "belongs to the head's start line",
        ),
    ],
)
def test_what_ray_overlooks_is_found(mutate: Mutation, complaint: str):
    config = lint.load("cluster.yaml")
    mutate(config)
    assert not lint.ray_refuses(config), "Ray looks closer than it did"
    assert any(complaint in problem for problem in lint.aws_problems(config))


@pytest.mark.parametrize(
    ("mutate", "complaint"),
    [
        (
            set_at("provider", "worker_ips", to=["10.0.0.10", "10.0.0.11", "10.0.0.12"]),
            "an address is there twice",
        ),
        (set_at("min_workers", to=2), "should be the 3 workers"),
        (set_at("worker_start_ray_commands", to=["ray start"]), "who is the learner?"),
        (
            set_at("provider", "worker_ips", to=["10.0.0.11", "10.0.0.22", "10.0.0.13"]),
            "10.0.0.12 is given a role",
        ),
        (
            set_at("provider", "head_ip", to="10.0.0.9"),
            "does not start with --node-ip-address=10.0.0.9",
        ),
    ],
)
def test_what_ray_overlooks_in_a_local_file_is_found(mutate: Mutation, complaint: str):
    config = lint.load("cluster-local.yaml")
    mutate(config)
    assert not lint.ray_refuses(config), "Ray looks closer than it did"
    assert any(complaint in problem for problem in lint.local_problems(config))


GROUP = (0, "spec", "workerGroupSpecs")
POD = (*GROUP, 0, "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("mutate", "complaint"),
    [
        (set_at(0, "spec", "noSuchField", to=1), "noSuchField"),
        (set_at(0, "kind", to="RayClutser"), "one of each"),
        (set_at(0, "apiVersion", to="ray.io/v1alpha1"), "apiVersion"),
        (set_at(*GROUP, 0, "replicas", to="1"), "is not of type 'integer'"),
        (set_at(*GROUP, 2, "maxReplicas", to=1), "collector: replicas are not within"),
        (set_at(*GROUP, 1, "rayStartParams", to={}), "not each role once"),
        (set_at(*POD, "image", to="genray:latest"), "genray:latest"),
        (set_at(*POD, "image", to="genray:0.1.0"), "a GPU goes with the image"),
        (set_at(*POD, "resources", "limits", "memory", to="28 GiB"), "28 GiB"),
        (set_at(*POD, "env", to=[]), "learner starts without"),
        (set_at(*POD, "volumeMounts", 0, "name", to="rnus"), "no volume provides"),
        (set_at(0, "spec", "rayVersion", to="2.59.0"), "constraints.txt pins Ray"),
        (set_at(0, "spec", "authOptions", "mode", to="tokens"), "tokens"),
        (set_at(0, "spec", "headGroupSpec", "rayStartParams", to={}), "num-cpus"),
        (set_at(1, "spec", "clusterSelector", to={"ray.io/cluster": "genrya"}), "another cluster"),
        (set_at(1, "spec", "entrypoint", to="genray train dqq --out /shared/x"), "no such command"),
        (
            set_at(1, "spec", "entrypoint", to="genray train dqn --out /shared/x"),
            "add --address auto",
        ),
        (
            set_at(1, "spec", "entrypoint", to="genray train dqn --address auto --out runs/x"),
            "--out runs/x",
        ),
        (
            set_at(2, "spec", "serveConfigV2", to="applications: 7"),
            "serveConfigV2: ('applications',)",
        ),
        (
            set_at(2, "spec", "serveConfigV2", to="applications: []"),
            "differs from serve/config.yaml",
        ),
    ],
)
def test_damage_to_kuberay_yaml_is_found(mutate: Mutation, complaint: str):
    documents = lint.load_all("kuberay.yaml")
    mutate(documents)
    found = list(lint.kuberay_problems(documents))
    assert any(complaint in problem for problem in found), found


def test_damage_to_the_dockerfile_is_found():
    text = (lint.ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert any(
        "pins Ray" in one for one in lint.dockerfile_problems(text.replace("2.60.0", "2.59.0", 1))
    )
    assert any(
        "COPY ['tunnig']" in one
        for one in lint.dockerfile_problems(
            text.replace("COPY --chown=ray:users tuning", "COPY tunnig")
        )
    )


def test_kuberays_own_crds_are_read_strictly(tmp_path: Path):
    """With three small CRDs of the real ones' form; the real ones are not ours to ship."""
    spec = {
        "type": "object",
        "properties": {
            "replicas": {"type": "integer", "format": "int32"},
            "port": {
                "x-kubernetes-int-or-string": True,
                "anyOf": [{"type": "integer"}, {"type": "string"}],
            },
            "free": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {},
            },
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
    top = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
    }
    version = {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "properties": top}}}
    for kind in lint.SCHEMAS:
        (tmp_path / f"ray.io_{kind.lower()}s.yaml").write_text(
            yaml.safe_dump({"spec": {"versions": [version]}})
        )
    schemas = lint.crd_schemas(tmp_path)

    def complaints(**fields: object) -> str:
        object_ = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {"name": "a"},
            "spec": fields,
        }
        return "\n".join(lint.schema_problems([object_], schemas))

    assert not complaints(replicas=1, port="http", free={"any": 1}, labels={"a": "b"})
    assert not complaints(port=80)
    assert "'replica' was unexpected" in complaints(replica=1)
    assert "$.spec.replicas: '1' is not" in complaints(replicas="1")
    assert "$.spec.labels.a: 1 is not" in complaints(labels={"a": 1})
