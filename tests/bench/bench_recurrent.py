"""A recurrent agent: what burn-in is good for, and how fast updates and draws of sequences are.
`python -m tests.bench.bench_recurrent [--quick]`

*Mismatch*: Blind Catch with a paddle that waits for 20 steps is learned for some steps, and states
are stored every 4 steps. Then Q-values are computed from the state that was stored, or from zeros,
after 0 to 16 rows of burn-in, and compared with those whose state is recomputed from the episode's
start by the newest weights: ‖Q − Q'‖ / max |Q'|, the mean over rows of all ages (Kapturowski 2019,
section 2.4).

*Updates*: CPU time of `RecurrentLearner.update` beside a bare loop over the same modules, whose
LSTM runs over whole sequences as if no episode began in them. *Draws*: CPU time of a batch of
sequences beside `np.take` of as many frames.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import smooth_l1_loss

from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.rl.chunk import Sample
from genray.rl.config import DQNConfig
from genray.rl.optimizer import make_optimizer
from genray.rl.replay import ReplayShard
from genray.rl.sequences import (
    ACTION,
    DISCOUNT,
    HORIZON,
    LAST_ACTION,
    LAST_REWARD,
    RETURN,
    SequenceLayout,
)
from genray.rl.targets import rescaled, unrescaled
from tests.bench.common import describe_machine, last_json_line, print_table
from tests.bench.rivals.bare_update import compared
from tests.bench.rivals.replays.work import in_turns

PERIOD, HIDDEN = 4, 20
EPISODE = HIDDEN + 8  # rows of an episode: the ball falls HIDDEN + 7 steps
BURN_INS = (0, 4, 8, 16)


# --- mismatch -------------------------------------------------------------------------------------


def mismatches(steps: int, seed: int) -> dict[str, float]:
    """Train for `steps`; return the mean mismatch of each kind of state."""
    config = presets.blind_catch()
    config = replace(
        config,
        env=replace(config.env, env_config=f'{{"hidden": {HIDDEN}}}'),
        sequences=replace(config.sequences, sequence_overlap=16 - PERIOD),
        run=replace(config.run, steps=steps, seed=seed, device="cpu"),
    )
    agent = LocalAgent(config)
    agent.advance(steps, seconds=36_000.0)
    network, [shard] = agent.learner.online.eval(), agent.shards
    sequences = shard._sequences
    head = max(shard._head.values())
    assert sequences is not None and head <= shard.layout.rows, "the ring has not wrapped"
    lanes = shard.layout.lanes
    age_LT = shard._row_LC["age"][:, :head]
    action_LT = shard._row_LC["action"][:, :head].astype(np.int64)
    before_LT = np.where(age_LT > 0, np.roll(action_LT, 1, axis=1), -1)
    frames_LT = shard.frame_LCP[:, :head].reshape(lanes, head, 1, *shard.layout.frame_shape)

    def q_values(first: int, count: int, state_LS: torch.Tensor) -> torch.Tensor:
        """Return Q of rows first … first + count − 1 of all lanes, [L, count, A]."""
        found = []
        with torch.inference_mode():
            for row in range(first, first + count):
                begins_L1 = torch.from_numpy(age_LT[:, row] == 0)[:, None]
                q_LA, state_LS = network.step(
                    torch.from_numpy(frames_LT[:, row]),
                    torch.from_numpy(before_LT[:, row]),
                    torch.from_numpy(sequences.last_reward_LC[:, row]),
                    state_LS.masked_fill(begins_L1, 0.0),
                )
                found.append(q_LA)
        return torch.stack(found, dim=1)

    zeros = torch.zeros(lanes, shard.layout.sequence.state_size)  # type: ignore[union-attr]
    sums: dict[str, list[float]] = {}
    for row in range(EPISODE, head - PERIOD, 9 * PERIOD):
        # An episode begins within EPISODE rows; from there on, the state is exact.
        exact = q_values(row - EPISODE, EPISODE + PERIOD, zeros)[:, EPISODE:]
        for burn_in in BURN_INS:
            start = row - burn_in
            stored = torch.from_numpy(sequences.state_LPS[:, start // PERIOD])
            for name, state in (("stored state", stored), ("state of zero", zeros)):
                q = q_values(start, burn_in + PERIOD, state)[:, burn_in:]
                error = (q - exact).norm(dim=2) / exact.abs().amax(dim=2)
                sums.setdefault(f"{name}, burn-in {burn_in}", []).append(float(error.mean()))
    agent.close()
    return {name: float(np.mean(values)) for name, values in sums.items()}


# --- speed ----------------------------------------------------------------------------------------


def played(config: DQNConfig, steps: int) -> LocalAgent:
    """Return an agent that has played `steps` and learned nothing."""
    replay = replace(config.replay, capacity=2 * steps, min_size=2 * steps)
    agent = LocalAgent(replace(config, replay=replay, run=replace(config.run, device="cpu")))
    agent.advance(steps, seconds=36_000.0)
    return agent


def bare_update(agent: LocalAgent, batch: Sample) -> Callable[[], np.ndarray]:
    """Return a function that makes one double-Q update and returns the priorities."""
    layout, config = agent.config.sequence_layout, agent.config.learner
    stack = agent.config.env.stack
    assert isinstance(layout, SequenceLayout)
    online, target = agent.learner.online, agent.learner.target
    optimizer, rescales = make_optimizer(config, online), agent.config.network.value_rescaling
    parts = [slice(0, layout.burn_in), layout.learned, slice(layout.learned.stop, layout.rows)]

    def hidden(network: Any, frames: torch.Tensor, steps: torch.Tensor, learns: bool) -> Any:
        features = []
        for part in parts:
            with torch.set_grad_enabled(learns and part == layout.learned):
                if frames[:, part].shape[1]:
                    own = frames[:, part].flatten(0, 1)
                    features.append(network.convolutions(own).unflatten(0, (len(frames), -1)))
        last = steps[..., LAST_ACTION], steps[..., LAST_REWARD]
        inputs = network.memory.inputs(torch.cat(features, 1), *last)
        state = tuple(
            each[None].contiguous() for each in torch.from_numpy(batch.state_BS).chunk(2, 1)
        )
        if layout.burn_in:
            with torch.no_grad():
                _, state = network.memory.lstm(inputs[:, : layout.burn_in], state)
        with torch.set_grad_enabled(learns):
            return network.memory.lstm(inputs[:, layout.burn_in :], state)[0]

    def update() -> np.ndarray:
        block = torch.from_numpy(batch.obs_BSHW).float() / 255
        frames = block.unfold(1, stack, 1).movedim(-1, 2)
        steps = torch.from_numpy(batch.steps_BTF)
        learned = steps[:, layout.learned]
        row = (torch.arange(layout.length) + learned[..., HORIZON].long())[..., None]
        h = hidden(online, frames, steps, True)
        h_target = hidden(target, frames, steps, False)
        later = row.expand(-1, -1, h.shape[2])
        with torch.no_grad():
            best = online.outputs(h.gather(1, later).flatten(0, 1), None, None, None).argmax(1)
            q_next = target.outputs(h_target.gather(1, later).flatten(0, 1), None, None, None)
            value = q_next.gather(1, best[:, None])[:, 0]
            value = unrescaled(value) if rescales else value
            wanted = learned[..., RETURN].flatten() + learned[..., DISCOUNT].flatten() * value
            wanted = rescaled(wanted) if rescales else wanted
            weight = torch.from_numpy(batch.probability_B).pow(-0.6).float()
        q = online.outputs(h[:, : layout.length].flatten(0, 1), None, None, None)
        taken = q.gather(1, learned[..., ACTION].long().flatten()[:, None])[:, 0]
        loss_N = smooth_l1_loss(taken, wanted, reduction="none")
        loss = (loss_N.view(len(frames), -1) * (weight / weight.max())[:, None]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(online.parameters(), config.max_grad_norm)
        optimizer.step()
        loss.item()
        delta = (wanted - taken.detach()).abs().view(len(frames), -1)
        return (0.9 * delta.amax(1) + 0.1 * delta.mean(1)).numpy()

    return update


def draws(shard: ReplayShard, size: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return functions that draw `size` sequences, and that copy as many frames."""
    out = shard.sample(size)
    frames_NP = shard.frame_LCP.reshape(-1, shard.frame_LCP.shape[2])
    rows = np.arange(out.obs_BSHW.shape[1])
    taken = np.empty((size * len(rows), frames_NP.shape[1]), np.uint8)
    rng, last = np.random.default_rng(0), len(frames_NP) - len(rows)

    def gather() -> None:
        index = (rng.integers(last, size=size)[:, None] + rows).ravel()
        np.take(frames_NP, index, axis=0, mode="clip", out=taken)

    return lambda: shard.sample(size, out), gather


