"""Defines the checks of `genray check-learner`: settings, and the values that a learner must find.

Every check trains `LocalAgent` with random actions on a table of `tabular`, and compares the
learned values with values that follow from the table by hand. γ is the discount factor.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch

from genray.rl.agent import LocalAgent
from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig
from genray.rl.sanity import tabular
from genray.rl.sanity.tabular import BANDIT_REWARDS, BLANK, DOUBLE_REWARDS, SQUARES, Table
from genray.rl.targets import unrescaled

GAMMA = 0.8
"""γ of the checks that do not say otherwise."""


class Value(NamedTuple):
    """A Q-value that the learner must find."""

    label: str
    seen: tuple[int, ...]
    """The states of the observation's frames, oldest first."""
    action: int
    expected: float


class Measured(NamedTuple):
    """A value beside what was learned."""

    label: str
    expected: float
    learned: float


def q_value(network: QNetwork, table: Table, seen: tuple[int, ...], action: int) -> float:
    """Return the learned Q-value of an action after observations of the states `seen`."""
    stack_1SHW = torch.from_numpy(np.stack([table.observe(state) for state in seen])[None])
    with torch.inference_mode():
        q_A = network(stack_1SHW)[0]
    # A network with value rescaling computes h(Q).
    return float((unrescaled(q_A) if network.config.value_rescaling else q_A)[action])


@dataclass(frozen=True)
class Check:
    """One environment, and what a learner must find in it."""

    name: str
    finds: str
    """What may be wrong if the check fails."""
    values: tuple[Value, ...] = ()
    tolerance: float = 0.08
    """Largest allowed difference, relative to the largest expected value or 1, if that is more."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Part of `DQNConfig` -> its options that differ from `base_config`."""
    prepare: Callable[[LocalAgent], None] = lambda agent: None
    """Called before training."""
    measure: Callable[[LocalAgent], tuple[Measured, ...]] | None = None
    """Measures something else than Q-values, after training."""

    def config(self, seed: int, device: str) -> DQNConfig:
        """Return the configuration of the training."""
        config = base_config(self.name, seed, device)
        parts = {
            name: replace(getattr(config, name), **values) for name, values in self.options.items()
        }
        return replace(config, **parts)

    def measured(self, agent: LocalAgent) -> tuple[Measured, ...]:
        """Return the learned values beside the expected ones."""
        if self.measure is not None:
            return self.measure(agent)
        network, table = agent.network(), getattr(tabular, self.name)
        return tuple(
            Measured(value.label, value.expected, q_value(network, table, value.seen, value.action))
            for value in self.values
        )


def base_config(name: str, seed: int, device: str) -> DQNConfig:
    """Return the settings of all checks: double, dueling and prioritized DQN with a small network,
    and random actions. 768 rows are 384 to 650 transitions, because a row that restarts a lane is
    none, and 230 to 320 updates.
    """
    return DQNConfig(
        env=EnvConfig(env=f"genray.rl.sanity.tabular:{name}", stack=1),
        network=NetworkConfig(channels=(8, 8, 8), hidden=32),
        # The last rows overwrite the first ones. β = 1 makes prioritized sampling unbiased.
        replay=ReplayConfig(
            capacity=640, min_size=200, samples_per_insert=24.0, beta=1.0, beta_end=1.0
        ),
        learner=LearnerConfig(
            loss="squared",
            learning_rate=3e-3,
            learning_rate_end=3e-4,
            learning_rate_fall=(150, 250),
            optimizer_epsilon=1e-8,
            target_period_updates=20,
            average_updates=50,
        ),
        explore=ExploreConfig(exploration="shared", epsilon=1.0),
        collect=CollectConfig(
            collectors=1,
            envs_per_collector=8,
            chunk_rows=8,
            n_step=1,
            gamma=GAMMA,
            reward_clip="none",
        ),
        run=RunConfig(steps=768, seed=seed, device=device),  # type: ignore[arg-type]
    )


TARGET_BIAS = (2.0, -0.5, 1.0)
"""Advantages that the fixed target network of `double` and `action_mask` gives in every state. In
`double`, which is not dueling, they are its Q-values.
"""


def fix_target(agent: LocalAgent) -> None:
    """Make the target network give the advantages `TARGET_BIAS` for every observation."""
    with torch.no_grad():
        for weight in agent.learner.target.parameters():
            weight.zero_()
        agent.learner.target.advantage[-1].bias.copy_(torch.tensor(TARGET_BIAS))  # type: ignore


def share_of_uncertain(agent: LocalAgent) -> tuple[Measured, ...]:
    """Measure how often the uncertain reward of `priorities` is drawn.

    With α = 1, a transition is drawn in proportion to |δ|, which is 0 for the certain reward and 1
    for the uncertain one.
    """
    draws = agent.shards[0].sample(512)
    uncertain_HW = tabular.priorities.observe(1)
    share = np.mean([np.array_equal(obs_SHW[-1], uncertain_HW) for obs_SHW in draws.obs_BSHW])
    return (Measured("share of draws of the uncertain reward", 1.0, float(share)),)


