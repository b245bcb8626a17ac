"""Tests that joining a cluster fails in one line if no Ray answers or there are too few GPUs."""

import os
import socket
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
import ray

from genray import cli
from genray.distributed.session import _job_config, gpus_each, ray_session
from genray.errors import ResourceError
from genray.ray_processes import few_processes, start_private_ray
from genray.rl import DQNConfig
from genray.rl.env import OWN_MODULES
from tests.helpers.distributed import tiny


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_ray_session_refuses_an_address_without_ray(host: str):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but not listening
        address, start = f"{host}:{nobody.getsockname()[1]}", time.monotonic()
        with pytest.raises(
            ResourceError,
            match=f"--address {address}: no Ray cluster answers there .* leave --address out",
        ):
            with ray_session(address):
                raise AssertionError("joined")
    assert time.monotonic() - start < 30  # Ray itself would try for two minutes


@pytest.mark.parametrize(
    ("device", "learners", "have", "each"),
    [("cpu", 4, 0, 0), ("cpu", 1, 8, 0), ("auto", 3, 0, 0), ("auto", 2, 2, 1), ("cuda", 2, 8, 1)],
)
def test_gpus_each_gives_each_learner_a_gpu(device: Any, learners: int, have: int, each: int):
    assert gpus_each(on(device, learners), have) == each


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_gpus_each_refuses_more_learners_than_gpus(device: Any):
    with pytest.raises(
        ResourceError,
        match=r"^--learners 4: each needs a GPU, and this cluster has 2; use --learners 2, or",
    ):
        gpus_each(on(device, 4), 2)


def test_cuda_without_a_gpu():
    with pytest.raises(
        ResourceError, match="^--device cuda: Ray sees no GPU in this cluster; use --device cpu$"
    ):
        gpus_each(on("cuda", 1), 0)


@pytest.mark.parametrize("last", [True, False])
def test_job_config_keeps_the_import_order_of_the_command(tmp_path, monkeypatch, last: bool):
    """Ray extends the list by the script's directory and the working directory."""
    monkeypatch.chdir(tmp_path)
    others = [each for each in sys.path if each not in ("", str(tmp_path))]
    order = [*others, str(tmp_path)] if last else [str(tmp_path), *others]
    monkeypatch.setattr(sys, "path", order)
    monkeypatch.setenv(OWN_MODULES, "")
    config = _job_config()
    config._py_driver_sys_path.extend(["/bin", str(tmp_path)])
    assert config._py_driver_sys_path == (["/bin"] if last else ["/bin", str(tmp_path)])
    assert os.environ[OWN_MODULES] == (str(tmp_path) if last else "")


def on(device: Any, learners: int) -> DQNConfig:
    config = tiny()
    return replace(
        config,
        run=replace(config.run, device=device),
        learner=replace(config.learner, learners=learners),
    )


@pytest.mark.ray
@pytest.mark.timeout(180)
@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="this machine has a GPU")
def test_learner_actor_refuses_a_gpu_that_pytorch_cannot_use(tmp_path, capsys, monkeypatch):
    """Ray counts the GPU, and `auto` reserves it. A learner on the CPU would only be slow, and no
    error would be reported.
    """
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with few_processes():
        start_private_ray(
            num_cpus=3, num_gpus=1, object_store_memory=3 * 10**8, include_dashboard=False
        )
    try:
        words = [
            "train",
            "dqn",
            "--preset",
            "catch",
            "--collectors",
            "1",
            "--steps",
            "800",
            "--evaluate-episodes",
            "2",
            "--out",
        ]
        assert cli.main([*words, str(tmp_path / "run")]) == 2
    finally:
        ray.shutdown()
    err = capsys.readouterr().err.splitlines()[-1]
    assert (
        err.startswith("error: --device auto: Ray gave the learner a GPU on ")
        and "use --device cpu" in err
    )
    assert not (tmp_path / "run").exists()


def test_a_private_ray_that_is_late_is_started_again_and_then_refused(monkeypatch):
    """Ray itself cannot be made late on purpose, so its failure is raised in its place."""
    starts: list[str] = []

    def late(**options: object) -> None:
        starts.append(str(options["address"]))
        if len(starts) != 2:
            raise Exception("The current node timed out during startup. This could happen …")

    monkeypatch.setattr(ray, "init", late)
    start_private_ray()
    assert starts == ["local", "local"]
    with pytest.raises(ResourceError, match="did not start within 30 s, 2 times"):
        start_private_ray()
    assert len(starts) == 4

    def wrong(**options: object) -> None:
        raise ValueError("another fault")

    monkeypatch.setattr(ray, "init", wrong)
    with pytest.raises(ValueError, match="another fault"):
        start_private_ray()
