"""Tests what `genray train dqn` prints of the replay of an environment other than Atari."""

from dataclasses import replace

import numpy as np

from genray.commands.train_dqn import storage_note
from genray.rl import DQNConfig, presets
from genray.rl.replay import ReplayShard


def test_storage_note_states_the_bytes_that_a_shard_takes():
    config = presets.cartpole()
    assert storage_note(config) == [
        "replay: 37 bytes for each transition, 16 of them its observation; 36,000 transitions: "
        "1.3 MB"
    ]
    [layout] = config.plan_shards((1, 16))
    taken = ReplayShard(config.replay, layout).nbytes / (layout.lanes * layout.rows)
    np.testing.assert_allclose(taken, 37, atol=0.5)
    packed = replace(config, replay=replace(config.replay, replay_store="lz4"))
    assert storage_note(packed)[0].endswith("MB, before compression")
    assert storage_note(DQNConfig()) == [], "the options of Atari state 7,077 bytes"
