"""Configurations: bad values are refused in one clear line, good ones survive the way to YAML
and back.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.config import from_dict, load_yaml, save_yaml, to_dict
from genray.errors import CheckpointError, ConfigError, UsageError
from genray.rl import presets
from genray.rl.config import DQNConfig
from genray.rl.env import EnvConfig


def changed(part: str, **values: Any) -> DQNConfig:
    config = DQNConfig()
    return replace(config, **{part: replace(getattr(config, part), **values)})


# (part, values, what the message begins with, the valid choice that it names)
BAD = [
    ("env", {"game": "breakot"}, "--game breakot", "breakout"),
    ("env", {"game": "warlords"}, "--game warlords", "breakout"),
    ("env", {"env": "nothing"}, "--env nothing", "module:factory"),
    ("env", {"sticky_actions": 1.0}, "--sticky-actions 1.0", "[0, 1)"),
    ("env", {"sticky_actions": -0.25}, "--sticky-actions -0.25", "0.25"),
    ("env", {"max_episode_frames": 0}, "--max-episode-frames 0", "108000"),
    ("env", {"noop_max": -1}, "--noop-max -1", "30"),
    ("env", {"frame_skip": 0}, "--frame-skip 0", "≥ 1"),
    ("env", {"stack": 0}, "--stack 0", "1..16"),
    ("env", {"stack": 17}, "--stack 17", "1..16"),
    ("network", {"channels": (32, 0, 64)}, "--channels (32, 0, 64)", "32 64 64"),
    ("network", {"hidden": 0}, "--hidden 0", "512"),
    ("network", {"past_actions": 17}, "--past-actions 17", "0..16"),
    ("replay", {"shards": 0}, "--shards 0", "≥ 1"),
    ("replay", {"alpha": -0.1}, "--alpha -0.1", "[0, 1]"),
    ("replay", {"alpha": 1.5}, "--alpha 1.5", "[0, 1]"),
    ("replay", {"beta": 2.0}, "--beta 2.0", "[0, 1]"),
    ("replay", {"beta_end": -1.0}, "--beta-end -1.0", "[0, 1]"),
    ("replay", {"beta_anneal_updates": 0}, "--beta-anneal-updates 0", "≥ 1"),
    ("replay", {"priority_epsilon": 0.0}, "--priority-epsilon 0.0", "> 0"),
    ("replay", {"min_size": 0}, "--min-size 0", "≥ 1"),
    ("replay", {"capacity": 4000}, "--min-size 5000", "--capacity 4000"),
    ("replay", {"capacity": -3, "min_size": 1}, "--min-size 1", "--capacity -3"),
    ("replay", {"samples_per_insert": -8.0}, "--samples-per-insert -8.0", "≥ 0"),
    ("replay", {"samples_per_insert": float("nan")}, "--samples-per-insert nan", "≥ 0"),
    ("replay", {"capacity": 20, "min_size": 10}, "--capacity 20", "--batch-size 32"),
    # 16 lanes of 32 + 3 + 3 + 1 rows
    ("replay", {"capacity": 600, "min_size": 10}, "--capacity 600", "at least 624"),
    ("replay", {"shards": 3}, "--shards 3", "use at most --shards 2"),
    ("learner", {"batch_size": 0}, "--batch-size 0", "≥ 1"),
    ("learner", {"learning_rate": 0.0}, "--learning-rate 0.0", "1e-4"),
    ("learner", {"learning_rate": -1e-4}, "--learning-rate -0.0001", "1e-4"),
    ("learner", {"learning_rate": float("nan")}, "--learning-rate nan", "1e-4"),
    ("learner", {"optimizer_epsilon": 0.0}, "--optimizer-epsilon 0.0", "1.5e-4"),
    ("learner", {"max_grad_norm": -1.0}, "--max-grad-norm -1.0", "≥ 0"),
    ("learner", {"target_period_updates": 0}, "--target-period-updates 0", "≥ 1"),
    ("learner", {"learners": 0}, "--learners 0", "≥ 1"),
    ("explore", {"epsilon": 1.5}, "--epsilon 1.5", "[0, 1]"),
    ("explore", {"epsilon": 0.0}, "--epsilon 0.0", "--exploration shared"),
    ("explore", {"epsilon": 1.0}, "--epsilon 1.0", "--exploration shared"),
    ("explore", {"epsilon_power": -7.0}, "--epsilon-power -7.0", "≥ 0"),
    ("explore", {"anneal_steps": -1}, "--anneal-steps -1", "≥ 0"),
    ("collect", {"collectors": 0}, "--collectors 0", "≥ 1"),
    ("collect", {"envs_per_collector": 0}, "--envs-per-collector 0", "≥ 1"),
    ("collect", {"chunk_rows": 0}, "--chunk-rows 0", "≥ 1"),
    ("collect", {"gamma": 0.0}, "--gamma 0.0", "(0, 1]"),
    ("collect", {"gamma": 1.01}, "--gamma 1.01", "(0, 1]"),
    ("collect", {"n_step": 0}, "--n-step 0", "1..32"),
    ("collect", {"n_step": 33}, "--n-step 33", "1..32"),
    ("run", {"steps": 0}, "--steps 0", "≥ 1"),
    ("run", {"evaluate_every": -1}, "--evaluate-every -1", "≥ 0"),
    ("run", {"evaluate_episodes": 0}, "--evaluate-episodes 0", "≥ 1"),
    ("run", {"evaluate_epsilon": 2.0}, "--evaluate-epsilon 2.0", "[0, 1]"),
    ("run", {"checkpoint_every": -1}, "--checkpoint-every -1", "≥ 0"),
    ("run", {"keep": 0}, "--keep 0", "≥ 1"),
    ("run", {"publish_every": 0}, "--publish-every 0", "≥ 1"),
    ("run", {"seed": -1}, "--seed -1", "0..2^31 − 1"),
]


@pytest.mark.parametrize(
    ("part", "values", "option", "choice"), BAD, ids=[bad[2].replace(" ", "=") for bad in BAD]
)
def test_a_bad_value_is_named_with_its_option_and_a_valid_choice(
    part: str, values: dict, option: str, choice: str
):
    with pytest.raises(ConfigError) as caught:
        changed(part, **values).validate()
    message = str(caught.value)
    assert message.startswith(f"{option}:") and choice in message.removeprefix(f"{option}:")
    assert "\n" not in message
    assert isinstance(caught.value, UsageError) and caught.value.exit_status == 2


def test_the_edges_of_what_is_valid():
    """What stands just inside the limits is accepted, so the refusals above are not refusals of
    everything.
    """
    DQNConfig().validate()
    edges: list[tuple[str, dict[str, Any]]] = [
        ("env", {"stack": 1}), ("env", {"sticky_actions": 0.99}), ("env", {"noop_max": 0}),
        ("network", {"past_actions": 16}), ("replay", {"alpha": 0.0}), ("replay", {"alpha": 1.0}),
        ("replay", {"shards": 2}), ("replay", {"capacity": 624, "min_size": 624}),
        ("replay", {"samples_per_insert": 0.0}), ("learner", {"max_grad_norm": 0.0}),
        ("explore", {"epsilon": 0.0, "exploration": "shared"}), ("collect", {"gamma": 1.0}),
        ("collect", {"n_step": 32}), ("run", {"checkpoint_every": 0}),
    ]  # fmt: skip
    for part, values in edges:
        changed(part, **values).validate()


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_every_preset_is_valid_and_survives_yaml(name: str, tmp_path: Path):
    config = presets.PRESETS[name]()
    config.validate()
    save_yaml(config, tmp_path / "config.yaml")
    assert load_yaml(DQNConfig, tmp_path / "config.yaml") == config


def test_a_configuration_survives_yaml_with_every_kind_of_value(tmp_path: Path):
    config = changed("network", channels=(1, 2, 3), dueling=False)
    config = replace(
        config, run=replace(config.run, seed=9), learner=replace(config.learner, learning_rate=1e-9)
    )
    path = tmp_path / "config.yaml"
    save_yaml(config, path)
    again = load_yaml(DQNConfig, path)
    assert again == config and again.network.channels == (1, 2, 3)
    assert "!!" not in path.read_text()  # plain values, no Python tags


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerner": {}}, "lerner: no such option; there are .*learner"),
        ({"learner": {"rate": 1}}, "learner.rate: no such option; there are .*learning_rate"),
        ({"learner": {"batch_size": "many"}}, "learner.batch_size: 'many' is not a int"),
        ({"learner": {"batch_size": True}}, "learner.batch_size: True is not"),
        ({"learner": {"batch_size": 1.5}}, "learner.batch_size: 1.5 is not"),
        (
            {"learner": {"loss": "hubber"}},
            "learner.loss: 'hubber' is not one of 'huber', 'squared'",
        ),
        ({"learner": {"double": 1}}, "learner.double: 1 is not"),
        ({"learner": {"learning_rate": True}}, "learner.learning_rate: True is not"),
        ({"network": {"channels": [1, 2]}}, "network.channels: .1, 2. is not"),
        ({"network": {"channels": [1, 2, "3"]}}, "network.channels: '3' is not"),
        ({"replay": 5}, "replay: 5 is not"),
    ],
)
def test_foreign_values_are_refused_with_the_fields_full_name(values: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        from_dict(DQNConfig, values)


def test_missing_fields_take_their_defaults_and_whole_numbers_pass_for_floats():
    assert from_dict(DQNConfig, {}) == DQNConfig()
    config = from_dict(DQNConfig, {"learner": {"learning_rate": 1}})
    assert config.learner.learning_rate == 1.0 and isinstance(config.learner.learning_rate, float)
    assert from_dict(DQNConfig, to_dict(config)) == config


def test_files_that_are_no_configuration(tmp_path: Path):
    path = tmp_path / "config.yaml"
    with pytest.raises(CheckpointError, match="not a run directory"):
        load_yaml(DQNConfig, path)
    for text, message in (
        ("a: [1", "not readable YAML"),
        ("- 1\n- 2", "contains no configuration"),
        ("", "no configuration"),
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            load_yaml(DQNConfig, path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="not readable YAML"):
        load_yaml(DQNConfig, path)
    path.write_text("learner: !!python/object/apply:os.system ['touch /tmp/never']\n")
    with pytest.raises(CheckpointError, match="not readable YAML"):
        load_yaml(DQNConfig, path)


def test_check_resumes_knows_a_game_in_every_spelling():
    qbert = DQNConfig(env=EnvConfig(game="qbert"))
    DQNConfig(env=EnvConfig(game="ALE/Qbert-v5")).check_resumes(qbert)
    with pytest.raises(
        ConfigError, match="--game pong: this run began with --game qbert, and a resumed"
    ):
        DQNConfig(env=EnvConfig(game="pong")).check_resumes(qbert)


def test_check_resumes_refuses_another_n_only_if_n_or_gamma_is_annealed():
    """A shard stores the rewards of n rows after a transition, and no more."""
    plain = presets.catch()
    longer = replace(plain, collect=replace(plain.collect, n_step=plain.collect.n_step + 1))
    longer.check_resumes(plain)
    annealed, longer = (
        replace(each, collect=replace(each.collect, gamma_end=0.997)) for each in (plain, longer)
    )
    annealed.check_resumes(annealed)
    with pytest.raises(ConfigError, match="^--n-step "):
        longer.check_resumes(annealed)


def test_check_learns_names_the_steps_of_the_first_update():
    """The number that it names is enough, and one chunk less is not."""
    config = presets.catch()
    lanes = config.collect.collectors * config.collect.envs_per_collector
    with pytest.raises(
        ConfigError, match="--steps 10: ends before the first update.*--min-size"
    ) as refused:
        replace(config, run=replace(config.run, steps=10)).check_learns()
    enough = int(re.search(r"at least --steps (\d+)", str(refused.value)).group(1))  # type: ignore[union-attr]
    assert enough > config.replay.min_size + config.collect.n_step * lanes - 1
    replace(config, run=replace(config.run, steps=enough)).check_learns()
    fewer = enough - config.collect.chunk_rows * config.collect.envs_per_collector
    with pytest.raises(ConfigError, match=f"--steps {fewer}: ends before"):
        replace(config, run=replace(config.run, steps=fewer)).check_learns()


def test_notes_name_what_a_short_run_never_reaches():
    config = presets.catch()
    long = replace(config, explore=replace(config.explore, anneal_steps=10 * config.run.steps))
    assert any("--anneal-steps" in note for note in long.notes())
    rare = replace(config, learner=replace(config.learner, target_period_updates=10**9))
    assert any("--target-period-updates 1,000,000,000" in note for note in rare.notes())


def test_notes_count_updates_of_several_learners_as_one():
    """Learners share the samples, so 4 learners make a quarter of the updates."""
    notes = [
        replace(
            presets.catch(),
            learner=replace(
                presets.catch().learner, target_period_updates=10**9, learners=learners
            ),
        ).notes()[0]
        for learners in (1, 4)
    ]
    one, four = (
        int(number.replace(",", ""))
        for note in notes
        for number in re.findall(r"about ([\d,]+)", note)[:1]
    )
    assert four == one // 4


def test_from_dict_takes_numpy_scalars_where_they_are_exact(tmp_path: Path):
    values = {
        "learner": {
            "batch_size": np.int64(64),
            "learning_rate": np.float32(0.25),
            "double": np.bool_(False),
        },
        "replay": {
            "capacity": np.uint32(9_000),
            "samples_per_insert": np.int8(4),
            "min_size": np.array(80),
        },
    }
    config = from_dict(DQNConfig, values)
    assert (config.learner.batch_size, config.learner.learning_rate, config.learner.double) == (
        64,
        0.25,
        False,
    )
    assert (config.replay.capacity, config.replay.samples_per_insert, config.replay.min_size) == (
        9_000,
        4.0,
        80,
    )
    assert type(config.learner.batch_size) is int and type(config.learner.double) is bool
    with pytest.raises(ConfigError, match="learner.batch_size: 64.5 is not a int"):
        from_dict(DQNConfig, {"learner": {"batch_size": np.float64(64.5)}})
    given = changed("replay", capacity=np.int64(9_000))  # by Python, where nothing converts
    save_yaml(given, tmp_path / "config.yaml")
    assert load_yaml(DQNConfig, tmp_path / "config.yaml").replay.capacity == 9_000


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("replay", "priority_epsilon"),
        ("replay", "samples_per_insert"),
        ("learner", "learning_rate"),
    ],
)
def test_check_finite_refuses_infinite_options(part: str, name: str, value: float):
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} {value}: must be "):
        changed(part, **{name: value}).validate()
    with pytest.raises(ConfigError, match=f"{part}.{name} {value}: must be a finite number"):
        from_dict(DQNConfig, {part: {name: value}})
