"""Tests the storage of observations other than frames: what is stored, drawn and shown to the
network equals what the environment returned.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genray.errors import ConfigError
from genray.rl.agent import LocalAgent
from genray.rl.building import build_network
from genray.rl.collect import CollectConfig, Collector
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.engine import Interface, network_card, probe_env
from genray.rl.env import EnvConfig
from genray.rl.env_gym import GymLanes
from genray.rl.env_spaces import describe, find
from genray.rl.exploration import ExploreConfig
from genray.rl.frame_store import make_store, unpack
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.observation import Field, Observation
from genray.rl.record_encoder import RecordEncoder
from genray.rl.replay import ReplayConfig, ReplayShard, plan_shards
from tests.helpers.records import OBSERVATION
from tests.oracles import full_state

LANES, ROWS = 2, 40
SMALL = NetworkConfig(channels=(2, 2, 2), hidden=4)

# --- stored rows ----------------------------------------------------------------------------------

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
dtypes = st.sampled_from(
    ["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint16", "bool"]
)
sides, channels = st.integers(4, 9), st.integers(1, 3)
counts, starts = st.integers(1, 300), st.integers(-3, 3)


def box(shape: tuple[int, ...], kind: str) -> spaces.Box:
    if kind == "bool":
        return spaces.Box(0, 1, shape, np.bool_)
    whole = np.issubdtype(np.dtype(kind), np.integer)
    low = np.iinfo(kind).min if whole else -100
    high = np.iinfo(kind).max if whole else 100
    return spaces.Box(low, high, shape, np.dtype(kind).type)


leaves = st.one_of(
    st.builds(box, shapes, dtypes),
    st.builds(lambda h, w, c: box((h, w, c), "uint8"), sides, sides, channels),
    st.builds(lambda c, h, w: box((c, h, w), "float32"), channels, sides, sides),
    st.builds(lambda h, w: box((h, w), "uint8"), sides, sides),
    st.builds(lambda n, start: spaces.Discrete(n, start=start), counts, starts),
    st.builds(spaces.MultiDiscrete, st.lists(counts, min_size=1, max_size=3)),
    st.builds(spaces.MultiBinary, st.integers(1, 5)),
)
all_spaces = st.one_of(
    leaves,
    st.dictionaries(st.sampled_from(["a", "b", "b.c"]), leaves, min_size=1).map(spaces.Dict),
    st.lists(leaves, min_size=1, max_size=3).map(spaces.Tuple),
)


class Scripted(gymnasium.Env):
    """Returns random observations, ends at random, and remembers (observation, end, start)."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: gymnasium.Space, seed: int, log: list[tuple[Any, bool, bool]]):
        self.observation_space, self._log = space, log
        space.seed(seed)
        self._rng = np.random.default_rng(seed)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._log.clear()  # a run begins
        return self._observe(False, True), {}

    def step(self, action):
        terminated, truncated = self._rng.random(2) < 0.15
        over = bool(terminated or truncated)
        return self._observe(over, False), 0.0, bool(terminated), over and not terminated, {}

    def _observe(self, over: bool, begins: bool) -> Any:
        self._log.append((self.observation_space.sample(), over, begins))
        return self._log[-1][0]


def shown(log: list[tuple[Any, bool, bool]], hides: bool) -> list[Any]:
    """Return the observations that lanes show. If the first action of an episode is hidden, its
    first observation is not shown, and neither is the last one of an episode of one step.
    """
    rows: list[Any] = []
    hidden = False
    for number, (obs, over, begins) in enumerate(log):
        if hides and begins and number and not hidden:
            hidden = True
        elif not (hidden and over):
            rows.append(obs)
            hidden = False
    return rows


def collector_of(env: Any, n_step: int = 3, chunk_rows: int = 7) -> Collector:
    config = CollectConfig(
        collectors=1, envs_per_collector=LANES, chunk_rows=chunk_rows, n_step=n_step
    )
    network = QNetwork(SMALL, env.num_actions, 1, env.frame_shape, env.observation)
    return Collector(env, network, EnvConfig(stack=1), config, ExploreConfig())


