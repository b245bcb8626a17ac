"""The part of `genray demo` in which a network learns the game, and is then played."""

from dataclasses import replace
from pathlib import Path

from genray.commands.data import record_episodes
from genray.commands.demo_page import Figure, Part
from genray.commands.evaluate import PlayConfig
from genray.commands.train import TrainLaunch, train_in
from genray.commands.world import side_by_side, write_world_page
from genray.console import shell_command
from genray.distributed.dream_env import open_world
from genray.distributed.episodes import EpisodesConfig
from genray.gen.world.config import WorldConfig, world
from genray.media import write_gif
from genray.runs.rundir import RunDir

SCREENS = 8_000
"""Screens of the agent's play that the model learns from. A part of them is held out."""
RANDOM = 0.6
"""Share of random steps in them, so that the model learns what each action does."""
FILMED = 90
"""Agent steps in the film."""


def learn_world(run: RunDir, steps: int, seed: int) -> Part:
    """Train a world model on episodes of the run's agent; write a film, and a page to play it."""
    file = run.path / "episodes.safetensors"
    print(f"\nplaying {SCREENS:,} screens for a network to learn the game from …")
    record_episodes(
        EpisodesConfig(
            from_run=run.path, frames=SCREENS, epsilon=RANDOM, hold=0.85, seed=seed, out=file
        )
    )
    folder = RunDir.create(run.path / "world")
    train_in(folder, "world", _configured(file, steps, seed), TrainLaunch())
    model, config = open_world(folder.path)
    page = write_world_page(model, config, run.path / "world.html", policy=run.path)
    out = run.pictures / "world.gif"
    options = PlayConfig(out=out, policy=run.path, max_steps=FILMED, seed=seed)
    film = write_gif(out, list(side_by_side(model, config, options)), fps=15)
    return Part(
        heading="A network learned the game itself",
        said=(f"a game inside a network, to play in a browser: {page}",),
        text="It predicts the next screen from the last ones and the player's action, learned from "
        f"{SCREENS:,} screens in {steps:,} steps. So short a training makes mistakes; the one in "
        "the documentation took 28,000 steps. On its page you play, and with the key m your agent "
        "does.",
        links=(("Play inside the network", page.name),),
        figures=(
            Figure(film, "left the game, right the network, with the same actions", 32, True),
        ),
        commands=(
            shell_command("genray", "train", "world", "--resume", folder.path, "--steps", 28_000),
            shell_command("genray", "play", folder.path, "--dream", "--out", "dream.mp4"),
        ),
    )


def _configured(file: Path, steps: int, seed: int) -> WorldConfig:
    base = world()
    return replace(
        base,
        data=replace(base.data, data=f"episodes:{file}"),
        fit=replace(base.fit, steps=steps, validate_every=max(1, steps // 3), seed=seed),
    )
