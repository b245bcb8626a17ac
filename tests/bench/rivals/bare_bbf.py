"""An update of `bbf_lite` beside a bare PyTorch loop. `python -m tests.bench.rivals.bare_bbf`

The bare update is the same algorithm written plainly, over the same modules: the network, the
compiled augmentation, the projection of C51, fused AdamW; it is made for each network of the
ensemble. What the learner needs beyond them is overhead. Each network learns from 32 transitions of
a fixed batch.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from genray.machine import keep_freed_memory
from genray.rl import targets
from genray.rl.augment import augmented_frames
from genray.rl.building import make_network
from genray.rl.learner import Learner
from genray.rl.networks import QNetwork
from genray.rl.presets import bbf_lite
from tests.bench.common import last_json_line
from tests.bench.rivals.bare_update import ACTIONS, batch_of, compared
from tests.bench.rivals.replays.work import in_turns

CONFIG = bbf_lite()
# The learning rate falls late in a run; the bare loop has a constant one.
LEARNER = replace(CONFIG.learner, learning_rate_end=0.0, learning_rate_fall=(0, 0))
NETWORKS = CONFIG.network.ensemble
SIZE, BETA = 20_000, CONFIG.replay.beta


def network(ensemble: int = 1) -> QNetwork:
    torch.manual_seed(0)
    return make_network(replace(CONFIG.network, ensemble=ensemble), ACTIONS)


def bare_update() -> Callable[[], np.ndarray]:
    """A function that makes one update of one network and returns the new |δ|."""
    batch, config = batch_of(LEARNER.batch_size // NETWORKS), LEARNER
    online, target = network(), network().requires_grad_(False)
    support_Z = torch.linspace(-CONFIG.network.value_limit, CONFIG.network.value_limit, 51)
    weights, biases = (
        [p for p in online.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False)
    )
    optimizer = torch.optim.AdamW(
        [{"params": weights}, {"params": biases, "weight_decay": 0.0}],
        lr=config.learning_rate, eps=config.optimizer_epsilon, weight_decay=config.weight_decay,
        fused=True,
    )  # fmt: skip
    random, row_B = torch.Generator().manual_seed(0), torch.arange(batch.size)
    obs, next_obs = torch.from_numpy(batch.obs_BSHW), torch.from_numpy(batch.next_obs_BSHW)
    online.set_median(obs.flatten(0, 1))
    target.set_median(obs.flatten(0, 1))

    def update() -> np.ndarray:
        now, then = (
            augmented_frames(frames, online, config.shift, config.intensity, random)
            for frames in (obs, next_obs)
        )
        action_B = torch.from_numpy(batch.action_B).long()
        with torch.no_grad():
            best_B = (online(then, raw=True).softmax(-1) @ support_Z).argmax(1)
            p_BZ = target(then, raw=True)[row_B, best_B].softmax(-1)
            wanted_BZ = targets.categorical_projection(
                torch.from_numpy(batch.return_B),
                torch.from_numpy(batch.discount_B),
                p_BZ,
                support_Z,
            )
            weight_B = (SIZE * torch.from_numpy(batch.probability_B)) ** -BETA
            weight_B = (weight_B / weight_B.max()).float()
        log_p_BZ = online(now, raw=True)[row_B, action_B].log_softmax(-1)
        loss = (weight_B * -(wanted_BZ * log_p_BZ).sum(-1)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(online.parameters(), config.max_grad_norm)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(target.parameters()), list(online.parameters()), config.target_tau
            )
            loss.item()
            return ((wanted_BZ - log_p_BZ.exp()) @ support_Z).abs().numpy()

    return update


def learner_of_bare(seconds: float, turns: int) -> dict[str, float]:
    """CPU-ms of an update, ours and bare, and the ratio of their rates, the median over the
    turns.
    """
    learner = Learner(LEARNER, network(NETWORKS), network(NETWORKS))
    batch, updates = batch_of(LEARNER.batch_size), [bare_update() for _ in range(NETWORKS)]
    rates = in_turns(
        {
            "ours": (lambda: learner.update(batch, SIZE, BETA), 1),
            "bare": (lambda: [update() for update in updates], 1),
        },
        seconds,
        turns,
    )
    return compared(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="CPU seconds of each measured stretch"
    )
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    last_json_line(learner_of_bare(arguments.seconds, arguments.turns))


if __name__ == "__main__":
    main()
