"""Generative and representation learning: autoencoders, VAEs, GANs, and what measures them. No
Ray in here.
"""
