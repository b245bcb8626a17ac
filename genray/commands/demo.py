"""`genray demo`: trains, evaluates, films, sweeps and serves on a small machine, in minutes."""

import contextlib
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from genray.commands.stylers import ByOptimisation, StyleLaunch, spoken
from genray.commands.train import TrainLaunch
from genray.commands.train import train_in as train_generator
from genray.commands.train_dqn import LaunchConfig, train_in
from genray.console import shell_command
from genray.distributed.frames import FramesConfig, collect_frames
from genray.errors import RunFault, require
from genray.gen import presets as gen_presets
from genray.gen.images.patterns import pattern
from genray.gen.images.pictures import Picture, write_picture
from genray.gen.images.style.config import StyleConfig
from genray.media import write_gif
from genray.options import parse
from genray.rl import presets
from genray.rl.config import DQNConfig
from genray.rl.evaluate import Evaluation, best_constant_action, play
from genray.rl.networks import QNetwork, build_network
from genray.rl.scores import reference
from genray.rl.train import check_disk, check_memory
from genray.runs import modelstore
from genray.runs.rundir import RUNS, RunDir, new_folder
from genray.threads import choose_threads, own_threads

STYLE = 9
"""Seed of the pattern whose style is applied to a frame."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Train Ape-X on Road Runner with 2 collectors and 2 replay shards, evaluate it, film it, and
    style a frame.
    """

    out: Path | None = None
    """Directory for all results. Default: runs/demo-TIME."""
    steps: int = 42_000
    """Agent steps; 42,000 make about 10,200 updates, less than four minutes on 2 idle cores."""
    generator_steps: int = 600
    """Training steps of a GAN on frames of the agent's play; 0: no GAN."""
    style_size: int = 160
    """Longest side, in pixels, of a frame of the play in the style of a generated pattern; 0: no
    styled frame.
    """
    sweep_trials: int = 4
    """Learning rates that are tried for each of three optimizers of a small VAE, half a minute on 2
    cores; 0: no sweep.
    """
    serve: bool = True
    """Serve the models over HTTP and call every route once."""
    keep: bool = False
    """Keep the service running until Ctrl-C."""
    seed: int = 0


def main(argv: list[str], prog: str) -> int:
    """Run `genray demo`; returns the exit status."""
    options = parse(DemoConfig, argv, prog)
    require(
        options.style_size == 0 or 32 <= options.style_size <= 512,
        f"--style-size {options.style_size}: must lie in 32..512 pixels, or 0 for none",
    )
    require(
        0 <= options.sweep_trials <= 100,
        f"--sweep-trials {options.sweep_trials}: must lie in 0..100 (0: no sweep)",
    )
    # Check everything before the run directory is created.
    start = time.monotonic()
    base = presets.road_runner_quick()
    config = replace(
        base, run=replace(base.run, steps=options.steps, seed=options.seed, evaluate_every=0)
    )
    config.validate()
    config.check_learns()
    check_memory(config)
    check_disk(config, options.out or RUNS)
    run = RunDir.create(options.out or new_folder("demo"))
    print(
        "Ape-X on Road Runner: 2 collectors, 2 replay shards and a learner, each a Ray actor, "
        "on this machine's CPU.\n"
        f"{options.steps:,} agent steps = {options.steps * config.env.frame_skip / 216_000:.1f} "
        "hours of play. "
        "Ctrl-C stops, saves, and says how to continue.\n"
    )
    # Train the agent, film it, and report its scores.
    result = train_in(run, config, LaunchConfig(), resumed=False)
    print("filming …")
    clip, frame = _film(run, config)
    print(verdict(result, config, time.monotonic() - start))
    made = [
        f"the policy playing: {clip}",
        f"curves: {shell_command('tensorboard', '--logdir', run.path / 'tensorboard')}",
    ]
    # Run the optional parts: a styled frame, a GAN, a sweep, and the service.
    if options.style_size:
        made.append(f"a frame of its play in another style: {_styled(run, frame, options)}")
    if options.generator_steps:
        made.append(f"frames made by a generator: {_generator(run, options)}")
    if options.sweep_trials:
        made.append(f"a comparison of optimizers by a small sweep: {_swept(run, options)}")
    if options.serve:
        made += _served(run, options.keep)
    print("\n" + "\n".join(made))
    print(run.path)
    return 0


