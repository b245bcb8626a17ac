"""Tests `genray check-learner`: it passes, its analytic values are right, and it finds bugs that
are planted one at a time.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genray import cli
from genray.rl import collect, networks, targets
from genray.rl.learner import Learner
from genray.rl.nstep import NStep, n_step
from genray.rl.replay import ReplayShard
from genray.rl.sanity import tabular
from genray.rl.sanity.checks import CHECKS, Check
from genray.rl.sanity.run import run_check
from genray.rl.sanity.tabular import BLANK, Table

BY_NAME = {check.name: check for check in CHECKS}


def value_iteration(table: Table, gamma: float) -> dict[tuple[int, int], float]:
    """Return Q(s, a) of the best policy. A truncation does not end the return."""
    q = dict.fromkeys(table.outcomes, 0.0)
    for _ in range(100):
        best = {state: max(v for (s, _), v in q.items() if s == state) for state, _ in q}
        best[BLANK] = 0.0
        q = {
            key: sum(each.probability * (each.reward + gamma * best[each.to]) for each in outcomes)
            for key, outcomes in table.outcomes.items()
        }
    return q


@pytest.mark.parametrize(
    "check",
    [check for check in CHECKS if check.values and check.name not in ("double", "action_mask")],
    ids=lambda check: check.name,
)
def test_analytic_values_equal_value_iteration(check: Check):
    """The other checks have a target network that does not learn."""
    q = value_iteration(getattr(tabular, check.name), check.config(0, "cpu").collect.gamma)
    for value in check.values:
        assert value.expected == pytest.approx(q[value.seen[-1], value.action])


def test_tabular_env_restarts_late_and_truncates_at_its_time_limit():
    env = tabular.endings(2)
    first_EHW = env.reset(0)
    going = [state for state in (0, 1) if (first_EHW[0] == tabular.endings.observe(state)).all()]
    assert len(going) == 1
    steps = [env.step(np.zeros(2, np.int64)) for _ in range(40)]
    over = np.array([step.terminated_E | step.truncated_E for step in steps])
    rewards = np.array([step.reward_E for step in steps])
    assert (rewards[1:][over[:-1]] == 0).all() and rewards[1:][~over[:-1]].all()
    for lane in range(2):
        ends = np.flatnonzero(over[:, lane])
        truncated = np.array([step.truncated_E[lane] for step in steps])[ends]
        # An episode has 4 steps, or 3 if it terminates, and then one step restarts it.
        assert (np.diff(ends) == np.where(truncated[1:], 5, 4)).all()
        assert 0 < truncated.sum() < len(ends)
        for end, cut in zip(ends, truncated):
            last = tabular.endings.observe(0 if cut else BLANK)
            assert (steps[end].frame_EHW[lane] == last).all()


# -- planted bugs ----------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def target(change: Callable[..., torch.Tensor]) -> Plant:
    """Replace the target of double Q-learning."""
    return lambda patch: patch.setattr(targets, "double_q_target", change)


def returns(change: Callable[[NStep, dict[str, Any]], NStep]) -> Plant:
    """Change the n-step returns of collectors."""

    def changed(reward_ET, discount_ET, ends_ET, n, num_rows):
        steps = n_step(reward_ET, discount_ET, ends_ET, n, num_rows)
        rows = {"reward": reward_ET, "discount": discount_ET, "ends": ends_ET, "n": n}
        return change(steps, rows | {"num_rows": num_rows})

    return lambda patch: patch.setattr(collect, "n_step", changed)


def discount_of_one_step_less(steps: NStep, rows: dict[str, Any]) -> NStep:
    short = n_step(rows["reward"], rows["discount"], rows["ends"], rows["n"] - 1, rows["num_rows"])
    return steps._replace(discount_ET=short.discount_ET)


def cut_at_truncation(steps: NStep, rows: dict[str, Any]) -> NStep:
    count = rows["num_rows"]
    reaches = np.stack([rows["ends"][:, k : k + count] for k in range(rows["n"])]).any(0)
    return steps._replace(discount_ET=steps.discount_ET * ~reaches)


def reward_of_the_next_row(steps: NStep, rows: dict[str, Any]) -> NStep:
    later = np.roll(rows["reward"], -1, axis=1)
    return n_step(later, rows["discount"], rows["ends"], rows["n"], rows["num_rows"])


def q_of_another_action(q_BA, action_B, target_B):
    other_B1 = (action_B.long().unsqueeze(1) + 1) % q_BA.shape[1]
    return target_B.detach() - q_BA.gather(1, other_B1).squeeze(1)


def next_observation_of_one_row_before(patch: pytest.MonkeyPatch) -> None:
    draw = ReplayShard._draw

    def early(self, *arguments):
        places = draw(self, *arguments)
        return places._replace(horizon_B=np.maximum(places.horizon_B, 1) - 1)

    patch.setattr(ReplayShard, "_draw", early)


def newest_frame_first(patch: pytest.MonkeyPatch) -> None:
    sample = ReplayShard.sample

    def reversed_stacks(self, count, out=None, **options):
        drawn = sample(self, count, out, **options)
        for stack_BSHW in (drawn.obs_BSHW, drawn.next_obs_BSHW):
            stack_BSHW[:] = stack_BSHW[:, ::-1].copy()
        return drawn

    patch.setattr(ReplayShard, "sample", reversed_stacks)


def target_network_never_copied(patch: pytest.MonkeyPatch) -> None:
    begin = Learner.begin

    def without_copy(self, *arguments):
        self.target.load_state_dict = lambda state: None
        begin(self, *arguments)

    patch.setattr(Learner, "begin", without_copy)


weights = targets.importance_weights
BUGS: dict[str, tuple[str, Plant]] = {
    "no discount": (
        "discount",
        target(lambda r, d, w, v: targets_of(r, (d > 0).float(), w, v)),
    ),
    "discount of n − 1 steps": ("delayed_credit", returns(discount_of_one_step_less)),
    "bootstrap after a termination": (
        "endings",
        target(lambda r, d, w, v: targets_of(r, d.clamp(min=0.7**2), w, v)),
    ),
    "no bootstrap after a truncation": ("endings", returns(cut_at_truncation)),
    "sign of the bootstrap": (
        "one_step_credit",
        target(lambda r, d, w, v: targets_of(r, -d, w, v)),
    ),
    "Q-value of another action": (
        "bandit",
        lambda patch: patch.setattr(targets, "td_error", q_of_another_action),
    ),
    "maximum of the target network": (
        "double",
        target(lambda r, d, w, v: targets.q_learning_target(r, d, v)),
    ),
    "value by the online network": (
        "double",
        target(lambda r, d, w, v: targets_of(r, d, w, w)),
    ),
    "importance weights inverted": (
        "stochastic_reward",
        lambda patch: patch.setattr(
            targets, "importance_weights", lambda p, size, beta: weights(p, size, -beta)
        ),
    ),
    "no importance weights": (
        "stochastic_reward",
        lambda patch: patch.setattr(
            targets, "importance_weights", lambda p, size, beta: weights(p, size, 0.0)
        ),
    ),
    "priorities not updated": (
        "priorities",
        lambda patch: patch.setattr(ReplayShard, "update", lambda self, key_B, delta_B: None),
    ),
    "reward of the next row": ("delayed_credit", returns(reward_of_the_next_row)),
    "rewards clipped": (
        "squared_rewards",
        lambda patch: patch.setattr(
            collect.Collector, "_clip", lambda self, reward_E: np.clip(reward_E, -1, 1)
        ),
    ),
    "next value not unrescaled": (
        "squared_rewards",
        lambda patch: patch.setattr(targets, "unrescaled", lambda value: value),
    ),
    "next observation one row early": ("one_step_credit", next_observation_of_one_row_before),
    "newest frame first": ("frame_stack", newest_frame_first),
    "target network never copied": ("delayed_credit", target_network_never_copied),
    "illegal action in the target": (
        "action_mask",
        lambda patch: patch.setattr(targets, "legal_only", lambda q_BA, legal_BA: q_BA),
    ),
    "illegal action in the mean": (
        "action_mask",
        lambda patch: patch.setattr(
            networks,
            "_mean_of_legal",
            lambda advantage_BA, legal_BA: advantage_BA.mean(1, keepdim=True),
        ),
    ),
    "illegal action played": (
        "action_mask",
        lambda patch: patch.setattr(collect.Lanes, "legal_EA", None),
    ),
}
targets_of = targets.double_q_target


@pytest.mark.learn
@pytest.mark.parametrize("bug", BUGS)
def test_check_learner_finds_a_planted_bug(bug: str, monkeypatch: pytest.MonkeyPatch):
    name, plant = BUGS[bug]
    plant(monkeypatch)
    result = run_check(BY_NAME[name])
    assert not result.passed, [tuple(each) for each in result.measured]
    assert bool(result.fault) == (bug == "illegal action played"), result.fault


def test_check_learner_reports_each_value(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["check-learner", "--only", "double"]) == 0
    out = capsys.readouterr().out
    assert out.count("ok\n") == 4 and "all 1 checks passed" in out


@pytest.mark.learn
def test_check_learner_passes_with_another_seed(capsys: pytest.CaptureFixture[str]):
    status = cli.main(["check-learner", "--seed", "1"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert f"all {len(CHECKS)} checks passed" in out and len(CHECKS) >= 10


def test_check_learner_fails_with_status_1_and_says_what_to_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    _, plant = BUGS["illegal action played"]
    plant(monkeypatch)
    assert cli.main(["check-learner", "--only", "action_mask"]) == 1
    out = capsys.readouterr().out
    assert "check illegal actions" in out and "1 of 1 checks failed: action_mask" in out


def test_a_value_that_is_not_a_number_fails():
    result = run_check(replace(BY_NAME["double"], tolerance=float("nan")))
    assert not result.passed


def test_check_learner_refuses_an_unknown_check(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["check-learner", "--only", "bandits"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--only bandits: no such check; there are bandit, " in err
