"""Makes the updates of a (double, dueling, prioritized, n-step) DQN and of its later forms.

Shapes: B batch, A actions. The outputs of a network are Q-values [B, A], or [B, A, Z] for heads
with Z outputs per action; names say `_BA` for both. w: weights of the online network; w⁻: of the
target network; s, s': an observation and the one that its target uses.
"""

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from genray.errors import RunFault
from genray.machine import has_bfloat16
from genray.rl import targets
from genray.rl.annealing import clock_at, learning_rate_at
from genray.rl.augment import augmented, generator_of
from genray.rl.heads import IQNHead, Outputs
from genray.rl.learner_config import LearnerConfig as LearnerConfig
from genray.rl.networks import QNetwork
from genray.rl.noisy import draw_noise
from genray.rl.optimizer import CentredRMSprop as CentredRMSprop
from genray.rl.optimizer import clip_gradients, make_optimizer
from genray.rl.resets import fresh_network, reset
from genray.rl.self_prediction import SelfPrediction, latent
from genray.rl.transfer import AnySample, DeviceBatch, Transfers
from genray.rl.weights import cpu_copy, move_weights


class Update(NamedTuple):
    """The result of one update."""

    delta_B: np.ndarray  # float32: |δ|, the new priorities
    loss: float
    q_mean: float
    grad_norm: float


class _TargetPass(NamedTuple):
    """The outputs of w⁻ for s' of the next update's batch, started during the current update."""

    batch: AnySample
    next_BA: Callable[[], torch.Tensor]
    copy_number: int
    """Which copy of w to w⁻ computed `next_BA`; after the next copy, the pass is repeated."""


