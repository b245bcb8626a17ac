"""Tests what is read from the runs of `bench_claims`, on runs made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.bench.claims import report
from tests.bench.claims.run import train
from tests.bench.claims.tabular import play
from tests.bench.claims.variants import EPISODE_STEPS, TASKS, VARIANTS, ShortCatch, configure


def points(*values: tuple[int, float, float, float]) -> list[dict]:
    return [dict(zip(("updates", "score", "q", "realised"), value)) for value in values]


RUN = points((10, 0.0, 3.0, 0.5), (20, 0.95, 2.0, 0.5), (30, 0.5, 1.5, 1.0), (40, 1.0, 1.0, 0.75))
OTHER = points((10, 0.0, 0.0, 0.5), (20, 0.1, 0.0, 0.5), (30, 0.2, 0.0, 0.5), (40, 0.3, 0.0, 0.5))


def test_figures_by_hand():
    assert report.final_score(RUN) == pytest.approx((0.95 + 0.5 + 1.0) / 3)
    assert report.updates_to(RUN, 0.9) == 20 and report.updates_to(OTHER, 0.9) is None
    assert report.overestimation(RUN) == pytest.approx((0.5 + 0.25) / 2)  # the second half


def test_rows_compare_with_vanilla():
    vanilla, double = report.rows("catch", {"vanilla": [OTHER, OTHER], "double": [RUN, OTHER]})
    assert vanilla[3] == vanilla[5] == vanilla[7] == "–" and vanilla[4] == "∞ (2 missed)"
    assert double[3].startswith("0.75 ")  # RUN scores more than both, OTHER ties with both
    assert double[4] == "∞ (1 missed)" and double[5].startswith("0.75 ")
    assert double[7].startswith("0.25 ")  # OTHER's error is −0.5, RUN's is positive: worse


def test_pictures_are_drawn(tmp_path: Path):
    runs = {"catch": {"vanilla": [RUN, OTHER], "double": [OTHER, RUN]}}
    report.draw_values(tmp_path / "values.png", runs)
    report.draw_scores(tmp_path / "scores.png", runs)
    tables = (play(10, 5, double=chosen) for chosen in (False, True))
    report.draw_tabular(tmp_path / "tabular.png", *tables)
    assert all(path.stat().st_size > 5_000 for path in tmp_path.iterdir())


@pytest.mark.parametrize("task", TASKS)
def test_variants_differ_in_their_switches_only(task: str):
    vanilla = configure(task, "vanilla", 1)
    for variant, (double, prioritized, dueling) in VARIANTS.items():
        config = configure(task, variant, 1)
        assert (config.learner.double, config.replay.prioritized, config.network.dueling) == (
            double, prioritized, dueling,
        )  # fmt: skip
        same = replace(
            config,
            learner=replace(config.learner, double=False),
            replay=replace(config.replay, prioritized=False),
            network=replace(config.network, dueling=False),
        )
        assert same == vanilla
        config.validate()


def test_a_run_measures_at_the_same_updates_for_every_variant():
    found = {variant: train("catch", variant, 0, 600, 300) for variant in ("vanilla", "all")}
    updates = {variant: [point["updates"] for point in one] for variant, one in found.items()}
    assert updates["vanilla"] == updates["all"] and updates["all"][1] > 0
    assert all(point["states"] == 128 * EPISODE_STEPS for point in found["all"])


def test_every_ball_of_short_catch_can_be_caught():
    """A player that moves towards the ball catches every ball, in EPISODE_STEPS steps."""
    env = ShortCatch(num_lanes=200)
    frame_EHW = env.reset(0)
    for step in range(EPISODE_STEPS):
        assert frame_EHW.shape == (200, 36, 36) and set(np.unique(frame_EHW)) <= {0, 128, 255}
        towards_E = np.sign(env._column_E - env._paddle_E) + 1
        frame_EHW, reward_E, terminated_E, _, _ = env.step(towards_E)
        assert terminated_E.all() == (step == EPISODE_STEPS - 1)
    assert (reward_E == 1).all()