def shard_of(env: Any, store: str = "raw", stack: int = 1, n_step: int = 3) -> ReplayShard:
    replay = ReplayConfig(capacity=LANES * ROWS, replay_store=store)  # type: ignore[arg-type]
    [layout] = plan_shards(
        replay, collectors=1, lanes=LANES, frame_shape=env.frame_shape, stack=stack,
        stack_start="blank", past_actions=0, n_step=n_step, chunk_rows=7,
    )  # fmt: skip
    return ReplayShard(replay, layout)


def assert_equal(field: Field, stored: np.ndarray, returned: Any) -> None:
    """Check a stored array against the one in the observation that the environment returned."""
    original = np.asarray(find(returned, field.name))
    if field.kind == "classes":
        stored = stored.astype(np.int64) + np.array([start for start, _ in field.classes]).reshape(
            field.shape
        )
    else:
        assert stored.dtype == original.dtype
    np.testing.assert_array_equal(stored, original)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    space=all_spaces,
    seed=st.integers(0, 1000),
    mode=st.sampled_from([AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]),
    foreign=st.booleans(),
    chunks=st.integers(1, 14),
    store=st.sampled_from(["raw", "lz4"]),
)
def test_every_stored_observation_is_what_the_environment_returned(
    space, seed, mode, foreign, chunks, store
):
    """For spaces drawn at random, round the ring several times (98 rows in 40 slots), with
    terminations and truncations: each lane's rows are its environment's observations in order,
    each once. In a foreign vector environment, the mode cannot be changed. Drawn observations,
    current and next, are the rows that their keys name.
    """
    logs: list[list[tuple[Any, bool, bool]]] = [[] for _ in range(LANES)]
    vector = SyncVectorEnv(
        [partial(Scripted, space, seed + lane, log) for lane, log in enumerate(logs)],
        autoreset_mode=mode,
    )
    env = GymLanes("scripted", VectorWrapper(vector) if foreign else vector, LANES)
    collector, shard = collector_of(env), shard_of(env, store)
    for _ in range(chunks):
        shard.add(collector.collect()[0])
    num_rows = 7 * chunks
    rows = [shown(log, foreign and mode == AutoresetMode.SAME_STEP) for log in logs]
    assert [len(each) for each in rows] == [num_rows + 1] * LANES
    if shard.size == 0:
        return
    sample = shard.sample(16)
    for draw in range(16):
        row, lane = divmod(int(sample.key_B[draw]), LANES)
        for record_SHW, at in (
            (sample.obs_BSHW[draw], row),
            (sample.next_obs_BSHW[draw], row + int(shard._horizon_LC[lane, row % ROWS])),
        ):
            arrays = env.observation.unpack(record_SHW[0, 0])
            for field in env.observation.fields:
                assert_equal(field, arrays[field.name], rows[lane][at])
    if store == "raw":
        for lane in range(LANES):
            for row in range(max(0, num_rows - ROWS), num_rows):
                arrays = env.observation.unpack(shard.frame_LCP[lane, row % ROWS])
                for field in env.observation.fields:
                    assert_equal(field, arrays[field.name], rows[lane][row])


def test_bytes_of_a_row_are_those_of_its_arrays():
    assert probe_env(EnvConfig(env="CartPole-v1")).frame_shape == (1, 4 * 4)
    assert OBSERVATION.nbytes == 2 * 8 + 1 + 3
    shard = shard_of(GymLanes("cartpole", SyncVectorEnv([cartpole] * LANES), LANES))
    rows = LANES * ROWS
    assert shard.nbytes <= rows * (16 + 21 + 3) + 1000, "16 bytes and the 21 of every transition"


def cartpole() -> gymnasium.Env:
    return gymnasium.make("CartPole-v1")


