"""Double Q-learning's oracle: a game on which the maximum overestimates and double does not."""

import numpy as np
import torch

from tests.bench.claims.tabular import MEAN_REWARD, OPTIMAL_LEFT, Tables, choose, play

RUNS, EPISODES = 2_000, 300


def test_q_learning_overestimates_and_prefers_the_wrong_action():
    learned = play(RUNS, EPISODES, double=False)
    assert learned.value_B.max() > 0.08  # the truth is −0.1
    assert learned.left[20:60].mean() > 0.6  # as in Sutton and Barto's Figure 6.5
    assert learned.left[-50:].mean() > OPTIMAL_LEFT + 0.05


def test_double_q_learning_does_not_overestimate():
    learned = play(RUNS, EPISODES, double=True)
    assert learned.value_B.max() < 0.02  # 0 is the tables' first value
    assert learned.value_B[-50:].mean() < 0.5 * MEAN_REWARD
    assert learned.left[20:60].mean() < 0.5
    assert learned.left[-50:].mean() < OPTIMAL_LEFT + 0.05


def test_each_table_lets_the_other_value_its_choice():
    tables = Tables(1, double=True)
    tables.b_CRA[0, 0, :3] = torch.tensor([1.0, 5.0, 2.0])  # table 0 chooses action 1
    tables.b_CRA[1, 0, :3] = torch.tensor([9.0, 3.0, 7.0])  # table 1 chooses action 0
    zero, one = torch.zeros(1), torch.ones(1)
    assert tables.target_R(zero, one, own=0).item() == 3.0  # action 1 by table 1
    assert tables.target_R(zero, one, own=1).item() == 1.0  # action 0 by table 0
    assert tables.target_R(one, zero, own=0).item() == 1.0  # the end of the episode: the reward


def test_learn_changes_only_the_table_of_the_coin_and_the_runs_that_took_part():
    tables = Tables(3, double=True)
    action_R, coin_R = np.array([1, 0, 1]), np.array([0, 1, 1])
    target_CR = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    tables.learn(tables.a_CRA, action_R, target_CR, coin_R, np.array([True, True, False]))
    expected = torch.zeros(2, 3, 2)
    expected[0, 0, 1] = 0.1 * 1.0  # a tenth of the way to the target
    expected[1, 1, 0] = 0.1 * 5.0
    torch.testing.assert_close(tables.a_CRA, expected)


def test_choose_breaks_ties_evenly_and_explores():
    q_RA = np.tile([1.0, 1.0, 0.0], (20_000, 1))
    shares = np.bincount(choose(q_RA, np.random.default_rng(0)), minlength=3) / 20_000
    np.testing.assert_allclose(shares, [0.45 + 1 / 30, 0.45 + 1 / 30, 1 / 30], atol=0.015)
