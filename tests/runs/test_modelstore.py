"""Tests models on disk: saving, loading, and the refusal of damaged and other files."""

import errno
import json
from pathlib import Path

import pytest
import torch

from genray.errors import CheckpointError
from genray.rl.agent import build_network
from genray.rl.networks import QNetwork
from genray.runs.modelstore import list_models, load_model, read_config, save_model

CARD = {
    "num_actions": 4, "frame_shape": [36, 36], "stack": 2, "channels": [2, 3, 4],
    "hidden": 8, "dueling": True, "past_actions": 2,
}  # fmt: skip
BUILDERS = {"dqn": build_network}


@pytest.fixture
def network() -> QNetwork:
    torch.manual_seed(0)
    return build_network(CARD)


@pytest.fixture
def saved(tmp_path: Path, network: QNetwork) -> Path:
    return save_model(tmp_path / "model", "dqn", CARD, network.state_dict(), "# A card\n")


def test_load_model_returns_what_save_model_wrote_bit_for_bit(saved: Path, network: QNetwork):
    loaded, config = load_model(saved, BUILDERS)
    assert config == {"format": 1, "kind": "dqn", **CARD}
    assert not loaded.training
    assert all(
        torch.equal(mine, loaded.state_dict()[name]) for name, mine in network.state_dict().items()
    )
    frames, past = (
        torch.randint(0, 256, (3, 2, 36, 36), dtype=torch.uint8),
        torch.zeros(3, 2, dtype=torch.int16),
    )
    assert torch.equal(loaded(frames, past), network(frames, past))
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert (saved / "README.md").read_text() == "# A card\n"


def test_save_model_replaces_the_old_model_completely(saved: Path, network: QNetwork):
    (saved / "stray").write_text("from an older format")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    save_model(saved, "dqn", CARD, network.state_dict(), "new\n")
    loaded, _ = load_model(saved, BUILDERS)
    assert all(
        torch.equal(mine, loaded.state_dict()[name]) for name, mine in network.state_dict().items()
    )
    assert not (saved / "stray").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_save_model_that_fails_keeps_the_old_model(saved: Path, network: QNetwork):
    class Full(dict):
        def items(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(OSError, match="No space left"):
        save_model(saved, "dqn", CARD, Full(), "new\n")
    assert (saved / "model.safetensors").read_bytes() == before and load_model(saved, BUILDERS)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_save_model_accepts_views(tmp_path: Path):
    """safetensors requires contiguous tensors that share no memory; views are neither."""
    shared = torch.arange(12.0).reshape(3, 4)
    saved = save_model(tmp_path / "m", "linear", {}, {"weight": shared.t()}, "")
    loaded, _ = load_model(saved, {"linear": lambda config: torch.nn.Linear(3, 4, bias=False)})
    assert torch.equal(loaded.state_dict()["weight"], shared.t())


@pytest.mark.parametrize("at", [0, 3, 20, 1.0])
def test_load_model_refuses_a_damaged_or_shortened_file(saved: Path, at):
    """Bytes of the header are overwritten at a position, or the end is cut off (1.0)."""
    file = saved / "model.safetensors"
    content = bytearray(file.read_bytes())
    if at == 1.0:
        content = content[:-40]
    else:
        content[at : at + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{saved}: damaged model"):
        load_model(saved, BUILDERS)


def test_load_model_names_missing_files(saved: Path):
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors is missing"):
        load_model(saved, BUILDERS)
    (saved / "config.json").unlink()
    with pytest.raises(
        CheckpointError, match="not a model .no config.json.; a run keeps its model in RUN/model"
    ):
        load_model(saved, BUILDERS)
    with pytest.raises(CheckpointError, match="not a model"):
        load_model(saved / "README.md", BUILDERS)
    with pytest.raises(CheckpointError, match="not a model"):
        load_model(saved / "nowhere", BUILDERS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged .not JSON"),
        ("[]", "not a genray model of format 1"),
        ('{"architectures": ["BertModel"]}', "not a genray model"),
        ('{"format": 2, "kind": "dqn"}', "not a genray model of format 1"),
        ('{"format": 1}', "not a genray model"),
        ('{"format": 1, "kind": "vae"}', "a model of kind 'vae'; name a model of kind dqn"),
        ('{"format": 1, "kind": "dqn"}', "damaged model"),  # the builder's fields are missing
    ],
)
def test_load_model_refuses_another_config(saved: Path, text: str, message: str):
    (saved / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved, BUILDERS)


def test_load_model_refuses_a_config_that_is_not_text(saved: Path):
    (saved / "config.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(CheckpointError, match="damaged"):
        read_config(saved)


def test_load_model_refuses_tensors_of_another_shape(saved: Path):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"hidden": 9}))
    with pytest.raises(CheckpointError, match="damaged model"):
        load_model(saved, BUILDERS)


def test_load_model_executes_nothing_in_a_model_folder(saved: Path, tmp_path: Path):
    """A pickle in place of the tensors is refused and not executed."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    (saved / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="damaged model"):
        load_model(saved, BUILDERS)
    assert not (tmp_path / "exploded").exists()


def test_list_models_omits_folders_without_a_model(tmp_path: Path, network: QNetwork):
    for name in ("b", "a"):
        save_model(tmp_path / name, "dqn", CARD, network.state_dict(), "")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("")
    assert [path.name for path in list_models(tmp_path)] == ["a", "b"]