CHECKS = (
    Check(
        "bandit",
        "the action or the reward of a transition",
        tuple(
            Value(f"state {state}, action {action}", (state,), action, reward)
            for state, rewards in enumerate(BANDIT_REWARDS)
            for action, reward in enumerate(rewards)
        ),
        # Only half of the rows are transitions.
        options={"replay": {"samples_per_insert": 44.0}},
    ),
    Check(
        "one_step_credit",
        "the next observation, the bootstrap or its sign",
        tuple(
            Value(f"first step, action {action}", (0,), action, GAMMA * reward)
            for action, reward in enumerate((1.0, 0.0, -1.0))
        ),
    ),
    Check(
        "delayed_credit",
        "n-step returns (n = 3) or copies to the target network",
        (
            Value("the way to +1", (0,), 0, GAMMA**4),
            Value("the way to −1", (0,), 1, -(GAMMA**4)),
            Value("2 steps before +1", (3,), 0, GAMMA),
        ),
        options={"collect": {"n_step": 3}},
    ),
    Check(
        "stochastic_reward",
        "importance weights: prioritized sampling is biased without them",
        (Value("+1 with 75%", (0,), 0, 0.5), Value("+1 with 25%", (0,), 1, -0.5)),
        tolerance=0.15,
        options={
            "replay": {"alpha": 1.0, "capacity": 1600, "samples_per_insert": 10.0},
            "run": {"steps": 1600},
        },
    ),
    Check(
        "endings",
        "termination (no value follows) or truncation (the value goes on)",
        (
            Value("truncated", (0,), 0, 1 / (1 - 0.7)),
            Value("3 steps before a termination", (1,), 0, 1 + 0.7 + 0.7**2),
            Value("1 step before a termination", (3,), 0, 1.0),
        ),
        options={"collect": {"gamma": 0.7, "n_step": 2}},
    ),
    Check(
        "discount",
        "γ",
        (
            Value("1 at the second step", (0,), 0, GAMMA),
            Value("1.5 at the fifth step", (0,), 1, 1.5 * GAMMA**4),
        ),
    ),
    Check(
        "squared_rewards",
        "clipped or scaled rewards, or value rescaling",
        (
            Value(
                "before 1, 4, 9", (0,), 0, SQUARES[0] + GAMMA * (SQUARES[1] + GAMMA * SQUARES[2])
            ),
            Value("before 4, 9", (1,), 0, SQUARES[1] + GAMMA * SQUARES[2]),
            Value("before 9", (2,), 0, SQUARES[2]),
        ),
        options={"network": {"value_rescaling": True}},
    ),
    Check(
        "double",
        "the action of the target: w chooses it, and w⁻ gives its value",
        (
            Value("first step", (0,), 0, GAMMA * TARGET_BIAS[int(np.argmax(DOUBLE_REWARDS))]),
            *(
                Value(f"second step, action {action}", (1,), action, reward)
                for action, reward in enumerate(DOUBLE_REWARDS)
            ),
        ),
        options={
            "network": {"dueling": False},
            "learner": {"target_period_updates": 10**9},
        },
        prepare=fix_target,
    ),
    Check(
        "priorities",
        "priorities that are not updated",
        tolerance=0.15,
        # 300 transitions are collected before the first update; every second row restarts a lane.
        # 704 rows are 352 transitions, so 52 · 100 / 32 = 162 updates follow.
        options={
            "replay": {"alpha": 1.0, "min_size": 300, "samples_per_insert": 100.0},
            "run": {"steps": 704},
        },
        measure=share_of_uncertain,
    ),
    Check(
        "frame_stack",
        "the frames of an observation and their order",
        (
            Value("first step of the way to +1", (BLANK, 0), 0, GAMMA),
            Value("first step of the way to −1", (BLANK, 1), 0, -GAMMA),
            Value("second step of the way to +1", (0, 2), 0, 1.0),
            Value("second step of the way to −1", (1, 3), 0, -1.0),
        ),
        options={"env": {"stack": 2}},
    ),
    Check(
        "action_mask",
        "illegal actions: they are neither played nor enter a target",
        (
            # Only the legal actions 1 and 2 enter the mean advantage and the maximum.
            Value("first step", (0,), 0, GAMMA * (max(TARGET_BIAS[1:]) - fmean(TARGET_BIAS[1:]))),
            Value("second step, action 1", (1,), 1, 1.0),
            Value("second step, action 2", (1,), 2, 0.5),
        ),
        options={
            "learner": {"target_period_updates": 10**9, "double": False},
        },
        prepare=fix_target,
    ),
)
