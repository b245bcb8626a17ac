"""A preset or an ablation of genray, in one process with one PyTorch thread."""

from dataclasses import replace

from genray.rl.agent import LocalAgent
from genray.rl.env import EnvConfig
from genray.rl.evaluate import Evaluation, evaluate
from tests.bench.atari.ablations import configuration
from tests.bench.atari.protocol import EPSILON, Player, Trial


def train(trial: Trial, name: str) -> None:
    """Train the system `name` on the trial's game until the trial's time is over."""
    config = configuration(name, trial.game)
    run = replace(config.run, seed=trial.seed, device="cpu")
    config = replace(config, run=run)
    if config.env.frame_skip != 4 or config.env.sticky_actions:
        raise ValueError(f"{name}: the table's runs skip 4 frames and have no sticky actions")
    agent = LocalAgent(config, threads=1)

    def copy_policy() -> Player:
        network = agent.network()

        def play(env: EnvConfig, episodes: int, seed: int) -> Evaluation:
            # The observation is the preset's; the rules of the evaluation are everybody's.
            rules = replace(
                config.env,
                sticky_actions=env.sticky_actions,
                max_episode_frames=env.max_episode_frames,
                noop_max=env.noop_max,
            )
            return evaluate(network, rules, episodes=episodes, epsilon=EPSILON, seed=seed)

        return play

    try:
        while trial.tick(agent.steps, agent.learner.updates, copy_policy):
            left_s = trial.protocol.seconds - trial.elapsed_s
            agent.advance(trial.next_steps, seconds=min(1.0, max(left_s, 0.01)))
    finally:
        agent.close()