def _served(run: RunDir, keep: bool) -> list[str]:
    """Serve the run's models, call every route once, and take a screenshot of the page. With
    `keep`, serve until Ctrl-C.
    """
    from serve.launch import ServeLaunch, running
    from serve.route_calls import call_all_routes, screenshot
    from serve.service import Settings

    # Collect the models in one directory.
    models = run.path / "models"
    for name, folder in (("agent", run.model), ("generator", run.path / "generator" / "model")):
        if folder.exists():
            shutil.copytree(folder, models / name)
    print("\nstarting the service …")
    # Start the service, and call every route.
    with running(Settings(models_dir=str(models)), ServeLaunch(port=0)) as service:
        calls = call_all_routes(service.url)
        refused = [
            f"{call.method} {call.path}: {call.status}" for call in calls if call.status != 200
        ]
        if refused:
            raise RunFault(
                f"the service refused {len(refused)} of {len(calls)} routes, first {refused[0]}"
            )
        page = run.pictures / "page.png"
        shown = (
            page
            if screenshot(service.url, page)
            else "left out: no Chromium here (make system-deps)"
        )
        print(f"{service.url} answered {len(calls)} requests on all its routes")
        if keep:
            print(
                f"the service keeps running: open {service.url}/ in a browser; Ctrl-C stops it",
                flush=True,
            )
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    return [
        f"the service's page: {shown}",
        f"start it again: {shell_command('genray', 'serve', models)}",
    ]


def _generator(run: RunDir, options: DemoConfig) -> Path:
    """Train a quarter-width DCGAN on frames of the agent's play.

    Returns the path of the newest grid of samples.
    """
    print("\nplaying 2,000 frames for a generator to learn from …")
    frames, _ = collect_frames(
        FramesConfig(
            model=run.path,
            frames=2_000,
            size=32,
            seed=options.seed,
            out=run.path / "frames.safetensors",
        )
    )
    base = gen_presets.dcgan_game()
    steps = options.generator_steps
    config = replace(
        base,
        data=replace(base.data, data=f"atari:{frames}"),
        fit=replace(
            base.fit, epochs=1, steps=steps, validate_every=max(1, steps // 5), seed=options.seed
        ),
    )
    folder = RunDir.create(run.path / "generator")
    train_generator(folder, "gan", config, TrainLaunch())
    return folder.pictures / "samples.png"


def _swept(run: RunDir, options: DemoConfig) -> Path:
    """Compare three optimizers of a VAE on digits, each with default and with tuned settings and
    three seeds.

    Returns the path of the report's page.
    """
    from tuning.report.report import write_report
    from tuning.sweep import SweepConfig, run_sweep

    print("\ncomparing three optimizers of a small VAE, with default and with tuned settings …")
    config = SweepConfig(
        study="optimizers",
        model="vae",
        arms=("sgd", "momentum", "adam"),
        trials=options.sweep_trials,
        seeds=3,
        steps=220,
        looks=5,
        set=("model.widths=64", "model.latent=8"),
        seed=options.seed,
    )
    return write_report(run_sweep(config, run.path / "sweep"))


def _styled(run: RunDir, frame: np.ndarray, options: DemoConfig) -> Path:
    """Apply a pattern's style to the frame, by optimization with untrained features.

    Nothing is downloaded. Returns the path of the picture.
    """
    out = run.pictures / "styled.png"
    config = StyleConfig(size=options.style_size, steps=60, features="untrained", seed=options.seed)
    style = Picture(pattern(STYLE, 256), None, f"pattern {STYLE}")
    styler = ByOptimisation(frame, [style], StyleLaunch(out=out), config, config.size)
    print(f"\nstyling a frame ({styler}): about {spoken(styler.seconds())} …")
    with own_threads(choose_threads()):
        return write_picture(out, styler.style(styler.sized(frame)), None, styler.about())


def _film(run: RunDir, config: DQNConfig) -> tuple[Path, np.ndarray]:
    """Play three games, and write the best one as a GIF in the game's colours.

    Returns the path and the middle frame. At most 30 seconds of each game are played.
    """
    network = cast(QNetwork, modelstore.load_model(run.model, {"dqn": build_network})[0])
    games = [
        play(network, config.env, epsilon=0.001, seed=seed, max_steps=450) for seed in range(3)
    ]
    frames, _ = max(games, key=lambda game: game[1])
    return write_gif(run.pictures / "play.gif", frames, fps=15), frames[len(frames) // 2]


def verdict(result: Evaluation, config: DQNConfig, seconds: float) -> str:
    """Describe what the measured scores mean."""
    random, human = reference(config.env.game) or (0.0, 1.0)
    action, constant = best_constant_action(config.env, episodes=2)
    lines = [
        f"\n{len(result.scores)} games after {seconds / 60:.1f} minutes, mean score:",
        f"  {result.mean:8,.0f}   this policy (median {result.median:,.0f})",
        f"  {random:8,.0f}   random play (published)",
        f"  {constant:8,.0f}   the best constant action, holding {action} (measured now)",
        f"  {human:8,.0f}   a human tester (published)",
    ]
    if result.mean >= 2 * constant:
        place = "above" if result.mean > human else "below"
        lines.append(
            f"That is {result.mean / constant:.1f} times what holding one direction scores, and "
            f"{place} the human tester.\n"
            "Scores of different seeds differ by a factor of two and more.\n"
            "For longer trainings, see docs/guides/gpus.md."
        )
    else:
        lines.append(
            "That is not clearly better than holding one direction. A longer training usually is: "
            "genray demo --steps 90000"
        )
    return "\n".join(lines)
