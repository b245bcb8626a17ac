"""Tests cut episodes, a stop during an evaluation, and an evaluation's report."""

import pytest

from genray.rl.env import EnvConfig
from genray.rl.evaluate import play_out, random_play
from genray.rl.evaluation import Evaluation, EvaluationProgress, EvaluationStopped, format_duration
from genray.rl.scores import human_normalised

CATCH = EnvConfig(env="genray.rl.catch:Catch")  # 11 steps an episode


def hold(lanes, playing_E):
    return playing_E.astype(int)


def pong(**changes) -> Evaluation:
    values = dict(
        game="pong",
        scores=[3.0],
        steps=[10],
        epsilon=0.0,
        sticky_actions=0.0,
        noop_max=30,
        max_episode_frames=108_000,
    )
    return Evaluation(**{**values, **changes})  # type: ignore[arg-type]


def test_human_normalised_is_of_whole_episodes_only():
    """Pong cut at 400 frames scores about −2, which would mean half of the human score."""
    result = random_play(EnvConfig(game="pong", max_episode_frames=400), episodes=2)
    assert result.num_cut == 2 and result.human_normalised is None
    assert "; not human-normalised, which needs whole episodes\n2 episodes of" in result.summary()
    assert "2 of them cut, ε 1" in result.summary() and "%" not in result.summary().replace(
        "(95%)", ""
    )
    assert result.to_dict()["human_normalised"] is None and result.to_dict()["cut_episodes"] == 2


def test_human_normalised_allows_the_cut_of_the_published_protocol():
    whole = human_normalised("pong", 3.0)
    assert pong().human_normalised == pong(num_cut=1).human_normalised == whole
    assert (
        pong(num_cut=0, max_episode_frames=400).human_normalised == whole
    )  # the episode ended by itself
    assert pong(num_cut=1, max_episode_frames=400).human_normalised is None
    assert pong(num_cut=1, stopped=True).human_normalised is None


def test_evaluation_stopped_keeps_what_was_measured():
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 15:  # 11 steps of the first group of lanes, and 4 of the second
            raise KeyboardInterrupt

    progress = EvaluationProgress(CATCH, lambda line: None, check)
    with pytest.raises(EvaluationStopped) as stopped:
        play_out(hold, CATCH, episodes=100, epsilon=0, seed=0, progress=progress)
    result = stopped.value.result
    assert result.steps == [11] * 50 + [4] * 50 and result.stopped and result.num_cut == 50
    assert set(result.scores[:50]) <= {-1.0, 1.0} and result.scores[50:] == [0.0] * 50
    assert "100 episodes of 8 steps, 50 of them cut by the stop" in result.summary()


def test_evaluation_progress_says_how_long_it_can_take():
    lines: list[str] = []
    config = EnvConfig(env=CATCH.env, max_episode_frames=400)
    progress = EvaluationProgress(config, lines.append, every_s=0.0)
    play_out(hold, config, episodes=100, epsilon=0, seed=0, progress=progress)
    assert len(lines) == 20  # after every step but the first and the last
    assert lines[0].startswith(
        "evaluating: 0 of 100 episodes have ended after 2 steps in 0 s; at most "
    )
    assert lines[10].startswith("evaluating: 50 of 100 episodes have ended after 12 steps")


def test_evaluation_progress_estimates_from_the_limit(monkeypatch: pytest.MonkeyPatch):
    """There are two groups of at most 100 steps. The first step starts the games, and is no
    measure. 9 more took 18 s, so the other 190 take at most 380 s.
    """
    clock = iter([0.0, *[5.0] * 9, 23.0])
    monkeypatch.setattr("genray.rl.evaluation.time.monotonic", lambda: next(clock))
    lines: list[str] = []
    progress = EvaluationProgress(EnvConfig(env=CATCH.env, max_episode_frames=400), lines.append)
    for _ in range(10):
        progress(0, 100)
    assert lines == [
        "evaluating: 0 of 100 episodes have ended after 10 steps in 18 s; at most 6 min more"
    ]
    assert [format_duration(seconds) for seconds in (89, 90, 7200)] == ["89 s", "2 min", "2.0 h"]
