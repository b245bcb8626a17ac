"""The number of PyTorch's threads: by a step's work and by the free cores, the user's where
there is one, kept in runs.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from genray import cli, threads
from genray.commands.train_dqn import LaunchConfig, open_engine
from genray.gen.data.config import DataConfig
from genray.gen.families import open_fit
from genray.gen.training.fit import Fit, FitConfig
from genray.gen.training.run import FitRun, columns
from genray.gen.vae import VAEConfig, VAEModelConfig
from genray.rl.agent import LocalAgent
from genray.rl.presets import preset
from genray.runs.live import Live
from genray.runs.rundir import RunDir
from genray.threads import CpuTimes, FlopCount, free_between, threads_for, usable_cores


@pytest.fixture(autouse=True)
def three_threads_on_an_idle_machine_of_eight(monkeypatch):
    """What PyTorch would take by itself; the machine that runs the tests may be small and busy."""
    for name in threads.USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "free_cores", lambda: 8)
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3, "left as it was"
    torch.set_num_threads(before)


# -- the free cores --------------------------------------------------------------------------------


def test_free_cores_are_those_that_others_leave():
    start = CpuTimes(clock=10.0, idle=100.0, own=1.0)
    assert free_between(start, CpuTimes(20.0, 130.0, 11.0), cores=4) == 4, (
        "one core for itself, three idle"
    )
    assert free_between(start, CpuTimes(20.0, 110.0, 11.0), cores=4) == 2, (
        "two cores busy with other programs"
    )
    assert free_between(start, CpuTimes(20.0, 100.0, 6.0), cores=4) == 1, "never none"
    assert free_between(start, CpuTimes(20.0, 180.0, 11.0), cores=4) == 4, (
        "never more than there are"
    )


def test_usable_cores_are_cut_by_the_quota_of_a_container(tmp_path: Path, monkeypatch):
    monkeypatch.undo()
    mine = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == mine
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    for content, cores in (("max 100000", mine), ("150000 100000", 1), ("20000 100000", 1)):
        (folder / "cpu.max").write_text(content + "\n")
        assert usable_cores(tmp_path) == cores
    (folder / "cpu.max").unlink()
    (folder / "cpu").mkdir()
    (folder / "cpu/cpu.cfs_period_us").write_text("100000\n")
    for quota, cores in (("-1", mine), ("100000", 1)):
        (folder / "cpu/cpu.cfs_quota_us").write_text(quota + "\n")
        assert usable_cores(tmp_path) == cores


def test_free_cores_beside_busy_processes_is_one(monkeypatch):
    monkeypatch.undo()
    spin = [sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"]
    busy = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in os.sched_getaffinity(0)]
    try:
        for each in busy:
            assert each.stdout is not None and each.stdout.readline()
        monkeypatch.setattr(threads, "_at_start", threads.cpu_times())
        before = time.process_time()
        # what this process computes itself is no other program's
        while time.process_time() - before < 0.05:
            pass
        assert threads.free_cores() == 1
    finally:
        for each in busy:
            each.kill()
            each.communicate()
    torch.set_num_threads(3)


# -- the choice ------------------------------------------------------------------------------------


def test_threads_for_small_steps_is_one():
    assert [threads_for(flop, 8) for flop in (0, 58e6, 9e8, 1.1e9, 3.3e9, 9e9)] == [
        1,
        1,
        1,
        2,
        6,
        8,
    ]
    assert threads_for(float("inf"), 2) == 2 and threads_for(9e9, 0) == 1


def test_choose_threads_obeys_the_user(monkeypatch):
    assert threads.choose_threads(1e6) == 1 and threads.choose_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # which PyTorch has read when it was imported
    assert threads.choose_threads(1e6) == 3 and threads.saved_threads(1) == 3


def test_sleep_while_waiting_keeps_what_the_user_set(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "any")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["--version"]) == 0 and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    mine = {"OMP_WAIT_POLICY": "ACTIVE"}
    threads.sleep_while_waiting(mine)
    assert mine == {"OMP_WAIT_POLICY": "ACTIVE"}


def test_flop_count_of_known_layers():
    linear, convolution, transposed = (
        nn.Linear(100, 200),
        nn.Conv2d(3, 8, 3),
        nn.ConvTranspose2d(3, 8, 4, stride=2),
    )
    images = torch.randn(2, 3, 10, 10)
    for layer, x, one in (
        (linear, torch.randn(10, 100), 2 * 10 * 100 * 200),
        (convolution, images, 2 * (2 * 8 * 8 * 8) * (3 * 3 * 3)),
        (transposed, images, 2 * images.numel() * (8 * 4 * 4)),
    ):
        with FlopCount() as count, torch.no_grad():
            layer(x)
        assert count.flop == one
        with FlopCount() as count:
            layer(x).sum().backward()
        assert count.flop == 3 * one
    with FlopCount() as count:
        linear.weight.detach() @ torch.randn(100, 7)
    assert count.flop == 2 * 200 * 100 * 7


# -- runs of the generative families ---------------------------------------------------------------


def small_vae(widths: tuple[int, ...] = (16,), steps: int = 4) -> VAEConfig:
    return VAEConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(steps=steps, batch_size=100, checkpoint_every=2, device="cpu"),
        model=VAEModelConfig(latent=2, widths=widths),
    )


def threads_of_steps(fit: Fit, folder: Path) -> list[int]:
    """Run `fit` to its end; returns PyTorch's threads in each of its steps."""
    step, seen = fit.task.step, []

    def watched(batch):
        seen.append(torch.get_num_threads())
        return step(batch)

    fit.task.step = watched  # type: ignore[method-assign]
    run = RunDir.create(folder)
    with run, Live("vae", fit.planned_steps(), columns(fit)) as live:
        FitRun(fit, run, live, "").run()
    return seen


