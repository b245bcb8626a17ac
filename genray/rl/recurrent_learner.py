"""Makes the updates of a DQN with an LSTM, from sequences (R2D2).

Both networks begin with the state that the collector stored before the first row. Over the burn-in
rows they only compute their state, without gradient. The rows after that are learned from: each is
a transition, whose target and loss are those of `Learner`.

Shapes: B batch, T rows of a sequence, L rows that are learned from, R = T − burn-in rows, N = B·L,
S stack, H height, W width, U units, F features, A actions, Z outputs per action.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genray.rl import targets
from genray.rl.augment import generator_of
from genray.rl.heads import IQNHead, Outputs
from genray.rl.learner import Learner
from genray.rl.learner_config import LearnerConfig
from genray.rl.networks import QNetwork
from genray.rl.noisy import draw_noise
from genray.rl.sequences import (
    ACTION,
    AGE,
    DISCOUNT,
    HORIZON,
    LAST_ACTION,
    LAST_REWARD,
    RETURN,
    SequenceLayout,
)
from genray.rl.transfer import AnySample, DeviceBatch


class RecurrentLearner(Learner):
    """Learns from sequences. [Kapturowski 2019, https://openreview.net/forum?id=r1lyTjAqYX]

    Departures: the loss is the weighted mean over all rows that are learned from; importance
    weights are an option (the paper's text names none); a sequence may contain the end of an
    episode. The new priority of a sequence is η · max |δ| + (1 − η) · mean |δ|.

    Args:
        config, online, target, device, threads, seed, rank: as for `Learner`.
        sequence: the shape of the sequences.
    """

    def __init__(
        self,
        config: LearnerConfig,
        online: QNetwork,
        target: QNetwork,
        device: str = "cpu",
        *,
        sequence: SequenceLayout,
        **options: Any,
    ):
        super().__init__(config, online, target, device, **options)
        self.sequence = sequence

    def _loss(
        self, batch: AnySample, size: int, beta: float, following: AnySample | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (priorities of the sequences [B], weighted mean loss, mean Q of actions taken)."""
        config, layout, head = self.config, self.sequence, self.online.head
        tensors = self._transfers.take(batch)
        steps_BTF = tensors.steps_BTF
        self._observe(tensors)
        learned_BLF = steps_BTF[:, layout.learned]
        horizon_BL = learned_BLF[..., HORIZON].long()
        known_BL = horizon_BL > 0
        random = generator_of(self._seed, 3, self.updates, self._rank) if self._draws else None
        tau_NZ = next_tau_NZ = None
        if random is not None:
            if isinstance(head, IQNHead):
                tau_NZ, next_tau_NZ = (head.draw(known_BL.numel(), random) for _ in range(2))
            if self.online.config.noisy:
                for each in (self.online, self.target):
                    draw_noise(each, random)
        # The target network runs through the sequences in the second stream, if there is one.
        frames_BTSHW = observations(
            tensors.obs_BSHW, steps_BTF[..., AGE], self.online.stack, layout
        )
        network = self.target if config.target_network else self.online
        target_hidden = self._start_hidden(network, frames_BTSHW, tensors)
        hidden_BRU = self._hidden(self.online, frames_BTSHW, tensors, gradient=True)
        target_BRU = target_hidden()
        # The observation that a row's target uses is `horizon` rows later.
        row_BL = torch.arange(layout.length, device=self.device) + horizon_BL
        now_NU = hidden_BRU[:, : layout.length].flatten(0, 1)
        next_online_NU, next_NU = (
            _rows(each, row_BL) for each in (hidden_BRU.detach(), target_BRU)
        )
        legal_NA = next_legal_NA = None
        legal_BRA = self._legal(frames_BTSHW[:, layout.burn_in :])
        if legal_BRA is not None:
            legal_NA = legal_BRA[:, : layout.length].flatten(0, 1)
            next_legal_NA = _rows(legal_BRA, row_BL)
        now_NA = self._of_hidden(self.online, now_NU, tau_NZ, legal_NA)
        with torch.no_grad():
            next_NA = self._of_hidden(network, next_NU, next_tau_NZ, next_legal_NA)
            next_online_NA = now_target_NA = None
            if config.double:
                next_online_NA = self._of_hidden(self.online, next_online_NU, None, next_legal_NA)
            if config.munchausen:
                own_NU = target_BRU[:, : layout.length].flatten(0, 1)
                now_target_NA = self._of_hidden(network, own_NU, None, legal_NA)
        # From here on, every row is a transition.
        rows = tensors._replace(
            action_B=learned_BLF[..., ACTION].flatten(),
            return_B=learned_BLF[..., RETURN].flatten(),
            discount_B=learned_BLF[..., DISCOUNT].flatten(),
        )
        outputs = Outputs(
            now_NA, next_NA, next_online_NA, now_target_NA, tau_NZ, legal_NA, next_legal_NA
        )
        delta_N, loss_N, q_taken_N = head.loss(rows, outputs, config)
        delta_BL, loss_BL, q_BL = (
            each.view_as(horizon_BL).masked_fill(~known_BL, 0.0)
            for each in (delta_N, loss_N, q_taken_N)
        )
        if config.importance_weighting:
            weight_B = targets.importance_weights(tensors.probability_B, size, beta)
            loss_BL = loss_BL * weight_B.to(loss_BL)[:, None]
        count = known_BL.sum().clamp(min=1)
        return priorities(delta_BL, known_BL, layout.eta), loss_BL.sum() / count, q_BL.sum() / count

    def _start_hidden(
        self, network: QNetwork, frames_BTSHW: Tensor, batch: DeviceBatch
    ) -> Callable[[], Tensor]:
        """Return a function that returns the hidden values of `network` without gradient."""
        work = partial(self._hidden, network, frames_BTSHW, batch, gradient=False)
        return self._second.submit(work).result if self._second else work

    def _hidden(
        self, network: QNetwork, frames_BTSHW: Tensor, batch: DeviceBatch, *, gradient: bool
    ) -> Tensor:
        """Return the hidden values of the LSTM in the rows after the burn-in, float32 [B, R, U].

        `gradient`: whether those of the rows that are learned from have a gradient.
        """
        assert network.memory is not None
        burn_in, last = self.sequence.burn_in, self.sequence.learned.stop
        features = []
        for rows in (slice(0, burn_in), slice(burn_in, last), slice(last, None)):
            frames_BXSHW = frames_BTSHW[:, rows]
            learns = gradient and rows.start == burn_in
            with torch.set_grad_enabled(learns), self._autocast():
                if frames_BXSHW.shape[1]:
                    features_NF = network.convolutions(network.inputs(frames_BXSHW.flatten(0, 1)))
                    features.append(features_NF.float().unflatten(0, frames_BXSHW.shape[:2]))
        features_BTF = torch.cat(features, dim=1)
        steps, state_BS = batch.steps_BTF, batch.state_BS
        inputs = (steps[..., LAST_ACTION], steps[..., LAST_REWARD])
        begins_BT = steps[..., AGE] == 0
        with torch.no_grad():
            if burn_in:
                before = (each[:, :burn_in] for each in (features_BTF, *inputs))
                state_BS = network.memory(*before, state_BS, begins_BT[:, :burn_in])[1]
        rows = slice(burn_in, None)
        action_BR, reward_BR = (each[:, rows] for each in inputs)
        with torch.set_grad_enabled(gradient):
            return network.memory.hidden(
                features_BTF[:, rows], action_BR, reward_BR, state_BS, begins_BT[:, rows]
            )

    def _of_hidden(
        self,
        network: QNetwork,
        hidden_NU: Tensor,
        tau_NZ: Tensor | None,
        legal_NA: Tensor | None,
    ) -> Tensor:
        with self._autocast():
            return network.outputs(hidden_NU, None, tau_NZ, legal_NA).float()

    def _legal(self, frames_BRSHW: Tensor) -> Tensor | None:
        """Return which actions are legal, bool [B, R, A]; None: all are. In an observation without
        legal actions, such as an episode's last one, all count as legal.
        """
        legal_NA = self.online.legal(frames_BRSHW.flatten(0, 1))
        if legal_NA is None:
            return None
        legal_NA = legal_NA | ~legal_NA.any(dim=1, keepdim=True)
        return legal_NA.unflatten(0, frames_BRSHW.shape[:2])


def make_learner(
    config: LearnerConfig,
    online: QNetwork,
    target: QNetwork,
    device: str = "cpu",
    *,
    sequence: SequenceLayout | None,
    **options: Any,
) -> Learner:
    """Return a `RecurrentLearner` if there are sequences, else a `Learner`."""
    if sequence is None:
        return Learner(config, online, target, device, **options)
    return RecurrentLearner(config, online, target, device, sequence=sequence, **options)


def observations(block_BXHW: Tensor, age_BT: Tensor, stack: int, layout: SequenceLayout) -> Tensor:
    """Return the observations of all rows of sequences, oldest frame first, uint8 [B, T, S, H, W].

    `block_BXHW`: the first observation's frames, then one frame of each further row, so X = S − 1
    + T. Frames before an episode's first one are blank, or copies of it (`layout.repeats`).
    """
    if stack == 1:
        return block_BXHW[:, :, None]
    device = block_BXHW.device
    place_S = torch.arange(stack, device=device)  # frame S − 1 is the row's own
    # In a row of age a, the oldest frame of its episode is number S − 1 − a.
    first_BT1 = (stack - 1 - age_BT.long())[..., None]
    row_T1 = torch.arange(age_BT.shape[1], device=device)[:, None]
    index_BTS = row_T1 + torch.maximum(place_S, first_BT1)
    batch_B11 = torch.arange(len(block_BXHW), device=device)[:, None, None]
    frames_BTSHW = block_BXHW[batch_B11, index_BTS]
    if not layout.repeats:
        frames_BTSHW[place_S < first_BT1] = 0
    return frames_BTSHW


def priorities(delta_BL: Tensor, known_BL: Tensor, eta: float) -> Tensor:
    """Return η · max |δ| + (1 − η) · mean |δ| over the known rows, float32 [B]. δ is 0 in others.
    [Kapturowski 2019, section 2.3]
    """
    size_BL = delta_BL.abs()
    mean_B = size_BL.sum(dim=1) / known_BL.sum(dim=1).clamp(min=1)
    return eta * size_BL.amax(dim=1) + (1 - eta) * mean_B


def _rows(values_BRX: Tensor, row_BL: Tensor) -> Tensor:
    """Return one row of each sequence for each place of `row_BL`, [N, X]."""
    index_BLX = row_BL[..., None].expand(-1, -1, values_BRX.shape[2])
    return values_BRX.gather(1, index_BLX).flatten(0, 1)
