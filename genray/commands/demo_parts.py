"""The parts of `genray demo` after the training: film, paintings, dream, generator, sweep, service.

Each part writes its files below the run's directory, and returns a `Part` for the demo's page.
"""

import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from genray.commands.demo_page import Figure, Part
from genray.commands.sprites import nearest_sheet, screens_of
from genray.commands.stylers import ByOptimisation, StyleLaunch, spoken
from genray.commands.train import TrainLaunch
from genray.commands.train import train_in as train_generator
from genray.console import shell_command
from genray.distributed.screens import ScreensConfig, collect_screens
from genray.errors import RunFault
from genray.gen.data.load import load_data
from genray.gen.images import dream as dreams
from genray.gen.images.features import open_features
from genray.gen.images.patterns import pattern, pattern_name
from genray.gen.images.pictures import Picture, scaled, to_rgb, to_tensor, write_picture
from genray.gen.images.style.config import StyleConfig
from genray.gen.sprites.config import sprites
from genray.gen.sprites.model import SpriteModel, build_sprites
from genray.media import contact_sheet, write_gif, write_png
from genray.rl.building import build_network
from genray.rl.config import DQNConfig
from genray.rl.evaluate import play
from genray.rl.evaluation import Evaluation
from genray.rl.networks import QNetwork
from genray.runs import modelstore
from genray.runs.rundir import RunDir
from genray.threads import choose_threads, own_threads
from tuning.report.charts import FAINT, TUNED, WIDE, Chart, Panel

STYLES = (13, 7, 20)
"""Seeds of the patterns in whose styles a frame is painted: dots, strokes and swirls."""
SHOWN, COLUMNS = 32, 8
"""Number of drawn and of played screens in the pictures of the generator, and their columns."""


# -- the agent -------------------------------------------------------------------------------------


def film(run: RunDir, config: DQNConfig) -> tuple[Path, np.ndarray]:
    """Play three games, and write the best one as a GIF in the game's colours.

    Returns the path and the liveliest frame. At most 30 seconds of each game are played.
    """
    network = cast(QNetwork, modelstore.load_model(run.model, {"dqn": build_network})[0])
    games = [
        play(network, config.env, epsilon=0.001, seed=seed, max_steps=450) for seed in range(3)
    ]
    frames, _ = max(games, key=lambda game: game[1])
    return write_gif(run.pictures / "play.gif", frames, fps=15), liveliest(frames)


