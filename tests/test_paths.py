"""Options that hold paths: absolute as soon as they are read, whatever the command; other words
as they are.
"""

import dataclasses
import typing
from pathlib import Path

import pytest

from genray.commands import anomalies, models, train
from genray.commands.train_dqn import LaunchConfig
from genray.config import from_dict, to_dict
from genray.gen.data.config import DataConfig
from genray.gen.data.load import changed
from genray.gen.families import FAMILIES
from genray.gen.images.style.base import StyleTrainConfig
from genray.options import parse
from genray.paths import HoldsPath, absolute_path, absolute_paths
from tests.helpers.tuning import tiny_vae
from tuning.plan import SweepConfig
from tuning.sweep import base_config

NAMES_OF_PATHS = (
    "data",
    "data_folder",
    "style",
    "styles",
    "features",
    "extractor",
    "out",
    "resume",
)


@pytest.mark.parametrize(
    ("config", "words", "field", "said"),
    [
        (DataConfig, "--data folder:pics", "data", "folder:{}/pics"),
        (DataConfig, "--data folder-text:a:b", "data", "folder-text:{}/a:b"),
        (DataConfig, "--data atari:x/../f.safetensors", "data", "atari:{}/f.safetensors"),
        (DataConfig, "--data atari", "data", "atari"),
        (DataConfig, "--data digits", "data", "digits"),
        (DataConfig, "--data-folder sets", "data_folder", "{}/sets"),
        (DataConfig, "--data digits", "data_folder", ""),
        (StyleTrainConfig, "--style wave.jpg", "style", "{}/wave.jpg"),
        (StyleTrainConfig, "--style pattern:11", "style", "pattern:11"),
        (StyleTrainConfig, "--styles folder:art", "styles", "folder:{}/art"),
        (StyleTrainConfig, "--features model:runs/c", "features", "model:{}/runs/c"),
        (StyleTrainConfig, "--features vgg19", "features", "vgg19"),
        (LaunchConfig, "--out runs/a", "out", "{}/runs/a"),
        (LaunchConfig, "--out s3://bucket/a", "out", "s3://bucket/a"),
        (LaunchConfig, "--resume ../a", "resume", "{up}/a"),
        (train.TrainLaunch, "--out a", "out", Path("{}/a")),
        (models.ReconstructConfig, "--out a.png --data folder:b", "data", "folder:{}/b"),
        (anomalies.AnomaliesConfig, "--data folder:b", "data", "folder:{}/b"),
        (SweepConfig, "--data folder:b", "data", "folder:{}/b"),
        (FAMILIES["gan"].config, "--extractor runs/c", "extractor", "{}/runs/c"),
    ],
)
def test_paths_are_absolute_when_options_are_read(
    config, words, field, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    expected = str(said).replace("{}", str(tmp_path)).replace("{up}", str(tmp_path.parent))
    found = getattr(parse(config, words.split(), "genray x"), field)
    assert found == type(said)(expected)


def test_a_sweeps_base_has_absolute_paths_wherever_they_were_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for config in (SweepConfig(data="folder:pics"), SweepConfig(set=("data.data=folder:pics",))):
        assert base_config(config).data.data == f"folder:{tmp_path}/pics"


def test_relative_paths_of_old_runs_load_and_are_the_same_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = from_dict(DataConfig, to_dict(DataConfig(data="folder:pics")))
    assert old.data == "folder:pics" and absolute_paths(old).data == f"folder:{tmp_path}/pics"
    then, now = (
        {"data": data, "names": data[:3], "words": ""}
        for data in (old.data, absolute_paths(old).data)
    )
    assert not changed(then, now) and changed(then, {**now, "names": "other"})
    assert not changed(None, now)


def test_every_text_option_of_a_family_that_names_files_is_marked():
    """Without the mark, such an option would stay relative and mean another file in another
    process.
    """

    def unmarked(cls: type) -> list[str]:
        found, hints = [], typing.get_type_hints(cls, include_extras=True)
        for each in dataclasses.fields(cls):
            if dataclasses.is_dataclass(hints[each.name]):
                found += unmarked(hints[each.name])
            elif each.name in NAMES_OF_PATHS and typing.get_type_hints(cls)[each.name] in (
                str,
                str | None,
            ):
                marks = getattr(hints[each.name], "__metadata__", ()) or [
                    mark
                    for arg in typing.get_args(hints[each.name])
                    for mark in getattr(arg, "__metadata__", ())
                ]
                if not any(isinstance(mark, HoldsPath) for mark in marks):
                    found.append(f"{cls.__name__}.{each.name}")
        return found

    for cls in (*(family.config for family in FAMILIES.values()), LaunchConfig, SweepConfig):
        assert not unmarked(cls)
    assert absolute_paths(tiny_vae()) == tiny_vae()


def test_absolute_path_takes_a_tilde_that_names_no_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_path("~no-such-user.png") == tmp_path / "~no-such-user.png"
