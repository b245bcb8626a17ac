"""Generative adversarial networks: networks, losses, augmentation and the training task."""
