"""The files that start a cluster are what Ray and KubeRay accept, and what those let through is
looked at here.

    python -m tests.cluster.lint        # part of `make check`; prints a line a problem, exit status 1
    python -m tests.cluster.lint --crds KUBERAY/ray-operator/config/crd/bases    # with a checkout of KubeRay, its CRDs too

Ray's `validate_config` knows the fields but accepts min > max, a mistyped instance type, missing
files. KubeRay's own schemas are not in any package that we install: kuberay_schema.py is ours,
of the fields that kuberay.yaml uses.
"""  # noqa: E501

import argparse
import copy
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.kuberay_schema import SCHEMAS, crd_schemas

ROOT = Path(__file__).parents[2]
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
HEALTH_WORDS = {f"{name}={value}" for name, value in HEALTH.items()}
# Instance type -> vCPU and GPUs, as AWS lists them: add a row when cluster.yaml names another one.
MACHINES = {
    "m7i.xlarge": (4, 0),
    "g6.2xlarge": (8, 1),
    "r7i.xlarge": (4, 0),
    "c7i.4xlarge": (16, 0),
}
NODE_FIELDS = {
    "InstanceType",
    "ImageId",
    "InstanceMarketOptions",
    "BlockDeviceMappings",
    "IamInstanceProfile",
}
MUST = {
    "ImageId": "Ray's own choice is an image of 2023",
    "IamInstanceProfile": "it cannot reach the bucket",
}
# EC2 refuses a disk smaller than the image's; one of Amazon's for deep learning wanted 140
LEAST_DISK_GB = 150
ROLES = {"learner": "genray_learner", "replay": "genray_replay", "collector": "genray_collector"}

Config = dict[str, Any]


def load(name: str) -> Config:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def load_all(name: str) -> list[Config]:
    return list(yaml.safe_load_all((ROOT / name).read_text(encoding="utf-8")))


