"""Tests the functions of predictors, which map arrays to arrays, and the PNG encoder."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from serve.models import Predictor, describe, from_model, load_predictor, to_model
from serve.png import encode_png


@pytest.fixture(scope="module")
def models(trained: Path) -> dict[str, Predictor]:
    return {path.name: load_predictor(path, path.name) for path in trained.glob("[!.]*")}


def some(spec, rows: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    if spec.datatype == "FP32":
        return rng.standard_normal((rows, *spec.shape)).astype(np.float32)
    return rng.integers(0, 256 if spec.datatype == "UINT8" else 3, (rows, *spec.shape)).astype(
        np.uint8 if spec.datatype == "UINT8" else np.int64
    )


@pytest.mark.parametrize("name", ["digits", "digits-ae", "digits-gan", "digits-vae", "road-runner"])
def test_functions_return_the_shapes_and_types_of_their_specification(
    models: dict[str, Predictor], name: str
):
    for function in models[name].functions.values():
        found = function.run({spec.name: some(spec, 3) for spec in function.inputs})
        assert set(found) == {spec.name for spec in function.outputs}
        for spec in function.outputs:
            values = found[spec.name]
            assert values.shape == (3, *spec.shape)
            assert (
                values.dtype
                == {"FP32": np.float32, "UINT8": np.uint8, "INT64": np.int64}[spec.datatype]
            )


@pytest.mark.parametrize("name", ["digits-gan", "digits-vae"])
def test_generate_gives_a_seed_the_same_image_in_every_batch(
    models: dict[str, Predictor], name: str
):
    """Pixels may differ by one level of 255, because the order of sums in a matrix product depends
    on the size of the batch.
    """
    model = models[name]
    generate = model.functions["generate"]
    seeds = list(range(40, 73))
    together = generate.run({"latent": model.latents(seeds)})["image"].astype(int)
    for index, seed in enumerate(seeds):
        alone = generate.run({"latent": model.latents([seed])})["image"][0].astype(int)
        assert np.abs(alone - together[index]).max() <= 1


def test_latents_follow_the_prior_and_depend_on_the_seed_alone(models: dict[str, Predictor]):
    vae = models["digits-vae"]
    many = vae.latents(range(2000))
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03
    assert (vae.latents([5, 1999])[1] == many[1999]).all()


def test_from_model_inverts_to_model(models: dict[str, Predictor]):
    for name in ("digits-gan", "digits-vae"):  # −1..1 and 0..1
        model = models[name].model
        grey = np.arange(256, dtype=np.uint8).repeat(1).reshape(4, 8, 8, 1)
        x = to_model(model, grey)
        assert (float(x.min()), float(x.max())) == pytest.approx((model.low, model.high))
        assert (from_model(model, x) == grey).all()


def test_act_returns_the_values_of_the_network(models: dict[str, Predictor]):
    network = models["road-runner"].model
    obs = some(models["road-runner"].functions["act"].inputs[0], 2)
    found = models["road-runner"].functions["act"].run({"obs": obs})
    with torch.no_grad():
        expected = network(torch.from_numpy(obs)).numpy()
    assert np.allclose(found["q"], expected) and (found["action"] == expected.argmax(1)).all()


def test_describe_contains_no_path(models: dict[str, Predictor], trained: Path):
    for model in models.values():
        assert str(trained) not in str(describe(model))
    assert describe(models["road-runner"])["game"] == "road_runner"
    assert describe(models["digits-gan"])["latent"] == 32


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3), (64, 64, 3), (1, 1, 1)])
def test_encode_png_is_read_by_pillow(shape: tuple[int, int, int]):
    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    with Image.open(io.BytesIO(encode_png(image, {"genray": "naïve → ok"}))) as read:
        assert read.mode == ("L" if shape[2] == 1 else "RGB")
        assert read.info["genray"] == "naïve → ok"
        assert (np.asarray(read).reshape(shape) == image).all()


def test_describe_names_no_game_of_a_policy_with_its_own_environment(trained: Path):
    """The configuration of such a policy contains the default game, which it does not play."""
    policy = load_predictor(trained / "road-runner", "policy")
    own = {**policy.config, "env": {"game": "pong", "env": "genray.rl.catch:Catch"}}
    about = describe(replace(policy, config=own))
    assert "game" not in about and about["environment"] == "genray.rl.catch:Catch"
