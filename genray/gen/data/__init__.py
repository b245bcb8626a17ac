"""Data sets of images, texts and frames: loading, splits and augmentation."""
