"""Fixes PyTorch's random numbers for a part of a run, such as an evaluation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def fixed_randomness(seed: Sequence[int]) -> Iterator[None]:
    """Seed PyTorch's global generators inside the context, and restore them afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        yield
