"""Several Q-networks that learn from one replay and act together.

Shapes: as in `networks`; M members. B is a multiple of M when members learn.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from genray.rl.heads import make_head
from genray.rl.network_config import NetworkConfig
from genray.rl.networks import QNetwork
from genray.rl.observation import Observation


class EnsembleNetwork(QNetwork):
    """M networks of one shape with weights of their own, which act by their mean Q-values.

    Each member learns from its own part of each batch, towards the targets of its own target
    network: member m gets the transitions m, m + M, m + 2M, … of a batch. The mean over members
    errs less than each of them. [Anschel 2017, https://arxiv.org/abs/1611.01929; Osband 2016,
    https://arxiv.org/abs/1602.04621] Departure from both: the mean acts, and no member's targets
    use the others.

    Args: those of QNetwork, with `config.ensemble` = M.
    """

    def __init__(
        self,
        config: NetworkConfig,
        num_actions: int,
        stack: int = 4,
        frame_shape: tuple[int, int] = (84, 84),
        observation: Observation | None = None,
    ):
        nn.Module.__init__(self)  # all layers are those of the members
        self.config = config
        self.num_actions = num_actions
        self.stack = stack
        self.frame_shape = frame_shape
        self.observation = observation
        self.head = make_head(config)
        self.memory = None
        self.register_buffer("median_HW", torch.zeros(frame_shape) if config.median_frame else None)
        # Members get what `inputs` returns: frames after the gain, and packed records before it.
        gain = 1.0 if observation is None else config.input_gain
        single = replace(config, ensemble=1, median_frame=False, input_gain=gain)
        self.members = nn.ModuleList(
            QNetwork(single, num_actions, stack, frame_shape, observation)
            for _ in range(config.ensemble)
        )

    def forward(
        self,
        frames_BSHW: Tensor,
        past_BK: Tensor | None = None,
        raw: bool = False,
        tau_BZ: Tensor | None = None,
        features_BF: Tensor | None = None,
    ) -> Tensor:
        """Return the mean of the members' Q-values, float32 [B, A]. If `raw`, return for each row
        the outputs of the member that learns from it; arguments and shapes are those of QNetwork.
        """
        assert features_BF is None, "an ensemble has no common features"
        x_BSHW = self.inputs(frames_BSHW)
        if not raw:
            return torch.stack([member(x_BSHW, past_BK) for member in self.members]).mean(dim=0)
        outputs = []
        for index, member in enumerate(self.members):
            rows = slice(index, None, len(self.members))
            past, tau = (None if each is None else each[rows] for each in (past_BK, tau_BZ))
            outputs.append(member(x_BSHW[rows], past, True, tau))
        return torch.stack(outputs, dim=1).flatten(0, 1)

    @property
    def separate(self) -> list[QNetwork]:
        return list(self.members)  # type: ignore[arg-type]

    @property
    def statistics(self) -> list[Tensor]:
        return [tensor for member in self.members for tensor in member.statistics]  # type: ignore

    def observe(self, frames_BSHW: Tensor) -> None:
        for member in self.members:
            member.observe(frames_BSHW)  # type: ignore[operator]
