"""World models beside real games: one step, open loop, events and speed. `python -m
tests.bench.bench_world [--game road_runner] [--model RUN] [--frames 24000] [--quick]`

Trains the preset `world` on one core unless `--model` names a trained model, and compares it with
the held-out episodes of the model's own data set. A character is found by its colours and size on
the painted screens (sprite_detectors.py), not by the model's tokens. Without `--model`, episodes of
random play are recorded first. About 3 minutes of CPU without the training; `--quick` looks at
fewer steps. `--data FILE` measures on the held-out episodes of another file.
"""

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genray.config import from_dict
from genray.distributed.dream_env import open_world
from genray.distributed.episodes import EpisodesConfig, collect_episodes
from genray.gen.data.config import DataConfig
from genray.gen.data.episodes import Episode, EpisodesSplit, load_episodes
from genray.gen.families import open_fit
from genray.gen.training.run import save_export
from genray.gen.world.config import world
from genray.gen.world.dream import Dream
from genray.gen.world.episodes import Step, read_steps
from genray.gen.world.evaluation import event_tallies, predictions, start_of
from genray.gen.world.model import START, WorldModel
from tests.bench.common import describe_machine, last_json_line, print_table
from tests.bench.sprite_detectors import DETECTORS, Detector

NEAR = 8.0
"""Pixels within which a dreamed character is right."""
HORIZONS = (10, 30)
QUIET = 10
"""One in QUIET steps without an event is predicted; each counts QUIET times."""
FREE, LOOK = 300, 4
"""Steps of a free run; characters are looked for on one in LOOK screens."""
HERO = {
    "road_runner": "bird", "breakout": "ball", "seaquest": "submarine", "freeway": "chickens",
    "boxing": "white boxer", "space_invaders": "player", "river_raid": "plane",
}  # fmt: skip


def hero_of(game: str) -> Detector:
    """Return the detector of the character that is followed."""
    found = next(each for each in DETECTORS[game] if each.name == HERO[game])
    # The player's chicken is the left one of two.
    return replace(found, x=(0, 80)) if game == "freeway" else found


def place(detector: Detector, screen_HW: np.ndarray, palette_P3: np.ndarray) -> np.ndarray:
    """Return the centre (y, x) of the character; NaN unless there is exactly one."""
    found = detector.places(screen_HW, palette_P3)
    return np.array(found[0] if len(found) == 1 else (np.nan, np.nan))


