"""Runs the collectors, replay shards and learners of `genray.rl` as Ray actors.

The package moves data between processes, limits the amount of data in flight, and recovers from
dead actors. All equations are in `genray.rl`. The package also plays games for data sets of frames
(`frames`) and trains generative models with several workers (`parallel_fit`).
"""

import os

# Ray reads these variables when it is imported, so they are set before any module of this package
# imports Ray. With Ray's default niceness, 15, any other busy program would slow a run down.
os.environ.setdefault("RAY_worker_niceness", "0")
# Set the value that Ray has announced as its new default, so that Ray does not warn about it.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
