"""Ape-X behind the interface that RLlib users know: configure, train, evaluate, save and continue.

    python examples/rllib_agent.py

What you see: a line for each iteration with the mean score of the newest games, the updates and the
weight lag; then an evaluation, and the folder of a checkpoint that holds the replay as well.
"""

import argparse
from pathlib import Path

from genray.rllib import ApexDQN, ApexDQNConfig


def main() -> None:
    parser = argparse.ArgumentParser(description="Ape-X with RLlib's interface.")
    parser.add_argument("--env", default="ale_py:ALE/Breakout-v5", help="or module:factory")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1_000, help="agent steps of an iteration")
    parser.add_argument("--min-size", type=int, default=5_000, help="transitions before learning")
    parser.add_argument("--out", type=Path, default=Path("apex_checkpoint"))
    options = parser.parse_args()

    config = (
        ApexDQNConfig()
        .environment(options.env)
        .env_runners(num_env_runners=1, num_envs_per_env_runner=4)
        .training(lr=2.5e-4, n_step=3, min_size=options.min_size)
        .reporting(min_sample_timesteps_per_iteration=options.steps)
        .evaluation(evaluation_duration=2)
        .debugging(seed=1)
    )
    algo = config.build_algo()
    for _ in range(options.iterations):
        result = algo.train()
        score = result["env_runners"].get("episode_return_mean", float("nan"))
        print(
            f"iteration {result['training_iteration']:>2}  score {score:.2f}  "
            f"updates {result['updates']:,}  weight lag {result['weight_lag']:.0f}"
        )
    played = algo.evaluate()["env_runners"]
    print(f"evaluation: mean score {played['episode_return_mean']:.2f}")
    folder = algo.save_to_path(str(options.out.absolute()))
    algo.stop()

    again = ApexDQN.from_checkpoint(folder)  # continues where the first one stopped
    print(f"{folder}: iteration {again.iteration}")
    again.stop()


if __name__ == "__main__":
    main()
