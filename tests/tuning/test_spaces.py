"""Tests search spaces: their points and their checks."""

import math

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.gen.presets import gan_digits, vae_digits
from tests.helpers.tuning import tiny_vae
from tuning.settings import changed, parse_settings, setting, setting_paths
from tuning.spaces import Choice, Integers, LogUniform, Space, Switch, Uniform

RATE = "optimizer.learning_rate"


def test_changed_sets_values_by_path_with_their_types():
    config = changed(
        vae_digits(),
        {RATE: 1, "model.widths": "64 32", "optimizer.decoupled_l2": "true", "fit.steps": "7"},
    )
    assert config.optimizer.learning_rate == 1.0 and isinstance(
        config.optimizer.learning_rate, float
    )
    assert (
        config.model.widths == (64, 32)
        and config.optimizer.decoupled_l2 is True
        and config.fit.steps == 7
    )
    assert setting(config, "model.widths") == (64, 32)
    assert {RATE, "beta", "data.augment"} <= setting_paths(type(config)).keys()
    assert parse_settings(["a.b=1", "c=x=y"]) == {"a.b": "1", "c": "x=y"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer.learning_rat": 1e-3}, "did you mean optimizer.learning_rate"),
        ({"learning_rate": 1e-3}, "did you mean optimizer.learning_rate"),
        ({RATE: "fast"}, "'fast' is not a float"),
        ({"model.latent": 2.5}, "2.5 is not a int"),
        ({"model.network": "deep"}, "one of 'dense', 'conv'"),
    ],
)
def test_changed_names_a_wrong_setting(settings, said):
    with pytest.raises(ConfigError, match=said):
        changed(vae_digits(), settings)


@pytest.mark.parametrize(
    "dimension",
    [
        Uniform("x", -1.0, 3.0),
        LogUniform("x", 1e-5, 1e-1),
        Integers("x", 2, 9),
        Integers("x", 1, 1000, log=True),
        Choice("x", ("a", "b", "c")),
    ],
)
def test_dimension_at_covers_the_range_evenly(dimension):
    values = [dimension.at(share) for share in np.linspace(0, 1, 4001)[:-1]]
    assert all(dimension.clip(value) == value for value in values)
    if isinstance(dimension, LogUniform):
        # The mean of the exponents is in the middle.
        assert math.isclose(np.exp(np.mean(np.log(values))), 1e-3, rel_tol=0.01)
    elif isinstance(dimension, Integers) and dimension.log:
        assert (values[0], dimension.at(1 - 1e-9)) == (1, 1000) and np.median(
            values
        ) == pytest.approx(31, abs=2)
    elif isinstance(dimension, Uniform):
        assert np.mean(values) == pytest.approx(1.0, abs=0.01)
    else:
        counts = {value: values.count(value) for value in values}
        assert set(counts) == set(
            dimension.ends() if isinstance(dimension, Choice) else range(2, 10)
        )
        assert max(counts.values()) - min(counts.values()) <= 1


def test_switch_is_off_half_of_the_time():
    space = Space(
        Switch("optimizer.l2", LogUniform("optimizer.l2", 1e-6, 1e-2)),
        Choice("model.widths", ((8,), (16, 8))),
    )
    points = space.random(400, (0,))
    found = [space.resolve(point) for point in points]
    off = sum(each["optimizer.l2"] == 0.0 for each in found)
    assert 160 < off < 240 and all(
        each["optimizer.l2"] == 0 or each["optimizer.l2"] >= 1e-6 for each in found
    )
    assert {tuple(each["model.widths"]) for each in found} == {(8,), (16, 8)}
    assert all(space.resolve(space.point(each)) == each for each in found)
    assert space.random(3, (0,)) == points[:3] != space.random(3, (1,))


def test_quasi_random_points_leave_no_gaps():
    space = Space(Uniform("x", 0.0, 1.0), Uniform("y", 0.0, 1.0))
    points = space.quasi_random(16, (0, 1))
    for name in ("x", "y"):
        # Each sixteenth of the range has one point.
        assert sorted(int(16 * float(point[name])) for point in points) == list(range(16))
    assert space.quasi_random(5, (0, 1)) == points[:5]


def test_grid_is_the_finest_that_fits_without_duplicates():
    space = Space(Choice("a", (1, 2)), Uniform("b", 0.0, 1.0), Uniform("c", 0.0, 1.0))
    points = space.grid(20)
    assert len(points) == 2 * 3 * 3 and len({tuple(point.values()) for point in points}) == 18
    switched = Space(Switch("l1", Uniform("l1", 0.1, 1.0)))
    assert [switched.resolve(point)["l1"] for point in switched.grid(4)] == [
        0.0,
        pytest.approx(0.325),
        pytest.approx(0.775),
    ]
    with pytest.raises(ConfigError, match="--trials 3: the grid has at least 6 points"):
        Space(Choice("a", (1, 2)), Choice("b", (1, 2, 3))).grid(3)


def test_space_from_list_inverts_to_list():
    space = Space(
        Switch("l2", LogUniform("l2", 1e-6, 1e-2)),
        Choice("w", ((8,), (16, 8))),
        Integers("n", 1, 5, log=True),
    )
    assert Space.from_list(space.to_list()) == space


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Space(LogUniform(RATE, 1e-1, 1e-5)), "is empty; low must be below high"),
        (lambda: Space(LogUniform(RATE, 0.0, 1.0)), "low must be above 0"),
        (lambda: Space(Uniform(RATE, 0.0, math.inf)), "is empty"),
        (lambda: Space(Choice("model.latent", ())), "Choice of nothing"),
        (lambda: Space(Choice("model.latent", (2, 4, 2))), "names 2 twice"),
        (lambda: Space(Integers("model.latent", 5, 2)), "is empty"),
        (
            lambda: Space(Uniform(RATE, 0.1, 1.0), LogUniform(RATE, 0.1, 1.0)),
            "varies optimizer.learning_rate twice",
        ),
        (
            lambda: Space(Switch("optimizer.l1", Uniform("optimizer.l2", 0.0, 1.0))),
            "both must name one setting",
        ),
    ],
)
def test_space_refuses_empty_or_contradictory_dimensions(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize(
    ("space", "base", "said"),
    [
        (
            Space(LogUniform("optimizer.lr", 1e-4, 1.0)),
            tiny_vae(),
            "optimizer.lr: no such setting of VAEConfig",
        ),
        (Space(Uniform("model.latent", 2.0, 8.0)), tiny_vae(), "2.0 is not a int"),
        (
            Space(Uniform("optimizer.momentum", 0.5, 1.0)),
            tiny_vae(),
            "optimizer.momentum = 1.0: --momentum 1.0: must lie",
        ),
        (
            Space(Choice("optimizer.optimizer", ("adam", "adan"))),
            tiny_vae(),
            "no such optimizer; did you mean adam",
        ),
        # Contradictory: the hinge loss of this preset has no labels.
        (
            Space(Uniform("label_smoothing", 0.0, 0.3)),
            gan_digits(),
            "hinge has no labels to smooth",
        ),
    ],
)
def test_space_check_refuses_settings_that_the_trainer_lacks(space, base, said):
    with pytest.raises(ConfigError, match=said):
        space.check(base)
