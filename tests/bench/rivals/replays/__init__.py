"""Replay memories beside genray's: each does the work of work.py behind the same few methods."""
