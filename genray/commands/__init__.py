"""The subcommands of `genray`, one file for each package or topic. Only this package and cli.py may
import every package; they import lazily.
"""
