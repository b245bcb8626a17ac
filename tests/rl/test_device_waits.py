"""Tests that an update and acting each wait for the device once, and that tensors are made on the
network's device. Needs no GPU.
"""

from dataclasses import replace

import numpy as np
import pytest

from genray.rl.collect import Lanes
from genray.rl.env import EnvConfig
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from tests.helpers.batches import ACTIONS, SIDE, random_batch
from tests.helpers.device_audit import META, audited

PAST = 2


def network() -> QNetwork:
    config = NetworkConfig(channels=(4, 4, 4), hidden=8, past_actions=PAST, layer_norm=True)
    return QNetwork(config, ACTIONS, 1, (SIDE, SIDE))


def batch(seed: int):
    past_BK = np.zeros((4, PAST), np.int16)
    return replace(random_batch(4, seed), past_BK=past_BK, next_past_BK=past_BK)


@pytest.mark.parametrize(
    "config",
    [
        LearnerConfig(precision="bfloat16"),
        LearnerConfig(
            double=False, loss="squared", importance_weighting=False, target_network=False
        ),
        LearnerConfig(
            optimizer="rmsprop", average_updates=5, target_period_updates=2, max_grad_norm=0
        ),
    ],
    ids=["double", "single", "rmsprop"],
)
def test_learner_update_reads_the_device_once(config: LearnerConfig):
    with audited() as audit:
        learner = Learner(config, network(), network(), device="meta")
        learner.update(batch(0), 100, 0.5)  # this update creates the optimizer's state
        for seed in (1, 2):
            audit.faults.clear()
            learner.update(batch(seed), 100, 0.5, batch(seed + 1))
            assert [(fault.kind, fault.line.split()[-1]) for fault in audit.faults] == [
                ("read", "finish")
            ]


def test_acting_reads_the_device_once_a_step():
    lanes = Lanes(np.zeros((3, SIDE, SIDE), np.uint8), EnvConfig(stack=1), PAST)
    with audited() as audit:
        net = network().to(META)
        audit.faults.clear()
        assert lanes.q_values(net, META).shape == (3, ACTIONS)
    assert [(fault.kind, fault.line.split()[-1]) for fault in audit.faults] == [
        ("read", "q_values")
    ]
