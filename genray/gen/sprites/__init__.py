"""Sprite models: game screens as a background and a sequence of sprites, and a transformer that
generates such sequences.
"""
