"""Train an agent that remembers: it sees a falling ball once, and must catch it 11 steps later.

    python examples/blind_catch.py
    genray train dqn --preset blind_catch --out runs/blind    # the same, on Ray

What you see: the mean return of the trained agent, and of the same agent whose memory is erased at
every step. All balls caught is 1; the best possible without memory is −0.75.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch

from genray.rl import LocalAgent
from genray.rl.catch import BlindCatch
from genray.rl.networks import QNetwork
from genray.rl.presets import blind_catch

GAMES = 256


def mean_return(network: QNetwork, remembers: bool) -> float:
    """Play games side by side, one step after the other, and carry the state of the LSTM."""
    env = BlindCatch(num_lanes=GAMES)
    frame = env.reset(seed=1)
    # At the start of an episode: a state of zeros, no last action (−1), no last reward.
    state = torch.zeros(GAMES, network.state_size)
    action, reward = torch.full((GAMES,), -1), torch.zeros(GAMES)
    while True:
        with torch.inference_mode():
            q_values, state = network.step(torch.from_numpy(frame)[:, None], action, reward, state)
        if not remembers:
            state = torch.zeros_like(state)
        action = q_values.argmax(1)
        step = env.step(action.numpy())
        if step.terminated_E.all():  # all balls need the same time
            return float(np.mean(step.reward_E))
        frame, reward = step.frame_EHW, torch.from_numpy(step.reward_E)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30_000, help="agent steps of all lanes")
    steps = parser.parse_args().steps
    config = blind_catch()
    agent = LocalAgent(replace(config, run=replace(config.run, steps=steps)))
    agent.advance(steps, seconds=3_600.0)
    network = agent.network()
    agent.close()
    for remembers in (True, False):
        name = "with memory" if remembers else "memory erased"
        print(f"{name}: {mean_return(network, remembers):.2f}")
