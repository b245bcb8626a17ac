"""One update of a (double, dueling, prioritized, n-step) DQN.

Shapes: B batch, A actions.
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

from genray.errors import RunFault, require
from genray.machine import has_bfloat16
from genray.rl import targets
from genray.rl.networks import QNetwork
from genray.rl.transfer import AnySample, DeviceBatch, Transfers


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How the network learns from a batch."""

    batch_size: int = 32
    """Transitions in an update (512 in Ape-X)."""
    double: bool = True
    """w chooses the next action, w⁻ values it; otherwise w⁻ does both."""
    loss: Literal["huber", "squared"] = "huber"
    """huber: DQN's error clipping at ±1."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """rmsprop: centred and with ε inside the root, as in DQN and Ape-X."""
    learning_rate: float = 1e-4
    average_updates: int = 0
    """The policy that is evaluated and kept is the mean of w over about this many updates (an
    exponential average), which steadies a short run's last policy; 0: w itself. Collectors and
    targets use w either way.
    """
    optimizer_epsilon: float = 1.5e-4
    """The optimizer's ε (Rainbow's and Ape-X's 1.5e-4 rather than PyTorch's 1e-8)."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of the products in all layers but the last; weights, outputs, loss and optimizer are
    float32 either way. auto: bfloat16 where the device multiplies it (a GPU since Ampere; a CPU
    with AVX512-BF16), float32 elsewhere.
    """
    max_grad_norm: float = 40.0
    """Gradients longer than this are shortened (Ape-X); 0: never."""
    target_period_updates: int = 2_500
    """Updates between copies of w to w⁻."""
    target_network: bool = True
    """Off: w itself gives the targets. Only to see what the target network is for."""
    importance_weighting: bool = True
    """Off: prioritized draws are left uncorrected. Only to see what the weights are for."""
    frames_on: Literal["host", "device"] = "host"
    """Where batches are put together. device: from a copy of the replay's frames in the
    learner's device's memory (7 GB a million), where each frame goes once; raw shards on the
    learner's node only, others send batches as ever.
    """
    learners: int = 1
    """Learner processes, each with a batch of its own and a GPU of its own where there are any;
    gradients are averaged, so that an update is that of one learner with a batch as many times
    as large.
    """

    def validate(self) -> None:
        require(self.batch_size >= 1, f"--batch-size {self.batch_size}: must be ≥ 1, e.g. 32")
        require(
            self.learning_rate > 0, f"--learning-rate {self.learning_rate}: must be > 0, e.g. 1e-4"
        )
        require(
            self.optimizer_epsilon > 0,
            f"--optimizer-epsilon {self.optimizer_epsilon}: must be > 0, e.g. 1.5e-4",
        )
        require(
            self.max_grad_norm >= 0,
            f"--max-grad-norm {self.max_grad_norm}: must be ≥ 0, e.g. 40 (0: off)",
        )
        require(
            self.target_period_updates >= 1,
            f"--target-period-updates {self.target_period_updates}: must be ≥ 1",
        )
        require(
            self.average_updates >= 0,
            f"--average-updates {self.average_updates}: must be ≥ 0 (0: off), e.g. 1000",
        )
        require(
            self.frames_on in ("host", "device"),
            f"--frames-on {self.frames_on}: must be host (the replay's memory) or device (the "
            "GPU's)",
        )
        require(self.learners >= 1, f"--learners {self.learners}: must be ≥ 1; use --learners 1")


class Update(NamedTuple):
    """What one update tells."""

    delta_B: np.ndarray  # float32: |δ|, the new priorities
    loss: float
    q_mean: float
    grad_norm: float


class _Ahead(NamedTuple):
    """Q(s', ·; w⁻) of a batch, being worked out before its turn."""

    batch: AnySample
    q_next_BA: Callable[[], torch.Tensor]
    copy_number: int
    """Which copy of w to w⁻ it is made with: an older one is worked out again."""


class CentredRMSprop(torch.optim.RMSprop):
    """w ← w − η g / √(E[g²] − E[g]² + ε), as DQN and Ape-X have it: ε inside the root, where
    PyTorch adds it outside.

    [Graves 2013, https://arxiv.org/abs/1308.0850, equations 38 to 40]
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:  # "step" is what PyTorch looks for when it loads one
                    zeros = {name: torch.zeros_like(weight) for name in ("grad_avg", "square_avg")}
                    self.state[weight] = {"step": torch.zeros(()), **zeros}
            means, squares = (
                [self.state[weight][name] for weight in weights]
                for name in ("grad_avg", "square_avg")
            )
            torch._foreach_lerp_(means, gradients, 1 - group["alpha"])
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["alpha"])
            roots = torch._foreach_addcmul(squares, means, means, -1)
            # the difference of two like numbers may round to less
            torch._foreach_clamp_min_(roots, 0)
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(weights, gradients, roots, -group["lr"])


class Learner:
    """Holds w, w⁻ and the optimizer.

    [Mnih 2015; van Hasselt 2016; Wang 2016; Schaul 2016; Horgan 2018]. Departures: the loss is
    the weighted *mean* over the batch; gradients of the dueling trunk are not rescaled by 1/√2
    (Wang did; Ape-X did not); `average_updates` [Polyak 1992, https://doi.org/10.1137/0330046].
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
        """`threads`: PyTorch's threads for a second stream of work beside the caller's; 0: none.

        The second stream makes the passes that need no gradient: w's over s' beside w's over s,
        and w⁻'s for the batch to come beside the backward pass. Every update is the same, bit
        for bit, with it or without. Only on a CPU: a GPU works through its queue in order
        anyway.
        """
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
        self._ahead: _Ahead | None = None
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
        """One gradient step on `batch`, drawn from a replay of `size` transitions, weighted with
        exponent β.

        `following`: the batch of the next update, where it is known, to be looked at, or sent,
        meanwhile. Raises RunFault when the loss is not finite.
        """
        self.begin(batch, size, beta, following)
        return self.finish()

    def begin(
        self, batch: AnySample, size: int, beta: float, following: AnySample | None = None
    ) -> None:
        """The first half of `update`: ask for it. A GPU works on it while the caller does
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
            # The plain mean at first, so that the random beginning leaves no trace.
            share = 1.0 / min(self.updates, self.config.average_updates)
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.average.parameters()), list(self.online.parameters()), share
                )
        if self.updates % self.config.target_period_updates == 0:
            self._copy_number += 1
            self.target.load_state_dict(self.online.state_dict())
        self._results = [delta_B.abs(), torch.stack([loss.detach(), q_mean, grad_norm])]
        if following is not None:
            self.expect(following)

    def expect(self, following: AnySample) -> None:
        """`following` is the next batch: a GPU gets it while it works on the one before. At any
        time before its update.
        """
        self._transfers.start(following)

    def finish(self) -> Update:
        """The second half of `update`: wait for what it tells."""
        delta_B, numbers = torch.cat(self._results).cpu().split([len(self._results[0]), 3])
        loss, q_mean, grad_norm = numbers.tolist()
        if not math.isfinite(loss):
            raise RunFault(
                f"the loss is {loss} at update {self.updates}: try a lower --learning-rate"
            )
        return Update(delta_B.numpy(), loss, q_mean, grad_norm)

    def _beside(self, network: QNetwork, tensors: DeviceBatch) -> Callable[[], torch.Tensor]:
        """Q(s', ·) by `network`, without gradient: by the second stream from now on, or when the
        result is asked for.
        """
        if self._second is None:
            return partial(self._q_next, network, tensors)
        future: Future[torch.Tensor] = self._second.submit(self._q_next, network, tensors)
        return future.result

    def _q_next(self, network: QNetwork, tensors: DeviceBatch) -> torch.Tensor:
        with torch.no_grad():  # a thread's own setting
            return self._q(network, tensors.next_obs_BSHW, tensors.next_past_BK)

    def _q(self, network: QNetwork, obs_BSHW: torch.Tensor, past_BK: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            return network(obs_BSHW, past_BK).float()

    def _judged(self, batch: AnySample, tensors: DeviceBatch) -> Callable[[], torch.Tensor]:
        """Q(s', ·) by w⁻, or by w where there is no target network."""
        ahead, self._ahead = self._ahead, None
        if ahead and ahead.batch is batch and ahead.copy_number == self._copy_number:
            return ahead.q_next_BA
        return self._beside(self.target if self.config.target_network else self.online, tensors)

    def _look_ahead(self, following: AnySample | None) -> None:
        # w⁻ stands still until its next copy; what was looked at before that is made anew.
        if following is not None and self._second and self.config.target_network:
            q_next_BA = self._beside(self.target, self._transfers.take(following))
            self._ahead = _Ahead(following, q_next_BA, self._copy_number)

    def _loss(
        self, batch: AnySample, size: int, beta: float, following: AnySample | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(δ [B] without gradient, weighted mean loss, mean Q of the actions taken)."""
        tensors = self._transfers.take(batch)
        judged = self._judged(batch, tensors)
        chosen = self._beside(self.online, tensors) if self.config.double else None
        self._look_ahead(following)
        q_BA = self._q(self.online, tensors.obs_BSHW, tensors.past_BK)
        if chosen:
            target_B = targets.double_q_target(
                tensors.return_B, tensors.discount_B, chosen(), judged()
            )
        else:
            target_B = targets.q_learning_target(tensors.return_B, tensors.discount_B, judged())
        delta_B = targets.td_error(q_BA, tensors.action_B, target_B)
        loss_B = targets.huber(delta_B) if self.config.loss == "huber" else targets.squared(delta_B)
        if self.config.importance_weighting:
            weight_B = targets.importance_weights(tensors.probability_B, size, beta)
            loss_B = loss_B * weight_B.to(loss_B.dtype)
        delta_B = delta_B.detach()
        return delta_B, loss_B.mean(), (target_B - delta_B).mean()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of w on the CPU, for collectors."""
        return _cpu_copy(self.online)

    def policy(self) -> dict[str, torch.Tensor]:
        """A copy of the weights to evaluate and to keep, on the CPU: the average of w, or w."""
        return _cpu_copy(self.average or self.online)

    def state_dict(self) -> dict[str, Any]:
        """Everything: w, w⁻, optimizer, count of updates."""
        return {
            "optimizer_name": self.config.optimizer,
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["optimizer_name"] != self.config.optimizer:
            raise ValueError(
                f"it holds {state['optimizer_name']}, not --optimizer {self.config.optimizer}"
            )
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        if self.average is not None:  # asked for beside --resume: it begins at w
            self.average.load_state_dict(state.get("average") or state["online"])
        self.optimizer.load_state_dict(state["optimizer"])
        # options given beside --resume count, not those of then
        for group in self.optimizer.param_groups:
            group["eps"] = self.config.optimizer_epsilon
            group["lr"] = self.config.learning_rate
        self.updates = state["updates"]
        self._copy_number += 1


def _cpu_copy(network: QNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
