"""Trains K learners in data parallel: each samples its own batches, and gradients are averaged.

The weights are the same on all learners. An update of K learners with batches of B equals, to float
tolerance, the update of one learner with all K·B transitions. To achieve this, importance weights
are divided by the maximum over *all* batches, gradients are averaged over all transitions (of
sequences: over all rows that are learned from), and the averages are clipped. torch.distributed
computes the averages: gloo between CPUs, NCCL between GPUs.
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
from torch import nn

from genray.rl.chunk import Draw

# Longest wait for another learner. The coordinator notices a dead learner, and then ends the others
# sooner.
TIMEOUT = timedelta(minutes=10)


class PeerLost(Exception):
    """Raised in a learner when the connection to another learner of its group is lost."""


class Group:
    """Connects one learner with the other learners of its group.

    The constructor blocks until all K learners have joined. `agree`, `shares`, `take_from_leader`
    and `average_gradients` are collective operations: all K learners must call them in the same
    order. They raise PeerLost when another learner is lost.

    Args:
        rank: the learner's number; 0 is the leader.
        learners: K.
        address: "HOST:PORT" of the leader.
        device: name of the device for PyTorch, "cpu" or "cuda:0".
        network: the networks whose gradients are averaged.
    """

    def __init__(self, rank: int, learners: int, address: str, device: str, network: nn.Module):
        self.rank, self.learners, self._device = rank, learners, device
        _choose_interface(address)
        with _peers():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo",
                init_method=f"tcp://{address}", rank=rank, world_size=learners, timeout=TIMEOUT,
            )  # fmt: skip
        self._share, self._parameters = 1.0, list(network.parameters())

    def agree(self, ready: int, sampled: float, more: bool) -> tuple[int, float, bool]:
        """Return (the smallest number of batches that a learner has ready, the leader's number of
        samples so far, whether the leader continues).

        The arguments are this learner's own values; `sampled` and `more` are ignored unless it is
        the leader.
        """
        leads = self.rank == 0
        mine = [float(ready), sampled if leads else np.inf, float(more) if leads else 1.0]
        values = torch.tensor(mine, dtype=torch.float64)
        with _peers():
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return int(values[0]), float(values[1]), bool(values[2])

    def shares(self, batches: Sequence[Draw], weighted: bool) -> list["Share"]:
        """Return this learner's Share in the update for each of the next batches.

        `weighted`: whether importance weights are used.
        """
        mine = torch.tensor(
            [[float(each.probability_B.min()), each.learned_rows] for each in batches],
            dtype=torch.float64,
        )
        all_KN2 = [torch.empty_like(mine) for _ in range(self.learners)]
        with _peers():
            dist.all_gather(all_KN2, mine)
        lowest_KN, rows_KN = torch.stack(all_KN2).unbind(2)
        lowest_N, rows_N = lowest_KN.amin(0), rows_KN.sum(0).clamp(min=1)
        ratio_N = (lowest_N / mine[:, 0]) if weighted else torch.ones(len(batches))
        return [Share(*each) for each in zip(ratio_N.tolist(), (mine[:, 1] / rows_N).tolist())]

    def begin_update(self, share: "Share", beta: float) -> float:
        """Set the factor on the gradients of the next update, whose batch has the share `share`.

        Returns the factor on this learner's mean loss with which the mean over the K learners is
        the loss of all batches together.
        """
        self._share = share.factor(beta)
        return self.learners * self._share

    def take_from_leader(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite `tensors` with those of the leader."""
        with _peers():
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def average_gradients(self) -> None:
        """Replace the gradients of this learner by those of all batches together. Call it after the
        backward pass, before gradients are clipped.
        """
        # In the order of the parameters. The backward pass of an LSTM computes them in an order
        # that depends on where episodes begin in the batch, so hooks of it would not do.
        with _peers():
            for parameter in self._parameters:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad.mul_(self._share))


class Share:
    """One learner's share in an update, from which the factor on its gradient follows.

    Args:
        lowest: the smallest P(i) of all batches divided by the smallest P(i) of this batch.
        rows: the rows that are learned from in this batch (all of its transitions, or the known
            rows of its sequences) divided by those in all batches.
    """

    def __init__(self, lowest: float, rows: float):
        self._lowest, self._rows = lowest, rows

    def factor(self, beta: float) -> float:
        """Return the factor on this learner's gradient. The sum of the scaled gradients of all
        learners is then the gradient of all batches together.

        A learner divides the importance weights (N · P(i))^−β of its batch by their maximum, which
        belongs to the smallest P(i) of this batch. The factor replaces this maximum by the maximum
        over all batches.
        """
        return self._rows * self._lowest**beta


def rendezvous_address(host: str) -> str:
    """Return "HOST:PORT" with a port that is free on this machine now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{host}:{probe.getsockname()[1]}"


def _choose_interface(address: str) -> None:
    """Make gloo and NCCL use the network interface through which this host reaches the leader.

    By default they look up the host's own name, which in containers often gives the loopback
    address. Variables that the user has set are kept.
    """
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # chooses the interface; a UDP socket sends nothing here
        mine = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            try:
                # SIOCGIFADDR
                found = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # this interface has no IPv4 address
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
