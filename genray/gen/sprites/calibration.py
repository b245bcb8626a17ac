"""Corrects how often a trained sprite model draws each group.

Training maximises the likelihood of each token after *real* tokens. When the model draws a screen,
its own small errors come before each token, and rare groups end up a little too rare. The
correction adds one number to the logit of each group when screens are drawn, so that the mean
numbers of tokens of each group become those of the training screens. The likelihood is unchanged.

Shapes: N screens, T tokens, G groups.
"""

import torch
from torch import Tensor

from genray.gen.sprites.model import SpriteModel
from genray.gen.sprites.network import FIELDS, GROUP

ROUNDS = 4
"""Number of times that screens are drawn and the correction is improved."""
SCREENS = 768
"""Number of screens drawn in each round."""
STEP = 0.7
"""Share of the error's logarithm that a round corrects; groups influence each other."""
LIMIT = 0.7
"""Largest correction of a logit."""


@torch.no_grad()
def calibrate(model: SpriteModel, tokens_NT5: Tensor, seed: int = 0) -> None:
    """Set `model.group_bias` from the training screens' padded tokens, int64. About 5 s."""
    groups = model.sizes.groups
    real_G = mean_counts(tokens_NT5, groups)
    bias_G = model.group_bias[:groups]
    model.group_bias.zero_()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(ROUNDS):
        chances = torch.rand(SCREENS, model.longest, FIELDS, generator=generator)
        parts = chances.to(model.group_bias.device).split(256)
        drawn_G = torch.zeros_like(real_G)
        for part in parts:
            drawn_G += mean_counts(model.tokens_of(part), groups) * len(part) / SCREENS
        # Half a token among all screens, so that a group that was not drawn gets a finite number.
        least = 0.5 / SCREENS
        change_G = STEP * ((real_G + least) / (drawn_G + least)).log() * (real_G > 0)
        bias_G.copy_((bias_G + change_G.to(bias_G)).clamp(-LIMIT, LIMIT))


def mean_counts(tokens_NT5: Tensor, groups: int) -> Tensor:
    """Return the mean number of tokens of each group on a screen, float64 [G]."""
    group_K = tokens_NT5[:, :, GROUP].flatten().long()
    return torch.bincount(group_K, minlength=groups + 1)[:groups].double() / len(tokens_NT5)
