"""Sweeps: Ray Tune over the library's own training loops.

This room will hold the search spaces (optimizers, schedules and regularisers with their hyperparameters), the
sweep that runs them under one fixed protocol (the same number of trials for each choice, then the best again
with fresh seeds), and the report that says which choice won, by how much, and how sure one can be. It may use
`genray.rl`, `genray.gen` and `genray.dist`; nothing in `genray` but the command line knows that it exists.
"""
