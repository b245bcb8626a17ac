"""Runs one of K learners in its own process, on its part of given batches, and writes weights and
priorities.
"""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from genray.distributed.data_parallel import Group
from genray.rl.chunk import Sample
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from tests.helpers.batches import ACTIONS, SIDE, random_batch

BATCH, UPDATES = 24, 6
CONFIG = LearnerConfig(
    batch_size=BATCH, max_grad_norm=0.01, target_period_updates=3, average_updates=4
)


def network(seed: int) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(
        NetworkConfig(channels=(4, 4, 4), hidden=16, dueling=True), ACTIONS, 1, (SIDE, SIDE)
    )


def batch_of(number: int, size: int = BATCH) -> Sample:
    """Return the same batch in every process. Probabilities span four orders of magnitude, so that
    the smallest is in one half alone.
    """
    probability_B = 10 ** np.random.default_rng(number).uniform(-6, -2, size)
    return random_batch(size, number, probability_B=probability_B)


def parts(rows: int, learners: int) -> list[slice]:
    """Return unequal parts, because a batch is smaller after transitions were overwritten before
    they were read.
    """
    edges = [0, *(rows * (index + 1) // learners + 1 for index in range(learners - 1)), rows]
    return [slice(*edge) for edge in itertools.pairwise(edges)]


def learn(
    config: LearnerConfig, group: Group | None = None, learner: Learner | None = None, rank: int = 0
) -> dict:
    learner = learner or Learner(config, network(0), network(1))
    out: dict = {"delta": [], "loss": [], "norm": []}
    for number in range(UPDATES):
        batch, beta, factor = batch_of(number), 0.4 + 0.1 * number, 1.0
        if group:
            batch = batch.rows(parts(batch.size, group.learners)[rank])
            factor = group.begin_update(group.shares([batch], config.importance_weighting)[0], beta)
        update = learner.update(batch, 1_000, beta)
        out["delta"].append(update.delta_B)
        out["loss"].append(factor * update.loss)
        out["norm"].append(update.grad_norm)
    return out | {"weights": learner.state_dict()}


def main(rank: str, learners: str, address: str, out: str, weighted: str) -> None:
    torch.set_num_threads(1)
    config = replace(CONFIG, importance_weighting=bool(int(weighted)))
    learner = Learner(config, network(0), network(1))
    group = Group(int(rank), int(learners), address, "cpu", learner.online)
    learner.share_gradients = group.average_gradients
    torch.save(learn(config, group, learner, int(rank)), Path(out) / f"{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
