"""K learners that work as one: each draws its own batch, gradients are averaged, weights stay
the same everywhere.

An update of K learners with batches of B is the update of one learner with the K·B transitions
together, to float tolerance: importance weights are divided by the largest of *all* batches,
gradients are averaged over all rows, and clipped after that. torch.distributed carries them:
gloo between CPUs, NCCL between GPUs.
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

# A learner that is dead is noticed by the coordinator, which then ends the others; this is for what
# it cannot see.
TIMEOUT = timedelta(minutes=10)


class PeerLost(Exception):
    """Another learner of the group is gone; raised in those that wait for it."""


class Group:
    """This learner's place among K. Every method is a meeting: all K call it, in the same order."""

    def __init__(self, rank: int, learners: int, address: str, device: str, network: QNetwork):
        """`address`: "HOST:PORT" of the first learner. `network`: whose gradients are averaged."""
        self.rank, self.learners, self._device = rank, learners, device
        _choose_interface(address)
        with _peers():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
                init_method=f"tcp://{address}", rank=rank, world_size=learners, timeout=TIMEOUT,
            )  # fmt: skip
        self._share = 1.0
        for parameter in network.parameters():
            # As soon as backward has it, before anybody clips it. The order is that of backward:
            # the same everywhere.
            parameter.register_post_accumulate_grad_hook(self._average)

    def agree(self, ready: int, sampled: float, more: bool) -> tuple[int, float, bool]:
        """(batches that every learner has ready, the first one's count of samples, whether the
        first one goes on).
        """
        leads = self.rank == 0
        mine = [float(ready), sampled if leads else np.inf, float(more) if leads else 1.0]
        values = torch.tensor(mine, dtype=torch.float64)
        with _peers():
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return int(values[0]), float(values[1]), bool(values[2])

    def shares(self, batches: Sequence[Draw], weighted: bool) -> list["Share"]:
        """What each of the next batches weighs beside those of the other learners. `weighted`:
        importance weights count.
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
        """Before an update with a batch of that share; returns the factor on this learner's mean
        loss, K times its part.
        """
        self._share = share.factor(beta)
        return self.learners * self._share

    def _average(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        with _peers():
            dist.all_reduce(parameter.grad.mul_(self._share))


class Share:
    """A learner's part in an update."""

    def __init__(self, lowest: float, rows: float):
        """`lowest`: the smallest P(i) of all batches over the smallest of this one; `rows`: its
        part of all rows.
        """
        self._lowest, self._rows = lowest, rows

    def factor(self, beta: float) -> float:
        """On the gradient of this learner's mean loss, so that the sum over learners is the
        whole batch's gradient.

        This learner's weights were divided by its own largest, P(min, own)^−β (N cancels): times
        this, by that of all.
        """
        return self._rows * self._lowest**beta


def meeting_place(host: str) -> str:
    """ "HOST:PORT" with a port that is free there now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{host}:{probe.getsockname()[1]}"


def _choose_interface(address: str) -> None:
    """Have gloo and NCCL use the network by which the first learner is reached: left alone they
    ask for the host's name, which in containers is often that of the loopback.
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
    """torch.distributed raises RuntimeError, or a kind of it, when a connection breaks."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(str(error).splitlines()[0]) from error
