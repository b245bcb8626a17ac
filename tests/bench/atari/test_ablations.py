"""Tests that an ablation differs from `bbf_lite` in its own options alone, and can be trained."""

from dataclasses import fields

import pytest

from genray.errors import ConfigError
from genray.rl.presets import bbf_lite, preset
from tests.bench.atari import ablations, systems


@pytest.mark.parametrize("system", ablations.NAMES)
def test_ablation_changes_its_options_alone(system: str):
    config, base = ablations.configuration(system), bbf_lite()
    config.validate()
    config.check_learns()
    systems.check(system)
    assert systems.is_installed(system) and systems.title(system) == f"genray, {system}"
    wanted = (ablations.LESS | ablations.MORE)[system[len("bbf_lite") + 1 :]]
    different = {
        part.name: {
            option.name
            for option in fields(getattr(base, part.name))
            if getattr(getattr(config, part.name), option.name)
            != getattr(getattr(base, part.name), option.name)
        }
        for part in fields(base)
    }
    assert {part: names for part, names in different.items() if names} == {
        part: set(options) for part, options in wanted.items()
    }


def test_configuration_knows_presets_and_refuses_other_names():
    assert ablations.configuration("road_runner", "krull") == preset("road_runner", "krull")
    for name, words in (("bbf_lite-luck", "no such switch"), ("bbf-lite", "no such preset")):
        with pytest.raises(ConfigError, match=words):
            systems.check(name)


def test_a_record_belongs_to_the_options_of_its_run():
    """A preset that changes makes its records invalid; an option at its default does not."""
    names = ["bbf_lite", "bbf_lite-ensemble", "bbf_lite-double", "road_runner"]
    digests = [
        systems.identity(name, game)["options"] for name in names for game in ("krull", "pong")
    ]
    assert len(set(digests)) == len(digests)
    assert systems.identity("bbf_lite", "krull")["options"] == digests[0]
    assert systems.identity("sb3", "krull") == {}
