"""The Ray shell around `rl`: the same collectors, shards and learner, each in its own process.

Nothing here knows an equation; what it knows is who talks to whom, what is in flight, and what to do when one dies.
"""
