"""Generative and representation learning: autoencoders, VAEs, GANs, and their metrics. No module
here imports Ray.
"""