def one_step(
    model: WorldModel, episodes: tuple[Episode, ...], steps: list[list[Step]], hero: Detector,
    count: int,
) -> dict[str, Any]:  # fmt: skip
    """Compare greedy predictions of about `count` steps with the real next screens."""
    palette_P3 = model.language.palette_P3
    every = max(1, sum(map(len, steps)) // count)
    chosen = [(e, t) for e, each in enumerate(steps) for t in range(2, len(each))][::every]
    exact = copied = 0
    errors: dict[str, list[float]] = {"model": [], "copy": [], "velocity": []}
    kept: dict[int, np.ndarray] = {}
    for (e, t), each in zip(chosen, predictions(model, [steps[e][t] for e, t in chosen])):
        if e not in kept:
            kept = {e: episodes[e].screens()}
        before, last, real = kept[e][t - 1 : t + 2]
        drawn = model.paint(each.sprites)
        exact += np.array_equal(drawn, real)
        copied += np.array_equal(last, real)
        spots = [place(hero, screen, palette_P3) for screen in (real, drawn, last, before)]
        truth, guess, now, then = spots
        for name, spot in (("model", guess), ("copy", now), ("velocity", 2 * now - then)):
            away = float(np.hypot(*(spot - truth)))
            if np.isfinite([*truth, *now, *then]).all():
                errors[name].append(away)
    result: dict[str, Any] = {
        "steps": len(chosen), "exact": exact / len(chosen), "exact_copy": copied / len(chosen)
    }  # fmt: skip
    for name, values in errors.items():
        result[f"error_{name}"] = float(np.nanmean(values))
        result[f"missing_{name}"] = float(np.isnan(values).mean())
    return result


def open_loop(
    model: WorldModel, episodes: tuple[Episode, ...], hero: Detector, starts: int, seed: int
) -> dict[str, Any]:
    """Dream from real screens with the real actions, and compare after some steps."""
    palette_P3, most = model.language.palette_P3, HORIZONS[-1]
    rng = np.random.default_rng(seed)
    long = [each for each in episodes if len(each) > START + most + 1]
    chosen = [long[number] for number in rng.integers(len(long), size=starts)]
    at = [int(rng.integers(len(each) - START - most)) for each in chosen]
    dream = Dream(model)
    dream.begin([start_of(model, each, first) for each, first in zip(chosen, at)], seed)
    screens = {id(each): each.screens() for each in chosen}
    rewards, real_rewards, lives, real_lives = 0, 0, 0, 0
    result: dict[str, Any] = {"starts": starts}
    for step in range(1, most + 1):
        t = [first + START - 1 + step for first in at]
        actions = [int(each.action_T[now]) for each, now in zip(chosen, t)]
        for given in dream.step(actions):
            rewards += given.reward != 0
            lives += given.life_lost
        real_rewards += sum(each.reward_T[now] != 0 for each, now in zip(chosen, t))
        real_lives += sum(
            bool(each.life_lost_T[now] | each.terminated_T[now]) for each, now in zip(chosen, t)
        )
        if step in HORIZONS:
            pairs = [
                (place(hero, screens[id(each)][now], palette_P3),
                 place(hero, dream.screen(lane), palette_P3))
                for lane, (each, now) in enumerate(zip(chosen, t))
            ]  # fmt: skip
            away = [
                float(np.hypot(*(made - real))) for real, made in pairs if np.isfinite(real).all()
            ]
            result[f"near_{step}"] = float(np.mean([each <= NEAR for each in away]))
            result[f"median_{step}"] = float(np.nanmedian(away))
            result[f"present_{step}"] = float(np.mean([np.isfinite(m).all() for _, m in pairs]))
            result[f"present_real_{step}"] = float(
                np.mean([np.isfinite(real).all() for real, _ in pairs])
            )
    total = starts * most
    return result | {
        "reward_rate": rewards / total, "reward_rate_real": float(real_rewards) / total,
        "life_rate": lives / total, "life_rate_real": float(real_lives) / total,
    }  # fmt: skip


def longest_absence(
    detector: Detector, screens: Iterable[np.ndarray], palette_P3: np.ndarray
) -> int:
    """Return the longest time without the character, in steps; `screens`: one in every LOOK."""
    longest = now = 0
    for screen_HW in screens:
        now = 0 if detector.count(screen_HW, palette_P3) else now + LOOK
        longest = max(longest, now)
    return longest


def free_runs(
    model: WorldModel, episodes: tuple[Episode, ...], detectors: tuple[Detector, ...], runs: int,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Dream FREE steps with the actions of held-out episodes; a run may end earlier, as a game.

    A run is steady if it never misses a character for more than twice the longest time for which
    held-out episodes miss it.
    """
    palette_P3 = model.language.palette_P3
    real = {
        each.name: max(longest_absence(each, e.screens()[::LOOK], palette_P3) for e in episodes)
        for each in detectors
    }
    rng, long = np.random.default_rng([seed, 1]), [e for e in episodes if len(e) > START + 1]
    dream, steady, made, rewards, lives = Dream(model), 0, 0, 0, 0
    worst = dict.fromkeys(real, 0)
    for run in range(runs):
        episode = long[int(rng.integers(len(long)))]
        first = int(rng.integers(len(episode) - START))
        dream.begin([start_of(model, episode, first)], seed + run)
        # The actions after the start, again from the episode's beginning if they are too few.
        action_T = np.roll(episode.action_T[1:], 1 - first - START)
        shown = []
        for step in range(FREE):
            given = dream.step([int(action_T[step % len(action_T)])])[0]
            made, rewards, lives = made + 1, rewards + (given.reward != 0), lives + given.life_lost
            if step % LOOK == 0:
                shown.append(dream.screen())
            if given.done:
                break
        missed = {each.name: longest_absence(each, shown, palette_P3) for each in detectors}
        worst = {name: max(worst[name], steps) for name, steps in missed.items()}
        steady += all(steps <= 2 * real[name] for name, steps in missed.items())
    result: dict[str, Any] = {"free_runs": runs, "free_steps": made, "free_steady": steady / runs}
    for name in real:
        result |= {f"absent_{name}": worst[name], f"absent_real_{name}": real[name]}
    real_steps = sum(len(each) - 1 for each in episodes)
    return result | {
        "free_reward_rate": rewards / made, "free_life_rate": lives / made,
        "all_reward_rate_real": sum(int((e.reward_T != 0).sum()) for e in episodes) / real_steps,
        "all_life_rate_real": sum(
            int((e.life_lost_T | e.terminated_T).sum()) for e in episodes
        ) / real_steps,
    }  # fmt: skip


def speed(model: WorldModel, steps: int) -> dict[str, float]:
    """Return dreamed screens a second of CPU time: one dream with painting, and 8 in lockstep."""
    result = {}
    for lanes in (1, 8):
        dream = Dream(model)
        dream.begin([model.start(lane) for lane in range(lanes)], 0)
        dream.step([0] * lanes)
        start = time.process_time()
        for step in range(steps):
            dream.step([step % model.sizes.actions] * lanes)
            for lane in range(lanes):
                dream.screen(lane)
        result[f"screens_per_s_{lanes}"] = lanes * steps / (time.process_time() - start)
    return result


def trained(game: str, frames: int, folder: Path, seed: int) -> Path:
    """Record random play, train the preset on it, and return the model's directory."""
    file = folder / f"episodes-{game}.safetensors"
    if not file.exists():
        collect_episodes(EpisodesConfig(game=game, frames=frames, habit=0.5, out=file))
    preset = world()
    config = replace(
        preset, data=DataConfig(data=f"episodes:{file}"), fit=replace(preset.fit, seed=seed)
    )
    start = time.process_time()
    fit = open_fit("world", config)
    for _ in fit:
        pass
    found = fit.test()
    print(f"trained in {time.process_time() - start:.0f} s of CPU: {found}")
    return save_export(folder / f"world-{game}-{seed}", fit, found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--game", default="road_runner", choices=sorted(HERO))
    parser.add_argument("--model", type=Path, help="run or model directory; default: train one")
    parser.add_argument("--data", default="", help="file of episodes; default: the model's own")
    parser.add_argument("--frames", type=int, default=24_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_world"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.model or trained(options.game, options.frames, options.folder, options.seed)
    model, config = open_world(folder)
    source = from_dict(DataConfig, config["data"]["options"], "data.")
    if options.data:
        source = replace(source, data=f"episodes:{options.data}")
    data = load_episodes(source)
    assert isinstance(data.test, EpisodesSplit)
    game = data.about["game"]
    hero, episodes = hero_of(game), data.test.episodes
    steps = list(read_steps(model, episodes))
    flat = [step for each in steps for step in each]
    count, starts = (64, 16) if options.quick else (512, 64)
    figures: dict[str, Any] = {"game": game, "policy": data.about["policy"]}
    figures |= one_step(model, episodes, steps, hero, count)
    every = len(flat) // count if options.quick else QUIET
    for name, tally in zip(("reward", "life"), event_tallies(model, flat, every)):
        figures |= {
            f"{name}_precision": tally.precision, f"{name}_recall": tally.recall,
            f"{name}_events": tally.real,
        }  # fmt: skip
    figures |= open_loop(model, episodes, hero, starts, options.seed)
    runs = 4 if options.quick else 20
    figures |= free_runs(model, episodes, DETECTORS[game], runs, options.seed)
    figures |= speed(model, 20 if options.quick else 60)
    rows = [[name, f"{value:.4g}" if isinstance(value, float) else value]
            for name, value in figures.items()]  # fmt: skip
    print_table(f"{game}, {HERO[game]}", ["figure", "value"], rows)
    print(describe_machine())
    last_json_line(json.loads(json.dumps(figures)))


if __name__ == "__main__":
    main()