def speed(config: DQNConfig, steps: int, seconds: float, turns: int) -> dict[str, dict[str, float]]:
    """Return {what: milliseconds of ours and of the bare work, ratio of the rates}."""
    agent = played(config, steps)
    [shard], size = agent.shards, config.learner.batch_size
    batch = shard.sample(size)
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        f"update, {size}": (
            lambda: agent.learner.update(batch, 4_000, 0.6),
            bare_update(agent, batch),
        )
    }
    works |= {f"draw, {count}": draws(shard, count) for count in (size, 64)}
    found = {}
    for name, (ours, bare) in works.items():
        found[name] = compared(in_turns({"ours": (ours, 1), "bare": (bare, 1)}, seconds, turns))
    agent.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12_000, help="agent steps before mismatches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds of a stretch")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="1,600 steps, one short turn")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.seconds, arguments.turns = 1_600, 0.1, 1
    torch.set_num_threads(1)
    machine = describe_machine()
    rows, figures = [], {}
    for preset in (presets.r2d2_lite(), presets.blind_catch()):
        name = preset.env.game if not preset.env.env else preset.env.env.rpartition(":")[2]
        preset = replace(preset, learner=replace(preset.learner, average_updates=0))
        figures[name] = speed(preset, 2_000, arguments.seconds, arguments.turns)
        for what, found in figures[name].items():
            values = found["ms"], found["bare_ms"], found["of_bare"]
            rows.append((name, what, *(f"{value:.2f}" for value in values)))
    print_table(f"Sequences; {machine}", ("", "sequences", "CPU ms", "bare CPU ms", "ratio"), rows)
    states = mismatches(arguments.steps, arguments.seed)
    print_table(
        f"Mismatch of Q-values, Blind Catch after {arguments.steps:,} steps",
        ("state of a sequence's first row", "‖Q − Q'‖ / max |Q'|"),
        [(name, f"{value:.4f}") for name, value in states.items()],
    )
    last_json_line({"bench": "recurrent", "speed": figures, "mismatch": states})


if __name__ == "__main__":
    main()
