"""`genray demo`: the main job from end to end on a small machine, and an honest word about the result."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from genray import modelstore
from genray.commands.train import TrainLaunch
from genray.commands.train import train_in as train_generator
from genray.dist.frames import FramesConfig, collect_frames
from genray.gen import presets as gen_presets
from genray.launch import LaunchConfig, train_in
from genray.media import write_gif
from genray.options import parse
from genray.rl import presets
from genray.rl.config import DQNConfig
from genray.rl.evaluate import Evaluation, best_constant_action, play
from genray.rl.networks import QNetwork, build_network
from genray.rl.scores import reference
from genray.rl.train import check_disk, check_memory
from genray.rundir import RunDir


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Train Ape-X on Road Runner with 2 collectors and 2 replay shards, evaluate it, and film it."""

    out: Path | None = None
    """Where everything goes. Default: runs/demo-TIME."""
    steps: int = 36_000
    """Agent steps; 36,000 make about 8,700 updates, four minutes of 2 quiet cores."""
    generator_steps: int = 600
    """Steps of the GAN on the frames that the agent plays; 0: none."""
    seed: int = 0


def main(argv: list[str], prog: str) -> int:
    options = parse(DemoConfig, argv, prog)
    start = time.monotonic()
    base = presets.road_runner_quick()
    config = replace(base, run=replace(base.run, steps=options.steps, seed=options.seed, evaluate_every=0))
    config.validate()
    out = options.out or Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    check_memory(config)
    check_disk(config, out)
    run = RunDir.create(out)
    print(
        "Ape-X on Road Runner: 2 collectors and 2 replay shards and a learner, each a Ray actor, on this machine's CPU.\n"
        f"{options.steps:,} agent steps = {options.steps * config.env.frame_skip / 216_000:.1f} hours of play. "
        "Ctrl-C stops, saves, and says how to go on.\n"
    )
    result = train_in(run, config, LaunchConfig(), resumed=False)
    print("filming …")
    clip = _film(run, config)
    print(verdict(result, config, time.monotonic() - start))
    made = [f"the policy playing: {clip}", f"curves: tensorboard --logdir {run.path}/tensorboard"]
    if options.generator_steps:
        made.append(f"frames that a generator makes up: {_generator(run, options)}")
    print("\n" + "\n".join(made))
    print(run.path)
    return 0


def _generator(run: RunDir, options: DemoConfig) -> Path:
    """A quarter-width DCGAN on frames of the agent's own play; returns its newest grid of samples."""
    print("\nplaying 2,000 frames for a generator to learn from …")
    frames, _ = collect_frames(
        FramesConfig(model=run.path, frames=2_000, size=32, seed=options.seed, out=run.path / "frames.safetensors")
    )
    base = gen_presets.dcgan_atari()
    steps = options.generator_steps
    config = replace(
        base,
        data=replace(base.data, data=f"atari:{frames}"),
        fit=replace(base.fit, epochs=1, steps=steps, validate_every=max(1, steps // 5), seed=options.seed),
    )
    folder = RunDir.create(run.path / "generator")
    train_generator(folder, "gan", config, TrainLaunch())
    return folder.pictures / "samples.png"


def _film(run: RunDir, config: DQNConfig) -> Path:
    """The best of three games as a GIF in the game's own colours; at most 30 seconds of play."""
    network = cast(QNetwork, modelstore.load_model(run.model, {"dqn": build_network})[0])
    games = [play(network, config.env, epsilon=0.001, seed=seed, max_steps=450) for seed in range(3)]
    frames, _ = max(games, key=lambda game: game[1])
    return write_gif(run.pictures / "play.gif", frames, fps=15)


def verdict(result: Evaluation, config: DQNConfig, seconds: float) -> str:
    """What the scores mean, worded by what was measured."""
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
        beside = "above" if result.mean > human else "below"
        lines.append(
            f"That is {result.mean / constant:.1f} times what holding one direction scores, and {beside} the human tester.\n"
            "Seeds differ by a factor of two and more: the next one may do much worse, or better.\n"
            "For more, see README.md: For real."
        )
    else:
        lines.append(
            "That is not clearly better than holding one direction: this run was too short, or its seed unlucky.\n"
            "Give it longer: genray demo --steps 90000"
        )
    return "\n".join(lines)
