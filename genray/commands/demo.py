"""`genray demo`: trains, evaluates, films, sweeps and serves on a small machine, in minutes."""

import contextlib
import json
import math
import threading
import time
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from genray.commands import demo_parts
from genray.commands.demo_page import write_page
from genray.commands.demo_world import learn_world
from genray.commands.train_dqn import LaunchConfig, train_in
from genray.console import shell_command
from genray.errors import require
from genray.gen.images.features import open_features
from genray.options import given, parse
from genray.rl import presets
from genray.rl.config import DQNConfig
from genray.rl.evaluate import Evaluation, best_constant_action
from genray.rl.scores import reference
from genray.rl.train import check_disk, check_memory
from genray.runs.rundir import RUNS, RunDir, new_folder
from genray.threads import own_threads

WORLD_UNTIL_S = 360
"""The world model is left out if it could begin only after so many seconds."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Train Ape-X on Road Runner with 2 collectors and 2 replay shards, evaluate it, film it, and
    make a page of pictures.
    """

    out: Path | None = None
    """Directory for all results. Default: runs/demo-TIME."""
    steps: int = 42_000
    """Agent steps; 42,000 make about 10,200 updates, less than four minutes on 2 fast cores."""
    minutes: float = 4.5
    """The training ends after this many minutes if the steps have not been reached; 0: no limit."""
    generator_steps: int = 200
    """Training steps of a sprite model of screens of the agent's play; 0: no generator."""
    world_steps: int = 1_500
    """Training steps of a world model of the agent's game, which is then played on a page; 0: none.
    Left out, unless it is asked for, if the demo has taken more than 6 minutes before it.
    """
    style_size: int = 320
    """Longest side, in pixels, of a frame of the play that is painted in the styles of three
    patterns, and of a dream of it; 0: neither.
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
    require(
        options.generator_steps >= 0,
        f"--generator-steps {options.generator_steps}: must be ≥ 0 (0: no generator)",
    )
    require(
        options.world_steps >= 0,
        f"--world-steps {options.world_steps}: must be ≥ 0 (0: no world model)",
    )
    require(
        0 <= options.minutes < math.inf,
        f"--minutes {options.minutes}: must be ≥ 0 (0: no limit)",
    )
    require(
        options.serve or not options.keep,
        "--keep: there is no service to keep with --no-serve; leave one of the two out",
    )
    # Check everything before the run directory is created.
    start = time.monotonic()
    base = presets.road_runner_quick()
    config = replace(
        base,
        run=replace(
            base.run,
            steps=options.steps,
            max_minutes=options.minutes,
            seed=options.seed,
            evaluate_every=0,
        ),
    )
    config.validate()
    config.check_learns()
    check_memory(config)
    check_disk(config, options.out or RUNS)
    if options.style_size:
        open_features("lite0")
    run = RunDir.create(options.out or new_folder("demo"))
    print(
        "Ape-X on Road Runner: 2 collectors, 2 replay shards and a learner, each a Ray actor, "
        "on this machine's CPU.\n"
        f"{options.steps:,} agent steps = {options.steps * config.env.frame_skip / 216_000:.1f} "
        "hours of play"
        + (f", or {options.minutes:g} minutes" if options.minutes else "")
        + ". Ctrl-C stops, saves, and says how to continue.\n"
    )
    # Train the agent, film it, and report its scores.
    result = train_in(run, config, LaunchConfig(), resumed=False)
    minutes = (time.monotonic() - start) / 60
    steps = steps_made(run)
    print("filming …")
    clip, frame = demo_parts.film(run, config)
    others = references(config)
    print(verdict(result, others, minutes))
    # Run the optional parts: pictures, a generator, a sweep, and the service. The pictures and the
    # generator each keep one core busy, so they are made at the same time.
    parts = [demo_parts.agent_part(run, clip, result, others)]
    with get_context("spawn").Pool(1, demo_parts.begin_beside) as painter, own_threads(1):
        if options.style_size:
            painting = painter.apply_async(
                demo_parts.paint, (run.pictures, frame, options.style_size, options.seed)
            )
        if options.generator_steps:
            generator = demo_parts.generate(run, options.generator_steps, options.seed)
        if options.style_size:
            parts.append(painting.get())
        if options.generator_steps:
            parts.append(generator)
    if options.world_steps:
        if given(argv, "--world-steps") or time.monotonic() - start <= WORLD_UNTIL_S:
            parts.append(learn_world(run, options.world_steps, options.seed))
        else:
            again = shell_command("genray", "train", "world", "--from-run", run.path)
            print(f"left out after {WORLD_UNTIL_S / 60:.0f} minutes: a world model. {again}")
    if options.sweep_trials:
        parts.append(demo_parts.sweep(run, options.sweep_trials, options.seed))

    # Put everything on one page.
    def finish() -> None:
        page = write_page(
            run.path / "demo.html",
            "genray demo",
            f"{steps:,} agent steps of Road Runner with seed {options.seed}, trained and "
            f"evaluated in {minutes:.1f} minutes; everything on this page was made in "
            f"{(time.monotonic() - start) / 60:.0f} minutes by one command.",
            parts,
        )
        print("\n" + "\n".join(line for part in parts for line in part.said))
        print(f"everything on one page, to open in a browser: {page}")

    if options.serve:
        with demo_parts.served(run) as (part, url):
            parts.append(part)
            finish()
            if options.keep:
                wait(url)
    else:
        finish()
    print(run.path)
    return 0


def steps_made(run: RunDir) -> int:
    """Return the number of agent steps of a finished training."""
    with (run.path / "metrics.jsonl").open(encoding="utf-8") as lines:
        return max(json.loads(line)["step"] for line in lines)


def wait(url: str) -> None:
    """Keep the service running until Ctrl-C."""
    print(f"the service keeps running: open {url}/ in a browser; Ctrl-C stops it", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def references(config: DQNConfig) -> tuple[tuple[str, float], ...]:
    """Return names and scores of other ways to play: random play, the best constant action
    (measured now), and a human tester.
    """
    random, human = reference(config.env.game) or (0.0, 1.0)
    action, constant = best_constant_action(config.env, episodes=2)
    return (
        ("random play (published)", random),
        (f"the best constant action, holding {action} (measured now)", constant),
        ("a human tester (published)", human),
    )


def verdict(result: Evaluation, others: tuple[tuple[str, float], ...], minutes: float) -> str:
    """Describe what the measured scores mean. `others`: see `references`."""
    (_, _), (_, constant), (_, human) = others
    lines = [
        f"\n{len(result.scores)} games after {minutes:.1f} minutes, mean score:",
        f"  {result.mean:8,.0f}   this policy (median {result.median:,.0f})",
        *(f"  {score:8,.0f}   {name}" for name, score in others),
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
