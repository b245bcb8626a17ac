"""The subcommands of `genray`, one module for each topic.

Only this package and cli.py may import every other package. A command imports what it needs when
it runs, so that `genray --help` is fast.
"""
