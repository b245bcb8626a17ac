"""Autoencoders: networks, losses, corruption, the training task and its presets."""
