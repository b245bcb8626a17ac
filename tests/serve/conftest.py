"""Fixtures: models that were trained for a few steps, and the application on a real port."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import uvicorn

from genray import cli
from genray.rl import presets
from genray.rl.engine import initial_network, network_card, probe_env
from genray.rl.evaluate import Evaluation
from genray.rl.train import save_policy
from genray.runs import modelstore
from serve.limits import Limits
from serve.service import Service, Settings
from serve.web import build_web


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of models. Tests that change the directory use a copy (`models_dir`)."""
    folder = tmp_path_factory.mktemp("models")
    # More threads would make these small models slower, and wait for other processes.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for family, name in (
            ("gan", "digits-gan"),
            ("vae", "digits-vae"),
            ("ae", "digits-ae"),
            ("classifier", "digits"),
        ):
            run = folder / f"run-{family}"
            words = ["--data", "digits", "--steps", "25", "--out", str(run)]
            assert cli.main(["train", family, *words]) == 0
            shutil.move(run / "model", folder / name)
            shutil.rmtree(run)
    finally:
        torch.set_num_threads(threads)
    make_policy(folder / "road-runner")
    make_style(folder / "waves")
    return folder


def make_policy(folder: Path) -> None:
    """Save an untrained policy of Road Runner."""
    config = presets.road_runner_quick()
    network = initial_network(network_card(config, *probe_env(config.env)), seed=0)
    nothing = Evaluation("road_runner", [0.0], [1], 0.001, 0.0, 30, 18_000)
    save_policy(folder, config, network, 0, nothing)


def make_style(folder: Path) -> None:
    """Save an untrained style network."""
    from genray.gen.images.style.network_config import StyleNetConfig
    from genray.gen.images.style.transformer_net import TransformerNet

    torch.manual_seed(0)
    network = TransformerNet(StyleNetConfig(widths=(4, 8), residual=1, kernel=3))
    config = {"widths": [4, 8], "residual": 1, "kernel": 3, "encoder_layer": "conv4", "about": {}}
    modelstore.save_model(folder, "style_fast", config, network.state_dict(), "# a style\n")


@pytest.fixture
def models_dir(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the models that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "models"))


@dataclass
class Web:
    """The application on a port."""

    url: str
    service: Service
    server: uvicorn.Server

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def start_web(folder: Path, **options: object) -> Web:
    limits, local = options.pop("limits", None) or Limits(), bool(options.pop("local", False))
    settings = Settings(models_dir=str(folder), watch_s=0.1, limits=limits, **options)  # type: ignore[arg-type]
    service = Service(settings)
    # log_config=None: uvicorn's default closes the handlers of other logs. The handler of absl,
    # which TensorBoard imports, then closes the file of pytest's standard error.
    config = uvicorn.Config(
        build_web(service, local=local),
        port=0,
        log_level="error",
        log_config=None,
        lifespan="on",
        forwarded_allow_ips="",  # as serve/environment.py sets it
    )
    server = uvicorn.Server(config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return Web(f"http://127.0.0.1:{listener.getsockname()[1]}", service, server)


def stop_web(web: Web) -> None:
    web.server.should_exit = True
    web.service.close()


@pytest.fixture(scope="session")
def web(trained: Path) -> Iterator[Web]:
    """Start one application for all tests that change no models."""
    running = start_web(trained)
    yield running
    stop_web(running)


@pytest.fixture
def start(models_dir: Path) -> Iterator[Callable[..., Web]]:
    """Return a function that starts a separate application: `start(keys=(…,), limits=…)`."""
    running: list[Web] = []

    def run(folder: Path | None = None, **options: object) -> Web:
        running.append(start_web(folder or models_dir, **options))
        return running[-1]

    yield run
    for each in running:
        stop_web(each)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A colour picture, uint8 [64, 96, 3]."""
    y, x = np.mgrid[0:64, 0:96]
    return np.stack([x * 2, y * 3, 255 - x - y], axis=2).astype(np.uint8)
