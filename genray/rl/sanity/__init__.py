"""Checks a learner on tiny environments whose values are known: `genray check-learner`.

`tabular` defines the environments, `checks` what each of them must give, and `run` trains on them
with `LocalAgent`, that is, with the product's own collectors, replay and learner.
"""