def test_fit_run_trains_a_tiny_network_on_one_thread(tmp_path: Path):
    fit = open_fit("vae", small_vae())
    assert threads_of_steps(fit, tmp_path / "run") == [1, 1, 1, 1]
    plain = open_fit("vae", small_vae())
    torch.set_num_threads(1)
    for _ in plain:
        pass
    torch.set_num_threads(3)
    for name, tensor in plain.task.networks.state_dict().items():
        assert torch.equal(tensor, fit.task.networks.state_dict()[name]), (
            f"{name}: counting changed it"
        )


def test_fit_run_trains_a_large_network_on_the_free_cores(tmp_path: Path, monkeypatch):
    # a small one counts as large, so that the test is quick
    monkeypatch.setattr(threads, "FLOP_PER_THREAD", 1e5)
    assert threads_of_steps(open_fit("vae", small_vae(steps=3)), tmp_path / "free") == [1, 3, 3]
    monkeypatch.setattr(threads, "free_cores", lambda: 1)
    assert threads_of_steps(open_fit("vae", small_vae(steps=3)), tmp_path / "busy") == [1, 1, 1]


def test_fit_run_resumes_with_the_threads_that_it_had(tmp_path: Path, monkeypatch):
    fit = open_fit("vae", small_vae())
    fit.threads = 2
    assert threads_of_steps(fit, tmp_path / "run") == [2, 2, 2, 2]
    again = open_fit("vae", small_vae(steps=6))
    again.load(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1])
    assert threads_of_steps(again, tmp_path / "again") == [2, 2]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    user = open_fit("vae", small_vae(steps=6))
    user.load(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1])
    assert threads_of_steps(user, tmp_path / "user") == [3, 3]


# -- runs of the agent -----------------------------------------------------------------------------


@pytest.mark.parametrize("flop, chosen", [(5e9, 1), (1e5, 3)])
def test_open_engine_local_chooses_threads_and_resumes_alike(
    tmp_path: Path, monkeypatch, flop, chosen
):
    monkeypatch.setattr(threads, "FLOP_PER_THREAD", flop)
    config = preset("catch", None)
    with open_engine(config, LaunchConfig(local=True)) as engine:
        assert torch.get_num_threads() == chosen, "an update computes about 1 GFLOP"
        engine.save(tmp_path)
    monkeypatch.setattr(threads, "free_cores", lambda: 1)
    with open_engine(config, LaunchConfig(local=True)) as engine:
        assert torch.get_num_threads() == 1
        engine.load(tmp_path)
        assert torch.get_num_threads() == chosen
    with open_engine(config, LaunchConfig(local=True, learner_threads=2)) as engine:
        assert torch.get_num_threads() == 2, "--learner-threads 2 --local"
        engine.load(tmp_path)
        assert torch.get_num_threads() == 2
    agent = LocalAgent(config)
    agent.load(tmp_path)
    agent.close()  # by itself it leaves PyTorch alone: the fixture checks
