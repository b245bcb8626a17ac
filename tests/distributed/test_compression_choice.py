"""Tests that the learner's waiting time decides how frames travel."""

from collections import deque

import pytest

from genray.distributed.compression_choice import EVERY_ROUNDS, TRIAL_ROUNDS, CompressionChoice


def decided(wire: CompressionChoice, waits: dict[bool, float], rounds: int) -> list[bool]:
    """Return the settings of `rounds` rounds, two in flight, for given waiting times."""
    ways, flying = [], deque([wire.choose(), wire.choose()])
    for _ in range(rounds):
        way = flying.popleft()
        ways.append(way)
        wire.note(way, waits[way])
        flying.append(wire.choose())
    return ways


@pytest.mark.parametrize(
    ("packed_s", "plain_s", "wins"),
    [
        (0.010, 0.200, True),
        (0.020, 0.008, False),
        (0.010, 0.0095, True),
        (0.0, 0.0, True),
        (0.0011, 0.0005, True),
    ],
    ids=["slow network", "fast network", "no difference", "never waits", "too little to matter"],
)
def test_compression_choice_takes_the_shorter_wait(packed_s, plain_s, wins):
    ways = decided(CompressionChoice(), {True: packed_s, False: plain_s}, 200)
    trial = ways[: 4 * TRIAL_ROUNDS]
    assert trial.count(True) == trial.count(False)
    assert set(ways[4 * TRIAL_ROUNDS :]) == {wins}


def test_compression_choice_changes_with_the_network():
    wire = CompressionChoice()
    assert decided(wire, {True: 0.01, False: 0.2}, EVERY_ROUNDS)[-1]
    assert not decided(wire, {True: 0.02, False: 0.001}, 200)[-1]
