"""Slow, obvious twins of the fast code, and real things to compare it with. Ten lines each,
loops allowed.

Shapes: E lanes, T rows, B batch, S stack, H height, W width, K past actions.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from genray.rl.chunk import Chunk
from genray.rl.env import AtariLanes, EnvConfig, Step
from genray.rl.games import resolve_game
from genray.rl.networks import QNetwork
from genray.rl.replay import ShardLayout


class NaiveSumTree:
    """Cumulative sums and a binary search."""

    def __init__(self, capacity: int):
        self.priority = np.zeros(capacity)

    def set(self, index_B, priority_B) -> None:
        for index, priority in zip(
            index_B, np.broadcast_to(priority_B, np.shape(index_B)), strict=True
        ):
            self.priority[index] = priority

    @property
    def total(self) -> float:
        return float(self.priority.sum())

    def find(self, mass_B) -> np.ndarray:
        return np.searchsorted(self.priority.cumsum(), mass_B, side="right")


@dataclass
class Row:
    """What one lane went through in one step, as the environment told it."""

    frame_HW: np.ndarray
    action: int = 0
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    life_lost: bool = False
    over: bool = False
    """The frame is an episode's last: its action only starts the next episode."""
    age: int = 0
    """Steps since the episode's first frame."""


def slow_n_step(
    life: list[Row], start: int, n: int, gamma: float, life_loss: str = "ignore", clip: bool = True
) -> tuple[float, float, int]:
    """(return, discount of the bootstrap, rows to the next observation) of the transition at
    `start`.
    """
    total, discount = 0.0, 1.0
    for k in range(1, n + 1):
        row = life[start + k - 1]
        total += discount * (float(np.clip(row.reward, -1, 1)) if clip else row.reward)
        if row.terminated or (row.life_lost and life_loss == "terminal"):
            return total, 0.0, k
        discount *= gamma
        if row.truncated:
            return total, discount, k
    return total, discount, n


def slow_stack(life: list[Row], index: int, stack: int, stack_start: str) -> np.ndarray:
    """The observation at row `index`, going back one row at a time and stopping at the episode's
    first.
    """
    frames = [life[index].frame_HW]
    for back in range(1, stack):
        if back <= life[index].age:
            frames.append(life[index - back].frame_HW)
        else:
            frames.append(frames[-1] if stack_start == "repeat" else np.zeros_like(frames[0]))
    return np.array(frames[::-1])


def slow_past_actions(life: list[Row], index: int, count: int) -> list[int]:
    """The actions of the rows before, newest first; −1 before the episode's first row."""
    return [
        life[index - back].action if back <= life[index].age else -1 for back in range(1, count + 1)
    ]


def slow_priority(
    network: QNetwork,
    obs_BSHW,
    past_BK,
    action_B,
    return_B,
    discount_B,
    next_obs_BSHW,
    next_past_BK,
) -> np.ndarray:
    """|n-step double-Q error| with `network` as w and as w⁻, one transition at a time."""
    deltas = []
    with torch.no_grad():
        for i in range(len(action_B)):
            q_A = network(
                torch.from_numpy(obs_BSHW[i : i + 1]), torch.from_numpy(past_BK[i : i + 1])
            )[0]
            q_next_A = network(
                torch.from_numpy(next_obs_BSHW[i : i + 1]),
                torch.from_numpy(next_past_BK[i : i + 1]),
            )[0]
            best = int(q_next_A.argmax())
            target = float(return_B[i]) + float(discount_B[i]) * float(q_next_A[best])
            deltas.append(abs(target - float(q_A[int(action_B[i])])))
    return np.array(deltas)


# --- a real environment beside its own stacks -----------------------------------------------------


class RecordedAtari:
    """AtariLanes, and beside it ALE's own vector environment with stacks, stepped in lockstep.

    `lives[lane]` is what the lanes returned; `stacks[lane]` what the *other* environment
    returned as observations.
    """

    def __init__(self, config: EnvConfig, num_lanes: int):
        from ale_py.vector_env import AtariVectorEnv

        self._lanes = AtariLanes(config, num_lanes, num_threads=1)
        self._reference = AtariVectorEnv(
            resolve_game(config.game),
            num_lanes,
            num_threads=1,
            stack_num=config.stack,
            reward_clipping=False,
            episodic_life=False,
            max_num_frames_per_episode=config.max_episode_frames,
            noop_max=config.noop_max,
            frameskip=config.frame_skip,
            repeat_action_probability=config.sticky_actions,
        )
        self.num_lanes, self.num_actions = num_lanes, self._lanes.num_actions
        self.frame_shape = self._lanes.frame_shape
        self.lives: list[list[Row]] = [[] for _ in range(num_lanes)]
        self.stacks: list[list[np.ndarray]] = [[] for _ in range(num_lanes)]
        self._balls_E = np.zeros(num_lanes, np.int64)

    def reset(self, seed: int) -> np.ndarray:
        frame_EHW = self._lanes.reset(seed)
        obs_ESHW: np.ndarray
        obs_ESHW, info = self._reference.reset(seed=seed)
        self._balls_E = info["lives"].copy()
        for lane in range(self.num_lanes):
            self.lives[lane].append(Row(frame_EHW[lane]))
            self.stacks[lane].append(obs_ESHW[lane].copy())
        return frame_EHW

    def step(self, action_E: np.ndarray) -> Step:
        step = self._lanes.step(action_E)
        obs_ESHW, reward_E, terminated_E, truncated_E, info = self._reference.step(
            np.asarray(action_E, np.int64)
        )
        for lane, life in enumerate(self.lives):
            row = life[-1]
            row.action, row.reward = int(action_E[lane]), float(reward_E[lane])
            row.terminated, row.truncated = bool(terminated_E[lane]), bool(truncated_E[lane])
            row.life_lost = bool(info["lives"][lane] < self._balls_E[lane]) and not row.over
            ends = row.terminated or row.truncated
            life.append(Row(step.frame_EHW[lane], over=ends, age=0 if row.over else row.age + 1))
            self.stacks[lane].append(obs_ESHW[lane].copy())
        self._balls_E = info["lives"].copy()
        return step

    def close(self) -> None:
        self._lanes.close()
        self._reference.close()


