"""The Ray shell around `rl`: the same collectors, shards and learner, each in its own process.

Nothing here knows an equation; what it knows is who talks to whom, what is in flight, and what
to do when one dies.
"""

import os

# Ray reads these when it is imported, so they stand here, before anything in this room imports it.
# 15, Ray's default, starves a run beside anything else
os.environ.setdefault("RAY_worker_niceness", "0")
# Ray's announced new default; silences its warning
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