def test_sliced_and_compressed_records_are_the_same_as_raw_ones():
    """As a learner on another host gets them."""
    env = GymLanes("cartpole", SyncVectorEnv([cartpole] * LANES), LANES)
    collector = collector_of(env)
    raw, lz4 = shard_of(env, "raw"), shard_of(env, "lz4")
    for _ in range(9):
        chunk = collector.collect()[0]
        raw.add(chunk)
        lz4.add(chunk)
    np.testing.assert_array_equal(lz4.sample(32).obs_BSHW, raw.sample(32).obs_BSHW)
    for packed in (True, False):
        state = raw._rng.bit_generator.state
        wanted = raw.sample(32)
        raw._rng.bit_generator.state = state
        sliced = raw.sample_slices(32, packed=packed)
        out = replace(wanted, obs_BSHW=wanted.obs_BSHW * 0, next_obs_BSHW=wanted.obs_BSHW * 0)
        unpack(sliced, raw.layout, out)
        np.testing.assert_array_equal(out.obs_BSHW, wanted.obs_BSHW)
        np.testing.assert_array_equal(out.next_obs_BSHW, wanted.next_obs_BSHW)
    assert make_store("lz4", 1, 4, 1).nbytes > 0, "a record may have a single byte"


# --- what the network gets ------------------------------------------------------------------------


def encoder_of(space: gymnasium.Space, stack: int = 1, **options: Any) -> RecordEncoder:
    observation = Observation(fields=tuple(describe("x", space, 2)))
    return RecordEncoder(NetworkConfig(channels=(4, 4, 4), hidden=8, **options), observation, stack)


def test_vectors_and_classes_reach_the_network_as_numbers():
    encoder = encoder_of(
        spaces.Dict(
            a=spaces.Box(-9, 9, (2,), np.float64),
            b=spaces.Box(-9, 9, (1,), np.int16),
            c=spaces.MultiDiscrete([2, 3], start=[5, 0]),
            d=spaces.Box(0, 1, (2,), np.bool_),
        )
    )
    record = encoder._observation.pack(
        {
            "a": np.array([[0.5, -2.0]]), "b": np.array([[-7]]), "c": np.array([[1, 2]]),
            "d": np.array([[True, False]]),
        }
    )  # fmt: skip
    stacked = torch.from_numpy(np.stack([record * 0 + 1, record], axis=1))  # the newest row counts
    assert encoder.vectors(stacked).tolist() == [[0.5, -2, -7, 0, 1, 0, 0, 1, 1, 0]]


@pytest.mark.parametrize("channels", ["first", "last", "none"])
def test_images_reach_the_network_scaled_and_stacked(channels: str):
    """3x5 pixels with 2 channels, not square: the newest image is the last of the stack."""
    rng = np.random.default_rng(0)
    image_SCHW = rng.integers(0, 11, (2, 1 if channels == "none" else 2, 3, 5)).astype(np.uint8)
    given = {
        "first": image_SCHW,
        "last": image_SCHW.transpose(0, 2, 3, 1),
        "none": image_SCHW[:, 0],
    }
    space = spaces.Box(0, 10, given[channels].shape[1:], np.uint8)
    encoder = encoder_of(space, stack=2, input_gain=2.0)
    [field] = encoder._observation.fields
    assert field.kind == "image" and field.channels == channels.replace("none", "")
    rows = np.concatenate([encoder._observation.pack({"": one[None]}) for one in given[channels]])
    seen = encoder._image(encoder._array(torch.from_numpy(rows[None]), field), field)
    np.testing.assert_allclose(seen[0].numpy(), image_SCHW.reshape(-1, 3, 5) / 5, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "encoder", "largest"),
    [
        ((3, 3, 1), "nature", 4 * 3 * 3),
        ((10, 10, 16), "nature", 4 * 10 * 10),
        ((7, 30, 3), "nature", 4 * 12 * 12),
        ((36, 36, 3), "nature", 4 * 12 * 12),
        ((84, 84, 3), "impala", 32 * 12 * 12),
        ((240, 320, 3), "nature", 4 * 12 * 12),
        ((40, 200, 1), "der", 64 * 12 * 12),
    ],
)
def test_convolutions_suit_images_of_any_size(shape, encoder: str, largest: int):
    network = encoder_of(spaces.Box(0, 255, shape, np.uint8), encoder=encoder)
    assert 0 < network.features <= largest
    record = torch.zeros(2, 1, 1, int(np.prod(shape)), dtype=torch.uint8)
    features = network(record)
    features.sum().backward()
    assert features.shape == (2, network.features)


