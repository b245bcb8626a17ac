"""Exports a policy: as ONNX, or as a folder that can be uploaded to the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genray.config import load_yaml
from genray.console import shell_command
from genray.errors import CheckpointError, disk_error, require
from genray.media import write_clip
from genray.rl.card import policy_config, write_policy
from genray.rl.config import DQNConfig
from genray.rl.evaluate import play_steps
from genray.rl.evaluation import Evaluation
from genray.rl.film import NotDrawn, enlargement
from genray.rl.policy import LoadedPolicy, open_policy
from genray.rl.portable import PortableNetwork
from genray.runs import modelstore
from genray.threads import own_threads, user_threads

if TYPE_CHECKING:
    from genray.commands.export import ExportConfig

FILM, CURVE, SETTINGS = "replay.mp4", "curve.png", "training.yaml"
"""Files beside the model. The Hub shows `replay.mp4` on the page of a policy."""


def export_policy(path: Path, options: ExportConfig) -> int:
    """Export the policy of a run or model directory; returns the exit status."""
    if options.format == "huggingface":
        _check_folder(options.out)
    policy = open_policy(path, options.step)
    print(policy, flush=True)
    if options.format == "onnx":
        from genray.commands.export_onnx import write_onnx

        network = PortableNetwork(policy.network)
        write_onnx(
            network, network.example(), options.out, network.input_names, network.output_names
        )
    else:
        write_folder(path, policy, options)
    print(options.out)
    return 0


def _check_folder(out: Path) -> None:
    """Raise ConfigError for an --out that is something else than an earlier export."""
    empty = out.is_dir() and not any(out.iterdir())
    try:
        earlier = modelstore.read_config(out)["kind"] == "dqn"
    except CheckpointError:
        earlier = False
    require(
        not out.exists() or empty or earlier,
        f"--out {out}: exists and is not an exported policy; name a new folder",
    )


def write_folder(path: Path, policy: LoadedPolicy, options: ExportConfig) -> None:
    """Write the folder `options.out`: model, card, learning curve, film and settings.

    Raises ResourceError if the folder cannot be written.
    """
    run = path if (path / "config.yaml").exists() else None
    evaluations = evaluations_of(path, policy)
    if not evaluations:
        command = shell_command("genray", "evaluate", path)
        print(f"note: the card has no score; {command} measures one, then export again")
    words: list[str] = []

    def beside(folder: Path) -> None:
        if run and draw_curve(run, folder / CURVE):
            words.append(f"![Learning curve]({CURVE})")
        if run:
            shutil.copyfile(run / "config.yaml", folder / SETTINGS)
            words.append(f"`{SETTINGS}` has all settings of the training.")
        if options.film_steps:
            words.append(_film(policy, folder / FILM, options))
        card = (folder / "README.md").read_text(encoding="utf-8")
        text = "\n\n".join(each for each in words if each)
        (folder / "README.md").write_text(f"{card}\n{text}\n", encoding="utf-8")

    about = about_policy(path, policy)
    try:
        write_policy(options.out, about, policy.network.state_dict(), evaluations, also=beside)
    except OSError as error:
        raise disk_error(options.out, error) from error


def about_policy(path: Path, policy: LoadedPolicy) -> dict[str, Any]:
    """Return the content of `config.json`, without "format" and "kind"."""
    if (policy.source / "config.json").exists():
        stored = modelstore.read_config(policy.source)
        return {name: value for name, value in stored.items() if name not in ("format", "kind")}
    assert policy.step is not None  # the policy comes from a checkpoint of the run
    config = load_yaml(DQNConfig, path / "config.yaml")
    return policy_config(config, policy.network, policy.step, None)


def evaluations_of(path: Path, policy: LoadedPolicy) -> list[Evaluation]:
    """Return the complete evaluations of this policy, newest first: those of `genray evaluate`,
    then the one made while training.
    """
    found: list[dict[str, Any]] = []
    if policy.step is not None:
        lines = reversed(json_lines(path / "evaluations.jsonl"))
        found += [line for line in lines if line.get("step") == policy.step]
    if (policy.source / "config.json").exists():
        found += filter(None, [modelstore.read_config(policy.source).get("evaluation")])
    evaluations = [Evaluation.from_dict(values) for values in found]
    return [each for each in evaluations if not each.stopped]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file with one on each line; [] without the file. A line that a killed
    process left incomplete is skipped.
    """
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def _film(policy: LoadedPolicy, path: Path, options: ExportConfig) -> str:
    """Film an episode; return the words of the card, "" for an environment without pictures."""
    steps = play_steps(policy.network, policy.env, seed=options.seed, max_steps=options.film_steps)
    score = 0.0

    def frames() -> Iterator[np.ndarray]:
        nonlocal score
        for step in itertools.chain([first], steps):
            score = step.score
            yield step.frame

    # A single environment has too little work for several threads.
    with own_threads(user_threads() or 1):
        try:
            first = next(steps)
        except NotDrawn as error:
            print(f"note: {error}")
            return ""
        write_clip(path, frames(), fps=15, scale=enlargement(first.frame))
    return f"[The film]({path.name}) shows an episode, played with ε 0.001; its score is {score:g}."


def draw_curve(run: Path, path: Path) -> bool:
    """Draw the scores of a run by agent steps as a PNG; return False if there are none."""
    from genray.gen.figures.drawing import COLOURS, new_figure, style_axes, write_figure

    rows = json_lines(run / "metrics.jsonl")
    series = {
        name: [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        for name in ("episode_return", "evaluation_mean")
    }
    if not any(series.values()):
        return False
    figure = new_figure(7.0, 3.2)
    axis = figure.add_subplot()
    looks = {
        "episode_return": ("newest 100 episodes, while exploring", "-"),
        "evaluation_mean": ("evaluations", "o"),
    }
    for (name, points), colour in zip(series.items(), COLOURS):
        if points:
            label, style = looks[name]
            axis.plot(*zip(*points), style, color=colour, label=label, linewidth=1.4)
    style_axes(axis, grid=True)
    axis.set_xlabel("agent steps")
    axis.set_ylabel("mean score")
    axis.legend(frameon=False)
    write_figure(figure, path)
    return True
