"""Data sets of images, texts and frames: where rows come from, how they are split and changed."""
