"""Catch, learned only inside a world model: `python -m tests.bench.bench_world_catch
[--frames 4000] [--world-steps 800] [--steps 24000] [--folder runs/bench_world_catch] [--seed 0]`.

Random play of Catch is recorded as one endless game: a caught or missed ball is a lost life, after
which the next ball appears. A world model learns from the records, an agent (preset `catch`) learns
inside the model, and then plays 200 boards of the real game. Goal: a mean return of .95; random
play has about −.7. What exists in the folder is not made again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from genray import cli
from genray.gen.data.episodes import Episode, Episodes, pack, write_episodes
from genray.rl.catch import Catch
from genray.rl.env import EnvConfig
from genray.rl.evaluate import evaluate
from genray.rl.policy import load_policy
from tests.bench.common import describe_machine, last_json_line, print_table

ACTIONS = ["left", "stay", "right"]
GREYS = np.array([0, 128, 255], np.uint8)
LONG = 100
"""Screens of an episode of the file."""
HOLD = 0.6
"""Probability that random play repeats its last action, so that the paddle gets around."""
BOARDS = 200


def record(frames: int, seed: int) -> tuple[Episode, ...]:
    """Play at random; a board's end is recorded as a lost life."""
    env, rng = Catch(1), np.random.default_rng([seed, 2])
    frame_HW, action, episodes = env.reset(seed)[0], 1, []
    for _ in range(frames // LONG):
        screens, rows = [np.searchsorted(GREYS, frame_HW).astype(np.uint8)], [(0, 0.0, False)]
        for _ in range(LONG - 1):
            if rng.random() >= HOLD:
                action = int(rng.integers(3))
            step = env.step(np.array([action]))
            frame_HW = step.frame_EHW[0]
            screens.append(np.searchsorted(GREYS, frame_HW).astype(np.uint8))
            rows.append((action, float(step.reward_E[0]), bool(step.terminated_E[0])))
        kinds = (np.uint8, np.float32, bool)
        columns = [np.array(each, kind) for each, kind in zip(zip(*rows), kinds)]
        never_T, stacked = np.zeros(LONG, bool), np.stack(screens)
        episodes.append(Episode(pack(stacked), stacked.shape, *columns, never_T, never_T))
    return tuple(episodes)


def genray(words: str) -> None:
    """Run a command of genray in this process."""
    if cli.main(words.split()) != 0:
        raise SystemExit(f"genray {words}: failed")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=4000)
    parser.add_argument("--world-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=24_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_world_catch"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, seed = options.folder, options.seed
    folder.mkdir(parents=True, exist_ok=True)
    file, world, agent = folder / "catch.safetensors", folder / "world", folder / "agent"
    begin = time.process_time()
    if not file.exists():
        training, held = record(options.frames, seed), record(options.frames // 4, seed + 1)
        recipe = {"game": "catch", "actions": ACTIONS, "policy": f"random, held with {HOLD}"}
        write_episodes(file, Episodes(training, held, GREYS[:, None].repeat(3, 1), recipe))
    if not (world / "model").exists():
        genray(
            f"train world --data episodes:{file} --steps {options.world_steps} --width 48 "
            f"--layers 1 --batch-size 32 --validate-every 200 --seed {seed} --out {world}"
        )
    world_s = time.process_time() - begin
    if not (agent / "model").exists():
        genray(
            f"train dqn --preset catch --local --env dream:{world} --life-loss terminal "
            f"--steps {options.steps} --evaluate-episodes 2 --seed {seed} --out {agent}"
        )
    agent_s = time.process_time() - begin - world_s
    network, _ = load_policy(agent)
    real = EnvConfig(env="genray.rl.catch:Catch")
    found = evaluate(network, real, episodes=BOARDS, epsilon=0.0, seed=seed)
    rows = [[f"{found.mean:.3f}", BOARDS, f"{world_s:.0f}", f"{agent_s:.0f}"]]
    print_table(
        "Catch, learned only in the dream (goal .95)",
        ["return in the real game", "boards", "CPU seconds: model", "agent"], rows,
    )  # fmt: skip
    print(describe_machine())
    last_json_line({"mean": found.mean, "boards": BOARDS, "world_s": world_s, "agent_s": agent_s})


if __name__ == "__main__":
    main()