class Learner:
    """Updates a DQN: has the online weights w, the target weights w⁻ and the optimizer.

    [Mnih 2015; van Hasselt 2016; Wang 2016; Schaul 2016; Horgan 2018]. Departures: the loss is
    the weighted *mean* over the batch; gradients of the dueling trunk are not rescaled by 1/√2
    (Wang did; Ape-X did not); `average_updates` [Polyak 1992, https://doi.org/10.1137/0330046].

    Args:
        config: batch size, loss, optimizer and more.
        online, target: networks of one shape; `target` gets the weights of `online`.
        device: where the learner computes.
        threads: PyTorch threads of a second stream of work; 0: no second stream. The second stream
            computes the passes without gradient: w over s' during w over s, and w⁻ over the next
            batch during the backward pass. It does not change the results. A GPU has none.
        seed: the seed of the run, for augmentation and resets.
        rank: the number of this learner among several, which augment differently.
    """

    def __init__(
        self,
        config: LearnerConfig,
        online: QNetwork,
        target: QNetwork,
        device: str = "cpu",
        *,
        threads: int = 0,
        seed: int = 0,
        rank: int = 0,
    ):
        self._seed, self._rank = seed, rank
        self.config, self.device = config, torch.device(device)
        self.online = online.to(self.device)
        self.target = target.to(self.device).requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())
        self.average = (
            copy.deepcopy(self.online).requires_grad_(False) if config.average_updates else None
        )
        self.prediction = (
            SelfPrediction(self.online, config, (seed, 5)) if config.prediction_steps else None
        )
        self.trained = nn.ModuleList(filter(None, (self.online, self.prediction)))
        """All networks with gradients: w, and those of self-prediction."""
        self._apart = online.separate if online.config.ensemble > 1 else [self.trained]
        self.optimizer = make_optimizer(config, self.trained)
        self.updates = 0
        self._second: ThreadPoolExecutor | None = None
        # Spectral norm changes its vectors in each pass, so passes must have one order.
        if threads and self.device.type == "cpu" and not online.config.spectral_norm:
            self._second = ThreadPoolExecutor(
                1, initializer=torch.set_num_threads, initargs=(threads,)
            )
        self._transfers = Transfers(self.device)
        self._results: list[torch.Tensor] = []
        self.share_statistics: Callable[[Sequence[torch.Tensor]], None] | None = None
        """Among several learners: overwrites tensors with those of the leader."""
        self.share_gradients: Callable[[], None] | None = None
        """Among several learners: averages the gradients, after the backward pass."""
        self._next_target_pass: _TargetPass | None = None
        self._copy_number = 0
        self._has_median = False
        self._in_bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and has_bfloat16(self.device.type)
        )

    def update(
        self, batch: AnySample, size: int, beta: float, following: AnySample | None = None
    ) -> Update:
        """Make one gradient step on `batch`, sampled from a replay of `size` transitions, with
        importance-weight exponent β.

        `following`: the next update's batch, if it is known. Its target pass (second stream) or its
        transfer (GPU) starts during this update. Raises RunFault when the loss is not finite.
        """
        self.begin(batch, size, beta, following)
        return self.finish()

    def begin(
        self, batch: AnySample, size: int, beta: float, following: AnySample | None = None
    ) -> None:
        """Start `update`; `finish` returns its result. A GPU computes while the caller does
        something else.
        """
        self._prepare(batch)
        delta_B, loss, q_mean = self._loss(batch, size, beta, following)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * len(self._apart)).backward()  # the sum of the losses of all members
        if self.share_gradients:
            self.share_gradients()
        grad_norm = clip_gradients(self._apart, self.config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        if self.average is not None:
            # The plain mean at first, so that the initial random weights have no lasting effect.
            since_reset = clock_at(self.config, self.updates - 1) + 1
            share = 1.0 / min(since_reset, self.config.average_updates)
            move_weights(self.average, self.online, share)
            for mine, theirs in zip(self.average.buffers(), self.online.buffers()):
                mine.copy_(theirs)
        # Move w⁻ towards w after every update, or copy w to w⁻ once per period; `_copy_number`
        # invalidates what w⁻ computed ahead.
        if self.config.target_tau:
            move_weights(self.target, self.online, self.config.target_tau)
            for mine, theirs in zip(self.target.statistics, self.online.statistics):
                mine.copy_(theirs)
        elif self.updates % self.config.target_period_updates == 0:
            self._copy_number += 1
            self.target.load_state_dict(self.online.state_dict())
        self._results = [delta_B.abs(), torch.stack([loss.detach(), q_mean, grad_norm])]
        if following is not None:
            self.expect(following)

    def _prepare(self, batch: AnySample) -> None:
        """Do what some updates begin with: find the median frame, reset, set the learning rate."""
        if self.updates == 0:
            self.find_median(batch)
        elif self.config.reset_every and clock_at(self.config, self.updates) == 0:
            fresh = fresh_network(self.online, (self._seed, 4, self.updates))
            for network in (self.online, self.target):
                reset(network, fresh, self.config.reset_keep)
            if self.prediction is not None:
                self.prediction.reset(self.online, (self._seed, 5, self.updates))
            self.optimizer = make_optimizer(self.config, self.trained)
        if self.config.learning_rate_end:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate_at(self.config, self.updates)

    def find_median(self, batch: AnySample) -> list[torch.Tensor]:
        """Set the networks' median frames from the frames of the run's first batch, unless they are
        set; return them, so that several learners can use the same.
        """
        networks = [net for net in (self.online, self.target, self.average) if net is not None]
        medians = [net.median_HW for net in networks if net.median_HW is not None]
        if medians and not self._has_median:
            tensors = self._transfers.take(batch)
            frames = [obs.flatten(0, 1) for obs in (tensors.obs_BSHW, tensors.next_obs_BSHW)]
            for network in networks:
                network.set_median(torch.cat(frames))
            self._has_median = True
        return medians

    def _observe(self, tensors: DeviceBatch) -> None:
        """Add the batch's vectors to the mean and the standard deviation of w, if it normalises.

        w⁻ keeps its own until its next copy, so that it stays the same function.
        """
        statistics = self.online.statistics
        if not statistics:
            return
        self.online.observe(tensors.obs_BSHW)
        if self.share_statistics:
            self.share_statistics(statistics)
        if self.updates == 0:
            for mine, theirs in zip(self.target.statistics, statistics):
                mine.copy_(theirs)

    def expect(self, following: AnySample) -> None:
        """Send the next batch to a GPU, while the GPU still works on the current one.

        Call it after `begin` of the current update and before `begin` of the next one.
        """
        self._transfers.start(following)

    def finish(self) -> Update:
        """Wait for the result of the update that `begin` started."""
        delta_B, numbers = torch.cat(self._results).cpu().split([len(self._results[0]), 3])
        loss, q_mean, grad_norm = numbers.tolist()
        if not math.isfinite(loss):
            raise RunFault(
                f"the loss is {loss} at update {self.updates}: try a lower --learning-rate"
            )
        return Update(delta_B.numpy(), loss, q_mean, grad_norm)

    def _start_next(
        self, network: QNetwork, tensors: DeviceBatch, tau_BZ: torch.Tensor | None = None
    ) -> Callable[[], torch.Tensor]:
        """Return a function that returns the outputs of `network` for s', without gradient.

        The second stream starts to compute at once. Without a second stream, they are computed when
        the returned function is called.
        """
        if self._second is None:
            return partial(self._next, network, tensors, tau_BZ)
        future: Future[torch.Tensor] = self._second.submit(self._next, network, tensors, tau_BZ)
        return future.result

    def _next(
        self, network: QNetwork, tensors: DeviceBatch, tau_BZ: torch.Tensor | None
    ) -> torch.Tensor:
        with torch.no_grad():  # the setting belongs to a thread, so it is set here
            return self._outputs(network, tensors.next_obs_BSHW, tensors.next_past_BK, tau_BZ)

    def _outputs(
        self,
        network: QNetwork,
        obs_BSHW: torch.Tensor,
        past_BK: torch.Tensor,
        tau_BZ: torch.Tensor | None,
        features_BF: torch.Tensor | None = None,
    ) -> torch.Tensor:
        with self._autocast():
            return network(obs_BSHW, past_BK, True, tau_BZ, features_BF).float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16)

    def _next_target(
        self, batch: AnySample, tensors: DeviceBatch, tau_BZ: torch.Tensor | None
    ) -> Callable[[], torch.Tensor]:
        """Return a function for the outputs for s' of w⁻; of w if there is no target network."""
        early, self._next_target_pass = self._next_target_pass, None
        # Use the pass that was started during the previous update, if w⁻ has not changed since.
        if early and early.batch is batch and early.copy_number == self._copy_number:
            return early.next_BA
        network = self.target if self.config.target_network else self.online
        return self._start_next(network, tensors, tau_BZ)

    def _start_next_target_pass(self, following: AnySample | None) -> None:
        # w⁻ changes only at its next copy; `_next_target` discards values from before a copy.
        if following is not None and self._second and self._target_rests:
            next_BA = self._start_next(self.target, self._transfers.take(following))
            self._next_target_pass = _TargetPass(following, next_BA, self._copy_number)

    def _loss(
        self, batch: AnySample, size: int, beta: float, following: AnySample | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (δ [B] without gradient, weighted mean loss, mean Q of the actions taken)."""
        # The passes without gradient start first, because they run in the second stream. With a
        # second stream and batches 1, 2, 3, …, update 2 looks like this, where "w over s of 2" is
        # the pass that computes the outputs of w for s of batch 2:
        #
        #   this thread     | w over s of 2                      | backward pass of 2, step |
        #   second stream   | w over s' of 2 | w⁻ over s' of 3                              |
        #
        # The outputs of w⁻ for s' of batch 2 were computed during update 1.
        config, shape, head = self.config, self.online.config, self.online.head
        tensors = self._transfers.take(batch)
        self._observe(tensors)
        legal_BA = self.online.legal(tensors.obs_BSHW)
        next_legal_BA = self.online.legal(tensors.next_obs_BSHW)
        # With self-prediction, the drawn frames include later ones.
        drawn = tensors
        tensors = drawn._replace(obs_BSHW=drawn.obs_BSHW[:, : self.online.stack])
        tau_BZ = next_tau_BZ = latent_BCHW = features_BF = random = None
        if self._draws:
            random = generator_of(self._seed, 3, self.updates, self._rank)
            if config.shift or config.intensity:
                tensors = augmented(tensors, self.online, config.shift, config.intensity, random)
            if isinstance(head, IQNHead):
                tau_BZ, next_tau_BZ = (head.draw(batch.size, random) for _ in range(2))
            if shape.noisy:
                for network in (self.online, self.target):
                    draw_noise(network, random)
        next_target = self._next_target(batch, tensors, next_tau_BZ)
        next_online = self._start_next(self.online, tensors) if config.double else None
        self._start_next_target_pass(following)
        if self.prediction is not None:
            with self._autocast():
                latent_BCHW, features_BF = latent(self.online, tensors.obs_BSHW)
        now_BA = self._outputs(self.online, tensors.obs_BSHW, tensors.past_BK, tau_BZ, features_BF)
        now_target_BA = None
        network = self.target if config.target_network else self.online
        if config.munchausen:
            with torch.no_grad():
                now_target_BA = self._outputs(network, tensors.obs_BSHW, tensors.past_BK, None)
        next_online_BA = next_online() if next_online else None
        outputs = Outputs(
            now_BA, next_target(), next_online_BA, now_target_BA, tau_BZ, legal_BA, next_legal_BA
        )
        delta_B, loss_B, q_taken_B = head.loss(tensors, outputs, config)
        if self.prediction is not None and latent_BCHW is not None:
            with self._autocast():
                added_B = self.prediction.loss(latent_BCHW, drawn, self.online, network, random)
            loss_B = loss_B + added_B
        # Importance weights correct the bias of prioritized sampling; the weights are ≤ 1.
        if config.importance_weighting:
            weight_B = targets.importance_weights(tensors.probability_B, size, beta)
            loss_B = loss_B * weight_B.to(loss_B.dtype)
        return delta_B, loss_B.mean(), q_taken_B.mean()

    @property
    def _target_rests(self) -> bool:
        """Whether w⁻ can process a batch during the update before: w⁻ exists, does not move with
        every update, and gets the frames as they are stored.
        """
        config = self.config
        return config.target_network and not (
            config.target_tau or config.reset_every or self._draws
        )

    @property
    def _draws(self) -> bool:
        """Whether an update draws random numbers."""
        shape = self.online.config
        augments = self.config.shift or self.config.intensity
        return bool(augments or shape.noisy or shape.head == "iqn")

    @property
    def acting(self) -> QNetwork:
        """The network with which collectors act."""
        return self.target if self.config.acting_network == "target" else self.online

    def weights(self) -> dict[str, torch.Tensor]:
        """Return a copy of the acting network's weights on the CPU, for collectors."""
        return cpu_copy(self.acting)

    def policy(self) -> dict[str, torch.Tensor]:
        """Return a copy of the policy's weights on the CPU: the average of w, or the acting
        network's.
        """
        return cpu_copy(self.average or self.acting)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state: w, w⁻, average, optimizer, count of updates."""
        return {
            "optimizer_name": self.config.optimizer,
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "prediction": self.prediction.state_dict() if self.prediction is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`. Raises ValueError if the optimizer is another one."""
        if state["optimizer_name"] != self.config.optimizer:
            raise ValueError(
                f"the checkpoint has the state of {state['optimizer_name']}, not of --optimizer "
                f"{self.config.optimizer}"
            )
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        if self.prediction is not None:
            self.prediction.load_state_dict(state["prediction"])
        # If the checkpoint has no average, the average starts at w.
        if self.average is not None:
            self.average.load_state_dict(state.get("average") or state["online"])
        # A resumed run uses its own options instead of the saved ones.
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, decay in zip(self.optimizer.param_groups, decays):
            group["eps"] = self.config.optimizer_epsilon
            group["lr"] = self.config.learning_rate
            group["weight_decay"] = decay
        self.updates = state["updates"]
        self._copy_number += 1
        self._has_median = self.updates > 0
