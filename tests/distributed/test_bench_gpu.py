"""Tests that the benchmark for a GPU runs without a GPU, and its model of who should act."""

import sys

import pytest
import torch

from tests.bench import bench_gpu
from tests.bench.acting import CORES, CORES_ELSEWHERE, StepCosts, rates
from tests.bench.common import run_measured

COSTS = StepCosts(
    play_s=200e-6,
    network_s=800e-6,
    ray_send_s=50e-6,
    ray_serve_s=100e-6,
    shared_send_s=5e-6,
    shared_serve_s=5e-6,
)


def test_local_acting_takes_every_core_that_is_left():
    assert rates(COSTS, 8)["local"] == pytest.approx((CORES - CORES_ELSEWHERE) / 1e-3)


def test_central_acting_is_as_fast_as_its_slowest_part():
    found = rates(COSTS, 8, launch_s=0.0, gpu_s=1e-9)
    assert found["ray"] == pytest.approx(1 / 100e-6)  # the server's core
    # the collectors
    assert found["shared"] == pytest.approx((CORES - CORES_ELSEWHERE - 1) / 205e-6)
    assert rates(COSTS, 8, launch_s=0.0, gpu_s=1e-3)["shared"] == pytest.approx(1_000)  # the GPU
    # 8 groups of 8
    assert rates(COSTS, 8, launch_s=64e-3, gpu_s=1e-9)["shared"] == pytest.approx(1 / (5e-6 + 1e-3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_bench_gpu_without_a_gpu_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["bench_gpu"])
    with pytest.raises(SystemExit) as end:
        bench_gpu.main()
    assert end.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    assert (
        said.err
        == "error: no usable GPU here: see `genray doctor`, or run it with --device cpu --quick\n"
    )


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_bench_gpu_measures_all_rows_of_a_cpu():
    found = run_measured(
        ["tests.bench.bench_gpu", "--device", "cpu", "--quick"], threads=1, timeout_s=280
    )
    assert found["failed"] == [] and found["best_fed_per_s"] > 0
    for source in ("update_alone", "frames_on_host", "frames_on_device"):
        assert found[f"{source}_32_float32_eager_per_s"] > 0
    assert sum(name.startswith("over_Ray") for name in found) == 2
    assert found["central_16_lanes_per_s"] > 0