def test_running_normalisation_is_the_mean_and_deviation_of_all_batches():
    encoder = encoder_of(spaces.Box(-np.inf, np.inf, (3,), np.float32), normalise=True)
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(90, 3)) * [1, 5, 0] + [100, -3, 7]).astype(np.float32)
    rows = torch.from_numpy(encoder._observation.pack({"": vectors}))[:, None]
    assert torch.equal(
        encoder._normalised(encoder.vectors(rows)), encoder.vectors(rows).clamp(-10, 10)
    )
    for part in rows.split([10, 50, 30]):
        encoder.observe(part)
    normalised = encoder._normalised(encoder.vectors(rows)).numpy()
    expected = (vectors - vectors.mean(0)) / np.where(vectors.std(0) > 0, vectors.std(0), 1)
    np.testing.assert_allclose(normalised, expected, atol=1e-4)


# --- runs -----------------------------------------------------------------------------------------

LADDER = DQNConfig(
    env=EnvConfig(env="tests.helpers.records:Ladder"),
    network=NetworkConfig(hidden=16, past_actions=2, normalise=True),
    replay=ReplayConfig(
        capacity=400, shards=2, min_size=100, samples_per_insert=2.0, beta_anneal_updates=50
    ),
    learner=LearnerConfig(batch_size=16, learning_rate=1e-3, target_period_updates=20),
    explore=ExploreConfig(anneal_steps=600, persistence=2.0),
    collect=CollectConfig(collectors=2, envs_per_collector=4, chunk_rows=10),
    run=RunConfig(device="cpu", seed=5),
)


def advance(agent: LocalAgent, steps: int) -> None:
    while agent.steps < steps:
        agent.advance(steps, seconds=60)


def test_a_resumed_run_on_vectors_equals_an_uninterrupted_one(tmp_path: Path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = LocalAgent(LADDER)
        advance(whole, 400)
        whole.save(tmp_path)
        advance(whole, 800)
        resumed = LocalAgent(LADDER)
        assert resumed.load(tmp_path), "its episodes continue"
        advance(resumed, 800)
    finally:
        torch.set_num_threads(threads)
    one, other = full_state(whole), full_state(resumed)
    assert one.keys() == other.keys() and whole.learner.updates > 50
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert any("mean_D" in name for name in one), "the normalisation is part of the state"


def test_records_on_the_learner_s_device_give_the_same_run():
    states = []
    for place in ("host", "device"):
        config = replace(LADDER, learner=replace(LADDER.learner, frames_on=place))
        agent = LocalAgent(config)
        advance(agent, 400)
        states.append(agent.learner.online.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(*(each.values() for each in states)))


def test_the_card_describes_the_whole_network():
    card = network_card(LADDER, *probe_env(LADDER.env))
    network, again = build_network(card), build_network(card)
    again.load_state_dict(network.state_dict())
    record = torch.randint(0, 2, (3, 1, 1, OBSERVATION.nbytes), dtype=torch.uint8)
    record[..., :16] = 0
    past = torch.zeros(3, 2, dtype=torch.int16)
    assert torch.equal(network(record, past), again(record, past))
    assert network.observation == again.observation == OBSERVATION
    assert card["stack"] == 1, "vectors are not stacked"


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--shift", {"learner": LearnerConfig(shift=4)}),
        ("--prediction-steps", {"learner": LearnerConfig(prediction_steps=1)}),
        ("--median-frame", {"network": NetworkConfig(median_frame=True)}),
    ],
)
def test_options_of_grey_frames_are_refused(option: str, change: dict[str, Any]):
    config = replace(LADDER, **change)
    with pytest.raises(ConfigError, match=f"{option}: for grey frames only, which --env .*Ladder"):
        network_card(config, *Interface(3, OBSERVATION.frame_shape, OBSERVATION))
