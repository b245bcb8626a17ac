"""Runs hyperparameter sweeps with Ray Tune and the trainers of genray, under one fixed protocol.

`spaces` and `presets` define search spaces: optimizers, schedules and regularisers with their
hyperparameters. `trial_run` trains one trial without Ray, and `trainable` with Ray Tune. `sweep`
runs the same number of trials for each choice, then trains the best ones again with new seeds.
`report` shows which choice is best, by how much, and with what certainty. The package may import
`genray.rl`, `genray.gen` and `genray.distributed`. In `genray`, only the command line and the demo
import this package.
"""
