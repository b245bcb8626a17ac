"""Runs the collectors, replay shards and learners of `genray.rl` as Ray actors.

The package moves data between processes, limits what is in flight, and recovers from dead
actors. All equations are in `genray.rl`.
"""

import os

# Ray reads these variables when it is imported, so they are set before any module of this package
# imports Ray. Ray's default niceness is 15: a run would starve beside any other program.
os.environ.setdefault("RAY_worker_niceness", "0")
# Adopts Ray's announced new default, which silences its warning.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