def liveliest(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Return the frame that differs in most pixels from the median of all frames, so that it shows
    the figures of the game. A frame with less than half of the median's pixels is another screen
    or a flash, and is not chosen.
    """
    few = np.stack(frames[:: max(1, len(frames) // 60)])  # the median of 60 frames is good enough
    moving = (few != np.median(few, axis=0)).any(-1).mean((1, 2))
    moving[moving > 0.5] = 0
    return few[moving.argmax()]


def agent_part(
    run: RunDir, clip: Path, result: Evaluation, others: tuple[tuple[str, float], ...]
) -> Part:
    """Describe the agent: its film, its scores beside those of `others`, and its learning curve."""
    return Part(
        heading="An agent learned to play",
        said=(
            f"the policy playing: {clip}",
            f"curves: {shell_command('tensorboard', '--logdir', run.path / 'tensorboard')}",
        ),
        text="Two Ray actors played, two replay shards stored what they saw, and a learner "
        "trained a dueling double DQN from it (Ape-X). The film shows the best of three games. "
        "Scores of different seeds differ by a factor of two and more.",
        figures=(Figure(clip, f"Road Runner, mean score {result.mean:,.0f}", 16, pixels=True),),
        scores=((f"this policy, {len(result.scores)} games", result.mean), *others),
        chart=_learning_curve(run),
        commands=(
            shell_command("genray", "evaluate", run.path, "--episodes", "30"),
            shell_command("genray", "play", run.path, "--out", "clip.mp4"),
        ),
    )


def _learning_curve(run: RunDir) -> str:
    """Draw the mean score of recent games by agent steps as `<svg>`; "" without finished games."""
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    points = [(row["step"], row["episode_return"]) for row in rows if "episode_return" in row]
    if not points:
        return ""

    def draw(axis: Axes) -> None:
        axis.plot(*zip(*points), color=TUNED, linewidth=1.6)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", color=FAINT, alpha=0.3)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))

    about = "The mean score of the newest games, which are played with exploration, by agent steps."
    chart = Chart(
        name="learning-curve",
        about=about,
        x="agent steps",
        y="mean score while exploring",
        panels=(Panel(title="", draw=draw),),
        size=(WIDE[0], 2.3),
    )
    return chart.svgs()[0]


# -- pictures --------------------------------------------------------------------------------------


def begin_beside() -> None:
    """Prepare a process that works beside the demo's own one: it uses one thread, and leaves Ctrl-C
    to the demo, which ends it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def paint(folder: Path, frame: np.ndarray, size: int, seed: int) -> Part:
    """Paint the frame in the styles of three patterns, and let a network dream of it. The pictures
    are written to `folder`.

    Both use the features of EfficientNet-Lite0, which are installed with genray.
    """
    config = StyleConfig(size=size, steps=60, features="lite0", seed=seed)
    shown = [Figure(_write(folder, "frame", scaled(frame, size, enlarge=True)), "the frame", 11)]
    for number, style_seed in enumerate(STYLES):
        name = pattern_name(style_seed)
        style = Picture(pattern(style_seed, 256), None, f"pattern {style_seed}")
        out = folder / f"styled_{name}.png"
        styler = ByOptimisation(frame, [style], StyleLaunch(out=out), config, config.size)
        if number == 0:
            time = spoken(len(STYLES) * styler.seconds())
            print(f"\npainting a frame in {len(STYLES)} styles ({styler}): about {time} …")
        with own_threads(choose_threads()):
            write_picture(out, styler.style(styler.sized(frame)), None, styler.about())
        shown.append(Figure(out, f"in the style of {name}", 11))
    shown.append(Figure(_dream(folder, frame, size, seed), "a dream of it", 11))
    first, last = shown[1].path, shown[-1].path
    return Part(
        heading="Its world, painted",
        said=(
            f"a frame of its play in {len(STYLES)} styles: {first}, …",
            f"a dream of the frame: {last}",
        ),
        text="Neural style transfer and Deep Dream with the features of EfficientNet-Lite0, a "
        "network that was trained on photographs. The styles are generated patterns.",
        figures=tuple(shown),
        commands=(
            "genray stylize photo.jpg painting.jpg --out styled.png",
            "genray dream photo.jpg --out dream.png",
        ),
    )


def _dream(folder: Path, frame: np.ndarray, size: int, seed: int) -> Path:
    with own_threads(choose_threads()):
        objective = dreams.Objective(open_features("lite0"))
        content = to_tensor(scaled(frame, size, enlarge=True))
        dreamt = dreams.dream(content, objective, dreams.DreamConfig(seed=seed))
    return _write(folder, "dream", to_rgb(dreamt))


def _write(folder: Path, name: str, rgb: np.ndarray) -> Path:
    return write_png(folder / f"{name}.png", rgb)


# -- the generator ---------------------------------------------------------------------------------


def generate(run: RunDir, steps: int, seed: int) -> Part:
    """Train a sprite model on screens of the agent's play."""
    count = 2_500
    print(f"\nplaying {count:,} screens for a generator to learn from …")
    file, _ = collect_screens(
        ScreensConfig(model=run.path, frames=count, seed=seed, out=run.path / "screens.safetensors")
    )
    base = sprites()
    config = replace(
        base,
        data=replace(base.data, data=f"screens:{file}"),
        fit=replace(base.fit, steps=steps, validate_every=max(1, steps // 9), seed=seed),
    )
    folder = RunDir.create(run.path / "generator")
    train_generator(folder, "sprites", config, TrainLaunch())
    # Show samples beside screens of the play, and beside the nearest screens of the training.
    model = cast(SpriteModel, modelstore.load_model(folder.model, {"sprites": build_sprites})[0])
    data = load_data(config.data)
    drawn_NHW = np.concatenate(list(model.draw_screens(SHOWN, seed)))
    real_NHW = screens_of(model, data.test)
    real_NHW = real_NHW[np.linspace(0, len(real_NHW) - 1, SHOWN).astype(int)]
    colours_P3 = model.palette.cpu().numpy()
    drawn, real = (
        _write(run.pictures, name, contact_sheet(list(colours_P3[screens]), COLUMNS, gap=4))
        for name, screens in (("drawn", drawn_NHW), ("played", real_NHW))
    )
    sheet = nearest_sheet(model, drawn_NHW, data.train, data.test, 3, real_NHW)
    large = "three times as large: drawn, the nearest training screen and its similarity, and real"
    return Part(
        heading="A generator learned to draw it",
        said=(f"screens drawn by a generator: {drawn}",),
        text=f"A small transformer learned the language of the game's sprites from {count:,} "
        "screens of the agent's play, and draws new screens at full size.",
        figures=(
            Figure(drawn, f"{SHOWN} screens that the generator drew", 60, pixels=True),
            Figure(real, "played by the agent, held out", 60, pixels=True),
            Figure(_write(run.pictures, "nearest", sheet), large, scrolled=True),
        ),
        commands=(
            shell_command("genray", "sample", folder.path, "--scale", "3", "--out", "samples.png"),
        ),
    )


# -- the sweep -------------------------------------------------------------------------------------


def sweep(run: RunDir, trials: int, seed: int) -> Part:
    """Compare three optimizers of a VAE on digits, each with default and with tuned settings and
    three seeds.
    """
    from tuning.report.report import write_report
    from tuning.sweep import SweepConfig, run_sweep

    print("\ncomparing three optimizers of a small VAE, with default and with tuned settings …")
    config = SweepConfig(
        study="optimizers",
        model="vae",
        arms=("sgd", "momentum", "adam"),
        trials=trials,
        seeds=3,
        steps=220,
        looks=5,
        set=("model.widths=64", "model.latent=8"),
        seed=seed,
    )
    report = write_report(run_sweep(config, run.path / "sweep"))
    figures = [
        Figure(report.with_name(f"{name}.png"), caption, 20)
        for name, caption in (
            ("arms-validation", "the optimizers, with default (◇) and with tuned (●) settings"),
            ("learning-rates", "the result by learning rate; the filled ring was chosen"),
        )
    ]
    return Part(
        heading="A sweep compared optimizers",
        said=(f"a comparison of optimizers by a small sweep: {report}",),
        text="Ray Tune trained small VAEs on digits: for each optimizer a search for its learning "
        f"rate, then three seeds. The whole report: {report.relative_to(run.path)}",
        figures=tuple(figure for figure in figures if figure.path.exists()),
    )


# -- the service -----------------------------------------------------------------------------------


@contextmanager
def served(run: RunDir) -> Iterator[tuple[Part, str]]:
    """Serve the run's models, call every route once, and take a screenshot of the page.

    Yields the page's part and the address, while the service is running.
    """
    from serve.launch import ServeLaunch, running
    from serve.route_calls import call_all_routes, screenshot
    from serve.settings import Settings

    # Collect the models in one directory.
    models = run.path / "models"
    made = {name: run.path / name / "model" for name in ("generator", "world")}
    for name, folder in {"agent": run.model, **made}.items():
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
        shown = screenshot(service.url, page)
        print(f"{service.url} answered {len(calls)} requests on all its routes")
        where = page if shown else "left out: no Chromium here (make system-deps)"
        again = shell_command("genray", "serve", models)
        part = Part(
            heading="A service offers the models",
            said=(f"the service's page: {where}", f"start it again: {again}"),
            text=f"Ray Serve answered {len(calls)} requests, one or more on each of its routes.",
            figures=(Figure(page, "the page of the service", 32),) if shown else (),
            commands=(again,),
        )
        yield part, service.url
