"""Corrects how often a trained sprite model draws each group and each class of shapes.

Training maximises the likelihood of each token after *real* tokens. When the model draws a screen,
its own small errors come before each token, and rare groups end up a little too rare. Two
corrections are fitted to the training screens, and both leave the likelihood unchanged. The first
one adds one number to the logit of each group when screens are drawn, so that the mean numbers of
tokens of each group become those of the training screens. The second one rejects some of the drawn
screens (see acceptance.py).

Shapes: N screens, T tokens, G groups.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from genray.gen.sprites.acceptance import fit_acceptance
from genray.gen.sprites.model import SpriteModel, pad_tokens
from genray.gen.sprites.network import FIELDS, GROUP

ROUNDS = 3
"""Number of times that screens are drawn and the correction of groups is improved."""
SCREENS = 384
"""Number of screens drawn in each round."""
STEP = 0.7
"""Share of the error's logarithm that a round corrects; groups influence each other."""
LIMIT = 0.7
"""Largest correction of a logit."""
COMPARED = 1920
"""Number of screens drawn to fit the rejection."""
CHUNK = 256
"""Number of screens drawn at a time."""


@torch.no_grad()
def calibrate(model: SpriteModel, tokens_NT5: Tensor, seed: int = 0) -> None:
    """Set `model.group_bias`, `accept_weight` and `accept_limit` from the training screens' padded
    tokens, int64. Draws 3,072 screens, in 6 to 15 s of one core.
    """
    groups = model.sizes.groups
    real_G = mean_counts(tokens_NT5, groups)
    bias_G = model.group_bias[:groups]
    model.group_bias.zero_()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(ROUNDS):
        drawn_G = torch.zeros_like(real_G)
        for tokens_BT5 in _draw(model, SCREENS, generator):
            drawn_G += mean_counts(tokens_BT5, groups) * len(tokens_BT5) / SCREENS
        # Half a token among all screens, so that a group that was not drawn gets a finite number.
        least = 0.5 / SCREENS
        change_G = STEP * ((real_G + least) / (drawn_G + least)).log() * (real_G > 0)
        bias_G.copy_((bias_G + change_G.to(bias_G)).clamp(-LIMIT, LIMIT))
    real_NF = np.concatenate(
        [model.statistics.of(part.numpy()) for part in tokens_NT5.split(CHUNK)]
    )
    drawn = [model.statistics.of(part.numpy()) for part in _draw(model, COMPARED, generator)]
    weight_F, limit = fit_acceptance(real_NF, np.concatenate(drawn))
    model.accept_weight.copy_(torch.from_numpy(weight_F))
    model.accept_limit.fill_(limit)


def _draw(model: SpriteModel, screens: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield padded tokens of drawn screens, none rejected, on the CPU; CHUNK screens at a time."""
    chance_NT5 = torch.rand(screens, model.longest, FIELDS, generator=generator)
    for chance_BT5 in chance_NT5.to(model.group_bias.device).split(CHUNK):
        yield pad_tokens(model.drawn_tokens(chance_BT5), model.network.end)


def mean_counts(tokens_NT5: Tensor, groups: int) -> Tensor:
    """Return the mean number of tokens of each group on a screen, float64 [G]."""
    group_K = tokens_NT5[:, :, GROUP].flatten().long()
    return torch.bincount(group_K, minlength=groups + 1)[:groups].double() / len(tokens_NT5)
