"""Trains K learners in data parallel: each samples its own batches, and gradients are averaged.

The weights are the same on all learners. An update of K learners with batches of B equals the
update of one learner with all K·B transitions, to float tolerance: importance weights are
divided by the maximum over *all* batches, gradients are averaged over all rows, and clipped
afterwards. torch.distributed averages them: with gloo between CPUs, with NCCL between GPUs.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from genray.rl.chunk import Draw
from genray.rl.networks import QNetwork

# The coordinator notices a dead learner and ends the others. The timeout is for what the
# coordinator cannot notice.
TIMEOUT = timedelta(minutes=10)


class PeerLost(Exception):
    """Raised in a learner whose group has lost another learner."""


class Group:
    """One learner's membership in the group of K.

    Every method is a collective operation: all K learners call it, in the same order.

    The constructor blocks until all K learners have joined.

    Args:
        rank: the learner's number; 0 is the leader.
        learners: K.
        address: "HOST:PORT" of the leader.
        device: name of the device for PyTorch, "cpu" or "cuda:0".
        network: the network whose gradients are averaged.
    """

    def __init__(self, rank: int, learners: int, address: str, device: str, network: QNetwork):
        self.rank, self.learners, self._device = rank, learners, device
        _choose_interface(address)
        with _peers():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
                init_method=f"tcp://{address}", rank=rank, world_size=learners, timeout=TIMEOUT,
            )  # fmt: skip
        self._share = 1.0
        for parameter in network.parameters():
            # Averages a gradient as soon as backward has computed it, before it is clipped. The
            # order of backward is the same on every learner.
            parameter.register_post_accumulate_grad_hook(self._average)

    def agree(self, ready: int, sampled: float, more: bool) -> tuple[int, float, bool]:
        """Return (the number of batches that every learner has ready, the leader's count of
        samples, whether the leader continues).
        """
        leads = self.rank == 0
        mine = [float(ready), sampled if leads else np.inf, float(more) if leads else 1.0]
        values = torch.tensor(mine, dtype=torch.float64)
        with _peers():
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return int(values[0]), float(values[1]), bool(values[2])

    def shares(self, batches: Sequence[Draw], weighted: bool) -> list["Share"]:
        """Return, for each of the next batches, the factors that make all learners' updates one.

        They scale importance weights so that all learners use the same maximum, and gradients by
        the learner's part of all rows. `weighted`: whether importance weights are used.
        """
        mine = torch.tensor(
            [[float(each.probability_B.min()), each.size] for each in batches], dtype=torch.float64
        )
        all_KN2 = [torch.empty_like(mine) for _ in range(self.learners)]
        with _peers():
            dist.all_gather(all_KN2, mine)
        lowest_N, rows_N = torch.stack(all_KN2)[..., 0].amin(0), torch.stack(all_KN2)[..., 1].sum(0)
        ratio_N = (lowest_N / mine[:, 0]) if weighted else torch.ones(len(batches))
        return [Share(*each) for each in zip(ratio_N.tolist(), (mine[:, 1] / rows_N).tolist())]

    def begin_update(self, share: "Share", beta: float) -> float:
        """Set the gradient's scale for an update with a batch of that share.

        Returns the factor on this learner's mean loss: K times its part of the global loss.
        """
        self._share = share.factor(beta)
        return self.learners * self._share

    def _average(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        with _peers():
            dist.all_reduce(parameter.grad.mul_(self._share))


class Share:
    """One learner's part in an update, from its batch's smallest P(i) and its number of rows.

    Args:
        lowest: the smallest P(i) of all batches divided by the smallest P(i) of this batch.
        rows: the number of rows of this batch divided by that of all batches.
    """

    def __init__(self, lowest: float, rows: float):
        self._lowest, self._rows = lowest, rows

    def factor(self, beta: float) -> float:
        """Return the factor on this learner's gradient that makes the sum over learners the
        gradient of the whole batch.

        This learner's weights are divided by their own maximum, P(min, own)^−β (N cancels). The
        factor divides them by the maximum over all batches instead.
        """
        return self._rows * self._lowest**beta


def rendezvous_address(host: str) -> str:
    """Return "HOST:PORT" with a port that is free on this machine now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{host}:{probe.getsockname()[1]}"


def _choose_interface(address: str) -> None:
    """Have gloo and NCCL use the network interface that reaches the first learner.

    By default they resolve the host's name, which in containers is often the loopback address.
    """
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # sends nothing
        mine = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            try:
                # SIOCGIFADDR
                found = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has no IPv4 address
            if socket.inet_ntoa(found[20:24]) == mine:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
                os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
                return


@contextmanager
def _peers() -> Iterator[None]:
    """Turn the RuntimeError that torch.distributed raises for a broken connection into PeerLost."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(str(error).splitlines()[0]) from error