# --- invented streams, to drive a replay shard through any geometry -------------------------------


class InventedStream:
    """Lives of a few lanes made of random numbers, cut into chunks.

    A frame's pixels spell (stream, lane, row), twelve times over, so that LZ4 makes it smaller.
    """

    frame_shape = (6, 12)

    def __init__(
        self,
        seed: int,
        *,
        source: int,
        num_lanes: int,
        n_step: int,
        wait: int = 0,
        life_loss: str = "ignore",
    ):
        self.rng = np.random.default_rng(seed)
        self.source, self.n_step, self.life_loss, self.wait = source, n_step, life_loss, wait
        self.incarnation = int(self.rng.integers(1, 2**60))
        self.tag = seed % 251 + 1
        self.lives: list[list[Row]] = [[] for _ in range(num_lanes)]
        self.deltas: list[list[float]] = [[] for _ in range(num_lanes)]
        self.first_row = 0

    def _live(self, lane: int) -> None:
        """One more row."""
        life, rng = self.lives[lane], self.rng
        before = life[-1] if life else None
        fresh = before is None or before.over
        row = Row(
            np.tile(
                np.array(
                    [[self.tag, lane + 1, len(life) // 256, len(life) % 256, 255, 7]], np.uint8
                ),
                (6, 2),
            ),
            action=int(rng.integers(18)),
            age=0 if fresh else before.age + 1,  # type: ignore[union-attr]
            over=bool(before) and (before.terminated or before.truncated),  # type: ignore[union-attr]
        )
        if not row.over:
            row.reward = float(rng.integers(-2, 3))
            event = rng.random()
            row.terminated, row.truncated = event < 0.06, 0.06 <= event < 0.12
            row.life_lost = 0.12 <= event < 0.2
        life.append(row)
        self.deltas[lane].append(float(rng.exponential()))

    def valid(self, lane: int, row: int) -> bool:
        return not self.lives[lane][row].over and self.lives[lane][row].age >= self.wait

    def chunk(self, num_rows: int) -> Chunk:
        """The next `num_rows` rows, and the transitions that they complete."""
        lanes, first, n = range(len(self.lives)), self.first_row, self.n_step
        for _ in range(num_rows):
            for lane in lanes:
                self._live(lane)
        self.first_row += num_rows
        rows = range(first, first + num_rows)
        starts = range(first - n, first - n + num_rows)
        slow = [[slow_n_step(self.lives[e], t, n, 0.9, self.life_loss) if t >= 0 else (9.0, 9.0, 1) for t in starts]  # noqa: E501
                for e in lanes]  # fmt: skip
        slow_ET3 = np.array(slow)
        return Chunk(
            source=self.source,
            incarnation=self.incarnation,
            first_row=first,
            weight_version=0,
            frame_ETHW=np.array([[self.lives[e][t].frame_HW for t in rows] for e in lanes]),
            action_ET=np.array([[self.lives[e][t].action for t in rows] for e in lanes], np.uint8),
            age_ET=np.array(
                [[min(self.lives[e][t].age, 255) for t in rows] for e in lanes], np.uint8
            ),
            return_ET=slow_ET3[..., 0].astype(np.float32),
            discount_ET=slow_ET3[..., 1].astype(np.float32),
            horizon_ET=slow_ET3[..., 2].astype(np.uint8),
            delta_ET=np.array(
                [[self.deltas[e][t] if t >= 0 else 9.0 for t in starts] for e in lanes], np.float32
            ),
            valid_ET=np.array([[t >= 0 and self.valid(e, t) for t in starts] for e in lanes]),
        )


@dataclass
class NaiveReplay:
    """What a shard should hold: a list of everything that ever came, and the rules said in
    words.
    """

    layout: ShardLayout
    n_step: int
    # for each (source, lane): where each row of the ring's lane came from
    rows: dict[int, list[tuple[InventedStream, int, int]]] = field(default_factory=dict)
    _newest: dict[int, tuple[int, int]] = field(default_factory=dict)
    _segment: dict[int, int] = field(default_factory=dict)

    def add(self, stream: InventedStream, chunk: Chunk) -> None:
        """`rows[source]` grows by (stream, its row, number of the unbroken segment)."""
        newest = self._newest.get(chunk.source)
        if newest and newest[0] == chunk.incarnation and chunk.first_row < newest[1]:
            return  # a duplicate
        if newest != (chunk.incarnation, chunk.first_row):
            self._segment[chunk.source] = self._segment.get(chunk.source, 0) + 1
        self._newest[chunk.source] = (chunk.incarnation, chunk.first_row + chunk.num_rows)
        held = self.rows.setdefault(chunk.source, [])
        segment = self._segment[chunk.source]
        held.extend((stream, chunk.first_row + i, segment) for i in range(chunk.num_rows))

    def live(self) -> dict[int, tuple[InventedStream, int, int]]:
        """key → (stream, lane, row of the stream) of every transition that may be drawn."""
        found: dict[int, tuple[InventedStream, int, int]] = {}
        layout = self.layout
        for place, source in enumerate(layout.sources):
            held = self.rows.get(source, [])
            # older ones are overwritten
            for row in range(max(0, len(held) - layout.rows), len(held)):
                stream, stream_row, segment = held[row]
                for lane in range(layout.lanes_per_source):
                    age = stream.lives[lane][stream_row].age
                    oldest = row - min(age, layout.lookback)
                    if (
                        stream.valid(lane, stream_row)
                        and row + self.n_step < len(held)  # its return is known
                        # … and was known in the same segment
                        and held[row + self.n_step][2] == segment
                        and oldest >= 0
                        and held[oldest][2] == segment  # its stack does not reach across a gap
                        # nothing of it was overwritten
                        and row - layout.lookback >= len(held) - layout.rows
                    ):
                        key = row * layout.lanes + place * layout.lanes_per_source + lane
                        found[key] = (stream, lane, stream_row)
        return found


def expected_sample(layout: ShardLayout, origin: tuple[InventedStream, int, int]) -> dict[str, Any]:
    """All fields of a sampled transition, built slowly."""
    stream, lane, row = origin
    life = stream.lives[lane]
    total, discount, k = slow_n_step(life, row, stream.n_step, 0.9, stream.life_loss)
    later = range(layout.later)
    return {
        "obs_BSHW": np.stack(
            [*slow_stack(life, row, layout.stack, layout.stack_start)]
            + [life[row + j + 1].frame_HW for j in later]
        ),
        "later_BJ": [life[row + j].action if j < k else -1 for j in later],
        "next_obs_BSHW": slow_stack(life, row + k, layout.stack, layout.stack_start),
        "past_BK": slow_past_actions(life, row, layout.past_actions),
        "next_past_BK": slow_past_actions(life, row + k, layout.past_actions),
        "action_B": life[row].action,
        "return_B": np.float32(total),
        "discount_B": np.float32(discount),
    }


def assert_row(sample: Any, row: int, expected: dict[str, Any]) -> None:
    """Row `row` of a sample, a namespace or a dictionary of arrays, holds the expected fields."""
    for name, value in expected.items():
        found = (sample[name] if isinstance(sample, dict) else getattr(sample, name))[row]
        if not np.array_equal(found, value):  # a tenth of the time of the assertion, which explains
            np.testing.assert_array_equal(found, value, err_msg=name)


def full_state(agent) -> dict[str, np.ndarray]:
    """Everything that learning depends on in a LocalAgent, as arrays by name."""
    state: dict[str, np.ndarray] = {}
    for which in ("online", "target"):
        network = getattr(agent.learner, which)
        state |= {
            f"{which}.{name}": tensor.numpy().copy()
            for name, tensor in network.state_dict().items()
        }
    if agent.learner.prediction is not None:
        for name, tensor in agent.learner.prediction.state_dict().items():
            state[f"prediction.{name}"] = tensor.numpy().copy()
    for index, slots in agent.learner.optimizer.state_dict()["state"].items():
        state |= {
            f"optimizer.{index}.{name}": np.asarray(value).copy() for name, value in slots.items()
        }
    for index, shard in enumerate(agent.shards):
        state[f"shard{index}.frame_LCP"] = shard._frames.frame_LCP.copy()
        for name in ("action_LC", "age_LC", "return_LC", "discount_LC", "horizon_LC", "valid_LC"):
            state[f"shard{index}.{name}"] = getattr(shard, f"_{name}").copy()
        state[f"shard{index}.tree"] = shard._tree.state()
        state[f"shard{index}.counts"] = np.array(
            [shard.size, shard.inserted, shard.dropped_updates]
        )
    state["counts"] = np.array(
        [agent.steps, agent.learner.updates, agent.limiter.inserted, agent.limiter.sampled]
    )
    return state


# A shard of two collectors, small enough that its rings go round.
LAYOUT = ShardLayout(
    sources=(0, 3),
    lanes_per_source=2,
    rows=40,
    frame_shape=InventedStream.frame_shape,
    stack=4,
    stack_start="blank",
    past_actions=2,
    n_step=3,
)
