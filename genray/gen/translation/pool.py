"""A pool of earlier translated images, from which CycleGAN's discriminators are trained.

Shapes: B batch, C channels, H height, W width.
"""

import torch
from torch import Tensor, nn

from genray.gen.training.world import ALONE, World


class ImagePool(nn.Module):
    """Keeps up to `size` earlier images, so that a discriminator remembers earlier generators.

    Until the pool is full, each new image is kept and also returned. Later, each new image is
    returned with probability 1/2. Otherwise it replaces a random image of the pool, which is
    returned. A checkpoint saves the pool, because the images are buffers of this module.
    [Shrivastava 2017, https://arxiv.org/abs/1612.07828; Zhu 2017, section 4]

    All data-parallel workers have the same pool, which receives the images of all workers.

    Args:
        size: largest number of images; 0: new images are returned unchanged.
        shape: (C, H, W) of the images.
        world: this data-parallel worker.
    """

    images: Tensor

    def __init__(self, size: int, shape: tuple[int, ...], world: World = ALONE):
        super().__init__()
        self.size, self._world = size, world
        self.filled = 0
        """Number of images in the pool."""
        self.register_buffer("images", torch.zeros(size, *shape))

    @torch.no_grad()
    def exchange(self, new_BCHW: Tensor) -> Tensor:
        """Add new images, and return as many images, new or old; float32 [B, C, H, W]."""
        new_BCHW = new_BCHW.detach().float()
        if not self.size:
            return new_BCHW
        every = self._world.gather(new_BCHW)
        drawn_B2 = torch.rand(len(every), 2, device=every.device)
        returned = []
        for new_1CHW, (choice, place) in zip(every.split(1), drawn_B2):
            if self.filled < self.size:
                self.images[self.filled] = new_1CHW[0]
                self.filled += 1
                returned.append(new_1CHW)
                continue
            # The choice is made on the device, so that the host does not wait for a GPU.
            row_1 = (place * self.size).long().clamp(max=self.size - 1)[None]
            old_1CHW = self.images.index_select(0, row_1)
            keeps = choice < 0.5
            returned.append(torch.where(keeps, new_1CHW, old_1CHW))
            self.images.index_copy_(0, row_1, torch.where(keeps, old_1CHW, new_1CHW))
        return torch.cat(returned)[self._world.rows(len(every))]

    def get_extra_state(self) -> Tensor:
        """Return the number of images as a tensor, for checkpoints."""
        return torch.tensor(self.filled)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of images."""
        self.filled = int(state)
