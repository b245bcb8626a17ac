"""cluster.yaml is what Ray accepts, and what Ray's own check lets through is looked at here.

Ray's `validate_config` knows the fields but accepts min > max, a mistyped instance type, missing files.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HEALTH = {
    "RAY_health_check_initial_delay_ms=1000",
    "RAY_health_check_period_ms=500",
    "RAY_health_check_timeout_ms=1000",
    "RAY_health_check_failure_threshold=3",
}
# Instance type -> vCPU and GPUs, as AWS lists them: add a row when cluster.yaml names another one.
MACHINES = {"m7i.xlarge": (4, 0), "g6.2xlarge": (8, 1), "r7i.xlarge": (4, 0), "c7i.4xlarge": (16, 0)}
NODE_FIELDS = {"InstanceType", "InstanceMarketOptions", "BlockDeviceMappings"}
ROLES = {"learner": "genray_learner", "replay": "genray_replay", "collector": "genray_collector"}

Config = dict[str, Any]


def load() -> Config:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def ray_accepts(config: Config) -> None:
    """Ray's own check, as `ray up` runs it before it touches the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def problems(config: Config) -> list[str]:
    """What Ray lets through and a cluster would trip over."""
    found = []
    types = config["available_node_types"]
    for name, node in types.items():
        least, most = node.get("min_workers", 0), node.get("max_workers", 0)
        if least > most:
            found.append(f"{name}: min_workers {least} > max_workers {most}")
        if unknown := set(node["node_config"]) - NODE_FIELDS:
            found.append(f"{name}: unknown fields {sorted(unknown)}")
        instance = node["node_config"]["InstanceType"]
        if instance not in MACHINES:
            found.append(f"{name}: unknown instance type {instance}")
            continue
        cpus, gpus = MACHINES[instance]
        wanted = (0 if name == config["head_node_type"] else cpus, gpus)
        if (node["resources"].get("CPU"), node["resources"].get("GPU", 0)) != wanted:
            found.append(f"{name}: {instance} should offer (CPU, GPU) = {wanted}")
        custom = set(node["resources"]) - {"CPU", "GPU"}
        if custom != ({ROLES[name]} if name in ROLES else set()):
            found.append(f"{name}: custom resources {sorted(custom)}")
    if missing := set(ROLES) - set(types):
        found.append(f"no node type for {sorted(missing)}")
    if config["max_workers"] < sum(node.get("max_workers", 0) for node in types.values()):
        found.append("max_workers is below the sum of the node types'")
    for remote, local in config["file_mounts"].items():
        if not remote.startswith("/"):
            found.append(f"file_mounts: {remote} is not absolute")
        if not local.startswith("~") and not (ROOT / local).exists():
            found.append(f"file_mounts: {local} does not exist")
    for which in ("head", "worker"):
        words = set(" ".join(config[f"{which}_start_ray_commands"]).split())
        if lost := (HEALTH | {"RAY_AUTH_MODE=token"}) - words:
            found.append(f"{which} starts without {sorted(lost)}")
        if ("RAY_enable_autoscaler_v2=0" in words) != (which == "head"):
            found.append(f"{which}: RAY_enable_autoscaler_v2=0 belongs to the head's start line alone")
    return found


def test_ray_accepts_the_file():
    ray_accepts(load())


def test_nothing_that_ray_would_overlook_is_wrong():
    assert problems(load()) == []


def test_collectors_alone_are_spot_machines():
    types = load()["available_node_types"]
    spot = {name for name, node in types.items() if "InstanceMarketOptions" in node["node_config"]}
    assert spot == {"collector"}


def test_images_carry_the_ray_that_constraints_txt_names():
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    images = re.findall(r"rayproject/ray:([\d.]+)-py311", (ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert images and set(images) == {pinned.group(1)}


def set_at(*path: str | int, to: object) -> Callable[[Config], None]:
    """A mutation: config[path] = to."""

    def mutate(config: Any) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = to

    return mutate


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
def test_ray_refuses_a_damaged_file(mutate: Callable[[Config], None]):
    import jsonschema

    config = load()
    mutate(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        ray_accepts(config)


@pytest.mark.parametrize(
    ("mutate", "complaint"),
    [
        (set_at("available_node_types", "collector", "min_workers", to=9), "min_workers 9 > max_workers 8"),
        (
            set_at("available_node_types", "learner", "node_config", "InstanceType", to="g6.2xlrge"),
            "g6.2xlrge",
        ),
        (set_at("available_node_types", "learner", "node_config", "ImageID", to="ami-1"), "ImageID"),
        (set_at("available_node_types", "learner", "resources", to={"CPU": 8}), "(CPU, GPU) = (8, 1)"),
        (set_at("available_node_types", "head", "resources", to={"CPU": 4}), "(CPU, GPU) = (0, 0)"),
        (set_at("available_node_types", "replay", "resources", to={"CPU": 4}), "replay: custom resources []"),
        (set_at("max_workers", to=12), "max_workers is below"),
        (set_at("file_mounts", to={"~/genray": "."}), "not absolute"),
        (set_at("file_mounts", to={"/home/ray/genray": "no_such_folder"}), "does not exist"),
        (set_at("worker_start_ray_commands", to=["ray start"]), "worker starts without"),
        (set_at("head_start_ray_commands", to=["ray start --head"]), "belongs to the head's start line"),
    ],
)
def test_what_ray_overlooks_is_found(mutate: Callable[[Config], None], complaint: str):
    config = load()
    mutate(config)
    ray_accepts(config)
    assert any(complaint in problem for problem in problems(config))
