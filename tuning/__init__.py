"""Sweeps: Ray Tune over the library's own training loops, under one fixed protocol.

Search spaces (optimizers, schedules and regularisers with their hyperparameters) are `spaces`
and `presets`; a trial is `trial_run`, without Ray, and `trainable` with it; `sweep` runs the
same number of trials for each choice, then the best again with fresh seeds; `report` says which
choice won, by how much, and how sure one can be. The room may use `genray.rl`, `genray.gen` and
`genray.distributed`; nothing in `genray` but the command line and the demo knows that it exists.
"""