def pinned_ray() -> str:
    """The Ray that constraints.txt names."""
    found = re.search(
        r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found, "constraints.txt pins no Ray"
    return found.group(1)


# -- what Ray checks -------------------------------------------------------------------------------


def ray_refuses(config: Config) -> str:
    """Ray's own check, as `ray up` runs it before it touches anything: its complaint, or
    nothing.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except (
        Exception,
        SystemExit,
    ) as error:  # jsonschema's, ValueError, TypeError, click's Abort: whatever it stumbles over
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


# -- what it lets through --------------------------------------------------------------------------


def common_problems(config: Config) -> Iterator[str]:
    """Of every file for `ray up`: mounts, and the lines that start Ray."""
    for remote, local in config["file_mounts"].items():
        if not remote.startswith("/"):
            yield f"file_mounts: {remote} is not absolute"
        if not local.startswith("~") and not (ROOT / local).exists():
            yield f"file_mounts: {local} does not exist"
    if not any(remote.endswith("/.ray/auth_token") for remote in config["file_mounts"]):
        yield "file_mounts: no auth_token: the nodes would not know the cluster's token"
    for which in ("head", "worker"):
        words = set(" ".join(config[f"{which}_start_ray_commands"]).split())
        if lost := sorted((HEALTH_WORDS | {"RAY_AUTH_MODE=token"}) - words):
            yield f"{which} starts without {lost}"
        if ("RAY_enable_autoscaler_v2=0" in words) != (which == "head"):
            yield f"{which}: RAY_enable_autoscaler_v2=0 belongs to the head's start line alone"


def aws_problems(config: Config) -> Iterator[str]:
    yield from common_problems(config)
    types = config["available_node_types"]
    for name, node in types.items():
        least, most = node.get("min_workers", 0), node.get("max_workers", 0)
        if least > most:
            yield f"{name}: min_workers {least} > max_workers {most}"
        if unknown := set(node["node_config"]) - NODE_FIELDS:
            yield f"{name}: unknown fields {sorted(unknown)}"
        for field, without in MUST.items():
            if field not in node["node_config"]:
                yield f"{name}: no {field}: without one, {without}"
        disks = [
            disk["Ebs"]["VolumeSize"] for disk in node["node_config"].get("BlockDeviceMappings", [])
        ]
        if not disks or min(disks) < LEAST_DISK_GB:
            yield f"{name}: a disk of {disks} GB: the image wants {LEAST_DISK_GB}"
        custom = set(node["resources"]) - {"CPU", "GPU"}
        if custom != ({ROLES[name]} if name in ROLES else set()):
            yield f"{name}: custom resources {sorted(custom)}"
        instance = node["node_config"]["InstanceType"]
        if instance not in MACHINES:
            yield f"{name}: unknown instance type {instance}"
            continue
        cpus, gpus = MACHINES[instance]
        wanted = (0 if name == config["head_node_type"] else cpus, gpus)
        if (node["resources"].get("CPU"), node["resources"].get("GPU", 0)) != wanted:
            yield f"{name}: {instance} should offer (CPU, GPU) = {wanted}"
    if missing := set(ROLES) - set(types):
        yield f"no node type for {sorted(missing)}"
    if config["max_workers"] < sum(node.get("max_workers", 0) for node in types.values()):
        yield "max_workers is below the sum of the node types'"
    spot = {name for name, node in types.items() if "InstanceMarketOptions" in node["node_config"]}
    if spot != {"collector"}:
        yield f"spot machines are for collectors alone, not {sorted(spot)}"
    images = [config["docker"]["image"]]
    images += [node["docker"]["worker_image"] for node in types.values() if "docker" in node]
    for image in images:
        if not re.fullmatch(rf"rayproject/ray:{re.escape(pinned_ray())}-py311(-gpu)?", image):
            yield f"{image}: constraints.txt pins Ray {pinned_ray()}"


def local_problems(config: Config) -> Iterator[str]:
    yield from common_problems(config)
    provider = config["provider"]
    workers, head = provider["worker_ips"], provider["head_ip"]
    if head in workers or len(set(workers)) < len(workers):
        yield "provider: an address is there twice"
    if not config.get("min_workers", 0) == config.get("max_workers") == len(workers):
        yield (
            f"min_workers and max_workers should be the {len(workers)} workers that the file lists"
        )
    start = " ".join(config["worker_start_ray_commands"])
    # Ray knows one type of node here, so that the roles are in a shell line: every role must be
    # somebody's.
    for name, role in ROLES.items():
        if f'"{role}"' not in start:
            yield f"no worker is given {role}: who is the {name}?"
    for address in re.findall(r'\*" ([\d.]+) "\*\)', start):
        if address not in workers:
            yield f"{address} is given a role, but is not among worker_ips"
    if f"--node-ip-address={head}" not in " ".join(config["head_start_ray_commands"]).split():
        yield f"the head does not start with --node-ip-address={head}"


# -- Kubernetes ------------------------------------------------------------------------------------


def schema_problems(documents: list[Config], schemas: dict[str, Config]) -> Iterator[str]:
    import jsonschema

    for document in documents:
        validator = jsonschema.Draft202012Validator(schemas[document["kind"]])
        errors = sorted(
            validator.iter_errors(document), key=lambda error: list(map(str, error.path))
        )
        yield from (
            f"{document['kind']}: {error.json_path}: {error.message[:200]}" for error in errors
        )


def kuberay_problems(documents: list[Config]) -> Iterator[str]:
    kinds = [document.get("kind") for document in documents]
    if sorted(map(str, kinds)) != sorted(SCHEMAS):
        yield f"kinds {kinds}: there should be one of each of {sorted(SCHEMAS)}"
        return
    if wrong := list(schema_problems(documents, SCHEMAS)):
        yield from wrong
        return
    cluster, job, service = (
        next(one for one in documents if one["kind"] == kind) for kind in SCHEMAS
    )
    for name, spec in (
        ("RayCluster", cluster["spec"]),
        ("RayService", service["spec"]["rayClusterConfig"]),
    ):
        yield from (f"{name}: {problem}" for problem in _pods_problems(spec))
    offered = [role for group in cluster["spec"]["workerGroupSpecs"] for role in _custom(group)]
    if sorted(offered) != sorted(ROLES.values()):
        yield f"RayCluster: worker groups offer {sorted(offered)}, not each role once"
    if job["spec"]["clusterSelector"] != {"ray.io/cluster": cluster["metadata"]["name"]}:
        yield "RayJob: clusterSelector names another cluster"
    yield from _entrypoint_problems(job["spec"]["entrypoint"])
    yield from _serve_problems(service["spec"]["serveConfigV2"])


def _pods_problems(spec: Config) -> Iterator[str]:
    if spec["rayVersion"] != pinned_ray():
        yield f"rayVersion {spec['rayVersion']}: constraints.txt pins Ray {pinned_ray()}"
    if spec["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        yield 'the head should have num-cpus: "0"'
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        name = group.get("groupName", "head")
        if (
            "groupName" in group
            and not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        ):
            yield f"{name}: replicas are not within minReplicas .. maxReplicas"
        pod = group["template"]["spec"]
        claimed = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            if not re.fullmatch(r"genray:\d+\.\d+\.\d+(-gpu)?", container["image"]):
                yield (
                    f"{name}: image {container['image']}: not one that the Dockerfile makes, with "
                    "its version"
                )
            env = {entry["name"]: entry.get("value") for entry in container["env"]}
            if lost := sorted(key for key, value in HEALTH.items() if env.get(key) != value):
                yield f"{name} starts without {lost}"
            gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            if gpu != container["image"].endswith("-gpu"):
                yield f"{name}: a GPU goes with the image for GPUs, and only with it"
            if container["resources"]["requests"] != container["resources"]["limits"]:
                yield f"{name}: requests and limits differ: Ray plans with the limits"
            if loose := {mount["name"] for mount in container["volumeMounts"]} - claimed:
                yield f"{name}: mounts {sorted(loose)}, which no volume provides"


def _custom(group: Config) -> list[str]:
    """The custom resources of a worker group; KubeRay passes the quotes on to a shell."""
    words = shlex.split(group["rayStartParams"].get("resources", "'{}'"))
    return list(json.loads(words[0])) if words else []


def _entrypoint_problems(entrypoint: str) -> Iterator[str]:
    from genray.commands.cluster import job_words
    from genray.errors import UsageError
    from genray.options import option_value
    from genray.rl.presets import preset

    program, *words = shlex.split(entrypoint)
    if program != "genray":
        yield f"RayJob: {program}: not a command of genray"
        return
    try:
        if job_words(words, "genray submit") != words:
            yield "RayJob: the entrypoint does not name the cluster: add --address auto"
        preset(option_value(words, "--preset") or "dqn")
    except UsageError as error:
        yield f"RayJob: {error}"


def _serve_problems(text: str) -> Iterator[str]:
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(text)
    try:
        ServeDeploySchema(**config)
    except ValidationError as error:
        yield f"RayService: serveConfigV2: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
        return
    if config != load("serve/config.yaml"):
        yield "RayService: serveConfigV2 differs from serve/config.yaml"


# -- images ----------------------------------------------------------------------------------------


def dockerfile_problems(text: str) -> Iterator[str]:
    images = re.findall(r"rayproject/ray:([\d.]+)-py311", text)
    if not images or set(images) != {pinned_ray()}:
        yield f"base images {sorted(set(images))}: constraints.txt pins Ray {pinned_ray()}"
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for line in text.splitlines():
        if line.startswith("COPY"):
            sources = [word for word in line.split()[1:-1] if not word.startswith("--")]
            if lost := [
                source for source in sources if source not in kept or not (ROOT / source).exists()
            ]:
                yield f"COPY {lost}: not there, or left out by .dockerignore"


CHECKS: dict[str, Callable[[], list[str]]] = {
    "cluster.yaml": lambda: ray_up_problems("cluster.yaml", aws_problems),
    "cluster-local.yaml": lambda: ray_up_problems("cluster-local.yaml", local_problems),
    "kuberay.yaml": lambda: list(kuberay_problems(load_all("kuberay.yaml"))),
    "Dockerfile": lambda: list(
        dockerfile_problems((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    ),
}


def ray_up_problems(name: str, ours: Callable[[Config], Iterator[str]]) -> list[str]:
    refused = ray_refuses(load(name))
    return [f"Ray refuses it: {refused}"] if refused else list(ours(load(name)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.lint")
    parser.add_argument(
        "--crds",
        type=Path,
        help="a folder with KubeRay's ray.io_*.yaml: kuberay.yaml against them, too",
    )
    options = parser.parse_args()
    found = [f"{name}: {problem}" for name, check in CHECKS.items() for problem in check()]
    if options.crds:
        try:
            schemas = crd_schemas(options.crds)
        except OSError as error:
            print(f"error: --crds {options.crds}: {error}", file=sys.stderr)
            return 2
        wrong = schema_problems(load_all("kuberay.yaml"), schemas)
        found += [f"kuberay.yaml, by {options.crds}: {problem}" for problem in wrong]
    print("\n".join(found) or f"{', '.join(CHECKS)}: nothing wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
