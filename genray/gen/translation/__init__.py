"""Image-to-image translation: pix2pix on pairs of images, and CycleGAN on two sets of images.

[pix2pix: Isola 2017, https://arxiv.org/abs/1611.07004; CycleGAN: Zhu 2017,
https://arxiv.org/abs/1703.10593]
"""
