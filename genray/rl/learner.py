"""Makes the updates of a (double, dueling, prioritized, n-step) DQN.

Shapes: B batch, A actions. w: weights of the online network; w⁻: of the target network; s, s': an
observation and the one that its target uses.
"""

import copy
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from genray.bounds import bounded, check_bounds
from genray.errors import RunFault, require
from genray.machine import has_bfloat16
from genray.rl import targets
from genray.rl.networks import QNetwork
from genray.rl.transfer import AnySample, DeviceBatch, Transfers


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Batch size, loss, optimizer and devices of the learner."""

    batch_size: int = bounded(32, min=1, example=32)
    """Transitions per update (512 in Ape-X)."""
    double: bool = True
    """w chooses the next action and w⁻ gives its value; otherwise w⁻ does both."""
    loss: Literal["huber", "squared"] = "huber"
    """huber: DQN's error clipping at ±1. squared: δ²/2."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """rmsprop: centred and with ε inside the root, as in DQN and Ape-X."""
    learning_rate: float = bounded(1e-4, above=0, example="1e-4")
    average_updates: int = bounded(0, min=0, note="(0: off)", example=1000)
    """The policy that is evaluated and saved is the mean of w over about this many updates (an
    exponential average), which makes a short run's last policy less noisy; 0: w itself. Collectors
    use w, and w⁻ is a copy of w, never of the average.
    """
    optimizer_epsilon: float = bounded(1.5e-4, above=0, example="1.5e-4")
    """The optimizer's ε (1.5e-4 as in Rainbow and Ape-X, instead of PyTorch's 1e-8)."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Number format of the products in all layers but the last; weights, outputs, loss and
    optimizer are always float32. auto: bfloat16 if the device multiplies bfloat16 in hardware (a
    GPU since Ampere; a CPU with AVX512-BF16), otherwise float32.
    """
    max_grad_norm: float = bounded(40.0, min=0, note="(0: off)", example=40)
    """Longer gradients are scaled down to this norm (Ape-X); 0: never."""
    target_period_updates: int = bounded(2_500, min=1)
    """Updates between copies of w to w⁻."""
    target_network: bool = True
    """Whether a target network gives the targets; off, w itself does. Only for comparisons."""
    importance_weighting: bool = True
    """Whether prioritized sampling is corrected by importance weights. Off only for comparisons."""
    frames_on: Literal["host", "device"] = "host"
    """Where batches are assembled. device: from a copy of the replay's frames in the memory of the
    learner's device (7 GB a million frames), to which each frame is sent once. Only uncompressed
    shards on the learner's node can be copied; batches of other shards are assembled on the host.
    """
    learners: int = bounded(1, min=1)
    """Learner processes, each with its own batch, and its own GPU if there are any. Gradients are
    averaged, so an update equals that of one learner with a batch this many times as large.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            self.frames_on in ("host", "device"),
            f"--frames-on {self.frames_on}: must be host (the replay's memory) or device (the "
            "GPU's)",
        )


class Update(NamedTuple):
    """The result of one update."""

    delta_B: np.ndarray  # float32: |δ|, the new priorities
    loss: float
    q_mean: float
    grad_norm: float


class _TargetPass(NamedTuple):
    """Q(s', ·; w⁻) of the next update's batch, started during the current update."""

    batch: AnySample
    q_next_BA: Callable[[], torch.Tensor]
    copy_number: int
    """Which copy of w to w⁻ computed `q_next_BA`; after the next copy, the pass is repeated."""


class CentredRMSprop(torch.optim.RMSprop):
    """RMSprop with w ← w − η g / √(E[g²] − E[g]² + ε), as in DQN and Ape-X: ε is inside the root,
    whereas PyTorch adds it outside.

    [Graves 2013, https://arxiv.org/abs/1308.0850, equations 38 to 40]
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:  # PyTorch requires "step" when it loads the state
                    zeros = {name: torch.zeros_like(weight) for name in ("grad_avg", "square_avg")}
                    self.state[weight] = {"step": torch.zeros(()), **zeros}
            means, squares = (
                [self.state[weight][name] for weight in weights]
                for name in ("grad_avg", "square_avg")
            )
            # Update E[g] and E[g²], then take the step.
            torch._foreach_lerp_(means, gradients, 1 - group["alpha"])
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["alpha"])
            roots = torch._foreach_addcmul(squares, means, means, -1)
            # The difference of two nearly equal numbers may round to less than 0.
            torch._foreach_clamp_min_(roots, 0)
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(weights, gradients, roots, -group["lr"])


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
            batch during the backward pass. Updates are equal, bit for bit, with and without it. It
            exists only on a CPU, because a GPU processes its queue in order.
    """

    def __init__(
        self,
        config: LearnerConfig,
        online: QNetwork,
        target: QNetwork,
        device: str = "cpu",
        *,
        threads: int = 0,
    ):
        self.config, self.device = config, torch.device(device)
        self.online = online.to(self.device)
        self.target = target.to(self.device).requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())
        self.average = (
            copy.deepcopy(self.online).requires_grad_(False) if config.average_updates else None
        )
        self.optimizer = self._make_optimizer()
        self.updates = 0
        self._second: ThreadPoolExecutor | None = None
        if threads and self.device.type == "cpu":
            self._second = ThreadPoolExecutor(
                1, initializer=torch.set_num_threads, initargs=(threads,)
            )
        self._transfers = Transfers(self.device)
        self._results: list[torch.Tensor] = []
        self._next_target_pass: _TargetPass | None = None
        self._copy_number = 0
        self._in_bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and has_bfloat16(self.device.type)
        )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        parameters, config = self.online.parameters(), self.config
        if config.optimizer == "adam":
            return torch.optim.Adam(
                parameters, lr=config.learning_rate, eps=config.optimizer_epsilon, fused=True
            )
        return CentredRMSprop(
            parameters,
            lr=config.learning_rate,
            alpha=0.95,
            eps=config.optimizer_epsilon,
            centered=True,
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
        delta_B, loss, q_mean = self._loss(batch, size, beta, following)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = self.config.max_grad_norm or float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(self.online.parameters(), limit)
        self.optimizer.step()
        self.updates += 1
        if self.average is not None:
            # The plain mean at first, so that the initial random weights have no lasting effect.
            share = 1.0 / min(self.updates, self.config.average_updates)
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.average.parameters()), list(self.online.parameters()), share
                )
        # Copy w to w⁻ once per period; `_copy_number` invalidates what w⁻ computed ahead.
        if self.updates % self.config.target_period_updates == 0:
            self._copy_number += 1
            self.target.load_state_dict(self.online.state_dict())
        self._results = [delta_B.abs(), torch.stack([loss.detach(), q_mean, grad_norm])]
        if following is not None:
            self.expect(following)

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

    def _start_q_next(self, network: QNetwork, tensors: DeviceBatch) -> Callable[[], torch.Tensor]:
        """Return a function that returns Q(s', ·) by `network`, without gradient.

        The second stream starts to compute at once. Without a second stream, Q is computed when the
        returned function is called.
        """
        if self._second is None:
            return partial(self._q_next, network, tensors)
        future: Future[torch.Tensor] = self._second.submit(self._q_next, network, tensors)
        return future.result

    def _q_next(self, network: QNetwork, tensors: DeviceBatch) -> torch.Tensor:
        with torch.no_grad():  # the setting belongs to a thread, so it is set here
            return self._q(network, tensors.next_obs_BSHW, tensors.next_past_BK)

    def _q(self, network: QNetwork, obs_BSHW: torch.Tensor, past_BK: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            return network(obs_BSHW, past_BK).float()

    def _q_next_target(self, batch: AnySample, tensors: DeviceBatch) -> Callable[[], torch.Tensor]:
        """Return a function for Q(s', ·) by w⁻, or by w if there is no target network."""
        early, self._next_target_pass = self._next_target_pass, None
        # Use the pass that was started during the previous update, if w⁻ has not changed since.
        if early and early.batch is batch and early.copy_number == self._copy_number:
            return early.q_next_BA
        network = self.target if self.config.target_network else self.online
        return self._start_q_next(network, tensors)

    def _start_next_target_pass(self, following: AnySample | None) -> None:
        # w⁻ changes only at its next copy; `_q_next_target` discards values from before a copy.
        if following is not None and self._second and self.config.target_network:
            q_next_BA = self._start_q_next(self.target, self._transfers.take(following))
            self._next_target_pass = _TargetPass(following, q_next_BA, self._copy_number)

    def _loss(
        self, batch: AnySample, size: int, beta: float, following: AnySample | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (δ [B] without gradient, weighted mean loss, mean Q of the actions taken)."""
        # The passes without gradient start first, because they run in the second stream. With a
        # second stream and batches 1, 2, 3, …, update 2 looks like this, where "w over s of 2" is
        # the pass that computes Q(s, ·; w) for batch 2:
        #
        #   this thread     | w over s of 2                      | backward pass of 2, step |
        #   second stream   | w over s' of 2 | w⁻ over s' of 3                              |
        #
        # Q(s', ·; w⁻) for batch 2 was computed during update 1.
        tensors = self._transfers.take(batch)
        q_next_target = self._q_next_target(batch, tensors)
        q_next_online = self._start_q_next(self.online, tensors) if self.config.double else None
        self._start_next_target_pass(following)
        q_BA = self._q(self.online, tensors.obs_BSHW, tensors.past_BK)
        reward_terms = (tensors.return_B, tensors.discount_B)
        if q_next_online:
            target_B = targets.double_q_target(*reward_terms, q_next_online(), q_next_target())
        else:
            target_B = targets.q_learning_target(*reward_terms, q_next_target())
        delta_B = targets.td_error(q_BA, tensors.action_B, target_B)
        loss_B = targets.huber(delta_B) if self.config.loss == "huber" else targets.squared(delta_B)
        # Importance weights correct the bias of prioritized sampling; the weights are ≤ 1.
        if self.config.importance_weighting:
            weight_B = targets.importance_weights(tensors.probability_B, size, beta)
            loss_B = loss_B * weight_B.to(loss_B.dtype)
        delta_B = delta_B.detach()
        return delta_B, loss_B.mean(), (target_B - delta_B).mean()

    def weights(self) -> dict[str, torch.Tensor]:
        """Return a copy of w on the CPU, for collectors."""
        return _cpu_copy(self.online)

    def policy(self) -> dict[str, torch.Tensor]:
        """Return a copy of the policy's weights on the CPU: the average of w, or w."""
        return _cpu_copy(self.average or self.online)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state: w, w⁻, average, optimizer, count of updates."""
        return {
            "optimizer_name": self.config.optimizer,
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
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
        # If the checkpoint has no average, the average starts at w.
        if self.average is not None:
            self.average.load_state_dict(state.get("average") or state["online"])
        self.optimizer.load_state_dict(state["optimizer"])
        # A resumed run uses its own options instead of the saved ones.
        for group in self.optimizer.param_groups:
            group["eps"] = self.config.optimizer_epsilon
            group["lr"] = self.config.learning_rate
        self.updates = state["updates"]
        self._copy_number += 1


def _cpu_copy(network: QNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
