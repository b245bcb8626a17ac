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
ACTIONS = 5
# Vectors, classes that begin at 1 and −2, a colour image, and a mask.
RECORD = Observation(
    fields=(
        Field(name="speed", kind="vector", shape=(3,), dtype="float64"),
        Field(name="card", kind="classes", shape=(2,), dtype="uint8", classes=((1, 4), (-2, 3))),
        Field(name="map", kind="image", shape=(8, 9, 3), dtype="uint8", channels="last"),
        Field(name="action_mask", kind="mask", shape=(ACTIONS,), dtype="uint8"),
    )
)
# Together, these networks have every option of NetworkConfig that changes what is computed.
NETWORKS: dict[str, tuple[NetworkConfig, int | Observation]] = {
    "nature": (NetworkConfig(channels=(8, 8, 8), hidden=32), 36),
    "iqn": (NetworkConfig(**SMALL, head="iqn", noisy=0.5, layer_norm=True, past_actions=3), 36),
    "c51": (
        NetworkConfig(
            encoder="impala", impala_width=0.25, spectral_norm=True, pooling="max", head="c51",
            shared_hidden=True, median_frame=True, input_gain=4, hidden=16,
        ),
        44,
    ),
    "der": (
        NetworkConfig(
            encoder="der", pooling="average", dueling=False, value_rescaling=True, hidden=16
        ),
        36,
    ),
    "records": (
        NetworkConfig(**SMALL, head="iqn", normalise=True, layer_norm=True, past_actions=2),
        RECORD,
    ),
    "lstm": (NetworkConfig(**SMALL, normalise=True, lstm_units=6), RECORD),
}  # fmt: skip


def make(name: str) -> QNetwork:
    """A network as after a training: with noise, a median frame, an estimated spectral norm and a
    mean of vectors.
    """
    config, shape = NETWORKS[name]
    torch.manual_seed(0)
    if isinstance(shape, Observation):
        network = QNetwork(config, ACTIONS, 2, shape.frame_shape, shape).eval()
        network.observe(records(inputs_of(network, 64, np.random.default_rng(3))))
        return network
    network = QNetwork(config, ACTIONS, 4, (shape, shape))
    draw_noise(network, torch.Generator().manual_seed(1))
    if config.median_frame:
        network.set_median(torch.randint(0, 256, (9, shape, shape), dtype=torch.uint8))
    inputs = [torch.from_numpy(each) for each in inputs_of(network, 64, np.random.default_rng(3))]
    with torch.no_grad():
        network.train()(*inputs)  # a power iteration of the spectral norm
        # Equal means of all actions, so that the best action depends on the observation.
        mean = network.eval()(*inputs, raw=True).mean(0)
        if mean.ndim == 2 and network.head.outputs_per_action == 1:
            mean = mean.mean(1)
        network.advantage[-1].bias.sub_((mean - mean.mean(0)).flatten())
    return network


def inputs_of(network: QNetwork, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return random inputs of the exported network. Frames are squares of 4x4 pixels, most of them
    black; classes are the environment's own numbers.
    """
    if network.observation:
        mask = rng.random((count, ACTIONS)) < 0.5
        mask[np.arange(count), rng.integers(ACTIONS, size=count)] = True
        card = [rng.integers(1, 5, count), rng.integers(-2, 1, count)]
        inputs = [
            rng.normal(3, 2, (count, 3)), np.stack(card, axis=1),
            rng.integers(0, 256, (count, 2, 8, 9, 3), np.uint8), mask.astype(np.uint8),
        ]  # fmt: skip
    else:
        height, width = network.frame_shape
        squares = rng.integers(-512, 256, (count, network.stack, height // 4, width // 4))
        inputs = [squares.clip(0).astype(np.uint8).repeat(4, axis=2).repeat(4, axis=3)]
    if network.config.past_actions:
        inputs.append(rng.integers(-1, ACTIONS, (count, network.config.past_actions)))
    if network.state_size:
        inputs += [rng.integers(-1, ACTIONS, count), rng.normal(size=count).astype(np.float32)]
        inputs.append(rng.normal(size=(count, network.state_size)).astype(np.float32))
    return inputs


def records(inputs: list[np.ndarray]) -> torch.Tensor:
    """Return the packed records, uint8 [B, S, 1, P], of an exported network's inputs."""
    speed, card, maps, mask = inputs[:4]
    rows = [
        RECORD.pack(
            {"speed": speed, "card": card - (1, -2), "map": maps[:, t], "action_mask": mask}
        )
        for t in range(2)
    ]
    return torch.from_numpy(np.stack(rows, axis=1))


def by_pytorch(network: QNetwork, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Return what the network itself computes from an exported network's inputs."""
    frames = records(inputs) if network.observation else torch.from_numpy(inputs[0])
    others = [torch.from_numpy(each) for each in inputs[4 if network.observation else 1 :]]
    with torch.inference_mode():
        found = network.step(frames, *others) if network.state_size else [network(frames, *others)]
    return [each.numpy() for each in found]


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_policy_chooses_the_same_actions_on_10000_observations(name: str, tmp_path: Path):
    import onnxruntime

    network = make(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    portable = PortableNetwork(network)
    path = tmp_path / "q.onnx"
    write_onnx(portable, portable.example(), path, portable.input_names, portable.output_names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    assert [each.name for each in session.get_inputs()] == portable.input_names
    assert [each.name for each in session.get_outputs()] == portable.output_names
    rng, best = np.random.default_rng(2), set()
    for size in [240] * 41 + [160]:  # the batch size is free
        inputs = inputs_of(network, size, rng)
        expected = by_pytorch(network, inputs)
        found = session.run(None, dict(zip(portable.input_names, inputs, strict=True)))
        for mine, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(other, mine, atol=1e-5)
        best_B = found[0].argmax(1)
        assert (best_B == expected[0].argmax(1)).all()
        best |= set(best_B.tolist())
        if network.observation:
            assert inputs[3][np.arange(size), best_B].all(), "illegal actions are never the best"
    assert len(best) > 1  # else the comparison would prove little
    # The exported network is a copy.
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_inputs_of_an_exported_policy_have_the_names_of_the_environment():
    names = [PortableNetwork(make(name)).input_names for name in ("records", "lstm")]
    arrays = ["speed", "card", "map", "action_mask"]
    assert names[0] == [*arrays, "past_actions"]
    assert names[1] == [*arrays, "last_action", "last_reward", "lstm_state"]


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
