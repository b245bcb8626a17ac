"""Tests of Q-networks as ONNX files: onnxruntime chooses the actions that PyTorch chooses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genray.commands.export_onnx import write_onnx
from genray.errors import ConfigError
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.noisy import draw_noise
from genray.rl.observation import Field, Observation
from genray.rl.portable import PortableNetwork, WindowMaxPool

SMALL = {"channels": (4, 4, 4), "hidden": 16}
# Together, these networks have every option of NetworkConfig that changes what is computed.
NETWORKS = {
    "iqn": NetworkConfig(**SMALL, head="iqn", noisy=0.5, layer_norm=True, past_actions=3),
    "c51": NetworkConfig(
        encoder="impala", impala_width=0.25, spectral_norm=True, pooling="max", head="c51",
        shared_hidden=True, median_frame=True, input_gain=4, hidden=16,
    ),
    "der": NetworkConfig(
        encoder="der", pooling="average", dueling=False, value_rescaling=True, hidden=16
    ),
}  # fmt: skip
ACTIONS = 5


def make(config: NetworkConfig, side: int, stack: int = 4) -> QNetwork:
    """A network as after a training: with noise, a median frame and an estimated spectral norm."""
    torch.manual_seed(0)
    network = QNetwork(config, ACTIONS, stack, (side, side))
    draw_noise(network, torch.Generator().manual_seed(1))
    if config.median_frame:
        network.set_median(torch.randint(0, 256, (9, side, side), dtype=torch.uint8))
    inputs = observations(network, 64, np.random.default_rng(3))
    with torch.no_grad():
        network.train()(*inputs)  # a power iteration of the spectral norm
        # Equal means of all actions, so that the best action depends on the observation.
        mean = network.eval()(*inputs, raw=True).mean(0)
        if mean.ndim == 2 and network.head.outputs_per_action == 1:
            mean = mean.mean(1)
        network.advantage[-1].bias.sub_((mean - mean.mean(0)).flatten())
    return network


def observations(network: QNetwork, count: int, rng: np.random.Generator) -> list[torch.Tensor]:
    """Random inputs: squares of 4x4 pixels, most of them black, and past actions."""
    height, width = network.frame_shape
    squares = rng.integers(-512, 256, (count, network.stack, height // 4, width // 4))
    frames = squares.clip(0).astype(np.uint8).repeat(4, axis=2).repeat(4, axis=3)
    past = rng.integers(-1, ACTIONS, (count, network.config.past_actions))
    return [torch.from_numpy(each) for each in (frames, past)]


def both(network: QNetwork, path: Path, count: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Q-values of PyTorch and of onnxruntime for random observations, [count, A] each."""
    import onnxruntime

    portable = PortableNetwork(network)
    write_onnx(portable, portable.example(), path, portable.input_names, "q_values")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    assert [each.name for each in session.get_inputs()] == portable.input_names
    assert [each.name for each in session.get_outputs()] == ["q_values"]
    rng = np.random.default_rng(2)
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for start in range(0, count, batch):
        size = min(batch, count - start)
        inputs = observations(network, size, rng)
        with torch.inference_mode():
            found[0].append(network(*inputs).numpy())
        found[1].append(
            session.run(None, dict(zip(portable.input_names, map(np.asarray, inputs))))[0]
        )
    return np.concatenate(found[0]), np.concatenate(found[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_policy_chooses_the_same_actions(name: str, tmp_path: Path):
    network = make(NETWORKS[name], side=44)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    q_BA, onnx_BA = both(network, tmp_path / "q.onnx", count=203, batch=100)
    np.testing.assert_allclose(onnx_BA, q_BA, atol=1e-5)
    assert (onnx_BA.argmax(1) == q_BA.argmax(1)).all()
    assert len(np.unique(q_BA.argmax(1))) > 1  # else the comparison would prove little
    # The exported network is a copy.
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


RECORD = Observation(
    fields=(
        Field(name="speed", kind="vector", shape=(3,), dtype="float64"),
        Field(name="card", kind="classes", shape=(2,), dtype="uint8", classes=((1, 4), (-2, 3))),
        Field(name="map", kind="image", shape=(8, 9, 3), dtype="uint8", channels="last"),
        Field(name="action_mask", kind="mask", shape=(ACTIONS,), dtype="uint8"),
    )
)


def test_onnx_policy_of_records_takes_the_arrays_of_observations(tmp_path: Path):
    """Classes are the environment's own numbers. Illegal actions are never the best ones."""
    import onnxruntime

    torch.manual_seed(0)
    config = NetworkConfig(**SMALL, head="iqn", normalise=True, layer_norm=True, past_actions=2)
    network = QNetwork(config, ACTIONS, 2, RECORD.frame_shape, RECORD).eval()
    rng = np.random.default_rng(1)
    count = 101
    speed = rng.normal(3, 2, (count, 3))
    card = np.stack([rng.integers(1, 5, count), rng.integers(-2, 1, count)], axis=1)
    maps = rng.integers(0, 256, (count, 2, 8, 9, 3), np.uint8)
    mask = rng.random((count, ACTIONS)) < 0.5
    mask[np.arange(count), rng.integers(ACTIONS, size=count)] = True
    past = rng.integers(-1, ACTIONS, (count, 2))
    rows = [
        RECORD.pack(
            {"speed": speed, "card": card - (1, -2), "map": maps[:, t], "action_mask": mask}
        )
        for t in range(2)
    ]
    frames = torch.from_numpy(np.stack(rows, axis=1))
    network.observe(frames)
    portable = PortableNetwork(network)
    assert portable.input_names == ["speed", "card", "map", "action_mask", "past_actions"]
    path = tmp_path / "q.onnx"
    write_onnx(portable, portable.example(), path, portable.input_names, "q_values")
    inputs = (speed, card, maps, mask.astype(np.uint8), past)
    (onnx_BA,) = onnxruntime.InferenceSession(str(path)).run(
        None, dict(zip(portable.input_names, inputs))
    )
    with torch.no_grad():
        q_BA = network(frames, torch.from_numpy(past)).numpy()
    np.testing.assert_allclose(onnx_BA, q_BA, atol=1e-5)
    best_B = onnx_BA.argmax(1)
    assert (best_B == q_BA.argmax(1)).all() and mask[np.arange(count), best_B].all()
    assert not mask.all() and len(np.unique(best_B)) > 1


@pytest.mark.learn  # about 40 s of CPU time
def test_onnx_policy_of_the_default_network_agrees_on_10000_observations(tmp_path: Path):
    network = make(NetworkConfig(), side=84)
    q_BA, onnx_BA = both(network, tmp_path / "q.onnx", count=10_000, batch=250)
    assert np.abs(onnx_BA - q_BA).max() < 1e-5
    assert (onnx_BA.argmax(1) == q_BA.argmax(1)).all()
    assert len(np.unique(q_BA.argmax(1))) > 1


@pytest.mark.parametrize("size", [6, 11, 13])
def test_window_max_pool_equals_adaptive_max_pool(size: int):
    x = torch.randn(2, 3, size, size + 1)
    torch.testing.assert_close(WindowMaxPool(6)(x), torch.nn.AdaptiveMaxPool2d(6)(x))


def test_write_onnx_reports_what_cannot_be_written_in_one_line(tmp_path: Path):
    class Pool(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_max_pool2d(x, 6)

    with pytest.raises(ConfigError, match="cannot write this model as ONNX") as failed:
        write_onnx(Pool(), [torch.zeros(2, 3, 11, 11)], tmp_path / "q.onnx", ["x"])
    assert "\n" not in str(failed.value) and not list(tmp_path.iterdir())
