"""genray: distributed reinforcement learning (Ape-X on Ray) and generative training."""

__version__ = "0.1.0"
